"""Exporting without training: a checkpoint or an fp32 artifact becomes other artifacts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from chargen_export.filters import check_filter, make_filter, text_in_file, write_beside
from chargen_export.pipeline import artifact_of_checkpoint, corpus_of_checkpoint
from chargen_export.precision import MAX_LOSS_INCREASE, load_fp32, load_gate_text
from chargen_export.target import Origin, Target
from chargen_export.variants import ALL, Written, plan_variants, variant_path, write_variants
from chargen_ort.errors import OptionError
from chargen_train.checkpoint import is_checkpoint, load_checkpoint
from chargen_train.files import check_writable, output_path
from chargen_train.inputs import find_inputs


def convert(
    source: Path,
    precision: str,
    texts: Path | Sequence[Path] | None,
    out: str | Path | None = None,
    max_loss_increase: float = MAX_LOSS_INCREASE,
    overwrite: bool = False,
    with_filter: bool = False,
) -> Iterator[Written]:
    """Export `source` without training; yields the artifacts as they are written.

    Args:
        source: an fp32 artifact, or a checkpoint, of which the fp32 artifact is made first.
        precision: ``fp16``, ``int8`` or ``all``; ``fp32`` of a checkpoint only.
        texts: a text to score variants on. Of the corpus that the model was trained on, only the
            held-out part counts. A checkpoint needs that very corpus, in as many files.
        out: the file to write, or a folder, see `chargen_train.files.output_path`; with ``all``
            the variants' suffixes are put into its name. None writes next to `source`, or to the
            place of the checkpoint's run.
        max_loss_increase: nats a character, 0 to 10.
        overwrite: whether models of another corpus may be replaced.
        with_filter: whether each artifact of a checkpoint has a filter of the documents, or one
            beside it.

    Raises:
        ChargenError: a bad file, text or option, or a variant that fails; it is not written.
    """
    texts = [texts] if isinstance(texts, Path) else texts or []
    if is_checkpoint(source):
        yield from _convert_checkpoint(
            source, precision, texts, out, max_loss_increase, overwrite, with_filter
        )
        return
    if with_filter:
        raise OptionError(
            f"{source} is a model, and only a checkpoint says what the documents of its corpus "
            "are; give that of its run, such as corpus.run/checkpoint.pt, or leave out "
            "--with-filter"
        )
    base = load_fp32(source)
    if precision == "fp32":
        raise OptionError(f"{source} is fp32 already; give --precision fp16, int8 or all")
    if not texts:
        raise OptionError(
            f"{precision} is scored against fp32 on a text; give one with --text, for example "
            "the corpus that the model was trained on"
        )
    target = Target(Origin.of(base.training), _read(source, texts), overwrite)
    beside, named = _places(source, precision, out)
    plan_variants(beside, precision, target, max_loss_increase, named)
    gate_text = load_gate_text(base, texts)
    yield from write_variants(base, beside, precision, gate_text, target, max_loss_increase, named)


def _convert_checkpoint(
    source: Path,
    precision: str,
    texts: Sequence[Path],
    out: str | Path | None,
    max_loss_increase: float,
    overwrite: bool,
    with_filter: bool,
) -> Iterator[Written]:
    """See `convert`; the fp32 artifact is made and, if it is asked for, written first."""
    if not texts:
        raise OptionError(
            "a checkpoint does not hold the text it was trained on; name the corpus with --text"
        )
    saved = load_checkpoint(source)
    origin = Origin(saved.corpus_name, saved.corpus_sha256)
    target = Target(origin, _read(source, texts), overwrite)
    beside, named = _places(artifact_path(source), precision, out)
    plan_variants(beside, precision, target, max_loss_increase, named)
    if precision in ("fp32", ALL):
        target.check(beside)
        check_writable(beside)
    corpus, documents = corpus_of_checkpoint(saved, texts), None
    if with_filter:
        check_filter(corpus, beside)
        documents = make_filter(corpus)
    base = artifact_of_checkpoint(saved, corpus, text_in_file(documents, corpus))
    if precision in ("fp32", ALL):
        target.write(beside, base)
        write_beside(documents, corpus, base, beside)
        yield base, beside
    limits = target, max_loss_increase, named
    for written, path in write_variants(
        base, beside, precision, load_gate_text(base, texts), *limits
    ):
        write_beside(documents, corpus, written, path)
        yield written, path


def _read(source: Path, texts: Sequence[Path]) -> tuple[Path, ...]:
    """The files that a conversion reads, which it may not replace."""
    return source, *(each.path for each in find_inputs(texts))


def _places(place: Path, precision: str, out: str | Path | None) -> tuple[Path, Path | None]:
    """Where the fp32 artifact is or would be, and the very file that `out` asks for, if it does.

    Args:
        place: of the fp32 artifact, if `out` names no other.
        precision: of the artifacts to write.
        out: see `convert`.
    """
    if out is None:
        return place, None
    single = place if precision in ("fp32", ALL) else variant_path(place, precision)
    path = output_path(out, single.name, place.parent)
    return path, path


def artifact_path(checkpoint: Path) -> Path:
    """Where the run that a checkpoint belongs to writes its artifact."""
    folder = checkpoint.resolve().parent
    if folder.suffix == ".run":
        return folder.with_suffix(".onnx")
    return checkpoint.with_suffix(".onnx")
