"""Speed of training on a CPU: `train` beside what one writes in PyTorch, an `nn.GRU` in float32.

Both run the same batches with the same optimizer on all cores. The last rows compare a step of
`train` with the matrix products of its shapes alone, in the number format that it chose: the ratio
is the fraction of this machine's matrix-multiply rate that training reaches.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from chargen_train.corpus import load_corpus
from chargen_train.device import choose_bf16
from chargen_train.events import Observer, Progress
from chargen_train.recipe import Recipe
from chargen_train.training import train
from tests.benchmarks.measure import Row

CHARACTERS = "".join(map(chr, range(32, 97)))
SHAPES = ((1, 256), (2, 512))  # layers, width
BATCH, TIME, EMBEDDING = 32, 64, 48
STEPS = 40
WARM_UP = 8  # steps that are not counted
TURNS = 5


def rows() -> Iterator[Row]:
    """About a minute of work."""
    for num_layers, hidden_size in SHAPES:
        recipe = Recipe(
            hidden_size=hidden_size,
            num_layers=num_layers,
            embedding_dim=EMBEDDING,
            batch_size=BATCH,
            seq_length=TIME,
            device="cpu",
            steps=STEPS,
        )
        bf16 = choose_bf16(recipe, torch.device("cpu"))
        ours, theirs, products = [], [], []
        for _ in range(TURNS):
            ours.append(train_seconds(recipe))
            theirs.append(plain_seconds(recipe))
            products.append(product_seconds(recipe, torch.bfloat16 if bf16 else torch.float32))
        work = f"training {num_layers} x {hidden_size}{', bf16' if bf16 else ''}"
        per_character = 1e6 / (BATCH * TIME)
        times = [statistics.median(t) * per_character for t in (ours, theirs, products)]
        least = 1.8 if bf16 and hidden_size == 512 else 1.0
        yield Row(work, "nn.GRU loop, float32", times[0], times[1], "us a character", least)
        yield Row(work, "its matrix products alone", times[0], times[2], "us a character", None)


def train_seconds(recipe: Recipe) -> float:
    """Seconds a step of `train`, evaluations not counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.txt"
        path.write_text(CHARACTERS * (2 * BATCH * TIME * STEPS // len(CHARACTERS)))
        corpus = load_corpus(path)
    clock = StepClock()
    train(corpus, replace(recipe, seed=1), clock)
    stamps, steps = clock.stamps, range(WARM_UP, len(clock.stamps))
    return statistics.median(stamps[i] - stamps[i - 1] for i in steps if not clock.evaluated[i])


class StepClock(Observer):
    """Writes down when each step ended, and whether an evaluation belonged to it."""

    def __init__(self) -> None:
        self.stamps: list[float] = []
        self.evaluated: list[bool] = []

    def on_progress(self, progress: Progress) -> None:
        """Write down one step."""
        self.stamps.append(time.perf_counter())
        self.evaluated.append(progress.evaluation is not None)


class Plain(nn.Module):
    """Embedding, nn.GRU, linear."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CHARACTERS), recipe.embedding_dim)
        self.gru = nn.GRU(
            recipe.embedding_dim, recipe.hidden_size, recipe.num_layers, batch_first=True
        )
        self.output = nn.Linear(recipe.hidden_size, len(CHARACTERS))

    def forward(
        self, token: torch.Tensor, hidden: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ``[batch, time]``, hidden ``[num_layers, batch, hidden_size]``."""
        y, hidden = self.gru(self.embedding(token), hidden)  # [batch, time, hidden_size]
        return self.output(y), hidden


def plain_seconds(recipe: Recipe) -> float:
    """Seconds a step of a plain loop."""
    model = Plain(recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, fused=True)
    hidden: torch.Tensor | None = None
    stamps = []
    for _ in range(STEPS):
        token = torch.randint(len(CHARACTERS), (BATCH, TIME + 1))  # [batch, time + 1]
        logits, hidden = model(token[:, :-1], hidden)  # [batch, time, vocab_size]
        loss = F.cross_entropy(logits.flatten(0, 1), token[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        hidden = hidden.detach()
        stamps.append(time.perf_counter())
    return statistics.median(after - before for before, after in pairwise(stamps[WARM_UP:]))


def product_seconds(recipe: Recipe, dtype: torch.dtype) -> float:
    """Seconds of the products of one step, forward and backward, and of nothing else."""
    hidden, rows = recipe.hidden_size, BATCH * TIME
    widths = [recipe.embedding_dim] + [hidden] * (recipe.num_layers - 1)
    whole = [(rows, width, 3 * hidden) for width in widths]
    whole.append((rows, hidden, len(CHARACTERS)))
    best = []
    for _ in range(3):
        begun = time.perf_counter()
        for n, k, m in whole:  # y = x W, dx = dy W', dW = x' dy
            x, w, y = (torch.ones(shape, dtype=dtype) for shape in ((n, k), (k, m), (n, m)))
            torch.mm(x, w, out=y)
            torch.mm(y, w.t())
            torch.mm(x.t(), y)
        for _ in range(recipe.num_layers):
            state = torch.ones(BATCH, hidden, dtype=dtype)
            weight = torch.ones(hidden, 3 * hidden, dtype=dtype)
            gates = torch.ones(BATCH, 3 * hidden, dtype=dtype)
            for _ in range(TIME):
                torch.mm(state, weight, out=gates)
            for _ in range(TIME):
                torch.mm(gates, weight.t(), out=state)
            torch.mm(
                torch.ones(hidden, rows, dtype=dtype), torch.ones(rows, 3 * hidden, dtype=dtype)
            )
        best.append(time.perf_counter() - begun)
    return min(best)
