"""From a corpus to an artifact: the whole path on one screen."""

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
from chargen_export.variants import (
    corpus_gate_text,
    plan_variants,
    rehearse_variants,
    write_variants,
)
from chargen_ort import __version__
from chargen_ort.artifact import MAX_FILE_BYTES, Artifact, ModelConfig
from chargen_ort.errors import OptionError
from chargen_ort.files import check_writable, write_atomically
from chargen_ort.sampling import SamplingOptions
from chargen_ort.strict_json import schema
from chargen_train.checkpoint import Checkpoint, refuse_other
from chargen_train.corpus import Corpus, load_corpus
from chargen_train.device import choose_device
from chargen_train.model import CharGRU
from chargen_train.progress import Progress, Supervision, TrainedModel
from chargen_train.recipe import Recipe, choose_recipe, parameter_count, typical_speed
from chargen_train.run import build_model, choose_separator
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
    out: Path | None = None,
    preset: str | None = None,
    events: Events = Events(),
    resume: bool = False,
    checkpoint_minutes: float = 2.0,
    begun: float | None = None,
    precision: str = "fp32",
    max_loss_increase: float = MAX_LOSS_INCREASE,
    **overrides: Any,
) -> tuple[Artifact, Path]:
    """Train on a text file and write the artifact; the default place is artifacts/<name>.onnx.

    The run is kept in a folder beside the artifact, see `chargen_train.run_folder`. The fp32
    artifact is returned; those of other precisions are written next to it.

    Args:
        corpus_path: a UTF-8 text.
        out: where to write.
        preset: name of a preset of `chargen_train.recipe`.
        events: called as the work goes on.
        resume: go on with the run that the folder holds, with its settings.
        checkpoint_minutes: longest time between checkpoints.
        begun: `time.monotonic` when the minutes given began; None is now.
        precision, max_loss_increase: see `chargen_export.variants.write_variants`.
        overrides: fields of `Recipe`; None means the recipe's own.

    Raises:
        ChargenError: a bad corpus, option or path, a training that diverged or was stopped, or no
            parity; then no artifact was written.
    """
    begun = time.monotonic() if begun is None else begun
    corpus = load_corpus(corpus_path)
    speed = partial(measure_speed, corpus) if not resume else typical_speed
    recipe = choose_recipe(corpus.cut, preset, speed, **overrides)
    out = out or DEFAULT_FOLDER / f"{corpus.name}.onnx"
    keeper = RunKeeper(RunFolder(out), events.on_warning)
    checkpoint = None
    if resume:
        given = [name for name, value in overrides.items() if value is not None]
        settings = asdict(recipe)
        checkpoint = keeper.resume(
            corpus, settings if preset else {name: settings[name] for name in given}
        )
        recipe = checkpoint.recipe
    choose_device(recipe.device)
    check_writable(out)
    precisions = plan_variants(out, precision, max_loss_increase)
    if checkpoint is None:
        keeper.begin(corpus, recipe)
    if events.on_begin:
        events.on_begin(corpus, recipe)
    if checkpoint is not None and events.on_resume:
        events.on_resume(checkpoint)

    def on_progress(progress: Progress) -> None:
        keeper.record(progress)
        if events.on_progress:
            events.on_progress(progress)

    supervision = Supervision(
        checkpoint=keeper.folder.checkpoint,
        checkpoint_minutes=checkpoint_minutes,
        begun=begun,
        export_seconds=0.0 if resume else rehearse(corpus, recipe, precisions),
        should_stop=events.should_stop,
        on_last_step=events.on_last_step,
        on_warning=events.on_warning,
    )
    trained = train(corpus, recipe, on_progress, supervision, checkpoint)
    if events.on_trained:
        events.on_trained(trained)
    for note in trained.notes:
        if events.on_warning:
            events.on_warning(note)
    artifact = export(trained.model, corpus, trained.summary, out)
    keeper.finish(artifact)
    variants = write_variants(artifact, out, precision, corpus_gate_text(corpus), max_loss_increase)
    for written in chain([(artifact, out)], variants):
        if events.on_written:
            events.on_written(corpus, *written)
    return artifact, out


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
    most: int = schema("config")["properties"]["vocabulary"]["maxItems"]
    if distinct > most:
        raise OptionError(
            f"{corpus.name} has {distinct:,} distinct characters, a model at most {most:,}; "
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
    facts = {
        "name": corpus.name,
        "sha256": corpus.sha256,
        "characters": len(corpus),
        "training_characters": corpus.cut,
    }
    training = {"corpus": facts, "validation": None, "steps": 0, "versions": {}}
    artifact = make_artifact(model, corpus, training)
    seconds = time.monotonic() - begun + _LEAVING
    return seconds + rehearse_variants(artifact, precisions, corpus_gate_text(corpus))


def export(model: CharGRU, corpus: Corpus, training: dict[str, Any], out: Path) -> Artifact:
    """Make the artifact and write it.

    Raises:
        ParityError: the graph and the model disagree; nothing was written.
        OptionError: `out` cannot be written; an old file there is untouched.
    """
    artifact = make_artifact(model, corpus, training, str(out))
    write_atomically(out, artifact.data)
    return artifact


def artifact_of_checkpoint(checkpoint: Checkpoint, corpus_path: Path) -> Artifact:
    """The artifact of the best weights that a checkpoint holds, in memory.

    Raises:
        OptionError: `corpus_path` is not the text that the run reads.
        ParityError: the graph and the model disagree.
    """
    corpus = load_corpus(corpus_path)
    refuse_other(checkpoint, corpus.sha256, {})
    trained = trained_so_far(corpus, checkpoint)
    return make_artifact(trained.model, corpus, trained.summary)


def make_artifact(
    model: CharGRU, corpus: Corpus, training: dict[str, Any], name: str = "the model"
) -> Artifact:
    """Build the graph, prove parity on the corpus's text, and seal; `name` is for messages.

    Raises:
        ParityError: the graph and the model disagree.
    """
    model_bytes = to_bytes(build_step_model(model))
    text = corpus.validation if len(corpus.validation) else corpus.tokens
    parity = verify_parity(model_bytes, model, text)
    config = ModelConfig(
        vocabulary=corpus.vocabulary,
        embedding_dim=model.embedding_dim,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        separator=choose_separator(corpus),
        sampling=DEFAULT_SAMPLING,
    )
    properties = {
        "description": f"character-level GRU language model trained on {corpus.name} "
        f"({len(corpus)} characters)",
        "author": f"train-export (chargen-ort {__version__})",
        "license": "that of the corpus",
        "version": "1",
        "task": "text-generation",
    }
    return seal_artifact(model_bytes, config, training, parity, properties, name)
