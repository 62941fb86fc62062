"""The command train-export: options and printing."""

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from chargen_export import cli_options as opt
from chargen_export.streams import SteadyStream, with_standard_streams
from chargen_ort._version import __version__
from chargen_ort.cli_usage import OneLineGroup
from chargen_ort.errors import ChargenError, OptionError, ParityError, TrainingError
from chargen_ort.terminal import visible
from chargen_train import wait_briefly
from chargen_train.inputs import refuse_missing

_NAME = "train-export"
_TRAIN = "train"  # the command that is meant where none is named
_CONTEXT = {"help_option_names": ["-h", "--help"]}
_REPLACED = {  # options of earlier days, and the commands that took their place
    "--verify": "train-export verify FILE --checkpoint CHECKPOINT",
}


class _TrainingByDefault(OneLineGroup):
    """Commands of which training is the one that need not be named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the training command before what begins with no command's name.

        A corpus of such a name is still within reach, as ./convert.
        """
        for option, command in _REPLACED.items():
            if any(word.split("=")[0] == option for word in args):
                _fail(f"there is no option {option}; the command is now: {command}", 2)
        if not args or args[0] == _TRAIN or args[0] not in self.commands:
            args = [_TRAIN, *args]
        return super().parse_args(ctx, args)


class _Unnamed(TyperCommand):
    """A command whose help and errors call it by the name of the program alone."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Leave the group out of the context, and so its name for this command out of the help."""
        return super().make_context(parent.info_name if parent else info_name, args, **extra)


app = typer.Typer(
    cls=_TrainingByDefault,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=_CONTEXT,
)

_INSTALL = (
    "pip install 'chargen-ort[train]' (without a GPU, run this first, as it is much smaller: "
    "pip install torch --index-url https://download.pytorch.org/whl/cpu)"
)

_NO_MEMORY = (
    "there is not enough memory; give a smaller --hidden-size or --batch-size, or a shorter text"
)


@app.command(_TRAIN, cls=_Unnamed, no_args_is_help=True, context_settings=_CONTEXT)
def train_export(
    corpus: opt.Corpus = None,
    out: opt.Out = None,
    overwrite: opt.Overwrite = False,
    base: opt.From = None,
    documents: opt.Documents = None,
    column: opt.Column = None,
    holdout: opt.Holdout = None,
    unit: opt.Unit = None,
    vocab_size: opt.VocabSize = None,
    encoding: opt.Encoding = None,
    min_count: opt.MinCount = None,
    skip_unreadable: opt.SkipUnreadable = False,
    preset: opt.Preset = None,
    minutes: opt.Minutes = None,
    epochs: opt.Epochs = None,
    hidden_size: opt.HiddenSize = None,
    num_layers: opt.NumLayers = None,
    embedding_dim: opt.EmbeddingDim = None,
    dropout: opt.Dropout = None,
    seq_length: opt.SeqLength = None,
    batch_size: opt.BatchSize = None,
    learning_rate: opt.LearningRate = None,
    seed: opt.Seed = None,
    resume: opt.Resume = False,
    checkpoint_minutes: opt.CheckpointMinutes = 2.0,
    device: opt.Device = None,
    precision: opt.Precision = None,
    max_loss_increase: opt.MaxLossIncrease = None,
    with_filter: opt.WithFilter = False,
    version: opt.Version = False,
) -> None:
    """Train a character model on a text and export it as one sealed .onnx file.

    With no options, model size and training time follow from the size of the
    corpus. The file runs with [bold]chargen-ort[/bold], or with any ONNX runtime. A model that
    there is already is a good beginning for another text of its kind:
    --from base.onnx.

    Two more commands train nothing: [bold]train-export convert[/bold] makes other files of a
    checkpoint or a model, and [bold]train-export verify[/bold] proves a model against the
    checkpoint that it came from. Each has its own --help.
    """
    begun = time.monotonic() - time.process_time()  # about when the process began
    if version:
        print(f"{_NAME} {__version__}")
        return
    if not corpus:
        _fail(f"name the text to train on, for example: {_NAME} corpus.txt", 2)
    with _one_line():
        refuse_missing(corpus)  # a name that is wrong is told before PyTorch is imported
    wait_briefly()  # before it is
    with _imports():  # here, so that --help is quick
        from chargen_export.display import Display
        from chargen_export.pipeline import train_and_export
        from chargen_export.precision import MAX_LOSS_INCREASE
        from chargen_train.events import Observers, TrainingStoppedError
        from chargen_train.opening import training_path
        from chargen_train.reading import Reading
        from chargen_train.run_folder import RunFolder
        from chargen_train.signals import StopSignals

    display, signals = Display(sys.stderr), StopSignals()
    limit = MAX_LOSS_INCREASE if max_loss_increase is None else max_loss_increase
    resumed = _command(
        corpus,
        out=out,
        precision=precision,
        max_loss_increase=max_loss_increase,
        overwrite=overwrite,
        with_filter=with_filter,
        resume=True,
    )

    def go_on() -> str:
        run = RunFolder(training_path(corpus, out))
        return f"; go on with: {resumed}" if run.unfinished else ""

    with _one_line(display.written, lambda: signals.status, go_on):
        try:
            with signals, display:
                train_and_export(
                    corpus, out, preset, Observers(display, signals), resume, checkpoint_minutes,
                    begun, precision or "fp32", limit, overwrite, base,
                    Reading(
                        documents or "auto", column, holdout, encoding,
                        1 if min_count is None else min_count, skip_unreadable,
                        unit or "char", vocab_size,
                    ), with_filter, minutes=minutes, epochs=epochs,
                    hidden_size=hidden_size, num_layers=num_layers, embedding_dim=embedding_dim,
                    dropout=dropout, seq_length=seq_length, batch_size=batch_size,
                    learning_rate=learning_rate, seed=seed, device=device,
                )  # fmt: skip
        except TrainingStoppedError as error:
            _fail(f"{error}; go on with: {resumed}", signals.status)
    _print_last(display.written)


@app.command("convert")
def convert_file(
    file: Annotated[
        Path, typer.Argument(help="A checkpoint of a run, or an fp32 model of train-export.")
    ],
    precision: opt.Precision = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help="The text to score on, such as the corpus. A checkpoint needs its own corpus; "
            "give the option once for each of its files.",
            rich_help_panel=opt.FILES,
        ),
    ] = None,
    max_loss_increase: opt.MaxLossIncrease = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="The file to write, or with a slash at its end the folder of the file. By "
            "default files are written next to the model, or where the run would write it.",
            rich_help_panel=opt.RUN,
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    with_filter: opt.WithFilter = False,
    sampler: Annotated[
        bool,
        typer.Option(
            "--sampler",
            help="Make a file for other languages in which one run is a text: code points, a seed "
            "and sampling options in, code points out. It is x.sampler.onnx for x.onnx, and the "
            "model may have any precision.",
            rich_help_panel=opt.FILES,
        ),
    ] = False,
    uniforms: Annotated[
        bool,
        typer.Option(
            "--uniforms",
            help="With --sampler: the file is handed the numbers to draw by instead of a seed, "
            "for engines that narrow 64-bit integers, as OpenVINO does.",
            rich_help_panel=opt.FILES,
        ),
    ] = False,
) -> None:
    """Make other files of a checkpoint or of an fp32 model, without training."""
    with _imports():
        from chargen_export.convert import convert
        from chargen_export.display import Display
        from chargen_export.precision import MAX_LOSS_INCREASE
        from chargen_export.sampler import convert_to_sampler

    display = Display(sys.stderr)
    limit = MAX_LOSS_INCREASE if max_loss_increase is None else max_loss_increase
    with _one_line(display.written):
        if uniforms and not sampler:
            raise OptionError("--uniforms is for --sampler; give both, or leave it out")
        if sampler:
            if (precision, text, max_loss_increase, with_filter) != (None, None, None, False):
                raise OptionError(
                    "--sampler keeps the precision and the filter and needs no text; leave out "
                    "--precision, --text, --max-loss-increase and --with-filter"
                )
            display.on_written(*convert_to_sampler(file, uniforms, out, overwrite))
            _print_last(display.written)
            return
        wanted = precision or "fp32", text or (), out, limit, overwrite, with_filter
        for written in convert(file, *wanted):
            display.on_written(*written)
    _print_last(display.written)


@app.command("verify")
def verify_file(
    file: Annotated[Path, typer.Argument(help="A model of train-export.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="The checkpoint that the model was exported from.")
    ] = None,
) -> None:
    """Prove a model against the checkpoint that it was exported from; nothing is written."""
    with _imports():
        from chargen_export.verify import verify_against_checkpoint

    with _one_line():
        if checkpoint is None:
            raise OptionError(
                "give --checkpoint, which names what the model was exported from; without one, "
                "chargen-ort verify checks all that it can"
            )
        verdicts = verify_against_checkpoint(file, checkpoint)
    for verdict in verdicts:
        print(verdict)
    if any(verdict.passed is False for verdict in verdicts):
        raise typer.Exit(1)


@contextlib.contextmanager
def _imports() -> Iterator[None]:
    """A context in which what cannot be imported ends the command with one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "a package").split(".")[0]
        _fail(f"training needs {name}, which is not installed; run: {_INSTALL}", 2)
    except (ImportError, OSError) as error:  # a library that PyTorch brings does not fit
        reason = str(error).split("\n")[0]
        _fail(f"a package cannot be loaded: {reason}; install it again with: {_INSTALL}", 2)


@contextlib.contextmanager
def _one_line(
    written: Sequence[Path] = (),
    status: Callable[[], int] = lambda: 130,
    go_on: Callable[[], str] = lambda: "",
) -> Iterator[None]:
    """A context in which what goes wrong ends the command with one line.

    Args:
        written: the artifacts that were written before.
        status: the exit status of an interruption.
        go_on: the end of a line about work that can be taken up again.
    """
    try:
        yield
    except (ParityError, TrainingError) as error:
        _fail(error, 1)
    except ChargenError as error:
        _fail(error, 2)
    except MemoryError:
        _fail(f"{_NO_MEMORY}{go_on()}", 1)
    except RuntimeError as error:
        if not _is_about_memory(error):
            raise
        _fail(f"{_NO_MEMORY}{go_on()}", 1)
    except KeyboardInterrupt:
        names = ", ".join(map(str, written))
        outcome = f"written before: {names}" if names else "no artifact was written"
        _fail(f"interrupted; {outcome}{go_on()}", status())


def _is_about_memory(error: RuntimeError) -> bool:
    """Whether PyTorch says that there is too little of it."""
    text = str(error).lower()
    return "allocate memory" in text or "out of memory" in text


def _command(corpus: Sequence[Path], **options: object) -> str:
    """The command line that trains on `corpus`, with the options that are given."""
    words = [_NAME, *map(str, corpus)]
    for name, value in options.items():
        if value is not None and value is not False:
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return shlex.join(words)


def _print_last(written: Sequence[Path]) -> None:
    """For scripts, the last artifact on standard output: model=$(train-export corpus.txt)."""
    stream = SteadyStream(sys.stdout)
    if not stream.isatty():
        stream.write(f"{written[-1]}\n")
        stream.flush()


def _fail(message: object, status: int) -> NoReturn:
    stream = SteadyStream(sys.stderr)
    stream.write(f"{_NAME}: {visible(str(message))}\n")
    stream.flush()
    raise typer.Exit(status)


def main() -> None:
    """Entry point of train-export."""
    with_standard_streams(lambda: app(prog_name=_NAME))
