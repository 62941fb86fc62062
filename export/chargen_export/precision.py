"""Smaller artifacts out of an fp32 one: fp16 and int8, each behind the same gate.

The fp32 artifact alone suffices: its weights are its initializers. Every variant is first compared
with an independent account of what it should compute, then scored against fp32 on a text.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chargen_export.graph import StepWeights, artifact_weights
from chargen_export.int8 import int8_arrays
from chargen_export.int8_parity import verify_int8
from chargen_export.parity import COMPARED, verify_parity
from chargen_export.seal import seal_artifact
from chargen_ort.artifact import Artifact, read_artifact
from chargen_ort.certificate import Certificate, Gate
from chargen_ort.checks import number, printable
from chargen_ort.engine import Engine
from chargen_ort.errors import OptionError, ParityError, UnknownCharacterError
from chargen_ort.form import Array, fill, render
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.gru import HALF
from chargen_ort.rows import score_rows
from chargen_ort.samplers import as_step
from chargen_ort.vocabulary import Vocabulary
from chargen_train.corpus import Corpus, load_corpus, split_again
from chargen_train.history import describe_windows
from chargen_train.ids import in_pieces
from chargen_train.inputs import combined_sha256
from chargen_train.model import CharGRU
from chargen_train.planning import MAX_VALIDATION
from chargen_train.reading import Reading
from chargen_train.split import Part, Passages
from chargen_train.units import characters_of, encoded

MAX_LOSS_INCREASE = 0.005  # nats a character, if not given
MAX_LOSS_INCREASE_LIMIT = 10.0  # and the most that may be given
_LONGEST_PIECES = 8  # characters, on average, of a text that is measured as far as that of the run
_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class GateText:
    """The text that decides whether a variant is good enough.

    Attributes:
        name: of the file.
        part: of a text in the model's tokens, at least two.
        held_out: none of it was trained on.
    """

    name: str
    part: Part
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
    weights = artifact_weights(base)
    model_bytes = build_variant(weights, precision)
    model = CharGRU.from_artifact(base)
    end, tokens = base.config.vocabulary.end_token, text.part[:COMPARED]
    certificate = verify_variant(model_bytes, precision, weights, model, tokens, end)
    config = replace(base.config, precision=precision)
    rest = base.properties, name, base.filter
    draft = seal_artifact(model_bytes, config, base.training, certificate, *rest)
    gate = pass_gate(base, draft, text, max_loss_increase)
    certificate = replace(certificate, gate=gate)
    return seal_artifact(model_bytes, config, base.training, certificate, *rest)


def check_loss_increase(max_loss_increase: float) -> None:
    """Refuse a limit out of its range.

    Raises:
        OptionError: naming the range.
    """
    number("max_loss_increase", max_loss_increase, 0, MAX_LOSS_INCREASE_LIMIT)


def build_variant(weights: StepWeights, precision: str) -> bytes:
    """The graph of `precision` with these weights, without metadata.

    Raises:
        OptionError: the weights do not fit the precision.
    """
    arrays: Mapping[str, Array] = weights.arrays()
    if precision != "fp32":
        arrays = half_arrays(weights) if precision == "fp16" else int8_arrays(weights)
    return fill(render(VARIANTS[precision].graph(weights.sizes)), arrays)


def verify_variant(
    model_bytes: bytes,
    precision: str,
    weights: StepWeights,
    model: CharGRU,
    tokens: NDArray[np.integer],
    end: int | None,
) -> Certificate:
    """The parity certificate of `model_bytes`, from what its precision should compute.

    Args:
        model_bytes: the graph of `precision`.
        precision: ``fp32``, ``fp16`` or ``int8``.
        weights: what it was made of.
        model: the PyTorch model of `weights`.
        tokens: a text ``[characters]``.
        end: the end token, if the model has one.

    Raises:
        ParityError: a difference above the tolerance.
    """
    tolerance = VARIANTS[precision].tolerance
    if precision == "int8":
        return verify_int8(model_bytes, weights, tokens, tolerance, end)
    if precision == "fp32":
        return verify_parity(model_bytes, model, tokens, tolerance, end=end)
    half = rounded_to_half(copy.deepcopy(model))
    against = "the PyTorch model with its weights rounded to half precision"
    return verify_parity(model_bytes, half, tokens, tolerance, against, end)


@torch.no_grad()
def rounded_to_half(model: CharGRU) -> CharGRU:
    """`model` with every weight rounded to half precision, in place."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
    return model


def half_arrays(weights: StepWeights) -> dict[str, Array]:
    """The weights of the fp16 graph, by name.

    Raises:
        OptionError: a weight is too large for half precision.
    """
    arrays: dict[str, Array] = {}
    for name, array in weights.arrays().items():
        largest = np.abs(array).max()
        if largest > _LARGEST_HALF:
            raise OptionError(
                f"the weight {name} reaches {largest:g}, half precision {_LARGEST_HALF:g}; "
                "give --precision fp32"
            )
        arrays[name + HALF] = array.astype(np.float16)
    return arrays


def pass_gate(base: Artifact, variant: Artifact, text: GateText, max_loss_increase: float) -> Gate:
    """Score both with the runtime, as a run measures its held-out text, and compare.

    Raises:
        ParityError: the variant's loss is too high.
    """
    passages = text.part.passages().head(MAX_VALIDATION)
    before, after, agreement = _compare(Engine(base, 1), Engine(variant, 1), passages)
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
        characters=int(passages.characters.sum()),
        protocol="mean over documents, their ends too, each from its own beginning"
        if text.part.documents
        else f"mean over consecutive {describe_windows(text.part)}, each from a zero state",
        fp32_nats_per_char=before,
        nats_per_char=after,
        loss_increase=increase,
        max_loss_increase=max_loss_increase,
        greedy_agreement=agreement,
    )


def _compare(base: Engine, variant: Engine, passages: Passages) -> tuple[float, float, float]:
    """Loss of each in nats a character, and the share of characters with the same likeliest one."""
    losses, equal = [0.0, 0.0], 0
    for _, inputs, targets in passages.batches():
        asked = targets >= 0  # not behind the end of a row
        targets = np.where(asked, targets, 0)
        scored = [score_rows(each, inputs, targets, with_best=True) for each in (base, variant)]
        for side, rows in enumerate(scored):
            losses[side] -= math.fsum(rows.scores[asked])
        equal += int((scored[0].best == scored[1].best)[asked].sum())
    count = int(passages.characters.sum())
    return losses[0] / count, losses[1] / count, equal / passages.predicted


def load_fp32(path: Path) -> Artifact:
    """The fp32 artifact that variants are made of.

    Raises:
        ArtifactError: not an artifact.
        OptionError: an artifact of another precision.
    """
    artifact = as_step(read_artifact(path))
    if artifact.config.precision != "fp32":
        raise OptionError(
            f"{path} is {artifact.config.precision}; give the fp32 file it was made of"
        )
    return artifact


def load_gate_text(artifact: Artifact, paths: Path | Sequence[Path]) -> GateText:
    """The text in `paths`; of the corpus that `artifact` was trained on, only what was held out.

    It is read as the corpus was, in documents if that was.

    Raises:
        CorpusError: not readable, not a text, too short, or not what the corpus was.
        UnknownCharacterError: it has a character that the model does not know.
    """
    split, settings = artifact.training.split, artifact.training.settings
    name, encoding = (
        None if settings.get(key) is None else str(settings[key]) for key in ("column", "encoding")
    )
    reading = Reading(split.documents if name is None else "lines", name, "none", encoding)
    corpus = load_corpus(paths, reading, known=characters_of(artifact.config.vocabulary))
    known = [each.sha256 for each in artifact.training.corpora]
    held_out = split.holdout in ("tail", "spread") and combined_sha256(known) == corpus.sha256
    part = split_again(corpus, split.holdout).validation if held_out else corpus.training
    return GateText(corpus.name, in_vocabulary(part, corpus, artifact.config.vocabulary), held_out)


def in_vocabulary(part: Part, corpus: Corpus, vocabulary: Vocabulary) -> Part:
    """What is measured of a part of a corpus, in the tokens of another vocabulary.

    Raises:
        UnknownCharacterError: the corpus has a character that this lacks, and refuses.
    """
    if vocabulary.unit == "byte":
        return _in_unit(part, corpus, vocabulary)
    characters = corpus.vocabulary.characters
    table = vocabulary.look_up(characters)
    missing = np.flatnonzero((table < 0) & (corpus.counts[: len(table)] > 0))
    if len(missing) and vocabulary.unknown == "error":
        place = next(
            begin + int((piece == missing[0]).argmax())
            for begin, piece in in_pieces(corpus.tokens)
            if (piece == missing[0]).any()
        )
        raise UnknownCharacterError(characters[missing[0]], place, len(vocabulary.characters))
    if vocabulary.unit != "char":
        return _in_unit(part, corpus, vocabulary)
    table[table < 0] = vocabulary.characters.index(vocabulary.replacement)
    if vocabulary.end_token is not None:
        table = np.append(table, vocabulary.end_token)
    part = part.measured(MAX_VALIDATION)
    return replace(part, tokens=table[part.tokens].astype(np.uint32))


def _in_unit(part: Part, corpus: Corpus, vocabulary: Vocabulary) -> Part:
    """What is measured of a part in bytes, words or pieces."""
    each = _LONGEST_PIECES if vocabulary.has_pieces else 1
    part = part.measured(MAX_VALIDATION * each)
    alone = replace(corpus, tokens=part.tokens, training=part, validation=Part.of(part.tokens[:0]))
    return encoded(alone, vocabulary).training
