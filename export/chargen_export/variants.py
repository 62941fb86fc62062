"""Writing an artifact's other precisions next to it: x.onnx, x.fp16.onnx, x.int8.onnx."""

from collections.abc import Iterator
from pathlib import Path

from chargen_export.precision import (
    MAX_LOSS_INCREASE,
    GateText,
    derive_variant,
    load_fp32,
    load_gate_text,
)
from chargen_export.seal import check_writable, write_atomically
from chargen_ort.artifact import PRECISIONS, Artifact
from chargen_ort.errors import OptionError
from chargen_train.corpus import Corpus

ALL = "all"
Written = tuple[Artifact, Path]


def convert(
    source: Path,
    precision: str,
    text: Path | None,
    out: Path | None = None,
    max_loss_increase: float = MAX_LOSS_INCREASE,
) -> Iterator[Written]:
    """Make variants of the fp32 artifact `source`, without training; yields them as written.

    Args:
        source: an fp32 artifact.
        precision: ``fp16``, ``int8`` or ``all``.
        text: a text to score them on. Of the corpus that the model was trained on, only the
            held-out tail counts.
        out: the file to write; with ``all`` the variants' suffixes are put into its name. None
            writes next to `source`.
        max_loss_increase: nats a character, 0 to 10.

    Raises:
        ChargenError: a bad file, text or option, or a variant that fails; it is not written.
    """
    if precision == "fp32":
        raise OptionError("--from makes other precisions of an fp32 file; give fp16, int8 or all")
    base = load_fp32(source)
    if text is None:
        raise OptionError(
            f"{precision} is scored against fp32 on a text; give one with --text, for example "
            "the corpus that the model was trained on"
        )
    gate_text = load_gate_text(base, text)
    yield from write_variants(base, out or source, precision, gate_text, max_loss_increase, out)


def write_variants(
    base: Artifact,
    beside: Path,
    precision: str,
    text: GateText,
    max_loss_increase: float = MAX_LOSS_INCREASE,
    out: Path | None = None,
) -> Iterator[Written]:
    """Derive and write the variants of `base`, one by one, at `variant_path(beside, …)`.

    Args:
        base: an fp32 artifact.
        beside: where `base` is, or would be.
        precision: ``fp16``, ``int8`` or ``all``; nothing is made for ``fp32``.
        text: decides whether they are good enough.
        max_loss_increase: nats a character.
        out: the very file to write if `precision` is a single one.

    Raises:
        ChargenError: a variant fails; it is not written, the ones before it are.
    """
    if precision not in (*PRECISIONS, ALL):
        raise OptionError(f"precision is {precision!r}; give one of {(*PRECISIONS, ALL)}")
    chosen = [p for p in PRECISIONS[1:] if precision in (p, ALL)]
    paths = [out if out and precision != ALL else variant_path(beside, p) for p in chosen]
    for path in paths:
        check_writable(path)
    for name, path in zip(chosen, paths, strict=True):
        artifact = derive_variant(base, name, text, max_loss_increase, str(path))
        write_atomically(path, artifact.data)
        yield artifact, path


def variant_path(path: Path, precision: str) -> Path:
    """x.onnx becomes x.int8.onnx."""
    return path.with_name(f"{path.name.removesuffix('.onnx')}.{precision}.onnx")


def corpus_gate_text(corpus: Corpus) -> GateText:
    """The held-out tail of a corpus, or all of it where nothing is held out."""
    held_out = len(corpus.validation) >= 2
    return GateText(corpus.name, corpus.validation if held_out else corpus.tokens, held_out)
