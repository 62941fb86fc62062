"""Writing an artifact's other precisions next to it: x.onnx, x.fp16.onnx, x.int8.onnx."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from chargen_export.precision import (
    MAX_LOSS_INCREASE,
    MAX_LOSS_INCREASE_LIMIT,
    GateText,
    check_loss_increase,
    derive_variant,
)
from chargen_export.target import Target
from chargen_ort.artifact import PRECISIONS, Artifact
from chargen_ort.errors import OptionError
from chargen_train.corpus import Corpus
from chargen_train.files import check_writable
from chargen_train.planning import MAX_VALIDATION
from chargen_train.split import WINDOW

ALL = "all"
Written = tuple[Artifact, Path]
_REHEARSED = (
    WINDOW + 1,
    65 * WINDOW + 1,
)  # characters: what is between them takes most of the time


def write_variants(
    base: Artifact,
    beside: Path,
    precision: str,
    text: GateText,
    target: Target,
    max_loss_increase: float = MAX_LOSS_INCREASE,
    out: Path | None = None,
) -> Iterator[Written]:
    """Derive and write the variants of `base`, one by one, at `variant_path(beside, …)`.

    Args:
        base: an fp32 artifact.
        beside: where `base` is, or would be.
        precision: ``fp16``, ``int8`` or ``all``; nothing is made for ``fp32``.
        text: decides whether they are good enough.
        target: says what may be replaced.
        max_loss_increase: nats a character.
        out: the very file to write if `precision` is a single one.

    Raises:
        ChargenError: a variant fails; it is not written, the ones before it are.
    """
    paths = plan_variants(beside, precision, target, max_loss_increase, out)
    for name, path in paths.items():
        artifact = derive_variant(base, name, text, max_loss_increase, str(path))
        target.write(path, artifact)
        yield artifact, path


def plan_variants(
    beside: Path,
    precision: str,
    target: Target,
    max_loss_increase: float = MAX_LOSS_INCREASE,
    out: Path | None = None,
) -> dict[str, Path]:
    """Where `write_variants` will write each precision; the arguments are the same.

    Raises:
        OptionError: an argument out of its range, or a place that cannot be written or may not be.
    """
    if precision not in (*PRECISIONS, ALL):
        raise OptionError(f"precision is {precision!r}; give one of {(*PRECISIONS, ALL)}")
    check_loss_increase(max_loss_increase)
    chosen = [p for p in PRECISIONS[1:] if precision in (p, ALL)]
    paths = {p: out if out and precision != ALL else variant_path(beside, p) for p in chosen}
    for path in paths.values():
        target.check(path)
    for path in paths.values():
        check_writable(path)
    return paths


def rehearse_variants(base: Artifact, precisions: Iterable[str], text: GateText) -> float:
    """Make variants of an untrained `base` on a part of `text`; returns the seconds on all of it.

    Raises:
        ChargenError: one cannot be made.
    """
    seconds = 0.0
    for name in precisions:
        took = []
        for length in _REHEARSED:
            begun = time.monotonic()
            part = replace(text, part=text.part.head(length))
            derive_variant(base, name, part, MAX_LOSS_INCREASE_LIMIT)
            took.append(time.monotonic() - begun)
        rest = max(0, min(len(text.part), MAX_VALIDATION) - _REHEARSED[1])
        per_character = max(0.0, took[1] - took[0]) / (_REHEARSED[1] - _REHEARSED[0])
        seconds += took[1] + rest * per_character
    return seconds


def variant_path(path: Path, precision: str) -> Path:
    """x.onnx becomes x.int8.onnx."""
    return path.with_name(f"{path.name.removesuffix('.onnx')}.{precision}.onnx")


def corpus_gate_text(corpus: Corpus) -> GateText:
    """The held-out part of a corpus, or all of it where nothing is held out."""
    return GateText(corpus.name, corpus.measuring, len(corpus.validation) > 0)
