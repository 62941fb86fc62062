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
        consumed: how many of the tokens the matcher has read.
        drawn: how many of them were drawn, where a batch keeps count.

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
        self.control, self.begun, self.room = control, begun, room
        self.tokens = list(tokens)
        self.node = control.root(self.tokens, begun, room)
        self._matcher: LLMatcher | None = None
        self.consumed = self.drawn = 0

    @property
    def characters(self) -> int:
        """How many characters the text has so far."""
        return int(self.control.lengths[self.tokens].sum()) if self.tokens else 0

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
            self._matcher, self.consumed = self.control.new_matcher(self.begun, self.room), 0
        if rest := self.tokens[self.consumed :]:
            self._matcher.consume_tokens(rest)
            self.consumed = len(self.tokens)
        return self._matcher

    def child(self, token: int) -> int:
        """The node behind a token; `OUT` if it leads out of the language."""
        control = self.control
        node = int(control.children[self.node, token])
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
        if self.control.full and node > DONE:
            self.adopt(self.control.renewed())

    def adopt(self, control: Control) -> None:
        """Go on in the empty tree of the same language."""
        matcher = self.matcher()
        self.control, self.node = control, control.add_node(matcher)

    def go_back(self, tokens: Sequence[int]) -> None:
        """Stand again where the text had these tokens, which are a beginning of what it has."""
        self.tokens = list(tokens)
        if self.consumed > len(tokens):
            self._matcher, self.consumed = None, 0
        # the tree may have been renewed in the meantime
        self.node = self.control.root(self.tokens, self.begun, self.room)

    def restart(self, tokens: Sequence[int] = (), begun: int = 0, room: int | None = None) -> None:
        """Stand where a text has these tokens; the arguments and errors are those of the class."""
        self.node = self.control.root(tokens, begun, room)
        self.tokens, self.begun, self.room = list(tokens), begun, room
        self._matcher = None

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
