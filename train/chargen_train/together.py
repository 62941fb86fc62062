"""The command that trains with several processes: options and printing.

It trains as train-export does and keeps the same run folder, and it exports nothing, since this
package knows nothing of the export: the last line that it prints is the command that does.
"""

import argparse
import contextlib
import io
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, cast

from chargen_ort.errors import ChargenError, OptionError, TrainingError
from chargen_ort.terminal import visible
from chargen_ort.vocabulary import UNITS, Vocabulary
from chargen_train.checkpoint import Checkpoint
from chargen_train.corpus import Corpus, load_corpus
from chargen_train.device import choose_device
from chargen_train.earlier import Earlier
from chargen_train.events import (
    Observer,
    Observers,
    Progress,
    Supervision,
    TrainedModel,
    TrainingStoppedError,
)
from chargen_train.inputs import STDIN
from chargen_train.opening import begin_run, resume_run, training_path
from chargen_train.reading import Reading
from chargen_train.recipe import Overrides, Recipe
from chargen_train.resuming import saved_reading
from chargen_train.run_folder import RunFolder, RunRecorder
from chargen_train.signals import StopSignals
from chargen_train.team import LeaderError, LostError, Team, joined, noticing_loss
from chargen_train.training import measure_speed, train
from chargen_train.units import characters_of, in_unit
from chargen_train.words import (
    describe_begin,
    describe_progress,
    describe_resumption,
)

_NAME = "chargen_train"
_NUMBERS = {  # the options that are fields of a Recipe, with their types
    "minutes": float, "epochs": float, "hidden_size": int, "num_layers": int,
    "embedding_dim": int, "dropout": float, "seq_length": int, "batch_size": int,
    "learning_rate": float, "seed": int,
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """Answers a wrong option, value or argument with one line and status 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end the process, without the usage that argparse puts before it."""
        self.exit(2, f"{_NAME}: {message}; -m {_NAME} --help lists what there is\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"torchrun --nproc-per-node N -m {_NAME}",
        description="Train a character model with several processes. The options are those of "
        "train-export. The run is kept where train-export would keep it; the last line that is "
        "printed says how to export it.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "corpus", type=Path, nargs="+", help="the text, the same files on every machine"
    )
    parser.add_argument("--out", "-o", help="the artifact that the run is of")
    parser.add_argument(
        "--documents", choices=["auto", "none", "lines", "blank", "files"], default="auto"
    )
    parser.add_argument("--column")
    parser.add_argument("--holdout", metavar="{tail,spread,none,FILE}")
    parser.add_argument("--encoding")
    parser.add_argument("--min-count", type=int, default=1)
    parser.add_argument("--skip-unreadable", action="store_true")
    parser.add_argument("--unit", choices=UNITS, default="char")
    parser.add_argument("--vocab-size", type=int)
    for name, kind in _NUMBERS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run, also with another number of processes; one that has ended takes "
        "more --minutes or --epochs",
    )
    parser.add_argument("--checkpoint-minutes", type=float, default=2.0)
    return parser


class _Lines(Observer):
    """Prints what a run does, a line at a time."""

    def on_begin(self, corpus: Corpus, recipe: Recipe) -> None:
        """Say what is trained."""
        for label, text in describe_begin(corpus, recipe, str(choose_device(recipe.device))):
            _say(f"{label:<11} {text}")

    def on_resume(self, step: int, earlier: Earlier) -> None:
        """Say where the run goes on."""
        _say(f"{'resuming':<11} {describe_resumption(step, earlier)}")

    def on_progress(self, progress: Progress) -> None:
        """Say how it goes, at evaluations."""
        if progress.evaluation is not None:
            _say(f"{progress.fraction:>4.0%}        {describe_progress(progress)}")

    def on_warning(self, message: str) -> None:
        """Show the message."""
        _say(f"{'warning':<11} {message}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    begun = time.monotonic() - time.process_time()  # about when the process began
    with _heard_once():
        options = _parser().parse_args(arguments)
    signals = StopSignals(insist=False)  # torchrun passes on what the terminal has sent already
    again = [
        *map(str, options.corpus),
        "--resume",
        *([] if options.out is None else ["--out", options.out]),
    ]
    go_on = f"go on with: torchrun … -m {_NAME} {shlex.join(again)}"
    team = Team()
    try:
        folder = RunFolder(training_path(options.corpus, options.out))
        with signals, noticing_loss(lambda: go_on), joined(options.device or "auto") as team:
            _train(options, folder, team, signals, begun)
    except TrainingStoppedError as error:
        return _end(f"{error}; {go_on}" if team.leads else "", signals.status)
    except LostError as error:
        return _end(f"process {team.rank}: {error}", 1)
    except TrainingError as error:
        return _end(error if team.leads else "", 1)
    except LeaderError:
        return 2
    except ChargenError as error:
        return _end(error if team.leads else f"process {team.rank}: {error}", 2)
    except KeyboardInterrupt:
        return _end("interrupted" if team.leads else "", signals.status)
    return 0


@contextlib.contextmanager
def _heard_once() -> Iterator[None]:
    """A context in which the first process alone prints what the options say of themselves."""
    nowhere = None if int(os.environ.get("RANK", "0")) == 0 else io.StringIO()
    with contextlib.ExitStack() as stack:
        if nowhere is not None:
            stack.enter_context(contextlib.redirect_stderr(nowhere))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield


def _train(
    options: argparse.Namespace, folder: RunFolder, team: Team, signals: StopSignals, begun: float
) -> None:
    """Train, and say how to go on from there."""
    given = Reading(
        options.documents, options.column, options.holdout,
        options.encoding, options.min_count, options.skip_unreadable,
        options.unit, options.vocab_size,
    )  # fmt: skip
    reading, known = team.share(
        lambda: saved_reading(folder.checkpoint, given) if options.resume else (given, None)
    )
    corpus = _load(options.corpus, reading, known, team)
    lines = Observers(_Lines(), signals) if team.leads else signals
    with contextlib.ExitStack() as stack:
        locking = folder.in_use(create=not options.resume)
        team.share(lambda: stack.enter_context(locking))
        recipe, checkpoint = team.share(lambda: _open(options, folder, corpus, team, lines))
        supervision = Supervision(folder.checkpoint, options.checkpoint_minutes, begun)
        recorder = [RunRecorder(folder, lines.on_warning)] if team.leads else []
        told = Observers(*recorder, lines)
        trained = train(corpus, recipe, told, supervision, checkpoint, team=team)
        if team.leads:
            folder.note_trained(trained.summary.steps)
            _conclude(trained, folder, options.corpus)


def _load(paths: Sequence[Path], reading: Reading, known: Vocabulary | None, team: Team) -> Corpus:
    """The corpus, which must be the same for all.

    Raises:
        OptionError: it cannot be read, or is another one than the leader's. Where the leader cannot
            read it, the others do not say so once more.
    """
    error: ChargenError | None = None
    try:
        if STDIN in paths:
            raise OptionError(f"{STDIN} is for one process; give files")
        corpus = load_corpus(paths, reading, known=characters_of(known))
    except ChargenError as problem:
        error = problem

    def describe() -> str:
        if error is not None:
            raise error
        return corpus.sha256

    sha256 = team.share(describe)
    if error is not None:
        raise error
    if corpus.sha256 != sha256:
        names = ", ".join(map(str, paths))
        raise OptionError(f"{names}: not the text that the first process has; copy that")
    unit, size, made = reading.unit, reading.vocab_size, [corpus]

    def learn() -> Vocabulary:
        made[0] = in_unit(corpus, unit, size, known)
        return made[0].vocabulary

    vocabulary = team.share(learn)
    return made[0] if team.leads else in_unit(corpus, unit, size, vocabulary)


def _open(
    options: argparse.Namespace, folder: RunFolder, corpus: Corpus, team: Team, lines: Observer
) -> tuple[Recipe, Checkpoint | None]:
    """What is to be done, and where the run stood; None if it begins.

    Raises:
        OptionError: the folder has not what is asked for, or there are too many processes.
    """
    overrides = cast(Overrides, {name: getattr(options, name) for name in (*_NUMBERS, "device")})

    def speed(recipe: Recipe) -> float:
        rows = -(-recipe.batch_size // team.processes)
        return team.processes * measure_speed(corpus, replace(recipe, batch_size=rows))

    if options.resume:
        opening = resume_run(folder, corpus, lines, None, overrides)
    else:
        found = folder.finished_corpus
        if found is not None and found[1] != corpus.sha256:
            raise OptionError(
                f"{folder.path} holds the run of another corpus, {found[0]}; move it away, or "
                "choose another --out"
            )
        opening = begin_run(folder, corpus, lines, None, overrides, speed=speed)
    recipe = opening.recipe
    if recipe.batch_size < team.processes:
        raise OptionError(
            f"a step has {recipe.batch_size} windows, too few for {team.processes} processes; "
            "give a larger --batch-size, or fewer processes"
        )
    return recipe, opening.checkpoint


def _conclude(trained: TrainedModel, folder: RunFolder, corpus: Sequence[Path]) -> None:
    for note in trained.notes:
        _say(f"{'warning':<11} {note}")
    summary = trained.summary
    steps = "step" if summary.steps == 1 else "steps"
    count = "1 process" if summary.processes == 1 else f"{summary.processes} processes"
    _say(
        f"{'trained':<11} {summary.steps:,} {steps} by {count}; step "
        f"{summary.exported_step:,} was the best"
    )
    texts = [word for path in corpus for word in ("--text", str(path))]
    command = ["train-export", "convert", str(folder.checkpoint), *texts]
    _say(f"{'next':<11} {shlex.join(command)}")


def _say(line: str) -> None:
    # what cannot be shown must not end the run
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{visible(line)}\n")
        sys.stderr.flush()


def _end(message: object, status: int) -> int:
    if message:
        _say(f"{_NAME}: {message}")
    return status
