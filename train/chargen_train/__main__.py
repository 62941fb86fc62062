"""Train with several processes, on one machine or several: torchrun … -m chargen_train CORPUS."""

import sys

from chargen_train import wait_briefly

if __name__ == "__main__":
    wait_briefly()  # before PyTorch is imported
    from chargen_train.together import main

    sys.exit(main())
