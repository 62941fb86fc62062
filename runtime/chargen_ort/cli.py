"""The command chargen-ort: options and printing."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from chargen_ort.generator import CharGenerator

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

_NAME = "chargen-ort"
_TEXT, _SAMPLING, _OUTPUT = "Text", "Sampling", "Output"


Unknown = Literal["error", "skip", "replace"]  # UnknownPolicy, whose module needs NumPy


@app.callback(invoke_without_command=True)
def generate(
    context: typer.Context,
    start: Annotated[
        str,
        typer.Option(
            help="Text to go on from; empty begins a text, - reads standard input.",
            rich_help_panel=_TEXT,
        ),
    ] = "",
    length: Annotated[
        int, typer.Option(help="New characters at most.", rich_help_panel=_TEXT)
    ] = 200,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End at this text; may be repeated.", rich_help_panel=_TEXT),
    ] = None,
    unknown: Annotated[
        Unknown | None,
        typer.Option(
            help="What to do with a character that the model does not know.",
            rich_help_panel=_TEXT,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="An .onnx file of train-export. If none is named: $CHARGEN_MODEL, else the newest "
            "in ./artifacts, else the demo.",
            rich_help_panel=_TEXT,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Below 1 plays safe, above 1 dares; 0 always takes the likeliest.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(help="Only the K likeliest; 0 is off.", rich_help_panel=_SAMPLING),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Only the likeliest with mass P.", rich_help_panel=_SAMPLING),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            help="Only those at least P times as likely as the likeliest.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(help="Above 1 discourages what was used.", rich_help_panel=_SAMPLING),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed gives the same text.", rich_help_panel=_SAMPLING),
    ] = None,
    num: Annotated[
        int, typer.Option(help="So many texts, a line end after each.", rich_help_panel=_OUTPUT)
    ] = 1,
    batch_size: Annotated[
        int, typer.Option(help="Texts written side by side.", rich_help_panel=_OUTPUT)
    ] = 64,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object a line.", rich_help_panel=_OUTPUT),
    ] = False,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Send control characters to a terminal too.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Write text with a model that train-export made.

    The text alone goes to standard output; the model and the seed go to standard error.
    """
    if context.invoked_subcommand:
        return
    from chargen_ort._version import __version__
    from chargen_ort.terminal import command, report, write_text

    if version:
        print(f"{_NAME} {__version__}")
        return
    with command(_NAME):
        from chargen_ort.generator import whole_number
        from chargen_ort.sampling import fresh_seed

        whole_number("num", num, 1, 1 << 40)
        start = read_start(start)
        generator, path = open_model(model)
        given = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
            "stop": tuple(stop) if stop else None,
            "seed": fresh_seed() if seed is None else seed,
        }
        options = generator.options(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
        generator.vocabulary.encode(start, unknown)  # refuse it before anything is printed
        if num == 1 and not as_json:
            stream = generator.stream(start, length, options=options, unknown=unknown)
            report(f"model {path}, seed {stream.seed}")
            echo_start(start)
            write_text(_with_line_end(stream), raw)
            return
        texts = generator.iterate_batch(
            (start for _ in range(num)),
            length,
            options=options,
            batch_size=batch_size,
            unknown=unknown,
        )
        report(f"model {path}, seed {options.seed}")
        write_text(_lines(texts, start, options.seed, as_json), raw)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="An .onnx file of train-export.")],
) -> None:
    """Check a model file: seal, graph, weights, and test vectors; a verdict a line."""
    from chargen_ort.terminal import command, write_text

    with command(f"{_NAME} verify"):
        from chargen_ort.artifact import read_artifact
        from chargen_ort.verify import verify_artifact

        verdicts = verify_artifact(read_artifact(file))
        write_text(f"{verdict}\n" for verdict in verdicts)
    if any(verdict.passed is False for verdict in verdicts):
        raise typer.Exit(1)


def open_model(path: Path | None) -> "tuple[CharGenerator, Path]":
    """The model at `path`, or the one that is used when none is named."""
    from chargen_ort.generator import CharGenerator
    from chargen_ort.models import find_model

    path = path or find_model()
    return CharGenerator.load(path), path


def read_start(start: str) -> str:
    """`start`, or standard input without its last line end if it is "-"."""
    from chargen_ort.text import decode_text

    if start != "-":
        return start
    data = sys.stdin.buffer.read() if sys.stdin else b""
    return decode_text(data, "standard input").removesuffix("\n")


def echo_start(start: str) -> None:
    """Where a person watches, show the start before its continuation, dimmed, on stderr."""
    from chargen_ort.terminal import visible

    if sys.stderr and sys.stdout and sys.stderr.isatty() and sys.stdout.isatty():
        sys.stderr.write(f"\x1b[2m{visible(start)}\x1b[0m")
        sys.stderr.flush()


def _with_line_end(pieces: Iterator[str]) -> Iterator[str]:
    yield from pieces
    yield "\n"


def _lines(
    texts: Iterator[tuple[int, str]], start: str, seed: int | None, as_json: bool
) -> Iterator[str]:
    """The texts in the order of their rows, each as soon as those before it are there."""
    waiting: dict[int, str] = {}
    due = 0
    for index, text in texts:
        waiting[index] = text
        while due in waiting:
            text = waiting.pop(due)
            if as_json:
                text = json.dumps({"start": start, "text": text, "seed": seed, "row": due})
            yield text + "\n"
            due += 1


def main() -> None:
    """Entry point of chargen-ort."""
    app(prog_name=_NAME)
