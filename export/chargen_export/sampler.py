"""Making a sampler of a model: the file in which one run is a text."""

from pathlib import Path

import onnx

from chargen_export.target import Origin, Target
from chargen_export.variants import Written, variant_path
from chargen_ort.artifact import STEP, read_artifact
from chargen_ort.errors import OptionError, ParityError
from chargen_ort.samplers import as_sampler
from chargen_ort.verify import verify_texts
from chargen_train.checkpoint import is_checkpoint
from chargen_train.files import check_writable, output_path


def convert_to_sampler(
    source: Path, uniforms: bool, out: str | Path | None = None, overwrite: bool = False
) -> Written:
    """Write the sampler of a model, x.sampler.onnx or x.sampler-uniforms.onnx.

    Args:
        source: an artifact of any precision.
        uniforms: whether the sampler is handed the numbers to draw by, instead of a seed.
        out: the file to write, or a folder, see `chargen_train.files.output_path`; None writes
            next to `source`.
        overwrite: whether a model of another corpus may be replaced.

    Raises:
        ChargenError: a bad file or path, or the sampler writes other texts than the model; then
            nothing is written.
    """
    if is_checkpoint(source):
        raise OptionError(
            f"{source} is a checkpoint; make the model of it first, with: train-export convert "
            f"{source} --text CORPUS"
        )
    artifact = read_artifact(source)
    if artifact.graph != STEP:
        raise OptionError(f"{source} is a sampler; give the model that it was made of")
    target = Target(Origin.of(artifact.training), (source,), overwrite)
    made = as_sampler(artifact, uniforms)
    path = output_path(out, variant_path(source, made.graph).name, source.parent)
    target.check(path)
    check_writable(path)
    onnx.checker.check_model(made.data, full_check=True)
    verdict = verify_texts(made)
    if not verdict.passed:
        raise ParityError(f"the sampler does not write what the model does: {verdict.finding}")
    target.write(path, made)
    return made, path
