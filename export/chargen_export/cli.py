"""The command train-export: options and printing."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from chargen_ort.errors import ChargenError, OptionError, ParityError, TrainingError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

_MODEL, _TRAINING, _OUTPUT = "Model", "Training", "Run"
_PRECISION = "Precision"


@app.command(no_args_is_help=True)
def train_export(
    corpus: Annotated[
        Path | None, typer.Argument(help="A UTF-8 text file, 2 characters or more.")
    ] = None,
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
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(
            help="Where to train. Default: auto, a GPU if there is one.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8", "all"],
        typer.Option(
            help="fp16 and int8 are written next to the fp32 file they are made of.",
            rich_help_panel=_PRECISION,
        ),
    ] = "fp32",
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="An fp32 artifact to make other precisions of, instead of training.",
            rich_help_panel=_PRECISION,
        ),
    ] = None,
    text_file: Annotated[
        Path | None,
        typer.Option(
            "--text",
            help="With --from: the text to score on, such as the corpus.",
            rich_help_panel=_PRECISION,
        ),
    ] = None,
    max_loss_increase: Annotated[
        float | None,
        typer.Option(
            help="Refuse a precision that costs more nats a character. Default: 0.005.",
            rich_help_panel=_PRECISION,
        ),
    ] = None,
) -> None:
    """Train a character model on a text and export it as one sealed .onnx file.

    With no options, model size and training time follow from the size of the corpus. The file runs
    with [bold]chargen-ort[/bold], or with any ONNX runtime.
    """
    try:  # here, so that --help is quick
        from chargen_export.display import Display
        from chargen_export.pipeline import train_and_export
        from chargen_export.precision import MAX_LOSS_INCREASE
        from chargen_export.variants import convert, corpus_gate_text, write_variants
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; run: pip install 'chargen-ort[train]'", 2)

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
    display = Display(sys.stderr)
    limit = MAX_LOSS_INCREASE if max_loss_increase is None else max_loss_increase
    path: Path | None = None
    try:
        _check_source(corpus, source, text_file, {"preset": preset, **settings})
        if source:
            for artifact, path in convert(source, precision, text_file, out, limit):
                display.finish(artifact, path, _run_command(path))
        if corpus:
            with display:
                artifact, path, text = train_and_export(
                    corpus, out, preset, display.events, **settings
                )
            start = text.vocabulary.decode(text.tokens[:40]).strip().split("\n")[0][:4]
            display.finish(artifact, path, _run_command(path, start))
            gate_text = corpus_gate_text(text)
            variants = write_variants(artifact, path, precision, gate_text, limit)
            for variant, path in variants:
                display.finish(variant, path, _run_command(path, start))
    except (ParityError, TrainingError) as error:
        _fail(error, 1)
    except ChargenError as error:
        _fail(error, 2)
    except KeyboardInterrupt:
        _fail("interrupted; no artifact was written", 130)
    if not sys.stdout.isatty():
        print(path)  # for scripts: model=$(train-export corpus.txt)


def _check_source(
    corpus: Path | None, source: Path | None, text: Path | None, settings: dict[str, object]
) -> None:
    if (corpus is None) == (source is None):
        raise OptionError("give a corpus to train on, or --from with an fp32 artifact, one of them")
    if text and not source:
        raise OptionError("--text goes with --from; a corpus is scored on its own held-out tail")
    given = [name for name, value in settings.items() if value is not None]
    if source and given:
        option = "--" + given[0].replace("_", "-")
        raise OptionError(f"{option} is for training, and --from trains nothing; leave it out")


def _run_command(path: Path, start: str | None = None) -> str:
    command = f"chargen-ort --model {shlex.quote(str(path))}"
    return command if start is None else f"{command} --start {shlex.quote(start)}"


def _fail(message: object, status: int) -> NoReturn:
    print(f"train-export: {message}", file=sys.stderr)
    raise typer.Exit(status)


def main() -> None:
    """Entry point of train-export."""
    app(prog_name="train-export")
