"""The tests. Like the commands, they let waiting threads sleep, before PyTorch is imported."""

from chargen_train import wait_briefly

wait_briefly()
