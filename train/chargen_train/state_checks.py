"""Checks of what a checkpoint brings, so that no file can make a run fail later or elsewhere.

All raise `ValueError` or `TypeError` with one line; they look at types, shapes and ranges, and take
no memory on the word of the file.
"""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from chargen_train.model import CharGRU

_MOST = 2**63 - 1  # of a whole number
_CUDA_RANDOM_BYTES = 16
_MOMENTS = ("exp_avg", "exp_avg_sq")  # that AdamW keeps of each parameter, besides "step"


def check_fields(
    form: type, values: Mapping[str, Any], may_be_nan: Sequence[str] = ()
) -> dict[str, Any]:
    """Hold values against the types of a dataclass's fields; returns them.

    A whole number passes as a float. Of containers only the outer type is checked.

    Args:
        form: the dataclass.
        values: by name of the field; those that have a default may be missing.
        may_be_nan: floats that need not be finite.
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
        if type(value) is float and not math.isfinite(value) and name not in may_be_nan:
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


def meta_model(vocab_size: int, embedding_dim: int, hidden_size: int, num_layers: int) -> CharGRU:
    """A model of these sizes that has shapes and no numbers."""
    with torch.device("meta"):
        return CharGRU(vocab_size, embedding_dim, hidden_size, num_layers)


def check_weights(name: str, weights: object, model: CharGRU) -> None:
    """Refuse what is not a state of a model with the shapes of `model`."""
    expected = model.state_dict()
    if not isinstance(weights, dict) or weights.keys() != expected.keys():
        raise ValueError(f"{name} are not the weights of a model of these sizes")
    for key, tensor in expected.items():
        check_tensor(f"{name} {key}", weights[key], tensor.shape)


def check_optimizer(state: object, model: CharGRU) -> None:
    """Refuse what is not a state of the AdamW that a run trains `model` with.

    The parameters are in two groups: matrices, then vectors.
    """
    if not isinstance(state, dict) or state.keys() != {"state", "param_groups"}:
        raise ValueError("optimizer is not the state of an optimizer")
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    indices = list(range(len(matrices))), list(range(len(matrices), len(matrices + vectors)))
    groups = state["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(indices):
        raise ValueError("optimizer has not two groups of parameters")
    for group, expected in zip(groups, indices, strict=True):
        _check_group(group, expected)
    entries = state["state"]
    if not isinstance(entries, dict):
        raise TypeError(f"optimizer state is {_kind(entries)}")
    for index, entry in entries.items():
        if type(index) is not int or not 0 <= index < len(matrices + vectors):
            raise ValueError("optimizer has a state of no parameter")
        if not isinstance(entry, dict) or entry.keys() != {"step", *_MOMENTS}:
            raise ValueError(f"optimizer state {index} is not that of AdamW")
        name = f"optimizer state {index}"
        check_range(f"{name} step", check_tensor(name, entry["step"], ()).item(), 0)
        for moment in _MOMENTS:
            check_tensor(f"{name} {moment}", entry[moment], (matrices + vectors)[index].shape)


def _check_group(group: object, indices: list[int]) -> None:
    plain = torch.optim.AdamW([torch.zeros(1)], fused=True).state_dict()["param_groups"][0]
    if not isinstance(group, dict) or group.get("params") != indices:
        raise ValueError("optimizer does not have the parameters of the model")
    for name, usual in plain.items():
        value = group.get(name, usual)  # another version of PyTorch may have one fewer
        if name == "betas":
            fits = isinstance(value, tuple) and len(value) == 2 and all(map(_is_share, value))
        elif type(usual) is float:
            fits = type(value) in (int, float) and 0 <= value <= _MOST
        else:  # a switch
            fits = name == "params" or value is usual
        if not fits:
            raise ValueError(f"optimizer {name} is not one that a run has")


def check_random_states(torch_random: object, cuda_random: object, on_cuda: bool) -> None:
    """Refuse what PyTorch's generators would not take."""
    size = torch.Generator().get_state().shape
    torch.Generator().set_state(check_tensor("torch_random", torch_random, size, torch.uint8))
    if on_cuda:
        check_tensor("cuda_random", cuda_random, (_CUDA_RANDOM_BYTES,), torch.uint8)
    elif cuda_random is not None:
        raise ValueError("cuda_random is there in a run on a CPU")


def check_windows(state: Mapping[str, Any]) -> None:
    """Refuse what `Windows.restore` would not take, whatever the corpus."""
    if not isinstance(state, dict) or state.keys() != {"index", "offset", "generator"}:
        raise ValueError("windows is not a place in a corpus")
    for name in ("index", "offset"):
        if type(state[name]) is not int:
            raise TypeError(f"windows {name} is {_kind(state[name])}")
        check_range(f"windows {name}", state[name], 0)
    try:
        np.random.default_rng(0).bit_generator.state = state["generator"]
    except Exception:  # NumPy raises what it stumbles over
        raise ValueError("windows has no state of a random generator") from None


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


def _is_share(value: object) -> bool:
    return isinstance(value, float) and 0 <= value < 1


def _kind(value: object) -> str:
    return f"of type {type(value).__name__:.40}"
