"""Where to train and how: the device, the number format of the products, the threads."""

import contextlib
import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from chargen_ort.errors import OptionError
from chargen_train.recipe import Recipe

_NARROW = 128  # up to this hidden size one thread and float32 are the fastest
_BF16_GAIN = 1.3  # bf16 must be so much faster to be taken
_TIMED_STEPS = 8  # that the speed of a number of threads is judged by
_ONE_THREAD_SECONDS = 30.0  # until all threads are tried again


def choose_device(name: str) -> torch.device:
    """The device to train on.

    Raises:
        OptionError: cuda is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("device is cuda, but PyTorch finds none here; give --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_threads(recipe: Recipe, device: torch.device) -> int:
    """One thread for narrow models, where more only wait for each other; else PyTorch's choice."""
    if device.type == "cpu" and recipe.hidden_size <= _NARROW:
        return 1
    return torch.get_num_threads()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch computes with `count` threads; restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def own_randomness(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A context that leaves PyTorch's generators as they were, and touches no GPU but `device`."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


class ThreadSwitch:
    """Lets PyTorch compute with one thread while that is faster than with all of them.

    Threads that share a step wait for each other at every product. While another program keeps
    a core busy, all of them wait for the one that has to share it. How long the last few steps took
    is compared, and all threads are tried again now and then. Which is used changes the weights'
    last bits.

    Args:
        most: all threads.
    """

    def __init__(self, most: int) -> None:
        self.count = most
        self._most = most
        self._recent: list[float] = []  # seconds of the steps since the last change or comparison
        self._seconds = {most: 0.0, 1: 0.0}  # the median of a step, when last measured; 0 not yet
        self._until = 0.0

    def after_step(self, seconds: float, now: float) -> None:
        """Take account of a step that took `seconds` and ended at the time `now`."""
        self._recent.append(seconds)
        if len(self._recent) < _TIMED_STEPS:
            return
        self._seconds[self.count] = statistics.median(self._recent)
        self._recent.clear()
        one_is_faster = self._seconds[1] < self._seconds[self._most]
        if self.count == self._most and one_is_faster:
            self._change(1)
            self._until = now + _ONE_THREAD_SECONDS
        elif self.count == 1 and (not one_is_faster or now >= self._until):
            self._change(self._most)

    def _change(self, count: int) -> None:
        self.count = count
        torch.set_num_threads(count)


def choose_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether products are clearly faster in bfloat16 for these shapes; measured on a CPU."""
    return device.type == "cuda" or (
        recipe.hidden_size > _NARROW
        and _matmul_seconds(recipe, torch.float32)
        > _BF16_GAIN * _matmul_seconds(recipe, torch.bfloat16)
    )


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[Any]:
    """A context for the forward pass."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def _matmul_seconds(recipe: Recipe, dtype: torch.dtype) -> float:
    """Seconds of one recurrent product, the best of several."""
    x = torch.ones(recipe.batch_size, recipe.hidden_size, dtype=dtype)
    w = torch.ones(3 * recipe.hidden_size, recipe.hidden_size, dtype=dtype)
    best = math.inf
    for _ in range(10):
        begun = time.perf_counter()
        F.linear(x, w)
        best = min(best, time.perf_counter() - begun)
    return best
