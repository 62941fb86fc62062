"""Where to train and how: the device, the number format of the products, the threads."""

import contextlib
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
_PRODUCT_SECONDS = 0.15  # that products of one kind are timed for
_COMPARED_STEPS = 8  # that the speed of a number of threads is judged by, at most
_FIRST_TRIAL = 1.0  # seconds of training until the other number of threads is tried
_TRIAL_SECONDS = 0.5  # that a trial lasts, at most, but at least one step
_TRIAL_INTERVAL = 20.0  # seconds between trials, at least
_CLEARLY_FASTER = 0.95  # of the time of a step: what makes a change worth while


def choose_device(name: str) -> torch.device:
    """The device to train on.

    Raises:
        OptionError: `name` is cuda, and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError(
            "device is cuda, but PyTorch finds no GPU here; give --device cpu, or install a "
            "PyTorch built for your GPU"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_threads(recipe: Recipe, device: torch.device) -> int:
    """With how many threads to begin a run.

    Narrow models have one thread: more would only wait for each other. A wider one that minutes
    bound has as many as compute the products of its shapes fastest just now: one thread and all of
    them are each tried for a fraction of a second, by the clock, so that the answer comes as soon
    on a machine that does other things too. A run that steps or epochs bound has all of them,
    whatever else the machine does, since the number decides the last bits of the weights.
    """
    most = torch.get_num_threads()
    if device.type == "cpu" and recipe.hidden_size <= _NARROW:
        return 1
    if not may_switch_threads(recipe, device, most):
        return most
    dtype = torch.bfloat16 if choose_bf16(recipe, device) else torch.float32
    rates = {}
    for count in (most, 1):
        with threads(count):
            seconds = _product_seconds(recipe, dtype)
            rates[count] = len(seconds) / sum(seconds)
    return max(rates, key=lambda count: rates[count])


def may_switch_threads(recipe: Recipe, device: torch.device, most: int) -> bool:
    """Whether the number of threads is a matter of speed alone."""
    wide = recipe.hidden_size > _NARROW
    return device.type == "cpu" and wide and most > 1 and recipe.minutes is not None


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


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of PyTorch's generators; that of a GPU is None if `device` is none."""
    cuda = torch.cuda.get_rng_state() if device.type == "cuda" else None
    return {"torch": torch.random.get_rng_state(), "cuda": cuda}


def load_random(state: dict[str, Any], device: torch.device) -> None:
    """Set PyTorch's generators to what `random_state` gave."""
    torch.random.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])


class ThreadSwitch:
    """Lets PyTorch compute with one thread while that is faster than with all of them.

    Threads that share a step wait for each other at every product. While another program keeps
    a core busy, all of them wait for the one that has to share it. So now and then the run takes a
    few steps with the other number of threads, and keeps to the faster. All of it is counted in
    seconds, not in steps, since a step may take milliseconds or seconds. Which number is used
    changes the weights' last bits.

    Args:
        most: all threads.
        count: the number that is used at first.
    """

    def __init__(self, most: int, count: int) -> None:
        self.count = count
        self._most = most
        self._seconds: list[float] = []  # of the steps since the last change of threads
        self._compared: float | None = None  # a step with the other number, while one is tried
        self._next_trial = _FIRST_TRIAL  # seconds of steps with this number until the next trial

    def after_step(self, seconds: float) -> None:
        """Take account of a step that took `seconds`."""
        self._seconds.append(seconds)
        spent = sum(self._seconds)
        if self._compared is None:
            if spent >= self._next_trial:
                self._compared = statistics.median(self._seconds[-_COMPARED_STEPS:])
                self._change()
        elif spent >= _TRIAL_SECONDS or len(self._seconds) == _COMPARED_STEPS:
            tried = statistics.median(self._seconds)
            self._next_trial = _TRIAL_INTERVAL
            if tried > _CLEARLY_FASTER * self._compared:
                # the slower the other number was, the later it is tried again
                self._next_trial = _TRIAL_INTERVAL * min(4.0, tried / self._compared)
                self._change()
            self._compared = None

    def _change(self) -> None:
        self.count = 1 if self.count == self._most else self._most
        self._seconds.clear()
        torch.set_num_threads(self.count)


def choose_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether products are clearly faster in bfloat16 for these shapes; measured on a CPU.

    The fastest product of each kind is compared, on one thread, since it tells of the processor and
    not of what other programs did meanwhile.
    """
    if device.type == "cuda" or recipe.hidden_size <= _NARROW:
        return device.type == "cuda"
    with threads(1):
        single, narrow = (
            min(_product_seconds(recipe, dtype)) for dtype in (torch.float32, torch.bfloat16)
        )
    return single > _BF16_GAIN * narrow


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[Any]:
    """A context for the forward pass."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def _product_seconds(recipe: Recipe, dtype: torch.dtype) -> list[float]:
    """What recurrent products of a recipe's shapes take, one after the other for a while."""
    x = torch.ones(recipe.batch_size, recipe.hidden_size, dtype=dtype)
    w = torch.ones(3 * recipe.hidden_size, recipe.hidden_size, dtype=dtype)
    F.linear(x, w)  # the first prepares more than it computes
    seconds: list[float] = []
    begun = time.perf_counter()
    while not seconds or sum(seconds) < _PRODUCT_SECONDS:
        F.linear(x, w)
        now = time.perf_counter()
        seconds.append(now - begun)
        begun = now
    return seconds
