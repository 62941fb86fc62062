"""The benchmarks' own code still fits what it measures; the figures are `make bench`'s."""

import time

from chargen_train.recipe import Recipe
from tests.benchmarks import training


def test_the_training_benchmark_times_the_steps_of_a_run():
    recipe = Recipe(
        hidden_size=8,
        num_layers=1,
        embedding_dim=4,
        batch_size=2,
        seq_length=8,
        steps=2 * training.WARM_UP,
        device="cpu",
    )
    begun = time.perf_counter()
    a_step = training.train_seconds(recipe)  # a median of the steps after the warm-up
    assert 0 < a_step * training.WARM_UP / 2 < time.perf_counter() - begun
