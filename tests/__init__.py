"""The tests. Like the commands, they let waiting threads sleep, before PyTorch is imported."""

import os

from chargen_train import wait_briefly

wait_briefly()
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several, and so are the commands that it runs
    os.environ["OMP_NUM_THREADS"] = "1"
