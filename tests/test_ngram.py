"""The yardstick: an n-gram model against one that is counted with dictionaries."""

import copy
import dataclasses
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from chargen_train.choosing import choose_recipe
from chargen_train.corpus import load_corpus
from chargen_train.learner import Learner
from chargen_train.ngram import (
    MAX_ORDER,
    count_ngrams,
    measure_ngram,
    nats_by_order,
    visible_before,
)
from chargen_train.ngram_targets import NGramTargets
from chargen_train.recipe import Recipe
from chargen_train.split import Part
from chargen_train.training import train
from chargen_train.windows import Batch

VOCAB_SIZE, END = 6, 5
RNG = np.random.default_rng(0)
# the next token depends on the two before it; token 4 never stands in the text
TEXT = RNG.choice(4, 3, p=[0.4, 0.3, 0.2, 0.1]).tolist()
for _ in range(600):
    TEXT.append(int(RNG.choice(4, p=np.roll([0.6, 0.25, 0.1, 0.05], TEXT[-1] + 2 * TEXT[-2]))))
LINES = [t if RNG.random() > 0.2 else END for t in TEXT] + [END]
OTHER = [0, 1, 2, 4, 3, 3, 1, 0, 4, 4, *TEXT[50:90]]


class Naive:
    """Interpolated modified Kneser-Ney as the paper has it, one n-gram after the other."""

    def __init__(self, tokens, order, end=None):
        self.order = order
        self.counts = [Counter() for _ in range(order + 1)]
        self.lefts = [defaultdict(set) for _ in range(order + 1)]
        for place in range(len(tokens)):
            history = self.history(tokens, place, end)
            for n in range(1, min(order, len(history) + 1) + 1):
                ngram = (*history[len(history) - n + 1 :], tokens[place])
                self.counts[n][ngram] += 1
                left = ("begin", place) if len(history) == n - 1 else history[-n]
                self.lefts[n][ngram].add(left)

    @staticmethod
    def history(tokens, place, end, window=None):
        begin = 0
        if end is not None:
            begin = max((i for i in range(place) if tokens[i] == end), default=0)
        elif window is not None and place:
            begin = (place - 1) // window * window
        return tuple(tokens[begin:place])

    def table(self, n):
        if n == self.order:
            return self.counts[n]
        return {ngram: len(lefts) for ngram, lefts in self.lefts[n].items()}

    def discount(self, n):
        of = Counter(self.table(n).values())
        if not of[1] or not of[2]:
            return lambda count: 0.5
        ratio = of[1] / (of[1] + 2 * of[2])
        third = 3 - 4 * ratio * of[4] / of[3] if of[3] else 0.5
        values = [1 - 2 * ratio * of[2] / of[1], 2 - 3 * ratio * of[3] / of[2], third]
        return lambda count: max(0.05, values[min(count, 3) - 1])

    def probability(self, token, history, n=None):
        n = min(self.order, len(history) + 1) if n is None else n
        if n == 0:
            return 1 / VOCAB_SIZE
        context = history[len(history) - n + 1 :]
        after = {g[-1]: c for g, c in self.table(n).items() if g[:-1] == context}
        lower = self.probability(token, history, n - 1)
        if not after:
            return lower
        discount, total = self.discount(n), sum(after.values())
        kept = after[token] - discount(after[token]) if token in after else 0
        return (kept + sum(map(discount, after.values())) * lower) / total

    def without(self, tokens, place, end=None):
        """The same, but that the token at `place` was never counted; the discounts stay."""
        other = copy.copy(self)
        other.counts, other.lefts = copy.deepcopy((self.counts, self.lefts))
        other.discount = self.discount
        history = self.history(tokens, place, end)
        for n in range(min(self.order, len(history) + 1), 0, -1):
            ngram = (*history[len(history) - n + 1 :], tokens[place])
            other.counts[n][ngram] -= 1
            left = ("begin", place) if len(history) == n - 1 else history[-n]
            longer = (left, *ngram)
            if len(history) == n - 1 or n == self.order or not other.counts[n + 1][longer]:
                other.lefts[n][ngram].discard(left)
            if not other.counts[n][ngram]:
                del other.counts[n][ngram], other.lefts[n][ngram]
        return other


@pytest.mark.parametrize(
    ("text", "end", "window"), [(TEXT, None, None), (TEXT, None, 4), (LINES, END, None)]
)
def test_every_token_costs_what_dictionaries_say(text, end, window):
    held_out = [end, *OTHER, end, *OTHER[:9]] if end is not None else OTHER
    text = np.array(text, dtype=np.uint8)
    model = count_ngrams(text, visible_before(text, end), VOCAB_SIZE, 4)
    tokens = np.array(held_out, dtype=np.uint8)
    found = list(nats_by_order(model, tokens, visible_before(tokens, end, window)))
    assert len(found) == 4
    for order in (1, 3, 4):
        naive = Naive(text.tolist(), order, end)
        expected = [
            -math.log(naive.probability(token, naive.history(held_out, place, end, window)))
            for place, token in enumerate(held_out)
        ]
        assert found[order - 1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "text", [TEXT, [0], [0, 1], [3, 3, 3, 3, 3, 3], [0, 1, 2, 3] * 50, [END, END, 0, END]]
)
@pytest.mark.parametrize("end", [None, END])
def test_the_probabilities_of_all_tokens_sum_to_one(text, end):
    text = np.array(text)
    model = count_ngrams(text, visible_before(text, end), VOCAB_SIZE, MAX_ORDER)
    for context in ([], [0], [4], [3, 3, 3], TEXT[10:15], [END, 0, 1], [1, END, 2]):
        rows = [np.array([*context, token]) for token in range(VOCAB_SIZE)]
        visible = visible_before(rows[0], end)
        last = np.array([[n[-1] for n in nats_by_order(model, row, visible)] for row in rows])
        assert np.exp(-last).sum(0) == pytest.approx(np.ones(last.shape[1]))
        assert np.isfinite(last).all()


def test_no_document_sees_the_one_before_it_and_each_sees_that_it_begins():
    assert visible_before(np.array([END, 0, 1, END, END, 2]), END).tolist() == [0, 1, 2, 3, 1, 1]
    assert visible_before(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert visible_before(np.arange(6), window=2).tolist() == [0, 1, 2, 1, 2, 1]


def yardstick_of(text, held_out, **options):
    return measure_ngram(text, held_out, visible_before(held_out), VOCAB_SIZE, **options)


def test_the_order_is_chosen_without_the_held_out_text():
    text, noise = np.array(TEXT), np.random.default_rng(1).integers(0, 4, 200)
    assert yardstick_of(text, noise).order == 3, "as the text was made"
    assert yardstick_of(noise, text).order == 1
    assert yardstick_of(text[:2], text).order <= 2, "however short the text is"


def test_the_figure_is_the_mean_over_what_was_predicted():
    text, held_out = np.array(TEXT), np.array(OTHER)
    visible = visible_before(held_out, window=7)
    visible[20] = 0  # as where a passage begins: read, not predicted
    *_, nats = nats_by_order(
        count_ngrams(text, visible_before(text), VOCAB_SIZE, 3), held_out, visible
    )
    nats = np.delete(nats, [0, 20])
    yardstick = measure_ngram(text, held_out, visible, VOCAB_SIZE)
    for predicted in (1, 25, len(OTHER) - 2):
        baseline = yardstick.over(predicted)
        assert baseline.nats_per_char == pytest.approx(nats[:predicted].mean(), rel=1e-6)
    assert (baseline.method, baseline.order) == ("modified Kneser-Ney", 3)


def test_of_a_long_text_as_much_is_counted_as_asked_from_all_over_it():
    half = np.zeros(5_000, dtype=np.uint8)
    text = np.concatenate([half, half + 1])
    yardstick = yardstick_of(text, np.array([0, 0, 1, 2]), most=640)
    assert yardstick.method == "modified Kneser-Ney on 640 characters of the text"
    zero, one, two = np.exp(-yardstick.nats)
    assert zero > 0.9
    assert one > 10 * two


# A network that learns from it


@pytest.mark.parametrize("largest_table", [1, 1 << 23])  # none after any context, and all
@pytest.mark.parametrize("documents", [False, True])
def test_a_network_is_taught_by_the_counts_of_all_other_places(
    documents, largest_table, monkeypatch
):
    monkeypatch.setattr("chargen_train.ngram_targets._LARGEST_TABLE", largest_table)
    text, end = (LINES, END) if documents else (TEXT, None)
    part = Part.of(np.array(text, dtype=np.uint8))
    if documents:
        before = np.array([END, *text], dtype=np.uint8)
        ends = 1 + np.flatnonzero(np.array(text) == END)
        part = Part(before, np.stack([np.append(0, ends[:-1]), ends], axis=1) + 1, documents=True)
        text = before.tolist()
    taught = NGramTargets(part, VOCAB_SIZE)
    while not taught.ready:
        taught.prepare()
    naive = Naive(text, MAX_ORDER, end)
    for place in [*range(12), *range(len(part) - 60, len(part))]:
        at = place + documents  # before the first document stands an end
        history = Naive.history(text, at, end)
        # the others share what the place's own token leaves them, by the counts of all places
        own = naive.without(text, at, end).probability(text[at], history)
        expected = np.array([naive.probability(token, history) for token in range(VOCAB_SIZE)])
        expected *= (1 - own) / (1 - expected[text[at]])
        expected[text[at]] = own
        target = torch.tensor([[text[at]]])
        batch = Batch(target, target, torch.ones(1, 1, 1), np.array([[place]]))
        # the gradient of a cross-entropy: what was predicted less what should have been
        logits = torch.zeros(1, 1, VOCAB_SIZE, requires_grad=True)
        taught.loss(logits, batch).backward()
        found = (1 / VOCAB_SIZE - logits.grad[0, 0]).tolist()
        assert found == pytest.approx(expected, abs=1e-3)  # kept in half precision
        assert found[text[at]] == pytest.approx(own, abs=1e-6)


def test_the_share_of_the_counts_falls_to_nothing(tmp_path, monkeypatch):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{a}{b}{c}\n" for a in "bdfgkl" for b in "aeiou" for c in "mnrst" * 3))
    shares = []
    take_step = Learner.take_step

    def watched(self, batch, rate, clip, teaching, *rest):
        shares.append(teaching.share if teaching else 0.0)
        return take_step(self, batch, rate, clip, teaching, *rest)

    monkeypatch.setattr(Learner, "take_step", watched)
    corpus = load_corpus(path)
    recipe = Recipe(hidden_size=16, num_layers=1, seq_length=8, batch_size=8, steps=20)
    taught, alone = (
        train(corpus, dataclasses.replace(recipe, ngram_share=share)).model for share in (1.0, 0.0)
    )
    assert shares[:20] == pytest.approx(np.arange(20, 0, -1) / 20)
    assert shares[20:] == [0.0] * 20
    assert not torch.equal(taught.output.weight, alone.output.weight)


def test_only_texts_worth_counting_teach():
    shares = [choose_recipe(n, minutes=1).ngram_share for n in (1_000, 10_000, 10**6, 10**7)]
    assert shares == [0, 1, 1, 0]
    assert choose_recipe(10**6, minutes=1, vocab_size=5_000).ngram_share == 0
    assert choose_recipe(10**6, minutes=1, ngram_share=0.0).ngram_share == 0
    assert choose_recipe(10_000, "lesson").ngram_share == 0
