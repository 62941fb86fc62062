"""Train with several processes, on one machine or several: torchrun … -m chargen_train CORPUS."""

import os
import sys

from chargen_train import wait_briefly

if __name__ == "__main__":
    wait_briefly()  # before PyTorch is imported
    from chargen_train.together import main

    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a thread of gloo may just be giving back its last tensor, for which it needs the
    # interpreter, and aborts the process if that is being taken down. Everything is closed by now.
    os._exit(status)
