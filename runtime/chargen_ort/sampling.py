"""From logits to tokens: processors and draws, the same for one row and for many.

The order is repetition penalty, temperature, top-k, top-p, min-p, draw, with the semantics of the
logits processors of Hugging Face's transformers. Draw ``t`` of row ``r`` depends on nothing but
the seed, ``r`` and ``t``, so a text does not depend on the batch, thread or process that made it.
"""

import secrets
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import instance, whole_number
from chargen_ort.errors import OptionError
from chargen_ort.options import ROW_LIMIT
from chargen_ort.options import SamplingOptions as SamplingOptions

MAX_VOCABULARY = 1 << 21  # more than there are code points
BLOCK = 128  # uniforms drawn ahead for each row


def fresh_seed() -> int:
    """A seed from the operating system, short enough to be typed again."""
    return secrets.randbits(32)


def uniform_draws(
    seed: int, row: int, first: int, count: int, generator: np.random.Generator | None = None
) -> NDArray[np.float64]:
    """Draws ``first … first + count - 1`` of a row: float64 ``[count]`` in [0, 1), 53 bits each.

    Philox-4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11) with the
    key (seed, row). Draw t is word ``t % 4`` of the block with counter ``t // 4 + 1``. To make a
    generator takes longer than the draws: one of `new_generator` that is given is used, whatever
    it has drawn.
    """
    generator = new_generator() if generator is None else generator
    block, skip = divmod(first, 4)
    generator.bit_generator.state = {
        "bit_generator": "Philox",
        # lists: to make arrays of a few numbers takes longer than the draws as well
        "state": {"counter": [block, 0, 0, 0], "key": [seed, row]},
        "buffer": [0, 0, 0, 0],
        "buffer_pos": 4,  # it is used up
        "has_uint32": 0,
        "uinteger": 0,
    }
    return generator.random(skip + count)[skip:]  # the upper 53 bits of each word


def new_generator() -> np.random.Generator:
    """One that `uniform_draws` may use."""
    return np.random.Generator(np.random.Philox(0))


class Draws:
    """The uniforms of the rows of a batch: how many each has drawn, and those that come next.

    Args:
        seed: of all rows; None takes a fresh one.
        rows: the row numbers, one for each row of the batch, at least one.

    Attributes:
        seed, rows: as given.
        column: place of the next draw in the block of uniforms; adding to it counts draws.

    Raises:
        OptionError: a row number of another kind or out of range, or none.
    """

    def __init__(self, seed: int | None, rows: Sequence[int]) -> None:
        instance("rows", rows, Sequence)
        self.rows = [whole_number("row", row, 0, ROW_LIMIT - 1) for row in rows]
        if not self.rows:
            raise OptionError("rows is empty; give at least one row number")
        self.seed = fresh_seed() if seed is None else seed
        self._seeds = [self.seed] * len(self.rows)
        self._generator = new_generator()
        # draws made by each row before column 0 of its block; at first there is no block
        self._before, self.column = [-BLOCK] * len(self.rows), BLOCK
        self._uniforms = np.empty((len(self.rows), BLOCK))

    def drawn(self, index: int) -> int:
        """How many draws row `index` has made."""
        return self._before[index] + self.column

    def start_row(self, index: int, row: int, drawn: int = 0, seed: int | None = None) -> None:
        """Give place `index` of the batch to row number `row`, which has made `drawn` draws.

        `seed` is for a row of another seed than the others.
        """
        self._seeds[index] = self.seed if seed is None else seed
        self.rows[index] = row
        self._before[index] = drawn - self.column
        if self.column < BLOCK:
            self._uniforms[index, self.column :] = self._draw(index, drawn, BLOCK - self.column)

    def first_draws(self, row: int, count: int) -> NDArray[np.float64]:
        """The first uniforms of a row: `count`, and as many more as `go_on` needs."""
        return uniform_draws(self.seed, row, 0, count + BLOCK, self._generator)

    def go_on(self, index: int, row: int, drawn: int, uniforms: NDArray[np.float64]) -> None:
        """As `start_row` of a row of the batch's seed, with what `first_draws` gave for it."""
        self._seeds[index], self.rows[index] = self.seed, row
        self._before[index] = drawn - self.column
        self._uniforms[index, self.column :] = uniforms[drawn : drawn + BLOCK - self.column]

    def keep_rows(self, indices: Sequence[int]) -> "Draws":
        """The draws of the rows at `indices` alone; one that is named twice is there twice."""
        other = Draws(self.seed, [self.rows[i] for i in indices])
        other._seeds = [self._seeds[i] for i in indices]
        other._before, other.column = [self._before[i] for i in indices], self.column
        other._uniforms = self._uniforms[list(indices)]  # [batch, BLOCK]
        return other

    def ahead(self, count: int) -> NDArray[np.float64]:
        """The next uniforms of each row, ``[batch, count]``, at most `BLOCK`; none is counted."""
        if self.column + count > BLOCK:
            self._next_block()
        return self._uniforms[:, self.column : self.column + count]

    def _next_block(self) -> None:
        """Go on with a block that begins with the next draw."""
        before = [count + self.column for count in self._before]
        draws = [self._draw(index, first, BLOCK) for index, first in enumerate(before)]
        # all of it together and last: an interruption before finds the old block, to be redone
        self._uniforms, self._before, self.column = np.stack(draws), before, 0

    def _draw(self, index: int, first: int, count: int) -> NDArray[np.float64]:
        return uniform_draws(self._seeds[index], self.rows[index], first, count, self._generator)


class Sampler(Draws):
    """Draws one token a row and keeps what the next draw needs: its uniforms, tokens seen.

    Args:
        options: the sampling options; a seed of None is replaced by a fresh one.
        vocab_size: number of tokens.
        rows: the row numbers, one for each row of the batch, at least one. Whoever chooses with
            `choose_one` adds 1 to `column` to count the draw.

    Raises:
        OptionError: an argument of another kind or out of range.
    """

    def __init__(self, options: SamplingOptions, vocab_size: int, rows: Sequence[int] = (0,)):
        instance("options", options, SamplingOptions)
        vocab_size = whole_number("vocab_size", vocab_size, 1, MAX_VOCABULARY)
        super().__init__(options.seed, rows)
        self.options = options
        batch = len(self.rows)
        self._weights = np.empty((batch, vocab_size))
        self._cdf = np.empty((batch, vocab_size))
        self._maximum = np.empty((batch, 1))
        self._above = np.empty((batch, vocab_size), dtype=bool)
        self._penalised = options.repetition_penalty != 1
        self._seen = np.zeros((batch, vocab_size), dtype=bool) if self._penalised else None
        self._filtered = bool(options.top_k) or options.top_p < 1 or options.min_p > 0
        self._temperature = np.array(float(options.temperature))  # 0-d: ufuncs convert no float
        self._divides = options.temperature != 1  # by 1 gives the same bits
        self._plain = not (self._filtered or self._penalised or options.temperature == 0)
        # the first row once more, one-dimensional, for `choose_one`
        self._one_weights, self._one_cdf = self._weights[0], self._cdf[0]
        self._one_maximum = np.array(0.0)

    def see(self, index: int, tokens: NDArray[np.integer]) -> None:
        """Count `tokens` of the prompt as seen by row `index`, for the repetition penalty."""
        if self._seen is not None:
            self._seen[index, tokens] = True

    def start_row(self, index: int, row: int, drawn: int = 0, seed: int | None = None) -> None:
        """Give place `index` of the batch to row number `row`, which has seen no token."""
        super().start_row(index, row, drawn, seed)
        if self._seen is not None:
            self._seen[index] = False

    def keep_rows(self, indices: Sequence[int]) -> "Sampler":
        """A smaller sampler that goes on with the rows at `indices`."""
        other = Sampler(self.options, self._weights.shape[1], [self.rows[i] for i in indices])
        other.seed = self.seed
        for place, index in enumerate(indices):
            other.start_row(place, self.rows[index], self.drawn(index))
            if self._seen is not None and other._seen is not None:
                other._seen[place] = self._seen[index]
        return other

    def seen(self, index: int) -> NDArray[np.bool_] | None:
        """Which tokens row `index` has seen, bool ``[vocab_size]``; None without a penalty."""
        return None if self._seen is None else self._seen[index]

    def sample(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """The next token of each row, int64 ``[batch]``, from logits ``[batch, vocab_size]``.

        The draw is counted, and the tokens count as seen.
        """
        tokens = self._choose(logits)
        self.column += 1
        if self._seen is not None:
            self._seen[np.arange(len(tokens)), tokens] = True
        return tokens

    def _choose(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        if self.column == BLOCK:
            self._next_block()
        u = self._uniforms[:, self.column : self.column + 1]  # [batch, 1]
        weights = self._weights  # [batch, vocab_size]
        np.copyto(weights, logits)
        if self._seen is not None:
            _penalise(weights, self._seen, self.options.repetition_penalty)
        if self.options.temperature == 0:
            return np.asarray(weights.argmax(axis=1))  # [batch]
        self._exponentiate(weights)
        cdf = np.add.accumulate(weights, axis=1, out=self._cdf)  # [batch, vocab_size]
        # total >= 1 and u <= 1 - 2**-53, so u * total rounds to less than total: one exceeds it
        np.greater(cdf, u * cdf[:, -1:], out=self._above)
        return np.asarray(self._above.argmax(axis=1))  # [batch]

    def choose_one(self, logits: NDArray[np.float32]) -> int:
        """The token that `sample` would give to a batch of one, sooner, from ``[vocab_size]``.

        The arithmetic is the same, operation for operation. The draw is not counted, and the token
        does not count as seen: the caller does both.
        """
        if not self._plain:
            return int(self._choose(logits[None])[0])
        if self.column == BLOCK:
            self._next_block()
        u = self._uniforms.item(0, self.column)
        weights, cdf = self._one_weights, self._one_cdf  # [vocab_size] each
        weights[...] = logits
        if self._divides:
            np.divide(weights, self._temperature, weights)
        self._one_maximum[()] = weights.item(weights.argmax())
        np.subtract(weights, self._one_maximum, weights)
        np.exp(weights, weights)
        np.add.accumulate(weights, 0, None, cdf)
        return int(cdf.searchsorted(u * cdf.item(-1), "right"))

    def _exponentiate(self, weights: NDArray[np.float64]) -> None:
        """Logits become unnormalised probabilities, in place; filtered tokens become 0."""
        if self._divides:
            np.divide(weights, self._temperature, weights)
        if self._filtered:
            _keep_top_k(weights, self.options.top_k)
        np.maximum.reduce(weights, axis=1, keepdims=True, out=self._maximum)
        np.subtract(weights, self._maximum, weights)
        np.exp(weights, weights)
        if self._filtered:
            _keep_top_p(weights, self.options.top_p)
            if self.options.min_p > 0:
                weights[weights < self.options.min_p] = 0  # the likeliest token's weight is 1


def _penalise(logits: NDArray[np.float64], seen: NDArray[np.bool_], penalty: float) -> None:
    np.copyto(logits, np.where(logits > 0, logits / penalty, logits * penalty), where=seen)


def _keep_top_k(logits: NDArray[np.float64], k: int) -> None:
    """Drop what is below the k-th largest, in place; ties with it stay."""
    vocab_size = logits.shape[1]
    if 0 < k < vocab_size:
        kth = np.partition(logits, vocab_size - k, axis=1)[:, vocab_size - k, None]  # [batch, 1]
        logits[logits < kth] = -np.inf


def _keep_top_p(weights: NDArray[np.float64], p: float) -> None:
    """Drop tokens with at least p of the mass ranked above them, in place; ties rank by index."""
    if p < 1:
        order = np.argsort(-weights, axis=1, kind="stable")  # [batch, vocab_size]
        ranked = np.take_along_axis(weights, order, axis=1)
        cumulative = np.cumsum(ranked, axis=1)
        dropped = np.zeros(weights.shape, dtype=bool)  # the first always stays
        np.greater_equal(cumulative[:, :-1], p * cumulative[:, -1:], out=dropped[:, 1:])
        np.put_along_axis(weights, order, np.where(dropped, 0.0, ranked), axis=1)


def draw_sums(logits: NDArray[np.float32], options: SamplingOptions) -> NDArray[np.float64]:
    """What a `Sampler` draws by without a penalty: sums of the weights of a row's first tokens.

    A draw u takes the first token whose sum exceeds u times the last one.

    Args:
        logits: ``[rows, vocab_size]``.
        options: with a temperature above 0.

    Returns:
        ``[rows, vocab_size]``.
    """
    sampler = Sampler(options, logits.shape[1], range(len(logits)))
    weights = logits.astype(np.float64)
    sampler._exponentiate(weights)
    return np.asarray(np.add.accumulate(weights, axis=1))


class StopFinder:
    """Looks for stop strings in a text that comes character by character.

    The automaton of Aho and Corasick ("Efficient string matching", 1975): a character costs the
    same, on average, however many stop strings there are and however long they are.

    Attributes:
        pending: how many characters at the end of the text may yet become a stop string.
        ended: length of the longest stop string that the text ends with now, 0 if there is none.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]  # by node: the node after each character
        self._depth = [0]  # by node: how many characters lead to it
        self._ended = [0]  # by node: length of the longest stop string that ends there
        self._shorter = [0]  # by node: that of its longest proper ending that is in the tree too
        for stop in stops:
            self._ended[self._insert(stop)] = len(stop)
        self._link()
        self._node = self.pending = self.ended = 0

    def _insert(self, stop: str) -> int:
        node = 0
        for character in stop:
            following = self._next[node].get(character)
            if following is None:
                following = len(self._next)
                self._next[node][character] = following
                self._next.append({})
                self._depth.append(self._depth[node] + 1)
                self._ended.append(0)
                self._shorter.append(0)
            node = following
        return node

    def _link(self) -> None:
        """Find the shorter endings, by growing depth."""
        waiting = deque(self._next[0].values())
        while waiting:
            node = waiting.popleft()
            for character, child in self._next[node].items():
                self._shorter[child] = self.after(self._shorter[node], character)
                self._ended[child] = self._ended[child] or self._ended[self._shorter[child]]
                waiting.append(child)

    def found(self, node: int) -> int:
        """Length of the longest stop string that a text ends with at a node, 0 if there is none."""
        return self._ended[node]

    def depth(self, node: int) -> int:
        """How many characters at the end of a text may yet become a stop string, at a node."""
        return self._depth[node]

    def after(self, node: int, character: str) -> int:
        """The node behind `node`, 0 at first, and a character."""
        while node and character not in self._next[node]:
            node = self._shorter[node]
        return self._next[node].get(character, 0)

    def read(self, character: str) -> None:
        """Read the next character of the text; `pending` and `ended` then tell of its end."""
        self._node = self.after(self._node, character)
        self.pending, self.ended = self._depth[self._node], self._ended[self._node]
