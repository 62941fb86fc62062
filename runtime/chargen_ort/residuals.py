"""What the rest of a text depends on: names for the places in a language.

Two beginnings of texts with the same name can go on alike, by the same tokens to the same ends, so
they share a node of `chargen_ort.patterns` and what llguidance said of it. Of a pattern the name is
the set of its positions that the text may stand at (Glushkov, "The abstract theory of automata",
1961), of banned and stop strings where their automaton stands, of lengths what is left of them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from chargen_ort.config import Config
from chargen_ort.options import SamplingOptions
from chargen_ort.sampling import StopFinder
from chargen_ort.token_classes import CATEGORIES, parse_pattern

_MOST_POSITIONS = 1024  # of a pattern that has names


class Whole(NamedTuple):
    """Where a text stands, stop strings and the room for it left aside.

    Attributes:
        positions: of the pattern, a bit each.
        banned: node of the automaton of banned strings.
        short, left: characters that are missing to the minimum, and to the maximum if there is one.
    """

    positions: int
    banned: int
    short: int
    left: int | None


class Name(NamedTuple):
    """Where a text stands.

    Attributes:
        whole: without its stop strings, now, and before that as far back as one may have begun.
        room: characters that may follow; None is any number.
        unsearched: characters that follow before stop strings are looked for.
        found, ending: nodes of the automaton of stop strings, of what it is looking for and of the
            whole text.
    """

    whole: tuple[Whole, ...]
    room: int | None
    unsearched: int
    found: int
    ending: int


class Namer:
    """Names the places in a language.

    Args:
        config: of the model that writes.
        options: what confines the texts.

    Attributes:
        far: no text that may go on needs more characters to its end, once it is as long as it must
            be; None if that is not known.
    """

    def __init__(self, config: Config, options: SamplingOptions) -> None:
        self._options = options
        self._banned, self._stops = StopFinder(options.ban), StopFinder(options.stops)
        characters = config.vocabulary.characters
        self._pattern = None if options.pattern is None else _read(options.pattern, characters)
        self._known = options.pattern is None or self._pattern is not None
        self.far: int | None = None
        if options.pattern is None:
            self.far = 0
        elif self._pattern is not None and not (options.ban or options.stops):
            self.far = self._pattern.far
        if options.max_length is not None:
            self.far = None

    def first(self, begun: int, room: int | None) -> Name | None:
        """The name of the beginning of a text, None if it has none; see `Control.new_matcher`."""
        if not self._known:
            return None
        options = self._options
        whole = Whole(1, 0, options.min_length, options.max_length)
        return Name((whole,), room, begun, 0, 0)

    def after(self, name: Name | None, text: str) -> Name | None:
        """The name of the place behind `text`; None if it has none, or no text goes on so."""
        for character in text:
            if name is None:
                break
            name = self._after(name, character)
        return name

    def _after(self, name: Name, character: str) -> Name | None:
        last = name.whole[-1]
        if name.room == 0 or self._stops.found(name.found):
            return None
        positions = last.positions
        if self._pattern is not None:
            known = self._pattern.after(positions, character)
            if not known:
                return None
            positions = known
        banned = self._banned.after(last.banned, character)
        if self._banned.found(banned):
            return None
        left = None if last.left is None else last.left - 1
        whole = Whole(positions, banned, max(0, last.short - 1), left)
        ending = self._stops.after(name.ending, character)
        return Name(
            (*name.whole, whole)[-1 - self._stops.depth(ending) :],
            None if name.room is None else name.room - 1,
            max(0, name.unsearched - 1),
            0 if name.unsearched else self._stops.after(name.found, character),
            ending,
        )


class _Pattern:
    """The positions of a pattern: position 0 is its beginning, each other one reads a character.

    Sets of positions are whole numbers, with a bit for each.

    Attributes:
        far: as of `Namer`.
    """

    def __init__(self, tree: Iterable[Any], characters: Sequence[str]) -> None:
        self._sets: dict[str, tuple[bool, list[Any]]] = {}  # of characters
        self._readers: dict[str, int] = {}  # the positions that read one of such a set
        self._follow = [0]  # by position: those that may come next
        _, self._follow[0], self._last = self._sequence(tree)
        # by character: the positions that read it; None where Python and Rust might differ
        self._reading = {each: self._positions_of(ord(each)) for each in characters}
        self._following: dict[int, int] = {}
        self.far = self._longest_way()

    def after(self, positions: int, character: str) -> int | None:
        """The positions behind a character; None if they are not known."""
        reading = self._reading.get(character)
        if reading is None:
            return None
        if positions not in self._following:
            self._following[positions] = _union(self._follow[each] for each in _bits(positions))
        return self._following[positions] & reading

    def _positions_of(self, point: int) -> int | None:
        found = 0
        for key, (negated, items) in self._sets.items():
            if point > 127 and any(str(name) == "CATEGORY" for name, _ in items):
                return None
            if any(_contains(name, value, point) for name, value in items) != negated:
                found |= self._readers[key]
        return found

    def _longest_way(self) -> int | None:
        """The most steps that a way to the end has, where each position takes its shortest one."""
        if None in self._reading.values():
            return None
        before = [0] * len(self._follow)
        for position, follow in enumerate(self._follow):
            for each in _bits(follow):
                before[each] |= 1 << position
        usable = 1 | _union(each or 0 for each in self._reading.values())
        newest = reached = self._last & usable
        steps = -1
        while newest:
            newest = _union(before[each] for each in _bits(newest)) & usable & ~reached
            reached |= newest
            steps += 1
        return max(0, steps)

    def _sequence(self, parts: Iterable[Any]) -> tuple[bool, int, int]:
        """Whether it may be empty, and the positions it may begin with and end with."""
        empty, first, last = True, 0, 0
        for name, value in parts:
            part_empty, part_first, part_last = self._part(str(name), value)
            self._join(last, part_first)
            first |= part_first if empty else 0
            last = part_last | (last if part_empty else 0)
            empty = empty and part_empty
        return empty, first, last

    def _part(self, name: str, value: Any) -> tuple[bool, int, int]:
        if name == "SUBPATTERN":
            return self._sequence(value[-1])
        if name == "BRANCH":
            ways = [self._sequence(way) for way in value[1]]
            empty = any(way[0] for way in ways)
            return empty, _union(way[1] for way in ways), _union(way[2] for way in ways)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(*value)
        negated = name == "NOT_LITERAL"
        if name == "IN":
            negated = str(value[0][0]) == "NEGATE"
            items = list(value)[negated:]
        elif name == "ANY":
            negated, items = True, [("LITERAL", 10)]
        elif name in ("LITERAL", "NOT_LITERAL"):
            items = [("LITERAL", value)]
        else:
            raise ValueError(f"{name} has no positions")
        if len(self._follow) > _MOST_POSITIONS:
            raise ValueError("too many positions")
        key, position = f"{negated} {items}", 1 << len(self._follow)
        self._follow.append(0)
        self._sets[key] = negated, items
        self._readers[key] = self._readers.get(key, 0) | position
        return False, position, position

    def _repeat(self, low: int, high: Any, parts: Any) -> tuple[bool, int, int]:
        endless = str(high) == "MAXREPEAT"
        empty, first, last, before, part_first = low == 0, 0, 0, 0, 0
        for copy in range(max(low, 1) if endless else int(high)):
            part_empty, part_first, part_last = self._sequence(parts)
            self._join(before, part_first)
            first |= 0 if copy else part_first
            last |= part_last if part_empty or copy + 1 >= low else 0
            empty, before = empty or part_empty, part_last
        if endless:
            self._join(before, part_first)
        return empty, first, last

    def _join(self, last: int, first: int) -> None:
        for position in _bits(last):
            self._follow[position] |= first


def _read(pattern: str, characters: Sequence[str]) -> _Pattern | None:
    """The positions of a pattern; None if they are too many or not known."""
    tree = parse_pattern(anchored(pattern))
    if tree is None:
        return None
    try:
        return _Pattern(tree, characters)
    except (ValueError, RecursionError):
        return None


def anchored(pattern: str) -> str:
    """A pattern without the anchors that stand at its ends, which mean what is meant anyhow."""
    pattern = pattern.removeprefix("^").removeprefix("\\A")
    if re.search(r"(?<!\\)(\\\\)*\$$", pattern):
        return pattern[:-1]
    return pattern[:-2] if re.search(r"(?<!\\)(\\\\)*\\z$", pattern) else pattern


def _contains(name: Any, value: Any, point: int) -> bool:
    """Whether a part of a class of characters, as `re` parses it, has a code point."""
    if str(name) == "LITERAL":
        return bool(value == point)
    if str(name) == "RANGE":
        return bool(value[0] <= point <= value[1])
    _, *negated, kind = str(value).split("_")
    return (point in CATEGORIES[kind]) != bool(negated)


def _union(sets: Iterable[int]) -> int:
    result = 0
    for each in sets:
        result |= each
    return result


def _bits(positions: int) -> Iterator[int]:
    while positions:
        yield (positions & -positions).bit_length() - 1
        positions &= positions - 1
