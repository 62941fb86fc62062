"""Where a text stands in the language that it is confined to."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.patterns import DONE, UNKNOWN, Control

if TYPE_CHECKING:
    from llguidance import LLMatcher


class Place:
    """Where one text stands in its language.

    Args:
        control: the language.
        tokens: of the text so far.
        begun, room: see `Control.new_matcher`.

    Attributes:
        control, begun, room: as given.
        tokens: of the text so far, its start included.
        node: of `control`.
        size: how many characters those have.
        start: how many tokens the text had at first.
        consumed: how many of the tokens the matcher has read.

    Raises:
        OptionError: no text of the language begins so.
    """

    def __init__(
        self,
        control: Control,
        tokens: Iterable[int] = (),
        begun: int = 0,
        room: int | None = None,
    ) -> None:
        self.control = control
        self._bound: int | None
        self._matcher: LLMatcher | None
        self.restart(tokens, begun, room)
        self.start = len(self.tokens)

    @property
    def accepting(self) -> bool:
        """Whether the text may end here."""
        return bool(self.control.accepting[self.node])

    @property
    def closed(self) -> bool:
        """Whether no character may follow."""
        return bool(self.control.closed[self.node])

    @property
    def blocked(self) -> NDArray[np.bool_]:
        """The tokens that may not be drawn, bool ``[vocab_size]``."""
        blocked: NDArray[np.bool_] = self.control.blocked[self.node]
        return blocked

    def matcher(self) -> "LLMatcher":
        """One that has read the tokens so far."""
        if self._matcher is None:
            self._matcher, self.consumed = self.control.new_matcher(self.begun, self._bound), 0
        if rest := self.tokens[self.consumed :]:
            self._matcher.consume_tokens(rest)
            self.consumed = len(self.tokens)
        return self._matcher

    def child(self, token: int) -> int:
        """The node behind a token; `OUT` if it leads out of the language."""
        node = int(self.control.children[self.node, token])
        return node if node != UNKNOWN else self._find_child(token)

    def _find_child(self, token: int) -> int:
        node, is_read = self.control.find_child(self.node, token, self.matcher)
        self.consumed += is_read
        return node

    def move(self, token: int, node: int) -> None:
        """Go to the child behind a token."""
        self.move_on([token], node)

    def move_on(self, tokens: Sequence[int], node: int) -> None:
        """Go to the node behind several tokens."""
        self.node = node
        self.tokens += tokens
        self.size += sum(map(self.control.length_list.__getitem__, tokens))
        if self.control.full and node > DONE:
            self.adopt(self.control.renewed())

    def stand(self, drawn: Sequence[int], node: int) -> None:
        """Stand where the text is after `drawn`, the tokens beyond its start."""
        self.tokens[self.start :] = drawn
        self.size, self.node = self.control.size(self.tokens), node

    @property
    def far(self) -> bool:
        """Whether the room for the text does not decide about the next draws."""
        return self._bound is None and self.room is not None

    def approach(self) -> None:
        """Have the room for the text decide about the next draws, if it is near enough to."""
        if self.far:
            bound = self.control.bound(self.size, self.room)
            if bound is not None:
                self._bound, self._matcher = bound, None
                self.node = self.control.near(self.node, bound - self.size, self.matcher)

    def adopt(self, control: Control) -> None:
        """Go on in the same language, which has no nodes yet."""
        matcher, name = self.matcher(), self.control.name(self.node)
        self.control, self.node = control, control.add_node(matcher, name)

    def go_back(self, tokens: Sequence[int]) -> None:
        """Stand again where the text had these tokens, which are a beginning of what it has."""
        self.restart(tokens, self.begun, self.room)

    def restart(self, tokens: Iterable[int] = (), begun: int = 0, room: int | None = None) -> None:
        """Stand where a text has these tokens; the arguments and errors are those of the class."""
        tokens = list(tokens)
        self.node = self.control.root(tokens, begun, room)
        self.tokens, self.begun, self.room = tokens, begun, room
        self.size = self.control.size(tokens)
        self._bound = self.control.bound(self.size, room)
        self._matcher, self.consumed = None, 0

    def check(self, tokens: Sequence[int]) -> None:
        """Refuse tokens that the text cannot go on by.

        Raises:
            OptionError: no text of the language goes on so.
        """
        self.control.root([*self.tokens, *tokens], self.begun, self.room)

    def feed(self, tokens: Sequence[int]) -> None:
        """Go on by tokens that were not drawn; errors are those of `check`."""
        self.restart([*self.tokens, *tokens], self.begun, self.room)

    def confine(self, tokens: Sequence[int], length: int | None, ready: int = 0) -> None:
        """Bound what follows after `tokens`, which are then to be fed.

        Args:
            tokens: that the text goes on by; stop strings are looked for behind them.
            length: characters at most after that; None is any number.
            ready: how many characters at the end of the text count as what follows.

        Raises:
            OptionError: no text of the language goes on so.
        """
        both = [*self.tokens, *tokens]
        begun = int(self.control.lengths[both].sum()) - ready if both else 0
        room = None if length is None else begun + length
        self.control.root(both, begun, room)
        self.restart(self.tokens, begun, room)
