"""Exporting without training: a checkpoint or an fp32 artifact becomes other artifacts."""

from collections.abc import Iterator
from pathlib import Path

from chargen_export.pipeline import artifact_of_checkpoint
from chargen_export.precision import MAX_LOSS_INCREASE, load_fp32, load_gate_text
from chargen_export.variants import ALL, Written, write_variants
from chargen_ort.errors import OptionError
from chargen_ort.files import check_writable, write_atomically
from chargen_train.checkpoint import is_checkpoint, load_checkpoint


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


def artifact_path(checkpoint: Path) -> Path:
    """Where the run that a checkpoint belongs to writes its artifact."""
    folder = checkpoint.resolve().parent
    if folder.suffix == ".run":
        return folder.with_suffix(".onnx")
    return checkpoint.with_suffix(".onnx")
