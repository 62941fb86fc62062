"""Learning from teachers: what they predict, the loss towards it, and when each is trained."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch

from chargen_train import distillation
from chargen_train.choosing import choose_recipe
from chargen_train.corpus import load_corpus
from chargen_train.distillation import SoftTargets, phase_end
from chargen_train.learner import Learner
from chargen_train.model import gru_parameters
from chargen_train.reading import Reading
from chargen_train.split import Part
from chargen_train.training import train
from chargen_train.windows import Batch
from tests.conftest import observing, random_model

VOCAB_SIZE = 29


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, VOCAB_SIZE, 10_000).astype(np.uint8)


@pytest.fixture(scope="module")
def teachers():
    return [random_model(num_layers=2, seed=seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def soft_targets(teachers, tokens):
    return prepared(teachers, Part.of(tokens))


def prepared(teachers, part):
    soft_targets = SoftTargets(teachers, part, bf16=False)
    while not soft_targets.ready:
        soft_targets.prepare()
    return soft_targets


def batch_at(places, learnt=True):
    """Targets at `places` ``[batch, time]``, learnt from where `learnt` says so."""
    places = np.asarray(places)
    target = torch.where(torch.as_tensor(learnt).expand(places.shape), 0, -100)
    return Batch(target, target, torch.ones(len(places), 1, 1), places)


def after(starts, time):
    """The targets of windows that begin at `starts`."""
    return batch_at(np.add.outer(starts, np.arange(1, time + 1)))


@torch.no_grad()
def average_prediction(teachers, tokens):
    """``[time, vocab_size]`` after each of `tokens` ``[time]``, from a zero state."""
    token = torch.from_numpy(tokens.astype(np.int64))[None]  # [1, time]
    predictions = [model(token, model.zero_hidden(1))[0][0].softmax(-1) for model in teachers]
    return torch.stack(predictions).mean(0)


def cross_entropy(prediction, logits):
    return -(prediction * logits.log_softmax(-1)).sum()


def test_the_loss_is_the_cross_entropy_with_the_teachers_average(teachers, tokens, soft_targets):
    # columns of 157 targets begin at 0 and at 157; a window may reach into the next one
    logits = torch.randn(2, 40, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    read = np.roll(tokens, 1)  # before each target
    prediction = average_prediction(teachers, read[:157])
    expected = cross_entropy(torch.stack([prediction[1:41], prediction[101:141]]), logits)
    loss = soft_targets.loss(logits, after([0, 100], 40))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)  # kept in half precision
    following = average_prediction(teachers, read[157:314])
    expected = cross_entropy(torch.cat([prediction[138:], following[:21]]), logits[0])
    loss = soft_targets.loss(logits[:1], after([137], 40))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_last_character_has_a_target_too(soft_targets):
    assert soft_targets.loss(torch.zeros(1, 8, VOCAB_SIZE), after([9_991], 8)).isfinite()


def test_of_a_large_vocabulary_the_likeliest_tokens_are_kept_step_by_step(monkeypatch):
    monkeypatch.setattr(distillation, "_LOGITS_AT_ONCE", 64 * 5_000)
    teacher = random_model(vocab_size=5_000, scale=4.0)
    tokens = np.arange(200, dtype=np.uint16)
    soft_targets = prepared([teacher], Part.of(tokens))
    prediction = average_prediction([teacher], np.roll(tokens, 1)[:4])  # a column has 4 characters
    likeliest = prediction.topk(32)
    kept = torch.zeros_like(prediction).scatter(-1, likeliest.indices, likeliest.values)
    logits = torch.randn(4, 5_000, generator=torch.Generator().manual_seed(0))
    expected = cross_entropy(kept / kept.sum(-1, keepdim=True), logits)
    loss = soft_targets.loss(logits[None], batch_at([[0, 1, 2, 3]]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_loss_teaches():
    logits = torch.zeros(1, 4, VOCAB_SIZE, requires_grad=True)
    teacher = random_model(scale=4.0)
    soft_targets = prepared([teacher], Part.of(np.arange(29, dtype=np.uint8)))
    soft_targets.loss(logits, batch_at([[1, 2, 3, 4]])).backward()
    likeliest = average_prediction([teacher], np.arange(1, dtype=np.uint8))[0].argmax()
    assert logits.grad[0, 0].argmin() == likeliest


def test_documents_are_read_by_the_teachers_each_from_its_beginning(teachers, monkeypatch):
    monkeypatch.setattr(distillation, "_ROWS", 1)  # one column, so that all is read on
    end = VOCAB_SIZE - 1
    documents = [[3, 1, 4, end], [1, 5, end], [9, 2, 6, 5, end]]
    tokens = np.array([end, *itertools.chain(*documents)], dtype=np.uint8)
    ranges = np.array([[1, 5], [8, 13]])  # the second one is held out
    soft_targets = prepared(teachers, Part(tokens, ranges, documents=True))
    for begin, document in ((0, documents[0]), (4, documents[2])):
        logits = torch.randn(len(document), VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
        prediction = average_prediction(teachers, np.array([end, *document[:-1]]))
        loss = soft_targets.loss(logits[None], batch_at([begin + np.arange(len(document))]))
        assert loss.item() == pytest.approx(cross_entropy(prediction, logits).item(), rel=1e-3)


def test_what_is_not_learnt_from_has_no_part_in_the_loss(soft_targets):
    logits = torch.randn(1, 6, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    learnt = torch.tensor([[False, False, True, True, True, True]])
    some = soft_targets.loss(logits, batch_at([np.arange(50, 56)], learnt))
    rest = soft_targets.loss(logits[:, 2:], batch_at([np.arange(52, 56)]))
    assert some.item() == pytest.approx(rest.item(), rel=1e-6)


def test_teachers_share_a_half_and_the_student_has_the_rest():
    recipe = choose_recipe(1_000, steps=10, teachers=4)
    assert [phase_end(recipe, phase) for phase in range(5)] == [0.125, 0.25, 0.375, 0.5, 1.0]
    assert phase_end(dataclasses.replace(recipe, teachers=0), 0) == 1.0


def test_every_model_has_a_whole_schedule_of_its_own(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 30)
    recipe = choose_recipe(1_350, steps=40, hidden_size=16, teachers=2)
    rates = []
    observer = observing(on_progress=lambda progress: rates.append(progress.learning_rate))
    train(load_corpus(path), recipe, observer)
    assert len(rates) == 40
    starts = [0, 10, 20]
    peaks = [max(rates[a:b]) for a, b in zip(starts, [*starts[1:], 40], strict=True)]
    assert peaks == pytest.approx([recipe.learning_rate] * 3, rel=0.1)
    assert all(rates[start - 1] < 0.1 * recipe.learning_rate for start in (10, 20, 40))


@pytest.mark.parametrize(
    ("documents", "lines", "count", "narrow"),
    [
        ("none", 30, 4, False),
        ("none", 30, 5, True),
        ("none", 30, 8, True),
        ("none", 300, 5, False),  # more characters than weights
        ("lines", 30, 5, False),
    ],
)
def test_a_student_that_reads_its_text_very_often_begins_with_narrow_weights(
    tmp_path, monkeypatch, documents, lines, count, narrow
):
    path = tmp_path / "t.txt"
    path.write_text("the quick brown fox jumps over the lazy dog.\n" * lines)
    recipe = choose_recipe(1_350, steps=4 * count, hidden_size=16, teachers=count)
    learners, models, clips = [], [], []

    def take_step(learner, batch, rate, clip, *rest):
        if learner not in learners:
            learners.append(learner)
            models.append(copy.deepcopy(learner.model))
        clips.append(clip)
        return step(learner, batch, rate, clip, *rest)

    step = Learner.take_step
    monkeypatch.setattr(Learner, "take_step", take_step)
    train(load_corpus(path, Reading(documents=documents)), recipe)
    *others, student = models
    assert len(others) == count
    for model in others:
        assert model.embedding.weight.std().item() == pytest.approx(2.0, rel=0.2)
    wanted = 0.1 if narrow else 2.0
    assert student.embedding.weight.std().item() == pytest.approx(wanted, rel=0.2)
    for layer in student.grus():
        _, _, bias, _ = gru_parameters(layer)
        assert bias.tolist() == [0.0] * 16 + [float(narrow)] * 16 + [0.0] * 16
    clip = recipe.gradient_clip
    assert clips[: 2 * count] == [clip] * 2 * count
    assert clips[2 * count :] == [2.5 * clip if narrow else clip] * 2 * count
