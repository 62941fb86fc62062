"""Smaller artifacts out of an fp32 one: fp16 and int8, each behind the same gate.

The fp32 artifact alone suffices: its weights are its initializers. Every variant is first compared
with an independent account of what it should compute, then scored against fp32 on a text.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from chargen_export.graph import to_bytes
from chargen_export.int8 import StepWeights, build_int8_model
from chargen_export.int8_parity import verify_int8
from chargen_export.parity import verify_parity
from chargen_export.seal import seal_artifact
from chargen_ort.artifact import Artifact, read_artifact
from chargen_ort.checks import printable
from chargen_ort.errors import OptionError, ParityError
from chargen_ort.generator import CharGenerator
from chargen_ort.records import Certificate, Gate
from chargen_ort.step import run_steps
from chargen_ort.text import read_text
from chargen_ort.variants import VARIANTS
from chargen_train.evaluate import WINDOW
from chargen_train.model import CharGRU, gru_parameters
from chargen_train.planning import MAX_VALIDATION

MAX_LOSS_INCREASE = 0.005  # nats a character, if not given
MAX_LOSS_INCREASE_LIMIT = 10.0  # and the most that may be given
_HALF = "_fp16"
_LARGEST_HALF = float(np.finfo(np.float16).max)
_ROWS = 64  # windows scored side by side
_PIECE = 64  # steps a call


@dataclass(frozen=True)
class GateText:
    """The text that decides whether a variant is good enough.

    Attributes:
        name: of the file.
        tokens: int ``[characters]``, at least two.
        held_out: none of it was trained on.
    """

    name: str
    tokens: NDArray[np.integer]
    held_out: bool


def derive_variant(
    base: Artifact,
    precision: str,
    text: GateText,
    max_loss_increase: float = MAX_LOSS_INCREASE,
    name: str = "the variant",
) -> Artifact:
    """The fp32 artifact `base` in another precision, proven and sealed, not yet written.

    Raises:
        OptionError: `base` is not fp32, or its weights do not fit the precision.
        ParityError: the graph computes something else, or the loss on `text` rises by more than
            `max_loss_increase` nats a character.
    """
    check_loss_increase(max_loss_increase)
    if base.config.precision != "fp32":
        raise OptionError(f"{name} cannot be made of {base.config.precision}; give an fp32 file")
    if precision not in ("fp16", "int8"):
        raise OptionError(f"precision is {precision!r}; give fp16 or int8")
    model_bytes = build_variant(base.data, precision)
    certificate = verify_variant(model_bytes, precision, base.data, read_model(base), text.tokens)
    config = replace(base.config, precision=precision)
    draft = seal_artifact(model_bytes, config, base.training, certificate, base.properties, name)
    gate = pass_gate(base, draft, text, max_loss_increase)
    certificate = replace(certificate, gate=gate)
    return seal_artifact(model_bytes, config, base.training, certificate, base.properties, name)


def check_loss_increase(max_loss_increase: float) -> None:
    """Refuse a limit out of its range.

    Raises:
        OptionError: naming the range.
    """
    if not 0 <= max_loss_increase <= MAX_LOSS_INCREASE_LIMIT:
        raise OptionError(
            f"max_loss_increase is {max_loss_increase:g}; give 0 to {MAX_LOSS_INCREASE_LIMIT:g}"
        )


def build_variant(single: bytes, precision: str) -> bytes:
    """The graph of `precision` that the fp32 graph in `single` becomes; fp32 is `single` itself."""
    if precision == "fp16":
        return to_bytes(build_fp16_model(single))
    if precision == "int8":
        return to_bytes(build_int8_model(read_weights(single)))
    return single


def verify_variant(
    model_bytes: bytes,
    precision: str,
    single: bytes,
    model: CharGRU,
    tokens: NDArray[np.integer],
) -> Certificate:
    """The parity certificate of `model_bytes`, from what its precision should compute.

    Args:
        model_bytes: the graph of `precision`.
        precision: ``fp32``, ``fp16`` or ``int8``.
        single: the fp32 graph it was made of.
        model: the PyTorch model of `single`.
        tokens: a text ``[characters]``.

    Raises:
        ParityError: a difference above the tolerance.
    """
    tolerance = VARIANTS[precision].tolerance
    if precision == "int8":
        return verify_int8(model_bytes, read_weights(single), tokens, tolerance)
    if precision == "fp32":
        return verify_parity(model_bytes, model, tokens, tolerance)
    half = rounded_to_half(copy.deepcopy(model))
    against = "the PyTorch model with its weights rounded to half precision"
    return verify_parity(model_bytes, half, tokens, tolerance, against)


def read_weights(data: bytes) -> StepWeights:
    """The weights in the initializers of an fp32 artifact's graph."""
    graph = onnx.load_from_string(data).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    count = sum(name.endswith("_R") for name in arrays)
    layers = tuple(
        tuple(arrays[f"layer_{index}_{part}"][0] for part in ("W", "R", "B"))
        for index in range(count)
    )
    return StepWeights(arrays["embedding"], layers, arrays["output_weight"], arrays["output_bias"])


@torch.no_grad()
def read_model(artifact: Artifact) -> CharGRU:
    """The PyTorch model that an fp32 artifact was made of."""
    config, weights = artifact.config, read_weights(artifact.data)
    vocab_size = len(config.vocabulary)
    model = CharGRU(vocab_size, config.embedding_dim, config.hidden_size, config.num_layers).eval()
    model.embedding.weight.copy_(torch.from_numpy(weights.embedding.copy()))
    model.output.weight.copy_(torch.from_numpy(weights.output_weight.T.copy()))
    model.output.bias.copy_(torch.from_numpy(weights.output_bias.copy()))
    for layer, (w, r, b) in zip(model.grus(), weights.layers, strict=True):
        for parameter, array in zip(gru_parameters(layer), (w, r, *np.split(b, 2)), strict=True):
            update, reset, new = np.split(array, 3)  # ONNX's order; PyTorch's has reset first
            parameter.copy_(torch.from_numpy(np.concatenate([reset, update, new])))
    return model


@torch.no_grad()
def rounded_to_half(model: CharGRU) -> CharGRU:
    """`model` with every weight rounded to half precision, in place."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
    return model


def build_fp16_model(data: bytes) -> onnx.ModelProto:
    """The fp32 graph in `data`, its weights in half precision with a Cast to float32 each.

    ONNX Runtime carries the casts out once, on load.

    Raises:
        OptionError: a weight is too large for half precision.
    """
    model = onnx.load_from_string(data)
    model.ClearField("metadata_props")
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor)
        if np.abs(array).max() > _LARGEST_HALF:
            raise OptionError(
                f"the weight {tensor.name} reaches {np.abs(array).max():g}, half precision "
                f"{_LARGEST_HALF:g}; give --precision fp32"
            )
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), name + _HALF))
        half, doc = name + _HALF, "stored in half precision"
        casts.append(
            helper.make_node("Cast", [half], [name], f"{name}_cast", doc, to=TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def pass_gate(base: Artifact, variant: Artifact, text: GateText, max_loss_increase: float) -> Gate:
    """Score both with the runtime, protocol P1, and compare.

    Raises:
        ParityError: the variant's loss is too high.
    """
    tokens = text.tokens[:MAX_VALIDATION].astype(np.int64)
    before, after, agreement = _compare(
        CharGenerator(base, threads=1), CharGenerator(variant, threads=1), tokens
    )
    increase = after - before
    if not increase <= max_loss_increase:
        raise ParityError(
            f"{variant.config.precision} raises the loss on {text.name} by {increase:.4f} nats a "
            f"character, the limit is {max_loss_increase:g}; nothing of it was written; keep fp32 "
            "or give a higher --max-loss-increase"
        )
    return Gate(
        fp32_sha256=base.sha256,
        text=printable(text.name),
        held_out=text.held_out,
        characters=len(tokens) - 1,
        protocol=f"mean over consecutive {WINDOW}-character windows, each from a zero state",
        fp32_nats_per_char=before,
        nats_per_char=after,
        loss_increase=increase,
        max_loss_increase=max_loss_increase,
        greedy_agreement=agreement,
    )


def _compare(
    base: CharGenerator, variant: CharGenerator, tokens: NDArray[np.int64]
) -> tuple[float, float, float]:
    """Loss of each in nats a character, and the share of characters with the same likeliest one."""
    config = base.config
    losses, equal = [0.0, 0.0], 0
    for inputs, targets in _windows(tokens):
        shape = len(inputs), config.num_layers, config.hidden_size
        hidden = [np.zeros(shape, dtype=np.float32) for _ in range(2)]
        for begin in range(0, inputs.shape[1], _PIECE):
            piece = slice(begin, begin + _PIECE)
            token = np.ascontiguousarray(inputs[:, piece])  # [rows, piece]
            best = []
            for side, generator in enumerate((base, variant)):
                logits, hidden[side] = run_steps(generator.session, token, hidden[side])
                losses[side] += _loss(logits, targets[:, piece])
                best.append(logits.argmax(axis=-1))  # [rows, piece]
            equal += int((best[0] == best[1]).sum())
    count = len(tokens) - 1
    return losses[0] / count, losses[1] / count, equal / count


def _windows(
    tokens: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Inputs and targets of protocol P1, ``[rows, WINDOW]``; the last window may be shorter."""
    inputs, targets = tokens[:-1], tokens[1:]
    whole = len(inputs) // WINDOW * WINDOW
    for begin in range(0, whole, _ROWS * WINDOW):
        part = slice(begin, min(begin + _ROWS * WINDOW, whole))
        yield inputs[part].reshape(-1, WINDOW), targets[part].reshape(-1, WINDOW)
    if whole < len(inputs):
        yield inputs[None, whole:], targets[None, whole:]


def _loss(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Summed cross-entropy, nats: logits ``[rows, time, vocab_size]``, targets ``[rows, time]``."""
    chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]  # [rows, time]
    maximum = logits.max(axis=-1)  # [rows, time]
    total = np.exp(logits - maximum[..., None]).sum(axis=-1, dtype=np.float64)  # [rows, time]
    return math.fsum((np.log(total) + maximum - chosen).ravel())


def load_fp32(path: Path) -> Artifact:
    """The fp32 artifact that variants are made of.

    Raises:
        ArtifactError: not an artifact.
        OptionError: an artifact of another precision.
    """
    artifact = read_artifact(path)
    if artifact.config.precision != "fp32":
        raise OptionError(
            f"{path} is {artifact.config.precision}; give --from the fp32 file it was made of"
        )
    return artifact


def load_gate_text(artifact: Artifact, path: Path) -> GateText:
    """The text in `path`; of the corpus that `artifact` was trained on, only the held-out tail.

    Raises:
        CorpusError: not readable or not UTF-8.
        UnknownCharacterError: it has a character that the model does not know.
        OptionError: fewer than two characters.
    """
    text = read_text(path)
    tokens = artifact.config.vocabulary.encode(text.text, "error")
    held_out = False
    if [corpus.sha256 for corpus in artifact.training.corpora] == [text.sha256]:
        cut = artifact.training.training_characters
        if len(tokens) - cut >= 2:
            tokens, held_out = tokens[cut:], True
    if len(tokens) < 2:
        raise OptionError(f"{path} has {len(tokens)} characters; a score needs at least 2")
    return GateText(path.stem, tokens, held_out)
