"""Learning from teachers: what they predict, the loss towards it, and when each is trained."""

import dataclasses

import numpy as np
import pytest
import torch

from chargen_train import distillation
from chargen_train.corpus import load_corpus
from chargen_train.distillation import SoftTargets, phase_end
from chargen_train.recipe import choose_recipe
from chargen_train.training import train
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
    soft_targets = SoftTargets(teachers, tokens, bf16=False)
    while not soft_targets.ready:
        soft_targets.prepare()
    return soft_targets


@torch.no_grad()
def average_prediction(teachers, tokens):
    """``[time, vocab_size]`` after each of `tokens` ``[time]``, from a zero state."""
    token = torch.from_numpy(tokens.astype(np.int64))[None]  # [1, time]
    predictions = [model(token, model.zero_hidden(1))[0][0].softmax(-1) for model in teachers]
    return torch.stack(predictions).mean(0)


def cross_entropy(prediction, logits):
    return -(prediction * logits.log_softmax(-1)).sum(-1).mean()


def test_the_loss_is_the_cross_entropy_with_the_teachers_average(teachers, tokens, soft_targets):
    # a column of 157 characters begins at 0 and at 157; a window may reach into the next one
    logits = torch.randn(2, 40, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    prediction = average_prediction(teachers, tokens[:157])
    expected = cross_entropy(torch.stack([prediction[:40], prediction[100:140]]), logits)
    loss = soft_targets.loss(logits, np.array([0, 100]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)  # kept in half precision
    following = average_prediction(teachers, tokens[157:314])
    expected = cross_entropy(torch.cat([prediction[137:], following[:20]]), logits[0])
    loss = soft_targets.loss(logits[:1], np.array([137]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_last_character_has_a_target_too(soft_targets):
    assert soft_targets.loss(torch.zeros(1, 8, VOCAB_SIZE), np.array([9_992])).isfinite()


def test_of_a_large_vocabulary_the_likeliest_tokens_are_kept_step_by_step(monkeypatch):
    monkeypatch.setattr(distillation, "_LOGITS_AT_ONCE", 64 * 5_000)
    teacher = random_model(vocab_size=5_000, scale=4.0)
    tokens = np.arange(200, dtype=np.uint16)
    soft_targets = SoftTargets([teacher], tokens, bf16=False)
    while not soft_targets.ready:
        soft_targets.prepare()
    prediction = average_prediction([teacher], tokens[:4])  # a column has 4 characters
    likeliest = prediction.topk(32)
    kept = torch.zeros_like(prediction).scatter(-1, likeliest.indices, likeliest.values)
    logits = torch.randn(4, 5_000, generator=torch.Generator().manual_seed(0))
    expected = cross_entropy(kept / kept.sum(-1, keepdim=True), logits)
    loss = soft_targets.loss(logits[None], np.array([0]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_loss_teaches():
    logits = torch.zeros(1, 4, VOCAB_SIZE, requires_grad=True)
    teacher = random_model(scale=4.0)
    soft_targets = SoftTargets([teacher], np.arange(29, dtype=np.uint8), bf16=False)
    soft_targets.prepare()
    soft_targets.loss(logits, np.array([0])).backward()
    likeliest = average_prediction([teacher], np.arange(1, dtype=np.uint8))[0].argmax()
    assert logits.grad[0, 0].argmin() == likeliest


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
