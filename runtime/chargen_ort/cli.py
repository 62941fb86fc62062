"""The command chargen-ort: options and printing."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from chargen_ort import cli_options as opt
from chargen_ort._version import __version__
from chargen_ort.checks import whole_number
from chargen_ort.cli_usage import OneLineGroup
from chargen_ort.errors import ChargenError, OptionError
from chargen_ort.escapes import unescape
from chargen_ort.models import ChosenModel, choose_model, naming
from chargen_ort.options import MAX_LENGTH, SamplingOptions, SamplingOverrides
from chargen_ort.serve.cli import serve
from chargen_ort.terminal import Complaints, OutputError, command, report, write_text

if TYPE_CHECKING:
    from chargen_ort.batch_plain import WrittenText
    from chargen_ort.generator import CharGenerator
    from chargen_ort.novelty import Novelty
    from chargen_ort.text import TextReader

app = typer.Typer(
    cls=OneLineGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_NAME = "chargen-ort"
_MOST_TEXTS, _MOST_AT_ONCE, _MOST_JOBS = 1 << 40, 1 << 16, 256


@app.callback(invoke_without_command=True)
@opt.with_sampling_options
def generate(
    context: typer.Context,
    start: opt.Start = "",
    length: opt.Length = 200,
    stop: opt.Stop = None,
    unknown: opt.StartUnknown = None,
    model: opt.WriterModel = None,
    pattern: opt.Pattern = None,
    ban: opt.Ban = None,
    exact: opt.Exact = False,
    unique: opt.Unique = False,
    new: opt.New = False,
    not_in: opt.NotIn = None,
    num: opt.Num = 1,
    batch_size: opt.BatchSize = 64,
    no_echo: opt.NoEcho = False,
    as_json: opt.AsJson = False,
    interactive: opt.Interactive = False,
    raw: opt.Raw = False,
    version: opt.Version = False,
    **sampling: Any,
) -> None:
    """Write text with a model that train-export made.

    The text alone goes to standard output; the model and the seed go to standard error.
    """
    if context.invoked_subcommand:
        return

    if version:
        print(f"{_NAME} {__version__}")
        return
    with command(_NAME):
        from chargen_ort.sampling import fresh_seed

        shaped = as_json or no_echo or unique or new or bool(not_in)
        _check_request(length, num, batch_size, interactive, shaped)
        given = sampling | {"stop": read_stops(stop), "pattern": pattern}
        given |= {"ban": read_stops(ban, "--ban"), "exact": exact or None}
        if given["seed"] is None:
            given["seed"] = fresh_seed()
        chosen_ones = {name: value for name, value in given.items() if value is not None}
        overrides = cast("SamplingOverrides", chosen_ones)
        SamplingOptions(**overrides)  # what is wrong with any model is refused before one is read
        start = read_start(start)
        generator, chosen, options = open_writer(model, start, length, unknown, overrides)
        novelty = read_novelty(chosen, generator, unique, new, not_in or [])
        report(f"model {chosen}, seed {options.seed}")
        if interactive:
            from chargen_ort.interactive import run_interactive

            run_interactive(generator, chosen, start, length, options, unknown, raw)
        elif num == 1 and not as_json and novelty is None:
            stream = generator.stream(start, length, options=options, unknown=unknown)
            write_text(chain(["" if no_echo else start], stream, ["\n"]), raw)
        else:
            from chargen_ort.batch import write_texts
            from chargen_ort.reports import in_order, written_lines, written_objects

            starts = repeat(start, num) if novelty is None else repeat(start)
            batch_size = min(batch_size, num)
            texts = write_texts(generator.engine, starts, length, options, batch_size, unknown)
            texts = in_order(texts)
            if novelty is not None:
                texts = choose_texts(novelty, texts, start, num)
            if as_json:
                lines = written_objects(generator.engine, texts, start, length, options, unknown)
            else:
                lines = written_lines(texts, "" if no_echo else start)
            write_text(lines, raw)


def _check_request(length: int, num: int, batch_size: int, interactive: bool, shaped: bool) -> None:
    """Refuse numbers out of range, and with --interactive what shapes the output."""
    whole_number("num", num, 1, _MOST_TEXTS)
    whole_number("length", length, 0, MAX_LENGTH)
    whole_number("batch_size", batch_size, 1, _MOST_AT_ONCE)
    if interactive and (num != 1 or shaped):
        raise OptionError(
            "--interactive writes one text at a time: leave out --num, --json, --no-echo, "
            "--unique, --new and --not-in"
        )


@app.command()
def verify(context: typer.Context, file: opt.File = None, model: opt.Model = None) -> None:
    """Check a model file: its seal, graph, weights and test vectors, with a verdict on each."""
    with command(f"{_NAME} verify"):
        from chargen_ort.artifact import read_artifact
        from chargen_ort.verify import verify_artifact

        named = file, model, _parent_model(context)
        chosen = choose_model(*named)
        with naming(chosen):
            verdicts = verify_artifact(read_artifact(chosen.path))
        if not any(named):
            report(f"model {chosen}")
        write_text(f"{verdict}\n" for verdict in verdicts)
    if any(verdict.passed is False for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def score(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="A text file; - reads standard input.")],
    model: opt.Model = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="Begin from a zero state every N characters, instead of carrying the state "
            "through the text."
        ),
    ] = None,
    lines: Annotated[
        bool,
        typer.Option(
            "--lines",
            help="Score each line as a text of its own, from its beginning to its line end, as "
            "the lines come. The columns are log probability in nats, bits per character, "
            "percentile among the held-out lines of the training, number of unknown characters, "
            "and the line.",
        ),
    ] = False,
    above: Annotated[
        float | None,
        typer.Option(
            help="Print only lines that are odder than this percent of the held-out lines; of a "
            "model of running text, and without --lines, only windows, each after its place in "
            "the text. 99 prints about 1 of 100 ordinary ones."
        ),
    ] = None,
    count: Annotated[
        bool, typer.Option("--count", help="Print how many --above would print, instead of them.")
    ] = False,
    colour: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(
            help="Shade each character by its surprise. auto does on a terminal, but for whole "
            "texts of more than 4,096 characters, and unless NO_COLOR is set."
        ),
    ] = "auto",
    jobs: Annotated[int, typer.Option(help="How many processes score lines; the order stays.")] = 1,
    unknown: Annotated[
        opt.Unknown | None,
        typer.Option(
            help="How the model reads on after a character that it does not know: skip leaves the "
            "character out, replace reads the model's replacement instead. error refuses the text, "
            "or with --lines that line alone, which makes the exit status 1 at the end. By default "
            "the model's own setting decides, but error becomes skip.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the same figures as JSON objects.")
    ] = False,
) -> None:
    """Say how likely the model finds a text: log probability, bits per character, perplexity.

    A character that the model does not know counts as likely as the character
    that the model finds least likely at that place, and the number of them is
    shown.
    """
    complaints = Complaints()
    with command(_NAME):
        from chargen_ort.lines import LineOptions
        from chargen_ort.scorer import ScoreRequest, score_lines, score_whole

        if window is not None:
            whole_number("window", window, 1, MAX_LENGTH)
        whole_number("jobs", jobs, 1, _MOST_JOBS)
        options = LineOptions(unknown, as_json, above, count)
        request = ScoreRequest(options, lines, window, colour, jobs)
        request.check()
        chosen = choose_model(model, _parent_model(context))

        def complain(message: str) -> None:
            complaints.add(f"{_NAME}: {chosen.blame(message)}")

        if lines:
            with _open_live(file) as (reader, share), naming(chosen):
                generator = load_model(chosen)
                report(f"model {chosen}")
                score_lines(generator, reader, request, share, complain)
                _tell(reader.notes)
        else:
            text = read_file(file)
            with naming(chosen):
                generator = load_model(chosen)
                report(f"model {chosen}")
                score_whole(generator, text, request)
    if complaints.count:
        raise typer.Exit(1)


@app.command()
def info(
    context: typer.Context,
    file: opt.File = None,
    model: opt.Model = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the same facts as a JSON object.")
    ] = False,
) -> None:
    """Show what is inside a model: its training, how good it is, how its parity was proven."""
    with command(_NAME):
        from chargen_ort.artifact import read_artifact
        from chargen_ort.reports import describe

        chosen = choose_model(file, model, _parent_model(context))
        with naming(chosen):
            write_text(describe(read_artifact(chosen.path), chosen, as_json))


@app.command()
def web(
    model: Annotated[Path, typer.Argument(help="An .onnx file of train-export.")],
    out: Annotated[Path, typer.Argument(help="The page to write, an .html file.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is no such page.")
    ] = False,
) -> None:
    """Write one HTML file that has the model in it: open it in a browser, or send it to a friend.

    It writes and scores text without a server and without a network.
    """
    with command(f"{_NAME} web"):
        from chargen_ort.artifact import read_artifact
        from chargen_ort.page import page_bytes, write_page

        artifact = read_artifact(model)
        if out.exists() and out.samefile(model):
            raise OptionError(f"{out} is the model itself; name another file")
        data = page_bytes(artifact, model.stem)
        write_page(out, data, overwrite)
        report(f"{out}: {len(data):,} bytes; open it in a browser")


app.command()(serve)


def _parent_model(context: typer.Context) -> Path | None:
    """The --model that stands before the subcommand."""
    named = context.parent.params.get("model") if context.parent else None
    return Path(named) if named else None


def read_file(name: str) -> str:
    """The text of a file, or of standard input if the name is "-"."""
    from chargen_ort.text import read_stream, read_text

    if name != "-":
        text = read_text(Path(name))
    else:
        text = read_stream(sys.stdin.buffer if sys.stdin else BytesIO(), "standard input")
    _tell(text.notes)
    return text.text


@contextlib.contextmanager
def _open_live(name: str) -> "Iterator[tuple[TextReader, Callable[[], float | None]]]":
    """A file or standard input, read as it comes, and what share of it was read if one can tell."""
    from chargen_ort.text import open_live, open_text

    if name == "-":
        with open_live(sys.stdin.buffer if sys.stdin else BytesIO(), "standard input") as reader:
            yield reader, lambda: None
        return
    with open_text(Path(name), live=True) as reader:
        size = Path(name).stat().st_size
        yield reader, lambda: reader.bytes_read / size if size else None


def _tell(notes: tuple[str, ...]) -> None:
    for note in notes:
        report(f"note: {note}")


def read_start(start: str) -> str:
    """`start` without its escapes; if it is "-", standard input without its last line end."""
    return read_file("-").removesuffix("\n") if start == "-" else unescape("--start", start)


def read_stops(stops: list[str] | None, option: str = "--stop") -> tuple[str, ...] | None:
    """The strings of an option without their escapes, or None if none was given."""
    return tuple(unescape(option, stop) for stop in stops) if stops else None


def read_novelty(
    chosen: ChosenModel, generator: "CharGenerator", unique: bool, new: bool, not_in: list[Path]
) -> "Novelty | None":
    """Which texts are passed on; None is all of them."""
    if not (unique or new or not_in):
        return None
    from chargen_ort.document_filter import filter_of
    from chargen_ort.novelty import Novelty, read_lines

    artifact = generator.artifact
    documents = filter_of(chosen.path, artifact.training, artifact.filter) if new else None
    return Novelty(unique, documents, read_lines(not_in))


def choose_texts(
    novelty: "Novelty", texts: "Iterable[WrittenText]", start: str, num: int
) -> "Iterator[WrittenText]":
    """The first `num` texts that are new; that there are no more is the output's failure."""
    from chargen_ort.novelty import NothingNewError

    try:
        yield from novelty.choose(texts, start, num)
    except NothingNewError as error:
        raise OutputError(str(error)) from None


def load_model(chosen: ChosenModel) -> "CharGenerator":
    """Open the model that was chosen."""
    from chargen_ort.generator import CharGenerator

    return CharGenerator.load(chosen.path)


def open_writer(
    model: Path | None,
    start: str,
    length: int,
    unknown: opt.Unknown | None,
    sampling: SamplingOverrides,
) -> "tuple[CharGenerator, ChosenModel, SamplingOptions]":
    """Open the model and check the start and the options against it, before a text is begun.

    Raises:
        ChargenError: what is wrong about the model, which the message names.
    """
    chosen = choose_model(model)
    with naming(chosen, (ChargenError,)):
        from chargen_ort.places import Place

        generator = load_model(chosen)
        options = generator.options(**sampling)
        tokens = generator.vocabulary.encode(start, unknown)
        if options.controlled:
            Place(generator.engine.control(options)).confine(tokens.tolist(), length)
    return generator, chosen, options


def main() -> None:
    """Entry point of chargen-ort."""
    app(prog_name=_NAME)
