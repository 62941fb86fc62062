"""What a run depends on and is measured once, before its first step."""

import copy
import time

import numpy as np
import torch

from chargen_train.checkpoint import Plan
from chargen_train.corpus import Corpus
from chargen_train.device import choose_bf16
from chargen_train.evaluate import WINDOW, mean_loss
from chargen_train.model import CharGRU
from chargen_train.progress import Supervision
from chargen_train.recipe import Recipe

MAX_VALIDATION = 1_000_000  # characters of the tail that the last evaluation reads
_LAST_VALIDATION = 0.1  # of the minutes given, at most
_RESERVE = 0.3  # of the minutes given, at most
_DISK_SPEED = 1e8  # bytes a second: a guess that the last checkpoint is planned with


def make_plan(model: CharGRU, corpus: Corpus, recipe: Recipe, supervision: Supervision) -> Plan:
    """Measure what a run of `model` on `corpus` depends on."""
    device = model.output.weight.device
    reserve, characters = 0.0, min(len(corpus.validation), MAX_VALIDATION)
    if recipe.minutes is not None:
        limit = recipe.minutes * 60
        per_character = _evaluation_seconds(model, corpus)
        characters = min(characters, round(_LAST_VALIDATION * limit / per_character))
        copies = 5 + recipe.teachers  # of the weights: model, average, best, two of the optimizer
        checkpoint = 4 * copies * sum(p.numel() for p in model.parameters())  # bytes
        reserve = per_character * characters + checkpoint / _DISK_SPEED
        reserve += supervision.export_seconds
        reserve = min(reserve, _RESERVE * limit)
    return Plan(
        device=device.type,
        bf16=choose_bf16(recipe, device),
        threads=torch.get_num_threads(),
        reserve=reserve,
        validation_characters=characters,
    )


def _evaluation_seconds(model: CharGRU, corpus: Corpus) -> float:
    """Seconds a character of the float32 evaluation on the CPU that ends a run."""
    cpu = copy.deepcopy(model).to("cpu")
    mean_loss(cpu, np.resize(corpus.tokens[: 4 * WINDOW], 4 * WINDOW))
    begun = time.monotonic()
    mean_loss(cpu, np.resize(corpus.tokens[: 64 * WINDOW], 64 * WINDOW))
    return (time.monotonic() - begun) / (64 * WINDOW)
