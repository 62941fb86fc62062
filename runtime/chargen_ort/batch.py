"""Many texts at once: a batch whose places are refilled as texts end."""

from collections.abc import Iterator
from itertools import chain, count, islice

from chargen_ort.batch_confined import ConfinedBatch
from chargen_ort.batch_pieces import PieceBatch
from chargen_ort.batch_plain import Batch, WrittenText
from chargen_ort.engine import Engine
from chargen_ort.options import SamplingOptions
from chargen_ort.vocabulary import UnknownPolicy
from chargen_ort.writer import is_plain

_MANY = 32  # rows from which on it pays to remember how texts begin


def write_texts(
    engine: Engine,
    starts: Iterator[str],
    length: int,
    options: SamplingOptions,
    batch_size: int,
    unknown: UnknownPolicy | None,
    rows: Iterator[int] | None = None,
) -> Iterator[WrittenText]:
    """Write a text for each start and yield it as it ends.

    Args:
        engine: the model that is open.
        starts: what to go on from; there may be any number of them, and they are read as needed.
        length: characters of a text at most, 0 or more.
        options: with a seed; text i is row i of its family.
        batch_size: how many texts are written side by side, at least 1.
        unknown: policy for characters of the starts; None is the model's own.
        rows: the number of each text, all different; None counts from 0.

    Raises:
        OptionError: the text is confined, and none goes on from a start.
        UnknownCharacterError: a start has a character that the model does not know.
    """
    numbered = zip(count() if rows is None else rows, starts, strict=False)
    first = list(islice(numbered, batch_size))
    if length == 0:
        yield from (WrittenText(index, "", "length") for index, _ in chain(first, numbered))
        return
    if not first:
        return
    batch = _open_batch(engine, len(first), length, options, unknown)
    for place, (index, start) in enumerate(first):
        batch.begin(place, index, start)
    while batch.active.any():
        for place in batch.step():
            yield batch.written(place)
            following = next(numbered, None)
            if following is None:
                batch.active[place] = False
            else:
                batch.begin(place, *following)
        batch.compact()


def _open_batch(
    engine: Engine,
    size: int,
    length: int,
    options: SamplingOptions,
    unknown: UnknownPolicy | None,
) -> Batch:
    if options.controlled:
        return ConfinedBatch(engine, size, length, options, unknown)
    by_character, ends = engine.vocabulary.unit == "char", engine.vocabulary.end_token is not None
    # texts that end early begin alike; where a stop string may end within a token, each text looks
    # for it by itself
    short = (ends or bool(options.stops)) if by_character else (ends and not options.stops)
    alike = short and options.temperature > 0 and options.repetition_penalty == 1
    in_runs = is_plain(options, len(engine.vocabulary))
    shared = engine.beginnings(options, in_runs) if alike and size >= _MANY else None
    kind = Batch if by_character else PieceBatch
    return kind(engine, size, length, options, unknown, shared)
