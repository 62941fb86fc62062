"""From a corpus to an artifact: the whole path on one screen."""

import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import torch

from chargen_export.filters import check_filter, make_filter, text_in_file, write_beside
from chargen_export.graph import render_step
from chargen_export.parity import COMPARED, verify_parity
from chargen_export.precision import MAX_LOSS_INCREASE
from chargen_export.seal import seal_artifact
from chargen_export.target import Origin, Target, find_read
from chargen_export.variants import (
    corpus_gate_text,
    plan_variants,
    rehearse_variants,
    write_variants,
)
from chargen_ort import __version__
from chargen_ort.artifact import MAX_FILE_BYTES, Artifact
from chargen_ort.checks import printable
from chargen_ort.config import Config
from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.fields import MAX_TOKENS
from chargen_ort.options import SamplingOptions
from chargen_ort.provenance import Training
from chargen_train.base import (
    BaseModel,
    base_length,
    base_settings,
    load_base,
)
from chargen_train.checkpoint import Checkpoint, load_checkpoint, previous_of
from chargen_train.comparison import compared, measure_yardstick, plan_samples
from chargen_train.corpus import Corpus, choose_separator
from chargen_train.device import choose_device
from chargen_train.events import Observer, Observers, Supervision, TrainedModel
from chargen_train.files import check_writable
from chargen_train.history import describe_corpus
from chargen_train.ids import TokenStore
from chargen_train.model import CharGRU
from chargen_train.opening import (
    Opening,
    begin_run,
    recipe_for,
    resume_run,
    training_path,
)
from chargen_train.reading import Reading
from chargen_train.recipe import Overrides, Recipe, parameter_count
from chargen_train.resuming import refuse_misfit, refuse_other, saved_reading
from chargen_train.run import build_model
from chargen_train.run_folder import RunFolder, RunRecorder
from chargen_train.training import train, trained_so_far
from chargen_train.units import load_in_unit

_LEAVING = 0.6  # seconds that sealing, the report and the end of a process with PyTorch take
_LEVELS = {"char": "character", "byte": "byte", "word": "word", "bpe": "subword"}
DEFAULT_SAMPLING = SamplingOptions(temperature=0.8)  # a little below 1 reads better than 1


def train_and_export(
    corpus_paths: Path | Sequence[Path],
    out: str | Path | None = None,
    preset: str | None = None,
    observer: Observer = Observer(),  # noqa: B008 - does nothing
    resume: bool = False,
    checkpoint_minutes: float = 2.0,
    begun: float | None = None,
    precision: str = "fp32",
    max_loss_increase: float = MAX_LOSS_INCREASE,
    overwrite: bool = False,
    base_path: Path | None = None,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    with_filter: bool = False,
    **overrides: Unpack[Overrides],
) -> tuple[Artifact, Path]:
    """Train on text files and write the artifact, and its run into a folder beside it.

    Args:
        corpus_paths: what to learn from, see `chargen_train.corpus.load_corpus`.
        out: the file or folder to write, see `training_path`.
        preset: name of a preset of `chargen_train.recipe`.
        observer: is told how the work goes, and can stop it.
        resume: go on with the run that the folder holds, with its settings; one that has ended
            takes more `minutes`, `epochs` or `steps`.
        checkpoint_minutes: longest time between checkpoints.
        begun: `time.monotonic` when the minutes given began; None is now.
        precision, max_loss_increase: see `chargen_export.variants.write_variants`.
        overwrite: whether a model or a finished run of another corpus may be replaced.
        base_path: an fp32 artifact whose weights the run goes on from.
        reading: what a document is, and what is held out.
        with_filter: whether each artifact has a filter of the documents, or one beside it.
        overrides: fields of `Recipe`; None means the recipe's own.

    Returns:
        the fp32 artifact and its path; those of other precisions are written next to it.

    Raises:
        ChargenError: a bad corpus, option or path, a run in the same folder, a training that
            diverged or was stopped, or no parity; then no artifact was written.
    """
    begun = time.monotonic() if begun is None else begun
    paths = (corpus_paths,) if isinstance(corpus_paths, Path) else tuple(corpus_paths)
    path = training_path(paths, out)
    folder, known = RunFolder(path), None
    if resume:
        reading, known = saved_reading(folder.checkpoint, reading)
    base = None if base_path is None else load_base(base_path, reading.unit)
    if base is not None and not resume:
        overrides, known = base_settings(base, preset, overrides), base.vocabulary
    inputs = find_read(paths, path, reading, base_path)
    with TokenStore(folder.path, folder.ids if resume else None) as store:
        corpus = load_in_unit(paths, reading, store, known, observer.on_reading)
        if base is not None and not resume:
            overrides = base_length(corpus.training.characters, overrides)
        target = Target(Origin(corpus.name, corpus.sha256), inputs, overwrite)
        gate = precision, max_loss_increase
        job = _Job(paths, corpus, path, folder, target, *gate, observer, base)
        precisions = _check(job, preset, overrides)
        if with_filter:
            check_filter(corpus, path)
        with folder.in_use(create=not resume):
            open_run = resume_run if resume else begin_run
            opening = open_run(folder, corpus, observer, preset, overrides, base)
            store.keep(folder.ids)
            job = replace(job, corpus=opening.corpus)
            return _run(job, opening, precisions, begun, checkpoint_minutes, with_filter), path


def _run(
    job: "_Job",
    opening: Opening,
    precisions: Iterable[str],
    begun: float,
    checkpoint_minutes: float,
    with_filter: bool,
) -> Artifact:
    """Train, from where `opening` begins, and write the artifacts; gives that in fp32."""
    corpus, recipe, observer = job.corpus, opening.recipe, job.observer
    # before the first step, so that its time is part of the minutes given
    documents = make_filter(corpus) if with_filter else None
    samples, seconds = plan_samples(corpus, recipe)
    seconds += rehearse(corpus, recipe, precisions) if opening.is_fresh else 0.0
    supervision = Supervision(job.folder.checkpoint, checkpoint_minutes, begun, seconds)
    recorder = RunRecorder(job.folder, observer.on_warning)
    yardstick = measure_yardstick(corpus, recipe)
    told = Observers(recorder, observer)
    trained = train(corpus, recipe, told, supervision, opening.checkpoint, job.base)
    trained = compared(trained, corpus, yardstick, DEFAULT_SAMPLING, samples)
    observer.on_trained(trained)
    for note in trained.notes:
        observer.on_warning(note)
    artifact = _export(job, trained, text_in_file(documents, corpus))
    recorder.finish(artifact)
    for written in _write_all(job, artifact):
        write_beside(documents, corpus, artifact, written)
    return artifact


@dataclass(frozen=True)
class _Job:
    """What is to be written, of which text, and who is told; see `train_and_export`."""

    corpus_paths: tuple[Path, ...]
    corpus: Corpus
    path: Path
    folder: RunFolder
    target: Target
    precision: str
    max_loss_increase: float
    observer: Observer
    base: BaseModel | None


def _check(job: _Job, preset: str | None, overrides: Overrides) -> Iterable[str]:
    """Refuse, before hours of training, what could not be trained or written.

    Returns:
        the precisions to write besides fp32.

    Raises:
        OptionError: naming what is wrong.
    """
    job.target.check(job.path)
    job.target.check_run(job.folder)
    precisions = plan_variants(job.path, job.precision, job.target, job.max_loss_increase)
    choose_device(recipe_for(job.corpus, preset, overrides).device)
    check_writable(job.path)
    return precisions


def _export(job: _Job, trained: TrainedModel, filter_text: str) -> Artifact:
    """Make the fp32 artifact, with the text of a filter or an empty one, and write it.

    Raises:
        OptionError: it cannot be written; the message says what there is, and how to go on.
        ParityError: the graph and the model disagree; nothing was written.
    """
    try:
        return export(trained.model, job.corpus, trained.summary, job.target, job.path, filter_text)
    except (ArtifactError, OptionError) as error:
        # a full disk, or another program put something there while the model was trained
        rest = _describe_rest(job, trained.summary.steps)
        raise OptionError(f"{error}; {rest}") from None


def _write_all(job: _Job, artifact: Artifact) -> Iterator[Path]:
    """Write the other precisions of `artifact`, and tell of it and of each of them.

    Yields:
        the path of each.

    Raises:
        OptionError: one cannot be written; the message says how to go on.
        ParityError: a graph and its model disagree; it is not written, those before it are.
    """
    job.observer.on_written(artifact, job.path, job.corpus)
    yield job.path
    text = corpus_gate_text(job.corpus)
    try:
        for variant, path in write_variants(
            artifact, job.path, job.precision, text, job.target, job.max_loss_increase
        ):
            job.observer.on_written(variant, path, job.corpus)
            yield path
    except OptionError as error:
        command = _convert_command(job.path, job.corpus_paths, "--precision", job.precision)
        raise OptionError(f"{error}; {job.path} is whole, go on with: {command}") from None


def _describe_rest(job: _Job, steps: int) -> str:
    """What there is of a model of so many steps that could not be written, and how to go on."""
    for path in (job.folder.checkpoint, previous_of(job.folder.checkpoint)):
        try:
            saved = load_checkpoint(path).step
        except OptionError:
            continue
        if saved == steps:
            command = _convert_command(path, job.corpus_paths)
            return f"the trained model is whole in {path}; go on with: {command}"
        words = [*map(str, job.corpus_paths), "--out", str(job.path), "--resume"]
        command = shlex.join(["train-export", *words])
        return (
            f"the last checkpoint, of step {saved:,} of {steps:,}, is whole in {path}; go on with: "
            f"{command}"
        )
    return "no checkpoint could be saved either, so the model is lost"


def _convert_command(file: Path, texts: Iterable[Path], *options: str) -> str:
    named = [word for text in texts for word in ("--text", str(text))]
    return shlex.join(["train-export", "convert", str(file), *options, *named])


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
    model: CharGRU,
    corpus: Corpus,
    training: Training,
    target: Target,
    path: Path,
    filter_text: str = "",
) -> Artifact:
    """Make the artifact and write it to `path`; see `make_artifact`.

    Raises:
        ParityError: the graph and the model disagree; nothing was written.
        OptionError: `path` cannot be written, or `target` says no; an old file there is untouched.
    """
    artifact = make_artifact(model, corpus, training, str(path), filter_text)
    target.write(path, artifact)
    return artifact


def corpus_of_checkpoint(checkpoint: Checkpoint, corpus_paths: Sequence[Path]) -> Corpus:
    """The text that the run of a checkpoint reads.

    Raises:
        OptionError: `corpus_paths` are another.
    """
    corpus = load_in_unit(corpus_paths, checkpoint.reading, known=checkpoint.known)
    refuse_other(checkpoint, corpus, {})
    refuse_misfit(checkpoint, corpus)
    return corpus


def artifact_of_checkpoint(
    checkpoint: Checkpoint, corpus: Corpus, filter_text: str = ""
) -> Artifact:
    """The artifact of the best weights that a checkpoint holds, in memory.

    Args:
        checkpoint: of a run.
        corpus: that the run reads, see `corpus_of_checkpoint`.
        filter_text: see `make_artifact`.

    Raises:
        ParityError: the graph and the model disagree.
    """
    trained = trained_so_far(corpus, checkpoint)
    yardstick = measure_yardstick(corpus, checkpoint.recipe)
    trained = compared(trained, corpus, yardstick, DEFAULT_SAMPLING)
    return make_artifact(trained.model, corpus, trained.summary, filter_text=filter_text)


def make_artifact(
    model: CharGRU,
    corpus: Corpus,
    training: Training,
    name: str = "the model",
    filter_text: str = "",
) -> Artifact:
    """Build the graph, prove parity on the corpus's text, and seal.

    Args:
        model, corpus, training: what the file is of.
        name: for messages.
        filter_text: of the documents, see `chargen_ort.document_filter`; empty leaves it out.

    Raises:
        ParityError: the graph and the model disagree.
    """
    model_bytes = render_step(model)
    tokens, end = corpus.measuring[:COMPARED], corpus.vocabulary.end_token
    certificate = verify_parity(model_bytes, model, tokens, end=end)
    config = Config.of(
        vocabulary=corpus.vocabulary,
        embedding_dim=model.embedding_dim,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        separator=choose_separator(corpus),
        sampling=DEFAULT_SAMPLING,
    )
    properties = {
        "description": f"{_LEVELS[corpus.vocabulary.unit]}-level GRU language model trained on "
        f"{printable(corpus.name)} "
        f"({len(corpus)} characters)",
        "author": f"train-export (chargen-ort {__version__})",
        "license": "that of the corpus",
        "version": "1",
        "task": "text-generation",
    }
    rest = properties, name, filter_text
    return seal_artifact(model_bytes, config, training, certificate, *rest)
