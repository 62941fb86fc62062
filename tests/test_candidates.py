"""Of a large vocabulary a step looks at a part, and what it learns is right on average."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from chargen_train import candidates
from chargen_train.candidates import LARGE, Candidates, weighted
from chargen_train.checkpoint import load_checkpoint
from chargen_train.corpus import load_corpus
from chargen_train.events import Supervision, TrainingStoppedError
from chargen_train.learner import Learner
from chargen_train.recipe import Recipe
from chargen_train.training import train
from chargen_train.windows import Batch
from tests.conftest import observing

SIZE = 3000
COUNTS = 1_000_000 // np.arange(1, SIZE + 1)  # as words and signs are counted: few of most


def batch_of(target):
    """A batch of which only the targets matter."""
    return Batch(target, target, torch.ones(len(target), 1, 1), target.numpy())


def drawn_from(counts, *shape):
    """Targets as a text has them."""
    return torch.multinomial(
        torch.from_numpy(counts / counts.sum()), shape[0] * shape[1], True
    ).view(shape)


def test_targets_are_places_among_the_candidates():
    target = torch.tensor([[5, 2999, 5], [0, -100, 1234]])
    narrow = Candidates(COUNTS, target.numel()).narrow(batch_of(target))
    tokens = narrow.among.tokens
    assert tokens.unique().equal(tokens), "each once, in rising order"
    learnt = target >= 0
    assert tokens[narrow.target[learnt]].equal(target[learnt])
    assert narrow.target[~learnt].tolist() == [-100]
    assert 300 < len(tokens) < 800, "a part of three thousand"


def test_what_the_softmax_divides_by_is_right_on_average():
    torch.manual_seed(0)
    logits = torch.randn(SIZE, dtype=torch.float64)
    place = 1500  # a rare target, and the others of its batch come as the text has them
    choose, found = Candidates(COUNTS, 300), []
    for _ in range(1000):
        target = drawn_from(COUNTS, 1, 300)
        target[0, 0] = place
        narrow = choose.narrow(batch_of(target))
        some = logits[narrow.among.tokens].expand(1, 300, -1)
        found.append(weighted(some, narrow.target, narrow.among)[0, 0].exp().sum().item())
    total = logits.exp().sum().item()
    error = np.std(found) / np.sqrt(len(found))
    assert error < 0.007 * total, "the test can tell"
    assert np.mean(found) == pytest.approx(total, abs=4 * error)
    assert np.std(found) < 0.15 * total, "each alone is near it"


def test_among_all_it_is_cross_entropy(monkeypatch):
    monkeypatch.setattr(candidates, "_DRAWN", SIZE)
    target = torch.tensor([[7, -100, 2999], [0, 0, 3]])
    logits = torch.randn(2, 3, SIZE)
    narrow = Candidates(COUNTS, 6).narrow(batch_of(target))
    loss = F.cross_entropy(
        weighted(logits, narrow.target, narrow.among).flatten(0, 1), narrow.target.flatten()
    )
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), target.flatten()))


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    """A corpus of two thousand signs, a few of them often."""
    path = tmp_path_factory.mktemp("signs") / "signs.txt"
    random = np.random.default_rng(0)
    often = np.minimum(random.zipf(1.3, 12_000), LARGE) - 1
    text = random.permutation(np.append(often, np.arange(LARGE)))
    path.write_text("".join(chr(0x4E00 + sign) for sign in text))
    return load_corpus(path)


RECIPE = Recipe(
    hidden_size=16, num_layers=1, embedding_dim=8, seq_length=16, batch_size=8, steps=10,
    learning_rate=0.01,
)  # fmt: skip


def test_a_run_is_resumed_bit_for_bit(signs, tmp_path):
    whole = train(signs, RECIPE)
    steps = iter(range(1, 100))
    stop = observing(should_stop=lambda: next(steps) >= 4)
    with pytest.raises(TrainingStoppedError):
        train(signs, RECIPE, stop, Supervision(tmp_path / "c.pt"))
    resumed = train(signs, RECIPE, resume=load_checkpoint(tmp_path / "c.pt"))
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


def test_it_learns_as_well_as_from_all(signs, monkeypatch):
    recipe = dataclasses.replace(RECIPE, steps=60, learning_rate=0.03)
    narrow, looked_at = train(signs, recipe).summary.validation.nats_per_char, []
    take_step = Learner.take_step

    def watched(self, batch, *rest):
        looked_at.append(batch.among)
        return take_step(self, batch, *rest)

    monkeypatch.setattr(Learner, "take_step", watched)
    monkeypatch.setattr("chargen_train.run.LARGE", 10**6)
    whole = train(signs, recipe).summary.validation.nats_per_char
    assert looked_at == [None] * 60, "the other looked at all"
    assert whole < 6.0, "of log 2048 = 7.62"
    assert narrow < whole + 0.03


def test_a_small_vocabulary_is_looked_at_as_a_whole(tmp_path, monkeypatch):
    (tmp_path / "hello.txt").write_text("hello world " * 50)
    monkeypatch.setattr(Candidates, "narrow", lambda self, batch: pytest.fail("a part of it"))
    train(load_corpus(tmp_path / "hello.txt"), dataclasses.replace(RECIPE, steps=2))
