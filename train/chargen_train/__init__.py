"""Train chargen's character models with PyTorch: `training.train` is the loop."""

import os

_SPINS = "2000"  # some microseconds: a waiting thread sleeps soon after, and another program runs


def wait_briefly() -> None:
    """Let threads that wait for each other give their core away after a few microseconds.

    GNU OpenMP, which PyTorch computes with on Linux, lets a waiting thread spin for milliseconds.
    That is best on a machine that does nothing else; beside a program that keeps a core busy, the
    threads of a step spin while the one they wait for has no core. OpenMP reads its settings when
    it is loaded, so this must be called before PyTorch is imported. A setting of the user's own
    stays. TRAINING.md has what it costs and gains.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS
