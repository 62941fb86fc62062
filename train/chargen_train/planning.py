"""What a run depends on and is measured once, before its first step."""

import copy
import time
from dataclasses import dataclass

import torch

from chargen_ort.options import SamplingOptions
from chargen_train.corpus import Corpus
from chargen_train.device import choose_bf16
from chargen_train.evaluate import mean_loss, sample_texts
from chargen_train.events import SAMPLE_TEMPERATURES
from chargen_train.model import CharGRU
from chargen_train.recipe import Recipe
from chargen_train.split import WINDOW

MAX_VALIDATION = 1_000_000  # characters that the last evaluation reads
SAMPLE_LENGTH = 160
EVALUATION_SHARE = 0.1  # of a run bounded by minutes, for all evaluations before the last
_EVALUATIONS = (10, 30)  # during a run, at least and at most
_MEASURED = (4 * WINDOW, 32_768)  # characters of an evaluation during the run
_LAST_VALIDATION = 0.1  # of the minutes given, at most
_LATER = 1.25  # times what the last evaluation would take now: the machine may be busier then
_RESERVE = 0.3  # of the minutes given, at most
_DISK_SPEED = 1e8  # bytes a second: a guess that the last checkpoint is planned with
_TIMED = (WINDOW, 16 * WINDOW)  # characters to warm up with, and to time
_TIMED_SAMPLE = 8  # characters


@dataclass(frozen=True)
class Plan:
    """What was found or measured when a run began, and holds to its end.

    Attributes:
        device: ``cpu`` or ``cuda``.
        bf16: whether the forward pass runs under bfloat16 autocast.
        threads: of PyTorch at first; another number may round differently.
        reserve: seconds of the minutes given that go to what comes before the first step and after
            the last; 0 where steps or epochs bound the run.
        measured: characters that an evaluation reads during the run.
    """

    device: str
    bf16: bool
    threads: int
    reserve: float
    measured: int


def evaluation_count(recipe: Recipe) -> int:
    """How many evaluations a run has: one a minute, within limits."""
    least, most = _EVALUATIONS
    return min(most, max(least, round(recipe.minutes or 0)))


def make_plan(model: CharGRU, corpus: Corpus, recipe: Recipe, export_seconds: float) -> Plan:
    """Measure what a run of `model` on `corpus` depends on.

    Args:
        model: with start weights, on the device of the run.
        corpus, recipe: what is done.
        export_seconds: time to leave for the export within the minutes given.
    """
    device = model.output.weight.device
    reserve, measured = 0.0, _MEASURED[1]
    if recipe.minutes is not None:
        limit = recipe.minutes * 60
        per_character, per_sample = _evaluation_seconds(model, corpus)
        # half of the share, since a machine that is quiet now may be busy later
        allowed = 0.5 * EVALUATION_SHARE * limit / evaluation_count(recipe) - per_sample
        measured = min(_MEASURED[1], max(_MEASURED[0], round(allowed / per_character)))
        last = _LATER * per_character * min(MAX_VALIDATION, len(corpus.validation))
        last = min(_LAST_VALIDATION * limit, last)
        copies = 5 + recipe.teachers  # of the weights: model, average, best, two of the optimizer
        checkpoint = 4 * copies * sum(p.numel() for p in model.parameters())  # bytes
        reserve = last + per_character * measured + per_sample + checkpoint / _DISK_SPEED
        reserve += export_seconds
        reserve = min(reserve, _RESERVE * limit)
    return Plan(
        device=device.type,
        bf16=choose_bf16(recipe, device),
        threads=torch.get_num_threads(),
        reserve=reserve,
        measured=measured,
    )


def _evaluation_seconds(model: CharGRU, corpus: Corpus) -> tuple[float, float]:
    """Seconds a character of the float32 evaluation on the CPU, and seconds of the samples."""
    cpu = copy.deepcopy(model).to("cpu")
    passages = corpus.measuring.head(_TIMED[1]).passages()
    warm_up, timed = (passages.head(length) for length in _TIMED)
    mean_loss(cpu, warm_up)
    begun = time.monotonic()
    mean_loss(cpu, timed)
    evaluated = time.monotonic()
    start = corpus.vocabulary.characters[0]
    options = [SamplingOptions(seed=0)] * len(SAMPLE_TEMPERATURES)
    sample_texts(cpu, corpus.vocabulary, start, _TIMED_SAMPLE, options)
    sampled = time.monotonic()
    return (
        (evaluated - begun) / timed.predicted,
        (sampled - evaluated) * SAMPLE_LENGTH / _TIMED_SAMPLE,
    )
