"""From a corpus to an artifact: the whole path on one screen."""

import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from chargen_export.graph import build_step_model, to_bytes
from chargen_export.parity import verify_parity
from chargen_export.precision import MAX_LOSS_INCREASE
from chargen_export.run import RunKeeper
from chargen_export.seal import seal_artifact
from chargen_export.target import Origin, Target, output_path
from chargen_export.variants import (
    corpus_gate_text,
    plan_variants,
    rehearse_variants,
    write_variants,
)
from chargen_ort import __version__
from chargen_ort.artifact import MAX_FILE_BYTES, Artifact
from chargen_ort.checks import printable
from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.files import check_writable
from chargen_ort.records import MAX_TOKENS, Config, Training
from chargen_ort.sampling import SamplingOptions
from chargen_train.checkpoint import Checkpoint, refuse_misfit, refuse_other
from chargen_train.corpus import Corpus, corpus_name, load_corpus
from chargen_train.device import choose_device
from chargen_train.model import CharGRU
from chargen_train.progress import Progress, Supervision, TrainedModel
from chargen_train.recipe import Recipe, choose_recipe, parameter_count
from chargen_train.run import build_model, choose_separator, describe_corpus
from chargen_train.run_folder import RunFolder
from chargen_train.training import measure_speed, train, trained_so_far

DEFAULT_FOLDER = Path("artifacts")
_LEAVING = 0.6  # seconds that sealing, the report and the end of a process with PyTorch take
DEFAULT_SAMPLING = SamplingOptions(temperature=0.8)  # a little below 1 reads better than 1


@dataclass(frozen=True)
class Events:
    """What `train_and_export` calls as it goes; each may be left out."""

    on_begin: Callable[[Corpus, Recipe], None] | None = None
    on_resume: Callable[[Checkpoint], None] | None = None
    on_progress: Callable[[Progress], None] | None = None
    on_trained: Callable[[TrainedModel], None] | None = None
    on_written: Callable[[Corpus, Artifact, Path], None] | None = None
    on_warning: Callable[[str], None] | None = None
    should_stop: Callable[[], bool] | None = None
    on_last_step: Callable[[], None] | None = None


def train_and_export(
    corpus_path: Path,
    out: str | Path | None = None,
    preset: str | None = None,
    events: Events = Events(),
    resume: bool = False,
    checkpoint_minutes: float = 2.0,
    begun: float | None = None,
    precision: str = "fp32",
    max_loss_increase: float = MAX_LOSS_INCREASE,
    overwrite: bool = False,
    **overrides: Any,
) -> tuple[Artifact, Path]:
    """Train on a text file and write the artifact; the default place is artifacts/<name>.onnx.

    The run is kept in a folder beside the artifact, see `chargen_train.run_folder`. The fp32
    artifact is returned; those of other precisions are written next to it.

    Args:
        corpus_path: a UTF-8 text.
        out: where to write: a file, or a folder, see `chargen_export.target.output_path`.
        preset: name of a preset of `chargen_train.recipe`.
        events: called as the work goes on.
        resume: go on with the run that the folder holds, with its settings.
        checkpoint_minutes: longest time between checkpoints.
        begun: `time.monotonic` when the minutes given began; None is now.
        precision, max_loss_increase: see `chargen_export.variants.write_variants`.
        overwrite: whether a model or a finished run of another corpus may be replaced.
        overrides: fields of `Recipe`; None means the recipe's own.

    Raises:
        ChargenError: a bad corpus, option or path, a run in the same folder, a training that
            diverged or was stopped, or no parity; then no artifact was written.
    """
    begun = time.monotonic() if begun is None else begun
    path = training_path(corpus_path, out)
    corpus = load_corpus(corpus_path)
    target = Target(Origin(corpus.name, corpus.sha256), (corpus_path,), overwrite)
    folder = RunFolder(path)
    target.check(path)
    target.check_run(folder)
    precisions = plan_variants(path, precision, target, max_loss_increase)
    job = _Job(corpus_path, path, target, precision, max_loss_increase, events)
    recipe = choose_recipe(corpus.cut, preset, **overrides)  # settings out of range end here
    choose_device(recipe.device)
    check_writable(path)
    keeper = RunKeeper(folder, events.on_warning)
    with folder.in_use(create=not resume):
        checkpoint = None
        if resume:
            given = [name for name, value in overrides.items() if value is not None]
            settings = asdict(recipe)
            checkpoint = keeper.resume(
                corpus, settings if preset else {name: settings[name] for name in given}
            )
            recipe = checkpoint.recipe
            choose_device(recipe.device)
        else:
            speed = partial(measure_speed, corpus)
            recipe = choose_recipe(corpus.cut, preset, speed, **overrides)
            keeper.begin(corpus, recipe)
        if events.on_begin:
            events.on_begin(corpus, recipe)
        if checkpoint is not None and events.on_resume:
            events.on_resume(checkpoint)
        supervision = Supervision(
            checkpoint=keeper.folder.checkpoint,
            checkpoint_minutes=checkpoint_minutes,
            begun=begun,
            export_seconds=0.0 if resume else rehearse(corpus, recipe, precisions),
            should_stop=events.should_stop,
            on_last_step=events.on_last_step,
            on_warning=events.on_warning,
        )

        def on_progress(progress: Progress) -> None:
            keeper.record(progress)
            if events.on_progress:
                events.on_progress(progress)

        trained = train(corpus, recipe, on_progress, supervision, checkpoint)
        if events.on_trained:
            events.on_trained(trained)
        for note in trained.notes:
            if events.on_warning:
                events.on_warning(note)
        return _export_all(job, trained, corpus, keeper), path


@dataclass(frozen=True)
class _Job:
    """What is to be written, and for whom; the fields are arguments of `train_and_export`."""

    corpus_path: Path
    path: Path
    target: Target
    precision: str
    max_loss_increase: float
    events: Events


def training_path(corpus_path: Path, out: str | Path | None) -> Path:
    """The artifact that `train_and_export` writes.

    Raises:
        OptionError: `out` is empty.
    """
    return output_path(out, f"{corpus_name(corpus_path)}.onnx", DEFAULT_FOLDER)


def _export_all(job: _Job, trained: TrainedModel, corpus: Corpus, keeper: RunKeeper) -> Artifact:
    """Write the fp32 artifact and the variants; returns the former.

    Raises:
        OptionError: one cannot be written; the message says what there is, and how to go on.
        ParityError: a graph and its model disagree; it is not written, those before it are.
    """
    try:
        artifact = export(trained.model, corpus, trained.summary, job.target, job.path)
    except (
        ArtifactError,
        OptionError,
    ) as error:  # a full disk, or another program put something there
        rest = keeper.describe_rest(job.corpus_path, trained.summary.steps)
        raise OptionError(f"{error}; {rest}") from None
    keeper.finish(artifact)
    text = corpus_gate_text(corpus)
    variants = write_variants(
        artifact, job.path, job.precision, text, job.target, job.max_loss_increase
    )
    try:
        for written in chain([(artifact, job.path)], variants):
            if job.events.on_written:
                job.events.on_written(corpus, *written)
    except OptionError as error:
        command = ["train-export", "--from", str(job.path), "--precision", job.precision]
        command += ["--text", str(job.corpus_path)]
        raise OptionError(
            f"{error}; {job.path} is whole, go on with: {shlex.join(command)}"
        ) from None
    return artifact


def rehearse(corpus: Corpus, recipe: Recipe, precisions: Iterable[str] = ()) -> float:
    """Make the artifacts of an untrained model; returns the seconds an export takes.

    A model that no reader would open, and an environment that cannot export, are so found before
    training.

    Args:
        corpus: the text.
        recipe: gives the model's sizes.
        precisions: that are made besides fp32.

    Raises:
        OptionError: the artifact would be too large, or have too many distinct characters.
        ParityError: a graph and the model disagree.
    """
    begun = time.monotonic()
    distinct = len(corpus.vocabulary)
    if distinct > MAX_TOKENS:
        raise OptionError(
            f"{corpus.name} has {distinct:,} distinct characters, a model at most {MAX_TOKENS:,}; "
            "leave the rarest out"
        )
    size = 4 * parameter_count(distinct, recipe)
    if size > MAX_FILE_BYTES:
        raise OptionError(
            f"the model would have {size:,} bytes, a file at most {MAX_FILE_BYTES:,}; "
            f"give a --hidden-size below {recipe.hidden_size}"
        )
    with torch.random.fork_rng(devices=[]):
        model = build_model(corpus, recipe)
    artifact = make_artifact(model, corpus, describe_corpus(corpus))
    seconds = time.monotonic() - begun + _LEAVING
    return seconds + rehearse_variants(artifact, precisions, corpus_gate_text(corpus))


def export(
    model: CharGRU, corpus: Corpus, training: Training, target: Target, path: Path
) -> Artifact:
    """Make the artifact and write it to `path`.

    Raises:
        ParityError: the graph and the model disagree; nothing was written.
        OptionError: `path` cannot be written, or `target` says no; an old file there is untouched.
    """
    artifact = make_artifact(model, corpus, training, str(path))
    target.write(path, artifact)
    return artifact


def artifact_of_checkpoint(checkpoint: Checkpoint, corpus_path: Path) -> Artifact:
    """The artifact of the best weights that a checkpoint holds, in memory.

    Raises:
        OptionError: `corpus_path` is not the text that the run reads.
        ParityError: the graph and the model disagree.
    """
    corpus = load_corpus(corpus_path)
    refuse_other(checkpoint, corpus.sha256, {})
    refuse_misfit(checkpoint, corpus)
    trained = trained_so_far(corpus, checkpoint)
    return make_artifact(trained.model, corpus, trained.summary)


def make_artifact(
    model: CharGRU, corpus: Corpus, training: Training, name: str = "the model"
) -> Artifact:
    """Build the graph, prove parity on the corpus's text, and seal; `name` is for messages.

    Raises:
        ParityError: the graph and the model disagree.
    """
    model_bytes = to_bytes(build_step_model(model))
    text = corpus.validation if len(corpus.validation) else corpus.tokens
    certificate = verify_parity(model_bytes, model, text)
    config = Config.of(
        vocabulary=corpus.vocabulary,
        embedding_dim=model.embedding_dim,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        separator=choose_separator(corpus),
        sampling=DEFAULT_SAMPLING,
    )
    properties = {
        "description": f"character-level GRU language model trained on {printable(corpus.name)} "
        f"({len(corpus)} characters)",
        "author": f"train-export (chargen-ort {__version__})",
        "license": "that of the corpus",
        "version": "1",
        "task": "text-generation",
    }
    return seal_artifact(model_bytes, config, training, certificate, properties, name)
