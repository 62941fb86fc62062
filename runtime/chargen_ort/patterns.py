"""Texts that are confined: which tokens may come next, so that a text ends as it should.

The language of a text is a regular one: the pattern, the bounds of its length, what is banned, the
stop strings and the characters that the model has, all intersected. llguidance (Microsoft, by
derivatives of regular expressions) says which tokens still lead to one of its texts, so there are
no dead ends. What it says of a place is kept as a node of a graph that all texts share: tokens that
the pattern cannot tell apart are one way, and beginnings that go on alike (`chargen_ort.residuals`)
are one node. So most steps are a look into a table. A language without such names is a tree.

    whole = P & .{min,max} & ~(.*ban.*)
    text  = whole & .{begun} ~(.*stop.*)  |  whole stop & .{begun} ~(.*stop.+)
    text & [characters of the model]{0,room}
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import shown_value
from chargen_ort.config import Config
from chargen_ort.errors import OptionError
from chargen_ort.graphs.writer import LOWEST
from chargen_ort.options import SamplingOptions
from chargen_ort.residuals import Name, Namer, anchored
from chargen_ort.runs import MOST_WRITTEN
from chargen_ort.token_classes import token_bytes, token_classes, token_lengths

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# nodes: it is not known yet; no text of the language begins so; the model has ended the text
UNKNOWN, OUT, DONE = 0, 1, 2
_FIRST = 3
_MOST_CELLS = 1 << 22  # nodes times tokens: 55 MB
_MOST_ROOTS = 256  # beginnings that are remembered
_MOST_LEADERS = 64  # classes of tokens that are looked up together
# forced bytes would be cut into tokens by a tokenizer, where any of several ways is allowed
_HEAD = '%llguidance {"no_forcing": true}\nstart: T\nT: '
_INSTALL = "pip install 'chargen-ort[pattern]'"


class Control:
    """The language that texts are confined to, and the graph of the places in them.

    Args:
        config: of the model that writes.
        options: what confines the texts.

    Attributes:
        options: as given.
        texts: of the tokens.
        children: the node behind each token, ``[nodes, vocab_size]``.
        blocked: the tokens that may not be drawn, bool ``[nodes, vocab_size]``.
        masks: what makes their scores such, float32 ``[nodes, vocab_size]``: `LOWEST` or 0.
        accepting: whether the text may end there, bool ``[nodes]``.
        closed: whether no character may follow, bool ``[nodes]``.
        lengths: how many characters the tokens have, ``[vocab_size]``; `length_list` has the same.
        margin: while more characters than this may follow, how many does not matter to the next
            draws, as many as one run makes; None if that is not known.
        found: another number before more of `children` is known.
        may_leave: whether a text that may end does so where a token leads out of the language.

    Raises:
        OptionError: a pattern that is none, the unit is byte, or llguidance is not installed.
    """

    def __init__(self, config: Config, options: SamplingOptions) -> None:
        if config.unit == "byte":
            raise OptionError(
                "pattern, min_length, max_length and ban are for models whose tokens are "
                "characters or pieces, and this model's unit is byte; leave them out"
            )
        self._config, self.options = config, options
        self._tokens = token_bytes(config)
        self.texts = config.tokens
        self.lengths = token_lengths(config)  # characters, [vocab_size]
        self.length_list: list[int] = self.lengths.tolist()
        self.end = config.vocabulary.end_token
        # a text of a model without an end token ends where the model leaves the pattern
        self.may_leave = self.end is None and options.pattern is not None
        self._tokenizer = _open_tokenizer(self._tokens, self.end)
        if options.pattern is not None:
            self._check_pattern(options.pattern)
        self._classes = token_classes(config, options)
        leaders = np.unique(self._classes, return_index=True)[1].tolist()
        self._leaders = leaders if len(leaders) <= _MOST_LEADERS else []  # one of each class
        self._namer = Namer(config, options)
        far = self._namer.far
        self.margin = None if far is None else far + (MOST_WRITTEN + 1) * int(self.lengths.max())
        self._lock = RLock()  # of what is below
        self.found = 0  # how often children were found
        self._matchers: dict[tuple[int, int | None], LLMatcher] = {}
        self._roots: dict[tuple[tuple[int, ...], int, int | None], int] = {}
        self._count = _FIRST
        self._names: list[Name | None] = [None] * _FIRST  # of the nodes
        self._named: dict[Name | None, int] = {}
        rows, count = 64, len(self._tokens)
        self.children = np.full((rows, count), UNKNOWN, dtype=np.int64)
        self.blocked = np.zeros((rows, count), dtype=bool)
        self.masks = np.zeros((rows, count), dtype=np.float32)
        self.accepting = np.zeros(rows, dtype=bool)
        self.closed = np.zeros(rows, dtype=bool)
        self.children[:_FIRST] = OUT

    @property
    def full(self) -> bool:
        """Whether it has so many nodes that a new one should take its place."""
        return self._count * self.blocked.shape[1] > _MOST_CELLS or len(self._roots) > _MOST_ROOTS

    def renewed(self) -> "Control":
        """The same language without its nodes."""
        return Control(self._config, self.options)

    def new_matcher(self, begun: int, room: int | None) -> "LLMatcher":
        """A matcher before the first token of a text.

        Args:
            begun: characters of the text in which no stop string is looked for.
            room: characters of the text at most; None is any number.

        Raises:
            OptionError: no text of the model's characters is in the language.
        """
        with self._lock:
            key = begun, room
            if key not in self._matchers:
                if len(self._matchers) >= _MOST_ROOTS:
                    self._matchers.clear()
                self._matchers[key] = self._compile(begun, room)
            return self._matchers[key].deep_copy()

    def bound(self, size: int, room: int | None) -> int | None:
        """`room` where it may matter to the next draws of a text of so many characters, or None."""
        if room is None or self.margin is None or size < self.options.min_length:
            return room
        return None if room - size > self.margin else room

    def size(self, tokens: Sequence[int]) -> int:
        """How many characters tokens have."""
        return int(self.lengths[list(tokens)].sum()) if tokens else 0

    def root(self, tokens: Sequence[int], begun: int, room: int | None) -> int:
        """The node of a text that begins with `tokens`, within its `bound`; see `new_matcher`.

        Raises:
            OptionError: no text of the language begins so.
        """
        with self._lock:
            bound = self.bound(self.size(tokens), room)
            key = tuple(tokens), begun, bound
            if key not in self._roots:
                name = self._namer.first(begun, bound)
                name = self._namer.after(name, "".join(self.texts[token] for token in tokens))
                node = self._named.get(name) if name is not None else None
                if node is None:
                    matcher = self.new_matcher(begun, bound)
                    if tokens and not matcher.consume_tokens(list(tokens)):
                        raise OptionError(self._refusal(tokens, room))
                    node = self.add_node(matcher, name)
                if not self._viable(node):
                    raise OptionError(self._refusal(tokens, room))
                self._roots[key] = node
            return self._roots[key]

    def near(self, node: int, room: int, matcher: "Callable[[], LLMatcher]") -> int:
        """The node, where `room` characters may follow, of a place where any number might.

        `matcher` gives one that has read the text, within its room.
        """
        with self._lock:
            name = self.name(node)
            name = None if name is None else name._replace(room=room)
            known = None if name is None else self._named.get(name)
            return self.add_node(matcher(), name) if known is None else known

    def name(self, node: int) -> Name | None:
        """The name of a node, if it has one."""
        return self._names[node]

    def _viable(self, node: int) -> bool:
        return bool(self.accepting[node]) or not self.blocked[node].all()

    def add_node(self, matcher: "LLMatcher", name: Name | None) -> int:
        """A node for the place where a matcher stands, which has a name or none."""
        with self._lock:
            allowed = self._allowed(matcher)
            if self._count == len(self.accepting):
                self._grow()
            node = self._count
            accepting = matcher.is_accepting()
            if self.end is not None:
                allowed[self.end] = accepting
            self.accepting[node] = accepting
            self.closed[node] = not allowed[self._text_tokens].any()
            leaves = accepting and self.may_leave
            if not leaves:
                self.blocked[node] = ~allowed
                self.masks[node, ~allowed] = LOWEST
            if self.end is not None:
                self.children[node, self.end] = DONE if accepting else OUT
            self._count += 1
            self._names.append(name)
            if name is not None:
                self._named[name] = node
            return node

    def _allowed(self, matcher: "LLMatcher") -> NDArray[np.bool_]:
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little")[: len(self._tokens)].astype(bool)

    @cached_property
    def _text_tokens(self) -> slice:
        return slice(0, len(self._tokens) - (self.end is not None))

    def _grow(self) -> None:
        rows = len(self.accepting)
        # new arrays, so that whoever holds the old ones goes on with them
        self.children = np.concatenate([self.children, np.full_like(self.children, UNKNOWN)])
        self.blocked = np.concatenate([self.blocked, np.zeros_like(self.blocked)])
        self.masks = np.concatenate([self.masks, np.zeros_like(self.masks)])
        self.accepting = np.concatenate([self.accepting, np.zeros(rows, dtype=bool)])
        self.closed = np.concatenate([self.closed, np.zeros(rows, dtype=bool)])

    def find_child(
        self, node: int, token: int, matcher: "Callable[[], LLMatcher]"
    ) -> tuple[int, bool]:
        """The node behind a token that no text took before.

        Args:
            node: before it.
            token: that is taken.
            matcher: gives one that has read the text up to `node`.

        Returns:
            the node, and whether the matcher has read the token.
        """
        with self._lock:
            known = int(self.children[node, token])
            if known != UNKNOWN:
                return known, False
            self.found += 1
            name = self._namer.after(self._names[node], self.texts[token])
            known = self._named.get(name, OUT) if name is not None else OUT
            is_read = False
            if known == OUT:
                reader = matcher()
                if reader.validate_tokens([token]):
                    is_read = reader.consume_token(token)
                    known = self.add_node(reader, name)
            self.children[node, self._classes == self._classes[token]] = known
            self._link(node)
            return known, is_read

    def _link(self, node: int) -> None:
        """Lead the other tokens behind a node to the nodes that there are."""
        name = self._names[node]
        for token in self._leaders if name is not None else ():
            if self.children[node, token] == UNKNOWN:
                child = self._named.get(self._namer.after(name, self.texts[token]))
                if child is not None:
                    self.children[node, self._classes == self._classes[token]] = child

    def _check_pattern(self, pattern: str) -> None:
        from llguidance import LLMatcher

        error = LLMatcher.validate_grammar(f"{_HEAD}{_lark(anchored(pattern))}", self._tokenizer)
        if error:
            lines = [line for line in error.splitlines() if line.startswith("error: ")]
            reason = lines[0].removeprefix("error: ") if lines else error.splitlines()[0]
            reason = reason.split(": ")[-1][:200] if not lines else reason[:200]
            raise OptionError(f"pattern is {shown_value(pattern)}: {reason}")

    def _compile(self, begun: int, room: int | None) -> "LLMatcher":
        from llguidance import LLMatcher

        grammar = _HEAD + self._language(begun, room)
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
        if matcher.is_error():
            raise OptionError(
                f"pattern is {shown_value(self.options.pattern)}, which is too large together with "
                "the lengths and the banned and stop strings; give a simpler one"
            )
        return matcher

    def _language(self, begun: int, room: int | None) -> str:
        """The language in the syntax of llguidance's Lark, see the head of this module."""
        options = self.options
        pattern = "(?s:.*)" if options.pattern is None else anchored(options.pattern)
        parts = [_lark(pattern)]
        if options.min_length or options.max_length is not None:
            most = "" if options.max_length is None else options.max_length
            parts.append(f"/(?s:.{{{options.min_length},{most}}})/")
        if options.ban:
            parts.append(f"~/(?s:.*(?:{_any_of(options.ban)}).*)/")
        text = whole = _both(parts)
        if stops := options.stops:
            before, found = f"/(?s:.{{{begun}}})/", _any_of(stops)
            none = f"({before} (~/(?s:.*(?:{found}).*)/))"
            first = f"({before} (~/(?s:.*(?:{found}).+)/))"
            ways = [_both([whole, none])]
            for stop in stops:
                # the longest stop string that a text ends with is the one that is not part of it
                longer = [each for each in stops if each != stop and each.endswith(stop)]
                last = [f"~/(?s:.*(?:{_any_of(longer)}))/"] if longer else []
                ways.append(_both([f"({whole} /{_any_of([stop])}/)", first, *last]))
            text = "(" + " | ".join(ways) + ")"
        size = "*" if room is None else f"{{0,{room}}}"
        return _both([text, f"/[{self._alphabet}]{size}/"])

    @cached_property
    def _alphabet(self) -> str:
        points = sorted({ord(character) for character in self._config.vocabulary.characters})
        ranges: list[list[int]] = []
        for point in points:
            if ranges and ranges[-1][1] == point - 1:
                ranges[-1][1] = point
            else:
                ranges.append([point, point])
        return "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in ranges)

    def _refusal(self, tokens: Sequence[int], room: int | None) -> str:
        start = "".join(self._config.tokens[token] for token in tokens)
        options = self.options
        asked = [
            f"matches the pattern {shown_value(options.pattern)}"
            if options.pattern is not None
            else "",
            f"has {options.min_length} characters or more" if options.min_length else "",
            f"has at most {options.max_length} characters"
            if options.max_length is not None
            else "",
            "is without what is banned" if options.ban else "",
            f"ends within {room} characters, the start included" if room is not None else "",
        ]
        wanted = ", ".join(part for part in asked if part)
        begins = f"begins with {shown_value(start)} and " if start else ""
        return f"no text of this model's characters {begins}{wanted}; ask for less"


def _lark(pattern: str) -> str:
    """A regular expression as a term of Lark."""
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(pattern, '')}/" if pattern else '""'


def _any_of(texts: Sequence[str]) -> str:
    """A regular expression for any of some texts."""
    return "|".join("".join(f"\\x{{{ord(c):x}}}" for c in text) for text in texts)


def _both(parts: Sequence[str]) -> str:
    """What is in all of some languages."""
    return "(" + " & ".join(f"({part})" for part in parts) + ")" if len(parts) > 1 else parts[0]


def _open_tokenizer(tokens: list[bytes], end: int | None) -> "LLTokenizer":
    """The vocabulary as llguidance has it; a model without an end token gets one there.

    Raises:
        OptionError: llguidance is not installed.
    """
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError:
        raise OptionError(
            "pattern, min_length, max_length and ban need llguidance, which is not installed: "
            f"{_INSTALL}"
        ) from None

    class Tokens:
        """What llguidance asks for."""

        eos_token_id = len(tokens) if end is None else end
        bos_token_id = None
        special_token_ids = (eos_token_id,)

        def __init__(self) -> None:
            self.tokens = list(tokens)
            self.tokens[self.eos_token_id :] = [b"<end>"]

        def __call__(self, text: bytes) -> list[int]:
            return []

    size = len(tokens) + (end is None)
    # no slices: they are for vocabularies of a hundred thousand
    return LLTokenizer(TokenizerWrapper(Tokens()), n_vocab=size, slices=[])
