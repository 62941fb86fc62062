"""Writing an artifact's other precisions next to it: x.onnx, x.fp16.onnx, x.int8.onnx."""

from collections.abc import Iterator
from pathlib import Path

from chargen_export.pipeline import artifact_of_checkpoint
from chargen_export.precision import (
    MAX_LOSS_INCREASE,
    GateText,
    derive_variant,
    load_fp32,
    load_gate_text,
)
from chargen_ort.artifact import PRECISIONS, Artifact
from chargen_ort.errors import OptionError
from chargen_ort.files import check_writable, write_atomically
from chargen_train.checkpoint import is_checkpoint, load_checkpoint
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
    """Export `source` without training; yields the artifacts as they are written.

    Args:
        source: an fp32 artifact, or a checkpoint, of which the fp32 artifact is made first.
        precision: ``fp16``, ``int8`` or ``all``; ``fp32`` of a checkpoint only.
        text: a text to score variants on. Of the corpus that the model was trained on, only the
            held-out tail counts. A checkpoint needs that very corpus.
        out: the file to write; with ``all`` the variants' suffixes are put into its name. None
            writes next to `source`, or to the place of the checkpoint's run.
        max_loss_increase: nats a character, 0 to 10.

    Raises:
        ChargenError: a bad file, text or option, or a variant that fails; it is not written.
    """
    if is_checkpoint(source):
        if text is None:
            raise OptionError(
                "a checkpoint does not hold the text it was trained on; name the corpus with --text"
            )
        beside = out or artifact_path(source)
        if precision in ("fp32", ALL):
            check_writable(beside)
        base = artifact_of_checkpoint(load_checkpoint(source), text)
        if precision in ("fp32", ALL):
            write_atomically(beside, base.data)
            yield base, beside
        yield from write_variants(
            base, beside, precision, load_gate_text(base, text), max_loss_increase, out
        )
        return
    base = load_fp32(source)
    if precision == "fp32":
        raise OptionError(f"{source} is fp32 already; give --precision fp16, int8 or all")
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


def artifact_path(checkpoint: Path) -> Path:
    """Where the run that a checkpoint belongs to writes its artifact."""
    folder = checkpoint.resolve().parent
    if folder.suffix == ".run":
        return folder.with_suffix(".onnx")
    return checkpoint.with_suffix(".onnx")


def variant_path(path: Path, precision: str) -> Path:
    """x.onnx becomes x.int8.onnx."""
    return path.with_name(f"{path.name.removesuffix('.onnx')}.{precision}.onnx")


def corpus_gate_text(corpus: Corpus) -> GateText:
    """The held-out tail of a corpus, or all of it where nothing is held out."""
    held_out = len(corpus.validation) >= 2
    return GateText(corpus.name, corpus.validation if held_out else corpus.tokens, held_out)
