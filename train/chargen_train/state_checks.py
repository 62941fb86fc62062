"""Checks of what a checkpoint brings, so that no file can make a run fail later or elsewhere.

All raise `ValueError` or `TypeError` with one line; they look at types, shapes and ranges, and take
no memory on the word of the file.
"""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

_MOST = 2**63 - 1  # of a whole number
_MOST_BITS = 128  # of a whole number in a state: those of NumPy's generator have as many


def check_fields(form: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Hold values against the types of a dataclass's fields; returns them.

    A whole number passes as a float. Of containers only the outer type is checked.

    Args:
        form: the dataclass.
        values: by name of the field; those that have a default may be missing.
    """
    if not isinstance(values, dict):
        raise TypeError(f"{form.__name__} is {_kind(values)}")
    hints = get_type_hints(form)
    names = {field.name for field in dataclasses.fields(form)}
    for name, value in values.items():
        if name not in names:
            raise ValueError(f"{form.__name__} has no {name!a:.40}")
        if not _has_type(value, hints[name]):
            raise TypeError(f"{name} is {_kind(value)}")
        if type(value) is int and abs(value) > _MOST:
            raise ValueError(f"{name} has more than 63 bits")
        if type(value) is float and not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    return values


def check_range(name: str, value: float, low: float, high: float = _MOST) -> None:
    """Refuse a number outside of `low` to `high`."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value:g}, not {low:g} to {high:g}")


def check_tensor(
    name: str, tensor: object, shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Refuse what is not a tensor of this shape and type whose numbers are in the file, finite."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise TypeError(f"{name} is {_kind(tensor)}")
    if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{name} is {tensor.dtype} {list(tensor.shape)[:8]}, not {dtype} {list(shape)}"
        )
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} has no numbers")
    # strides of 0 could make one number look like gigabytes
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise ValueError(f"{name} is larger than its numbers")
    if dtype.is_floating_point and not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} has numbers that are not finite")
    return tensor


def check_like(name: str, value: Any, like: Any) -> None:
    """Refuse a state that is not of the form of another one, whose own numbers do not matter.

    Dicts have the same keys, lists the same length, tensors the same shape and type. A number is
    finite and not negative, and whole where it is whole in `like`; where that has NaN, any number
    will do, and where it has None, a number or None.

    Args:
        name: of the value, for messages.
        value: what a file brought.
        like: a state of the form; its tensors may be without numbers, on the device ``meta``.
    """
    if isinstance(like, Tensor):
        check_tensor(name, value, like.shape, like.dtype)
    elif isinstance(like, dict):
        if not isinstance(value, dict) or value.keys() != like.keys():
            raise ValueError(f"{name or 'it'} has not the entries that it has in a run")
        for key, inner in like.items():
            check_like(f"{name} {key}".strip(), value[key], inner)
    elif isinstance(like, list):
        if not isinstance(value, list) or len(value) != len(like):
            raise ValueError(f"{name} has not the length that it has in a run")
        for index, inner in enumerate(like):
            check_like(f"{name} {index}", value[index], inner)
    elif isinstance(like, str):
        if value != like:
            raise ValueError(f"{name} is not {like}")
    elif like is not None or value is not None:
        _check_number(name, value, like)


def _check_number(name: str, value: object, like: float | None) -> None:
    if type(value) is not int and (type(value) is not float or type(like) is int):
        raise TypeError(f"{name} is {_kind(value)}")
    if type(value) is int and value.bit_length() > _MOST_BITS:
        raise ValueError(f"{name} has more than {_MOST_BITS} bits")
    may_be_any = like is not None and math.isnan(like)
    if not may_be_any and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value:g}")


def _has_type(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_has_type(value, one) for one in get_args(hint))
    if hint is float:
        return type(value) in (int, float)
    if hint in (int, bool, str, type(None)):
        return type(value) is hint
    return isinstance(value, origin or hint)


def _kind(value: object) -> str:
    return f"of type {type(value).__name__:.40}"
