"""The command train-export: options and printing."""

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from chargen_export.streams import SteadyStream, with_standard_streams
from chargen_ort._version import __version__
from chargen_ort.errors import ChargenError, OptionError, ParityError, TrainingError
from chargen_ort.terminal import visible
from chargen_train import wait_briefly

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INSTALL = (
    "pip install 'chargen-ort[train]' (without a GPU, run this first, as it is much smaller: "
    "pip install torch --index-url https://download.pytorch.org/whl/cpu)"
)

_NO_MEMORY = (
    "there is not enough memory; give a smaller --hidden-size or --batch-size, or a shorter text"
)
_MODEL, _TRAINING, _OUTPUT, _FILES = "Model", "Training", "Run", "Smaller files, and proof"


@app.command(no_args_is_help=True)
def train_export(
    corpus: Annotated[
        Path | None, typer.Argument(help="A UTF-8 text file, 2 characters or more.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="The file to write, or with a slash at its end the folder of the file. "
            "Default: artifacts/<corpus name>.onnx.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a model of another corpus that is there.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    preset: Annotated[
        Literal["lesson"] | None,
        typer.Option(
            help="lesson: embedding 16, hidden 32, windows of 5, Adam at 0.01, 200 steps.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Train so long, export included. Default: by corpus size.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(help="Read the corpus so many times instead.", rich_help_panel=_TRAINING),
    ] = None,
    hidden_size: Annotated[
        int | None, typer.Option(help="Width of a layer.", rich_help_panel=_MODEL)
    ] = None,
    num_layers: Annotated[
        int | None, typer.Option(help="GRU layers.", rich_help_panel=_MODEL)
    ] = None,
    embedding_dim: Annotated[
        int | None, typer.Option(help="Width of the embedding.", rich_help_panel=_MODEL)
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(
            help="Probability, 0 to 0.9. Default: by how often the corpus is read.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    seq_length: Annotated[
        int | None, typer.Option(help="Characters a window.", rich_help_panel=_TRAINING)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Windows a step.", rich_help_panel=_TRAINING)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak of the schedule.", rich_help_panel=_TRAINING)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of weights and windows. Default: 0.", rich_help_panel=_TRAINING),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run that was stopped or killed, with its settings.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(help="Longest time between checkpoints.", rich_help_panel=_OUTPUT),
    ] = 2.0,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(
            help="Where to train. Default: auto, a GPU if there is one.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8", "all"] | None,
        typer.Option(
            help="fp16 and int8 are written next to the fp32 file they are made of. Default: fp32.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A checkpoint or an fp32 artifact to export, instead of training.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    text_file: Annotated[
        Path | None,
        typer.Option(
            "--text",
            help="With --from: the text to score on, such as the corpus.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    max_loss_increase: Annotated[
        float | None,
        typer.Option(
            help="Refuse a precision that costs more nats a character. Default: 0.005.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(
            help="Train nothing; prove this artifact against --checkpoint.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="With --verify: the checkpoint that it was exported from.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and exit.")
    ] = False,
) -> None:
    """Train a character model on a text and export it as one sealed .onnx file.

    With no options, model size and training time follow from the size of the corpus. The file runs
    with [bold]chargen-ort[/bold], or with any ONNX runtime.
    """
    begun = time.monotonic() - time.process_time()  # about when the process began
    if version:
        print(f"train-export {__version__}")
        return
    wait_briefly()  # before PyTorch is imported
    with _imports():  # here, so that --help is quick
        from chargen_export.convert import convert
        from chargen_export.display import Display
        from chargen_export.pipeline import train_and_export, training_path
        from chargen_export.precision import MAX_LOSS_INCREASE
        from chargen_export.signals import StopSignals
        from chargen_ort.artifact import Artifact
        from chargen_train.corpus import Corpus
        from chargen_train.progress import TrainingStoppedError
        from chargen_train.run_folder import RunFolder

    settings = {
        "minutes": minutes,
        "epochs": epochs,
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "embedding_dim": embedding_dim,
        "dropout": dropout,
        "seq_length": seq_length,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "device": device,
    }
    only_training = {"preset": preset, **settings, "resume": resume or None}
    limit = MAX_LOSS_INCREASE if max_loss_increase is None else max_loss_increase
    display = Display(sys.stderr)
    signals = StopSignals()
    written: list[Path] = []

    def show(artifact: Artifact, path: Path, start: str | None = None) -> None:
        written.append(path)
        display.finish(artifact, path, _run_command(path, start))

    def on_written(text: Corpus, artifact: Artifact, path: Path) -> None:
        start = text.vocabulary.decode(text.tokens[:40]).strip().split("\n")[0][:4]
        show(artifact, path, start)

    events = replace(
        display.events,
        on_written=on_written,
        should_stop=signals.should_stop,
        on_last_step=signals.no_more_steps,
    )
    run: RunFolder | None = None
    resume_command = _resume_command(
        corpus,
        out=out,
        precision=precision,
        max_loss_increase=max_loss_increase,
        overwrite=overwrite or None,
    )

    def go_on() -> str:
        return f"; go on with: {resume_command}" if run is not None and run.unfinished else ""

    try:
        if verify or checkpoint:
            others: dict[str, object] = {
                "corpus": corpus,
                "from": source,
                "out": out,
                "text": text_file,
            }
            others |= {"precision": precision, "overwrite": overwrite or None, **only_training}
            _verify(verify, checkpoint, others)
            return
        _check_source(corpus, source, text_file, only_training)
        if source:
            converted = convert(source, precision or "fp32", text_file, out, limit, overwrite)
            for artifact, path in converted:
                show(artifact, path)
        if corpus:
            run = RunFolder(training_path(corpus, out))
            with signals, display:
                train_and_export(
                    corpus, out, preset, events, resume, checkpoint_minutes, begun,
                    precision or "fp32", limit, overwrite, **settings,
                )  # fmt: skip
    except TrainingStoppedError as error:
        _fail(f"{error}; go on with: {resume_command}", signals.status)
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
        _fail(f"interrupted; {outcome}{go_on()}", signals.status)
    out_stream = SteadyStream(sys.stdout)
    if not out_stream.isatty():
        out_stream.write(f"{written[-1]}\n")  # for scripts: model=$(train-export corpus.txt)
        out_stream.flush()


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


def _is_about_memory(error: RuntimeError) -> bool:
    """Whether PyTorch says that there is too little of it."""
    text = str(error).lower()
    return "allocate memory" in text or "out of memory" in text


def _resume_command(corpus: Path | None, **options: object) -> str:
    words = ["train-export", str(corpus)]
    for name, value in options.items():
        if value is not None:
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return shlex.join([*words, "--resume"])


def _check_source(
    corpus: Path | None, source: Path | None, text: Path | None, training: Mapping[str, object]
) -> None:
    if (corpus is None) == (source is None):
        raise OptionError(
            "give a corpus to train on, or --from with a checkpoint or an fp32 artifact, one of "
            "them"
        )
    if text and not source:
        raise OptionError("--text goes with --from; a corpus is scored on its own held-out tail")
    if source:
        _refuse(training, "--from trains nothing")


def _verify(artifact: Path | None, checkpoint: Path | None, others: Mapping[str, object]) -> None:
    from chargen_export.verify import verify_against_checkpoint

    if artifact is None or checkpoint is None:
        raise OptionError(
            "--verify takes an artifact and --checkpoint what it was exported from, give both; "
            "without a checkpoint, chargen-ort verify checks all that it can"
        )
    _refuse(others, "--verify only reads")
    verdicts = verify_against_checkpoint(artifact, checkpoint)
    for verdict in verdicts:
        print(verdict)
    if any(verdict.passed is False for verdict in verdicts):
        raise typer.Exit(1)


def _refuse(given: Mapping[str, object], reason: str) -> None:
    """Refuse options that do not go with the work asked for."""
    for name, value in given.items():
        if value is not None:
            option = "a corpus" if name == "corpus" else f"--{name.replace('_', '-')}"
            raise OptionError(f"{option} is of no use here: {reason}; leave it out")


def _run_command(path: Path, start: str | None = None) -> str:
    command = f"chargen-ort --model {shlex.quote(str(path))}"
    return command if start is None else f"{command} --start {shlex.quote(start)}"


def _fail(message: object, status: int) -> NoReturn:
    stream = SteadyStream(sys.stderr)
    stream.write(f"train-export: {visible(str(message))}\n")
    stream.flush()
    raise typer.Exit(status)


def main() -> None:
    """Entry point of train-export."""
    with_standard_streams(lambda: app(prog_name="train-export"))
