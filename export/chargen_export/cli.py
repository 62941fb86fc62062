"""The command train-export: options and printing."""

import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from chargen_ort.errors import ChargenError, ParityError, TrainingError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

_MODEL, _TRAINING, _OUTPUT = "Model", "Training", "Run"


@app.command(no_args_is_help=True)
def train_export(
    corpus: Annotated[Path, typer.Argument(help="A UTF-8 text file, 2 characters or more.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write. Default: artifacts/<corpus name>.onnx.", rich_help_panel=_OUTPUT
        ),
    ] = None,
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
        typer.Option(help="Probability, 0 to 0.9.", rich_help_panel=_TRAINING),
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
) -> None:
    """Train a character model on a text and export it as one sealed .onnx file.

    With no options, model size and training time follow from the size of the corpus. The file runs
    with [bold]chargen-ort[/bold], or with any ONNX runtime.
    """
    begun = time.monotonic() - time.process_time()  # about when the process began
    try:  # here, so that --help is quick
        from chargen_export.display import Display
        from chargen_export.pipeline import DEFAULT_FOLDER, train_and_export
        from chargen_export.signals import StopSignals
        from chargen_train.progress import TrainingStoppedError
        from chargen_train.run_folder import RunFolder
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; run: pip install 'chargen-ort[train]'", 2)

    display = Display(sys.stderr)
    path = out or DEFAULT_FOLDER / f"{corpus.stem}.onnx"
    signals = StopSignals()
    events = replace(
        display.events, should_stop=signals.should_stop, on_last_step=signals.no_more_steps
    )
    try:
        with signals, display:
            artifact, path, text = train_and_export(
                corpus,
                out,
                preset,
                events,
                resume,
                checkpoint_minutes,
                begun,
                minutes=minutes,
                epochs=epochs,
                hidden_size=hidden_size,
                num_layers=num_layers,
                embedding_dim=embedding_dim,
                dropout=dropout,
                seq_length=seq_length,
                batch_size=batch_size,
                learning_rate=learning_rate,
                seed=seed,
                device=device,
            )
    except TrainingStoppedError as error:
        _fail(f"{error}; go on with: {_resume_command(corpus, out)}", signals.status)
    except (ParityError, TrainingError) as error:
        _fail(error, 1)
    except ChargenError as error:
        _fail(error, 2)
    except KeyboardInterrupt:
        hint = ""
        if RunFolder(path).unfinished:
            hint = f"; go on with: {_resume_command(corpus, out)}"
        _fail(f"interrupted; no artifact was written{hint}", signals.status)
    start = text.vocabulary.decode(text.tokens[:40]).strip().split("\n")[0][:4]
    command = f"chargen-ort --model {shlex.quote(str(path))} --start {shlex.quote(start)}"
    display.finish(artifact, path, command)
    if not sys.stdout.isatty():
        print(path)  # for scripts: model=$(train-export corpus.txt)


def _resume_command(corpus: Path, out: Path | None) -> str:
    words = ["train-export", str(corpus), *(["--out", str(out)] if out else []), "--resume"]
    return shlex.join(words)


def _fail(message: object, status: int) -> NoReturn:
    print(f"train-export: {message}", file=sys.stderr)
    raise typer.Exit(status)


def main() -> None:
    """Entry point of train-export."""
    app(prog_name="train-export")
