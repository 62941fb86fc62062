"""Where to train and how: the device, the number format of the products, the threads."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from chargen_ort.errors import OptionError
from chargen_train.recipe import Recipe

_NARROW = 128  # up to this hidden size one thread and float32 are the fastest
_BF16_GAIN = 1.3  # bf16 must be so much faster to be taken


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
