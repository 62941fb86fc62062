"""Lines in, a line of figures for each out: what `chargen-ort score --lines` prints, in any order.

Lines are scored some at a time, in this process or in others (`chargen_ort.workers`). What is
printed for a line is the same bytes in either, whatever was scored beside it.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chargen_ort.errors import OptionError, UnknownCharacterError
from chargen_ort.generator import CharGenerator
from chargen_ort.score import Score
from chargen_ort.score_reader import LINE_END
from chargen_ort.shading import shaded
from chargen_ort.terminal import visible
from chargen_ort.vocabulary import UnknownPolicy

LINES_AT_ONCE = 16_384  # the more, the more of them begin alike, which is read once
CHARACTERS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class LineOptions:
    """How lines are scored and printed.

    Attributes:
        unknown: as in `CharGenerator.score`.
        as_json: objects rather than columns.
        above: print only lines of a higher percentile; None prints all.
        count: print none of them.
        coloured: shade each character of a line by its surprise.
    """

    unknown: UnknownPolicy | None = None
    as_json: bool = False
    above: float | None = None
    count: bool = False
    coloured: bool = False


@dataclass(frozen=True)
class SomeLines:
    """Lines that stand one after the other; the first of them is number `first`, from 1."""

    first: int
    lines: list[str]


@dataclass(frozen=True)
class Report:
    """What there is to say of some lines.

    Attributes:
        output: for standard output.
        complaints: a sentence for each line that was refused.
        lines: how many were scored or refused.
        odd: how many of them are above the percentile that was asked for.
    """

    output: str
    complaints: tuple[str, ...]
    lines: int
    odd: int


def check_lines(generator: CharGenerator, above: float) -> None:
    """Refuse a percentile that this model cannot tell of a line.

    Raises:
        OptionError: no percentile, above what the quantiles of the file tell apart, or of a file
            without quantiles of lines.
    """
    known = generator.engine.calibration
    if known is None:
        raise OptionError(
            "the model's file has no quantiles of held-out scores, so it cannot tell what is odd; "
            "train it with --holdout spread, or with --holdout and a file of other texts"
        )
    if known.window is not None:
        raise OptionError(
            "the model learnt running text, so it knows how odd windows are, not lines; leave out "
            "--lines, or train it with --documents lines"
        )
    check_highest(generator, above)


def check_highest(generator: CharGenerator, above: float) -> None:
    """Refuse a percentile that the quantiles of the file do not tell.

    Raises:
        OptionError: not from 0 to the highest that there is.
    """
    known = generator.engine.calibration
    highest = known.highest if known else 0.0
    if not 0 <= above < highest:
        raise OptionError(
            f"above is {above:g}; the {known.count if known else 0:,} held-out texts of this model "
            f"tell percentiles from 0 to below {math.floor(highest * 1000) / 1000:g}"
        )


def some_at_once(pieces: Iterable[str]) -> Iterator[SomeLines]:
    """The lines of a text, as many at a time as one piece completes, and not too many."""
    number, rest = 1, [""]
    for piece in pieces:
        head, *others = piece.split(LINE_END)
        rest.append(head)
        if others:
            lines = ["".join(rest), *others[:-1]]
            rest = others[-1:]
            yield from _cut(number, lines)
            number += len(lines)
    if last := "".join(rest):
        yield SomeLines(number, [last])


def _cut(number: int, lines: list[str]) -> Iterator[SomeLines]:
    begin, characters = 0, 0
    for place, line in enumerate(lines):
        if place - begin == LINES_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield SomeLines(number + begin, lines[begin:place])
            begin, characters = place, 0
        characters += len(line)
    yield SomeLines(number + begin, lines[begin:])


def score_some(generator: CharGenerator, some: SomeLines, options: LineOptions) -> Report:
    """Score lines and say what is to be printed.

    The columns are the log probability in nats, bits per character, the percentile among held-out
    lines, the number of unknown characters, and the line. Each line is scored as a text of its own,
    from its beginning to its end, which is one of the characters scored: the end token of a model
    of documents, or else the line end, if the model knows it.

    A line without a score has ``-`` (null in JSON) in each column of figures: an empty one, where
    the model knows no end, and with the policy ``error`` one that has an unknown character. So has
    the percentile where the model does not know it.
    """
    scores, complaints = _scores_of(generator, some, options.unknown)
    shown: list[str] = []
    odd = 0
    for line, score in zip(some.lines, scores, strict=True):
        percentile = score.percentile if score else None
        if options.above is not None:
            if percentile is None or percentile <= options.above:
                continue
            odd += 1
        if not options.count:
            shown.append(_shown(line, score, percentile, options))
    return Report("".join(shown), complaints, len(some.lines), odd)


def _shown(line: str, score: Score | None, percentile: float | None, options: LineOptions) -> str:
    if options.as_json:
        return json.dumps({"line": line, **score_figures(score)}) + "\n"
    if score is None:
        return f"-\t-\t-\t-\t{visible(line) if options.coloured else line}\n"
    nats = score.character_log_probabilities if options.coloured else None
    if nats is not None:
        line = shaded(line, nats)
    place = "-" if percentile is None else f"{percentile:.3f}"
    return f"{score.total:.4f}\t{score.bits_per_char:.4f}\t{place}\t{score.unknown}\t{line}\n"


def _scores_of(
    generator: CharGenerator, some: SomeLines, unknown: UnknownPolicy | None
) -> tuple[list[Score | None], tuple[str, ...]]:
    """A score for each line or None, and what was refused."""
    has_end = generator.config.end or LINE_END in generator.vocabulary.characters
    places: list[int] = []
    complaints: list[str] = []
    for place, line in enumerate(some.lines):
        try:
            if unknown == "error":
                generator.vocabulary.encode(line, unknown)
        except UnknownCharacterError as error:
            complaints.append(f"line {some.first + place}: {error}")
        else:
            if line or has_end:
                places.append(place)
    scores: list[Score | None] = [None] * len(some.lines)
    texts = [some.lines[place] for place in places]
    scored = generator.iterate_scores(texts, unknown=unknown, end=True)
    for place, score in zip(places, scored, strict=True):
        scores[place] = score
    return scores, tuple(complaints)


def score_figures(score: Score | None) -> dict[str, float | int | None]:
    """What is said of a score in JSON: null in each figure where there is none."""
    if score is None:
        names = ("characters", "unknown", "log_probability", "nats_per_char", "bits_per_char")
        return dict.fromkeys((*names, "perplexity", "percentile"))
    figures: dict[str, float | int | None] = {
        "characters": score.characters,
        "unknown": score.unknown,
        "log_probability": score.total,
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity if math.isfinite(score.perplexity) else None,
        "percentile": score.percentile,
    }
    if score.tokens is not None:
        figures |= token_figures(score)
    return figures


def token_figures(score: Score) -> dict[str, float | int | None]:
    """What is said of a score by tokens, where these are no characters."""
    return {"tokens": score.tokens, "nats_per_token": score.nats_per_token}
