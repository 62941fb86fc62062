"""Several processes train one model, each on its part of every batch's rows.

Each process makes the same windows and draws the same dropout masks, and keeps those of its own
rows; PyTorch's DistributedDataParallel makes one gradient of theirs. So the steps are those of one
process, but for the rounding of sums, and so is a checkpoint: it can be resumed by any number of
processes. What depends on a clock or on one process alone is decided by the first, the leader.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chargen_ort.errors import ChargenError, OptionError, TrainingError

_PATIENCE = timedelta(minutes=5)  # that a process waits for the others: more than any evaluation

Thing = TypeVar("Thing")


class LostError(TrainingError):
    """Another process of the run is gone."""


class LeaderError(ChargenError):
    """What the leader did has failed, and it says why."""


@dataclass(frozen=True)
class Team:
    """The processes of a run; alone by default, where every method gives back what it is given.

    The methods that speak to the others must be called by all of them in the same order.

    Attributes:
        rank: of this process, from 0.
        processes: how many there are.
    """

    rank: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process decides, measures and writes."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """Which rows of a batch are those of this process; their numbers differ by one at most."""
        return slice(self.rank * batch // self.processes, (self.rank + 1) * batch // self.processes)

    def agree(self, value: float) -> float:
        """The leader's number."""
        return self.total(value if self.leads else 0.0)

    def total(self, value: float) -> float:
        """The sum of the numbers of all."""
        if self.processes == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(number)
        return number.item()

    def any(self, flag: bool) -> bool:
        """Whether it is so for one of them."""
        return self.total(float(flag)) > 0

    def whole(self, part: Tensor, batch: int) -> Tensor:
        """The rows of all, ``[batch, …]``.

        Args:
            part: the rows of this process, ``[rows, …]``.
            batch: rows in all.
        """
        if self.processes == 1:
            return part
        result = part.new_zeros(batch, *part.shape[1:])
        result[self.rows(batch)] = part
        dist.all_reduce(result)
        return result

    def share(self, make: Callable[[], Thing]) -> Thing:
        """What the leader makes; it is made by no other.

        Raises:
            ChargenError: what `make` raises, in the leader.
            LeaderError: then, in the others.
        """
        if self.processes == 1:
            return make()
        error: ChargenError | None = None
        made: list[Thing | None] = [None]
        if self.leads:
            try:
                made = [make()]
            except ChargenError as problem:
                error = problem
        failed = self.any(error is not None)
        if error is not None:
            raise error
        if failed:
            raise LeaderError("the first process has failed")
        dist.broadcast_object_list(made, src=0)
        result: Thing = made[0]  # type: ignore[assignment]
        return result

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model`, whose gradients become the mean of those of all."""
        if self.processes == 1:
            return model
        return nn.parallel.DistributedDataParallel(model)


def _is_started_by_torchrun() -> bool:
    return "RANK" in os.environ


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """A context in which this process is one of those that torchrun has started.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``; on GPUs each process has one of its machine's.

    Raises:
        OptionError: there are more processes than GPUs.
    """
    if not _is_started_by_torchrun():
        yield Team()
        return
    gpus = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if gpus:
        if place >= gpus:
            raise OptionError(
                f"this machine has {gpus} GPUs and more processes than that; give "
                f"--nproc-per-node {gpus}, or --device cpu"
            )
        torch.cuda.set_device(place)
    # the small numbers of a run travel between CPUs, gradients where the model is
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=_PATIENCE)
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextmanager
def noticing_loss(describe: Callable[[], str]) -> Iterator[None]:
    """A context in which a process that is gone, or does not answer, ends the run with one line.

    Args:
        describe: says what there is to go on from.

    Raises:
        LostError: instead of what PyTorch raises.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not _is_started_by_torchrun():
            raise
        if not isinstance(error, dist.DistError) and "gloo" not in text and "onnect" not in text:
            raise
        reason = text.strip().split("\n")[0].split("] ", 1)[-1]
        raise LostError(
            f"another process of the run is gone or does not answer ({reason[:120]}); {describe()}"
        ) from None
