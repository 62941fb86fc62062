"""The command chargen-ort: options and printing."""

import json
import sys
from collections.abc import Iterator
from io import BytesIO
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
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive", help="A prompt that keeps its state.", rich_help_panel=_OUTPUT
        ),
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
        from chargen_ort.errors import OptionError
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
        if interactive:
            from chargen_ort.interactive import run_interactive

            if num != 1 or as_json:
                raise OptionError(
                    "interactive writes one text at a time: leave out --num and --json"
                )
            report(f"model {path}, seed {options.seed}")
            run_interactive(generator, start, length, options, unknown, raw)
            return
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


_Model = Annotated[
    Path | None, typer.Option("--model", help="An .onnx file; if none is named, as above.")
]


@app.command()
def score(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="A UTF-8 text file; - reads standard input.")],
    model: _Model = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="Begin from a zero state every N characters instead of carrying it through."
        ),
    ] = None,
    lines: Annotated[
        bool,
        typer.Option(
            "--lines",
            help="One score a line: log probability (nats), bits per character, the line.",
        ),
    ] = False,
    unknown: Annotated[
        Unknown | None, typer.Option(help="What to do with a character that is not known.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """How likely the model finds a text: log probability, bits per character, perplexity."""
    from chargen_ort.terminal import command, report, write_text

    with command(_NAME):
        from chargen_ort.errors import OptionError
        from chargen_ort.reports import line_scores, text_score

        if lines and window is not None:
            raise OptionError("window is for a whole text; leave it out, or leave out --lines")
        text = read_file(file)
        generator, path = open_model(model or _parent_model(context))
        report(f"model {path}")
        if lines:
            write_text(line_scores(generator, text, unknown, as_json))
        else:
            write_text(text_score(generator, text, window, unknown, as_json))


@app.command()
def info(
    context: typer.Context,
    model: Annotated[Path | None, typer.Argument(help="An .onnx file of train-export.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """What is inside a model, what it was trained on, how good it is, how parity was proven."""
    from chargen_ort.terminal import command, write_text

    with command(_NAME):
        from chargen_ort.artifact import read_artifact
        from chargen_ort.models import find_model
        from chargen_ort.reports import describe

        path = model or _parent_model(context) or find_model()
        write_text(describe(read_artifact(path), str(path), as_json))


def _parent_model(context: typer.Context) -> Path | None:
    """The --model that stands before the subcommand."""
    named = context.parent.params.get("model") if context.parent else None
    return Path(named) if named else None


def read_file(name: str) -> str:
    """The text of a file, or of standard input if the name is "-"."""
    from chargen_ort.terminal import report
    from chargen_ort.text import read_stream, read_text

    if name != "-":
        text = read_text(Path(name))
    else:
        text = read_stream(sys.stdin.buffer if sys.stdin else BytesIO(), "standard input")
    for note in text.notes:
        report(f"note: {note}")
    return text.text


def open_model(path: Path | None) -> "tuple[CharGenerator, Path]":
    """The model at `path`, or the one that is used when none is named."""
    from chargen_ort.generator import CharGenerator
    from chargen_ort.models import find_model

    path = path or find_model()
    return CharGenerator.load(path), path


def read_start(start: str) -> str:
    """`start`, or standard input without its last line end if it is "-"."""
    return read_file("-").removesuffix("\n") if start == "-" else start


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
