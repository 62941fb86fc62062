"""The training loop: truncated back-propagation through time, the best weights kept."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from chargen_ort.errors import OptionError, TrainingError
from chargen_ort.sampling import SamplingOptions
from chargen_train.corpus import Corpus
from chargen_train.evaluate import WINDOW, bits_per_char, mean_loss, sample_text
from chargen_train.model import CharGRU, initialise
from chargen_train.recipe import Recipe
from chargen_train.windows import Windows

EVALUATIONS = 10  # during a run
MAX_VALIDATION = 1_000_000  # characters of the tail that the last evaluation reads
_MAX_QUICK_VALIDATION = 32_768  # and those during the run
_SAMPLE_LENGTH = 72
_WARM_UP = 0.02  # of the run
_BETAS = (0.9, 0.99)
_NARROW = 128  # up to this hidden size one thread and float32 are the fastest
_BF16_GAIN = 1.3  # bf16 must be so much faster to be taken


@dataclass(frozen=True)
class Progress:
    """What a run reports after a step.

    Attributes:
        step: steps done.
        fraction: of the run that is done, 0 to 1.
        loss: of the last step, nats a character.
        validation: best mean loss on held-out text so far, nats a character; None before the first.
        chars_per_second: training speed, since the start.
        seconds_left: estimated.
        sample: text that the model writes now; only at evaluations.
    """

    step: int
    fraction: float
    loss: float
    validation: float | None
    chars_per_second: float
    seconds_left: float
    sample: str | None = None


@dataclass(frozen=True)
class TrainedModel:
    """The best weights, on the CPU in float32, and the run's facts for `chargen.training`."""

    model: CharGRU
    summary: dict[str, Any]


def choose_device(name: str) -> torch.device:
    """The device to train on.

    Raises:
        OptionError: cuda is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("device is cuda, but PyTorch finds none here; give --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def train(
    corpus: Corpus, recipe: Recipe, on_progress: Callable[[Progress], None] | None = None
) -> TrainedModel:
    """Train a `CharGRU` on `corpus`.

    Raises:
        TrainingError: the loss is not finite.
        OptionError: the device is not there.
    """
    begun = time.monotonic()
    device = choose_device(recipe.device)
    with torch.random.fork_rng(), _threads(recipe, device):
        torch.manual_seed(recipe.seed)
        model = build_model(corpus, recipe).to(device)
        run = _Run(model, corpus, recipe, device, begun)
        while run.fraction() < 1:
            run.take_step()
            sample = run.evaluate() if run.evaluation_due() else None
            if on_progress:
                on_progress(run.progress(sample))
        return run.finish()


def build_model(corpus: Corpus, recipe: Recipe) -> CharGRU:
    """A model of the recipe's sizes with start weights drawn from torch's generator."""
    model = CharGRU(
        len(corpus.vocabulary),
        recipe.embedding_dim,
        recipe.hidden_size,
        recipe.num_layers,
        recipe.dropout,
        recipe.weight_drop,
    )
    initialise(model)
    return model


class _Run:
    """All that changes while training."""

    def __init__(
        self, model: CharGRU, corpus: Corpus, recipe: Recipe, device: torch.device, begun: float
    ) -> None:
        self.model = model
        self.corpus = corpus
        self.recipe = recipe
        self.device = device
        self.begun = begun
        self.windows = Windows(corpus.training, recipe, device)
        self.average = copy.deepcopy(model)
        self.best = model  # until the first evaluation
        self.best_loss: float | None = None
        self.autocast = _autocast(recipe, device)
        self.optimizer = _optimizer(model, recipe)
        self.hidden = model.zero_hidden(recipe.batch_size)
        self.steps = _steps(recipe, self.windows.per_epoch)
        self.step = 0
        self.loss = math.nan
        self.evaluations = 0
        self.reserve = 0.0  # seconds that the end of the run will take
        if recipe.minutes is not None:
            self._measure_reserve(recipe.minutes)

    def fraction(self) -> float:
        """How much of the run is done: by steps, or by the clock."""
        if self.steps is not None:
            return self.step / self.steps
        assert self.recipe.minutes is not None
        return (time.monotonic() - self.begun) / max(0.1, self.recipe.minutes * 60 - self.reserve)

    def take_step(self) -> None:
        recipe = self.recipe
        token, target, keep = self.windows.next()  # [batch, time] twice, [batch, 1, 1]
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(recipe, min(1.0, self.fraction()))
        with self.autocast():
            logits, hidden = self.model(token, self.hidden * keep)  # [batch, time, vocab_size]
            loss = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), recipe.gradient_clip or math.inf, foreach=True
        )
        self.loss = loss.item()
        if not math.isfinite(self.loss) or not math.isfinite(norm.item()):
            raise TrainingError(
                f"the loss is {self.loss} and the gradient norm {norm.item()} at step "
                f"{self.step}: not finite; try a --learning-rate below {recipe.learning_rate:g}"
            )
        self.optimizer.step()
        self.hidden = hidden.detach().float()  # [batch, num_layers, hidden_size]
        self.step += 1
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        if self.recipe.average == 0:
            decay = 0.0
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.model.parameters()), 1 - decay
        )

    def evaluation_due(self) -> bool:
        return self.fraction() >= (self.evaluations + 1) / EVALUATIONS

    def evaluate(self) -> str:
        """Keep the averaged weights if they are the best so far; returns a sample of text."""
        self.evaluations = math.floor(self.fraction() * EVALUATIONS)
        tail = self.corpus.validation[:_MAX_QUICK_VALIDATION]
        if len(tail):
            with self.autocast():
                loss = mean_loss(self.average, tail)
            if self.best_loss is None or loss < self.best_loss:
                self.best_loss = loss
                self.best = copy.deepcopy(self.average)
        return sample_text(
            self.average,
            self.corpus.vocabulary,
            choose_separator(self.corpus),
            _SAMPLE_LENGTH,
            SamplingOptions(temperature=0.8, seed=self.recipe.seed),
        )

    def progress(self, sample: str | None) -> Progress:
        seconds = time.monotonic() - self.begun
        fraction = min(1.0, self.fraction())
        characters = self.step * self.recipe.batch_size * self.recipe.seq_length
        return Progress(
            step=self.step,
            fraction=fraction,
            loss=self.loss,
            validation=self.best_loss,
            chars_per_second=characters / seconds,
            seconds_left=seconds * (1 - fraction) / fraction,
            sample=sample,
        )

    def finish(self) -> TrainedModel:
        """The best weights, measured in float32 on the whole tail."""
        best = self.best if self.best_loss is not None else self.average
        best = copy.deepcopy(best).to("cpu", torch.float32).eval()
        tail = self.corpus.validation[:MAX_VALIDATION]
        loss = mean_loss(best, tail) if len(tail) else None
        return TrainedModel(best, _summary(self, loss, len(tail)))

    def _measure_reserve(self, minutes: float) -> None:
        """Time a little of what comes after the last step: float32 evaluation, and parity."""
        sample = np.resize(self.corpus.tokens, 4 * WINDOW)
        cpu = copy.deepcopy(self.model).to("cpu")
        mean_loss(cpu, sample)
        begun = time.monotonic()
        mean_loss(cpu, np.resize(self.corpus.tokens, 64 * WINDOW))
        per_character = (time.monotonic() - begun) / (64 * WINDOW)
        validation = min(len(self.corpus.validation), MAX_VALIDATION)
        parity = 2 * 9 * 1000  # the steps that parity takes on both sides
        self.reserve = min(per_character * (validation + 2 * parity) + 0.5, 0.2 * minutes * 60)


def choose_separator(corpus: Corpus) -> str:
    """The character that stands before a text begins.

    A line end, else a space, else the corpus's last character: what would stand before its first
    one if it were read again.
    """
    characters = corpus.vocabulary.characters
    last = characters[int(corpus.tokens[-1])]
    return next((c for c in "\n " if c in characters), last)


def _summary(run: _Run, loss: float | None, characters: int) -> dict[str, Any]:
    recipe, corpus = run.recipe, run.corpus
    settings = {k: v for k, v in asdict(recipe).items() if v is not None and k != "device"}
    return {
        "corpus": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "characters": len(corpus),
            "training_characters": corpus.cut,
        },
        "validation": None
        if loss is None
        else {
            "nats_per_char": loss,
            "bits_per_char": bits_per_char(loss),
            "characters": characters,
            "protocol": f"mean over consecutive {WINDOW}-character windows of the held-out tail, "
            "each from a zero state",
        },
        "steps": run.step,
        "epochs": run.step / run.windows.per_epoch,
        "device": run.device.type,
        "settings": settings,
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


def _schedule(recipe: Recipe, fraction: float) -> float:
    if recipe.schedule == "constant":
        return 1.0
    warm_up = min(1.0, (fraction + 1e-3) / _WARM_UP)
    return warm_up * 0.5 * (1 + math.cos(math.pi * fraction))


def _steps(recipe: Recipe, per_epoch: float) -> int | None:
    if recipe.epochs is not None:
        return max(1, round(recipe.epochs * per_epoch))
    return recipe.steps


def _optimizer(model: CharGRU, recipe: Recipe) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=recipe.learning_rate,
        betas=_BETAS,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _autocast(
    recipe: Recipe, device: torch.device
) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """A context for the forward pass: bf16 where it is clearly faster for these shapes."""
    bf16 = device.type == "cuda" or (
        recipe.hidden_size > _NARROW
        and _matmul_seconds(recipe, torch.float32)
        > _BF16_GAIN * _matmul_seconds(recipe, torch.bfloat16)
    )
    if not bf16:
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


def _matmul_seconds(recipe: Recipe, dtype: torch.dtype) -> float:
    """Seconds of one recurrent product, the best of several."""
    x = torch.ones(recipe.batch_size, recipe.hidden_size, dtype=dtype)
    w = torch.ones(3 * recipe.hidden_size, recipe.hidden_size, dtype=dtype)
    best = math.inf
    for _ in range(10):
        begun = time.perf_counter()
        F.linear(x, w)
        best = min(best, time.perf_counter() - begun)
    return best


@contextlib.contextmanager
def _threads(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """One thread for narrow models, where more only wait for each other; restored afterwards."""
    before = torch.get_num_threads()
    if device.type == "cpu" and recipe.hidden_size <= _NARROW:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
