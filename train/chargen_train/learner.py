"""A model in training with all that its steps change, and the best weights that were measured."""

import copy
import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chargen_ort.errors import TrainingError
from chargen_train.adamw import AdamW
from chargen_train.candidates import weighted
from chargen_train.device import autocast
from chargen_train.model import CharGRU
from chargen_train.recipe import Recipe
from chargen_train.team import Team
from chargen_train.windows import Batch

_WARM_UP = 0.02  # of the model's time


class Targets(Protocol):
    """Predictions to learn from, one for each target of a batch."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of them and `logits` ``[batch, time, vocab_size]``, nats, summed."""


@dataclass(frozen=True)
class Teaching:
    """What a model learns from besides the text.

    Attributes:
        targets: predictions.
        share: of the loss, which the text has the rest of.
    """

    targets: Targets
    share: float


class Learner:
    """One model in training.

    Args:
        model: with its first weights, on the device to train on.
        recipe: says how it is trained.
        team: the processes that train it.

    Attributes:
        model: what the steps change.
        average: the exponential average of its weights, which is what is measured and exported.
        begun: the fraction of the run at which it began.
        steps: that it has taken.
    """

    def __init__(
        self,
        model: CharGRU,
        recipe: Recipe,
        team: Team = Team(),  # noqa: B008 - frozen
    ) -> None:
        self.model = model
        self._team, rows = team, team.rows(recipe.batch_size)
        if team.processes > 1:
            model.shared = recipe.batch_size, rows
        self._forward = team.wrap(model)
        self.average = copy.deepcopy(model)
        self.begun, self.steps = 0.0, 0
        self._recipe = recipe
        self._optimizer = AdamW(model, recipe.weight_decay)
        self._hidden = model.zero_hidden(rows.stop - rows.start)  # [batch, num_layers, hidden_size]

    def take_step(
        self,
        batch: Batch,
        rate: float,
        clip: float,
        teaching: Teaching | None,
        bf16: bool,
        step: int,
    ) -> float:
        """Learn from one window of each row; returns its loss, nats a character.

        Args:
            batch: the windows; with candidates only where `teaching` is None.
            rate: of learning.
            clip: largest gradient norm; 0 does not clip.
            teaching: what there is to learn from besides the text.
            bf16: whether the forward pass runs under bfloat16 autocast.
            step: of the run, for messages.

        Raises:
            TrainingError: the loss or the gradient is not finite; no weight was changed.
        """
        with autocast(self._hidden.device, bf16):
            carried = self._hidden * batch.keep
            among = batch.among
            wanted = None if among is None else among.tokens
            logits, hidden = self._forward(batch.token, carried, batch.begins, wanted)
            logits = logits.float()  # [batch, time, vocab_size or candidates]
            if among is not None:
                logits = weighted(logits, batch.target, among)
            text_loss = self._text_loss(logits, batch)
            loss = text_loss
            if teaching is not None:
                soft_loss = self._mean(teaching.targets.loss(logits, batch), batch)
                loss = text_loss.lerp(soft_loss, teaching.share)
        self.model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip or math.inf, foreach=True)
        found = self._team.total(text_loss.item()) / self._team.processes
        # looked at before the step: the weights of the last good one are still whole
        if not math.isfinite(found) or not math.isfinite(norm.item()):
            raise TrainingError(
                f"the loss is {found} and the gradient norm {norm.item()} at step {step}: not "
                f"finite; try a --learning-rate below {self._recipe.learning_rate:g}"
            )
        self._optimizer.step(rate)
        self._hidden = hidden.detach().float()  # [batch, num_layers, hidden_size]
        self.steps += 1
        self._update_average()
        return found

    def state(self) -> dict[str, Any]:
        """What `load` needs; it shares memory with the learner."""
        return {
            "begun": self.begun,
            "steps": self.steps,
            "weights": self.model.state_dict(),
            "average": self.average.state_dict(),
            "moments": self._optimizer.state(),
            "hidden": self._team.whole(self._hidden, self._recipe.batch_size),
        }

    def _text_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean loss of the predictions in the batch; the mean over all processes is that of all."""
        logits, target = logits.flatten(0, 1), batch.target.flatten()
        if self._team.processes == 1:
            return F.cross_entropy(logits, target)
        # as a sum, since a process may have nothing to learn from
        return self._mean(F.cross_entropy(logits, target, reduction="sum"), batch)

    def _mean(self, total: Tensor, batch: Batch) -> Tensor:
        """A sum over a batch as what has the batch's mean for its mean over all processes."""
        if self._team.processes == 1:
            return total / (batch.target >= 0).sum()
        return total * (self._team.processes / batch.predicted)

    def later_moments(self) -> dict[int, dict[str, Tensor]]:
        """The entry ``moments`` of a state as it is after the first step, but for its numbers."""
        return self._optimizer.later_state()

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.begun, self.steps = state["begun"], state["steps"]
        self.model.load_state_dict(state["weights"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load(state["moments"])
        rows = self._team.rows(self._recipe.batch_size)
        self._hidden = state["hidden"][rows].to(self._hidden.device)

    @torch.no_grad()
    def _update_average(self) -> None:
        # at first the average follows closely, so that it forgets the first weights
        decay = min(self._recipe.average, (1 + self.steps) / (10 + self.steps))
        if self._recipe.average == 0:
            decay = 0.0
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.model.parameters()), 1 - decay
        )


class Best:
    """The best weights that a run has measured.

    Attributes:
        loss: mean loss, nats a character; None before the first measurement.
        step: of the run, when they were measured.
        model: that has them; None before.
    """

    def __init__(self) -> None:
        self.loss: float | None = None
        self.step = 0
        self.model: CharGRU | None = None

    def offer(self, model: CharGRU, loss: float, step: int) -> None:
        """Keep a copy of `model` if its loss is the lowest so far."""
        if self.loss is None or loss < self.loss:
            self.loss, self.step, self.model = loss, step, copy.deepcopy(model)

    def state(self) -> dict[str, Any]:
        """What `load` needs; it shares memory with the model."""
        weights = None if self.model is None else self.model.state_dict()
        return {"loss": self.loss, "step": self.step, "weights": weights}

    def load(self, state: dict[str, Any], like: CharGRU) -> None:
        """Go on where `state` was taken; the weights are put into a copy of `like`."""
        self.loss, self.step, self.model = state["loss"], state["step"], None
        if state["weights"] is not None:
            self.model = copy.deepcopy(like)
            self.model.load_state_dict(state["weights"])


def scheduled_rate(recipe: Recipe, fraction: float) -> float:
    """The learning rate when `fraction` of a model's time is used up.

    It warms up, since AdamW's first estimates are poor, and falls along a cosine to zero, so that
    the last weights are settled ones.
    """
    if recipe.schedule == "constant":
        return recipe.learning_rate
    warm_up = min(1.0, (fraction + 1e-3) / _WARM_UP)
    return recipe.learning_rate * (warm_up * 0.5 * (1 + math.cos(math.pi * fraction)))
