"""What `chargen-ort score` does: figures of a text, of its lines, or of what is odd in it."""

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from chargen_ort.documents import cut_documents
from chargen_ort.errors import OptionError
from chargen_ort.generator import CharGenerator
from chargen_ort.lines import LineOptions, check_highest, check_lines, some_at_once
from chargen_ort.reports import odd_windows, text_score
from chargen_ort.score import Score
from chargen_ort.shading import Colour, in_colour, legend, shaded
from chargen_ort.terminal import OutputError, Progress, write_text

_SHADED = 4096  # characters of a text that is shaded on a terminal without being asked to


@dataclass(frozen=True)
class ScoreRequest:
    """What a person asked for.

    Attributes:
        options: how lines or windows are printed; whether they are shaded is decided later.
        lines: whether each line is a text.
        window: characters after which a whole text is read from a zero state again.
        colour: when to shade.
        jobs: processes that score lines.
    """

    options: LineOptions
    lines: bool = False
    window: int | None = None
    colour: Colour = "auto"
    jobs: int = 1

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            OptionError: names it and what to do.
        """
        if self.lines and self.window is not None:
            raise OptionError("window is for a whole text; leave it out, or leave out --lines")
        if self.jobs > 1 and not self.lines:
            raise OptionError("--jobs is for lines; leave it out, or add --lines")
        if self.options.count and self.options.above is None:
            raise OptionError("--count is of what is odd; add --above with a percentile")


def score_lines(
    generator: CharGenerator,
    pieces: Iterable[str],
    request: ScoreRequest,
    share: Callable[[], float | None],
    complain: Callable[[str], None],
) -> None:
    """Print what there is to say of each line, as the lines come.

    Args:
        generator: the model.
        pieces: of the text, in order.
        request: what was asked for.
        share: how much of the text was read, if that is known.
        complain: is told of each line that was refused.

    Raises:
        ChargenError: `--above` of a model that cannot tell, or what `pieces` raises.
        OutputError: standard output cannot take the text.
    """
    from chargen_ort.workers import score_in_order  # here, as it imports multiprocessing

    options = _decided(request)
    if options.above is not None:
        check_lines(generator, options.above)
    lines = odd = 0
    if options.coloured:
        write_text([legend()], raw=True)
    progress = Progress()
    try:
        lots = some_at_once(pieces)
        with (
            _after_workers(request.jobs),
            closing(score_in_order(generator, lots, options, request.jobs)) as reports,
        ):
            for report in reports:
                if report.output:
                    write_text([report.output], raw=options.coloured)
                for complaint in report.complaints:
                    complain(complaint)
                lines, odd = lines + report.lines, odd + report.odd
                progress.show(lines, share())
    finally:
        progress.end()
    if options.count:
        _write_count(options, lines, odd)


@contextmanager
def _after_workers(jobs: int) -> Iterator[None]:
    """Where a reader closes the pipe, let that end the process, but only after its workers."""
    if jobs == 1 or not hasattr(signal, "SIGPIPE"):
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
    except OutputError as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)
    finally:
        signal.signal(signal.SIGPIPE, before)


def score_whole(generator: CharGenerator, text: str, request: ScoreRequest) -> None:
    """Print the figures of a text, or with ``--above`` its odd windows.

    Raises:
        ChargenError: `--above` of a model that cannot tell, or a text that cannot be scored.
        OutputError: standard output cannot take the text.
    """
    options = _decided(request)
    if options.above is None:
        short = len(text) <= _SHADED or request.colour == "always"
        if options.coloured and short and not options.as_json:
            _write_shaded(generator, text, options)
        write_text(text_score(generator, text, request.window, options.unknown, options.as_json))
        return
    known = generator.engine.calibration
    if known is None or known.window is None:
        check_lines(generator, options.above)  # which may refuse as well
        raise OptionError("the model learnt documents, and tells which lines are odd; add --lines")
    if generator.config.unit != "char":
        raise OptionError(
            "above tells which windows are odd of models of characters, and this model's unit is "
            f"{generator.config.unit}; leave it out"
        )
    if request.window not in (None, known.window):
        raise OptionError(
            f"window is {request.window}, but the model knows how odd windows of {known.window} "
            "characters are; leave it out"
        )
    check_highest(generator, options.above)
    windows = odd = 0
    if options.coloured:
        write_text([legend()], raw=True)
    for is_odd, output in odd_windows(generator, text, options):
        write_text([output], raw=options.coloured)
        windows, odd = windows + 1, odd + is_odd
    if options.count:
        _write_count(options, windows, odd)


def _decided(request: ScoreRequest) -> LineOptions:
    terminal = sys.stdout is not None and sys.stdout.isatty()
    coloured = in_colour(request.colour, terminal)
    plain = request.options.as_json or request.options.count
    return replace(request.options, coloured=coloured and not plain)


def _write_shaded(generator: CharGenerator, text: str, options: LineOptions) -> None:
    """The text in its shades; of a model of documents, each of them from its own beginning."""
    if generator.config.end:
        kind = generator.artifact.training.split.documents
        scores = generator.score_batch(
            list(cut_documents([text], kind)) or [""], unknown=options.unknown
        )
    elif len(text) > 1:
        scores = [generator.score(text, window=None, unknown=options.unknown)]
    else:
        return
    write_text([legend(), *(_shown(score) for score in scores), "\n"], raw=True)


def _shown(score: Score) -> str:
    nats = score.character_log_probabilities
    return "" if score.text is None or nats is None else shaded(score.text, nats) + "\n"


def _write_count(options: LineOptions, read: int, odd: int) -> None:
    if options.as_json:
        write_text([json.dumps({"read": read, "above": options.above, "odd": odd}) + "\n"])
    else:
        write_text([f"{odd}\n"])
