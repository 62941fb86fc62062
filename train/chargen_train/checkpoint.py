"""Checkpoints: all that a training run needs to go on as if it had never stopped.

The file is a line that names the format, the SHA-256 of what follows, and an archive of PyTorch
that holds tensors and one JSON text, read with ``weights_only=True``.
"""

import hashlib
import io
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chargen_ort.errors import ChargenError, OptionError
from chargen_ort.files import write_atomically
from chargen_ort.vocabulary import Vocabulary
from chargen_train.model import CharGRU
from chargen_train.recipe import Recipe

_MAGIC = b"chargen checkpoint 2\n"
_ZIP = b"PK\x03\x04"  # the archive's first bytes; PyTorch would also read bare pickles
_DIGEST = 65  # 64 hexadecimal digits and a line end

Weights = dict[str, Tensor]


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


@dataclass(frozen=True)
class Checkpoint:
    """A training run between two steps.

    Attributes:
        vocabulary, corpus_name, corpus_sha256: of the text.
        recipe, plan: what is done.
        step, evaluations: done so far.
        seconds: used up since the first step.
        loss: of the last step, nats a character.
        validation: mean loss when the averaged weights were last measured, nats a character; None
            before the first evaluation.
        best_loss, best_step: the lowest such loss, and the step when it was measured.
        measured_step: the step when the weights were last measured; None before.
        windows: place in the corpus and NumPy's random state, see `Windows.state`.
        weights: of the model being trained, by name.
        average: their exponential average.
        best: the average when `best_loss` was measured; None before.
        phase_begun: the fraction of the run at which the model being trained began.
        phase_step: steps that it has done.
        teachers: the weights of those that are trained.
        optimizer: its state.
        hidden: state carried into the next window, ``[batch, num_layers, hidden_size]``.
        torch_random, cuda_random: states of PyTorch's generators.
    """

    vocabulary: Vocabulary
    corpus_name: str
    corpus_sha256: str
    recipe: Recipe
    plan: Plan
    step: int
    evaluations: int
    seconds: float
    loss: float
    validation: float | None
    best_loss: float | None
    best_step: int
    measured_step: int | None
    windows: Mapping[str, Any]
    weights: Weights
    average: Weights
    best: Weights | None
    phase_begun: float
    phase_step: int
    teachers: list[Weights]
    optimizer: dict[str, Any]
    hidden: Tensor
    torch_random: Tensor
    cuda_random: Tensor | None

    @cached_property
    def model(self) -> CharGRU:
        """The best averaged weights so far, on the CPU, ready to run or to export."""
        recipe = self.recipe
        with torch.random.fork_rng(devices=[]):
            model = CharGRU(
                len(self.vocabulary),
                recipe.embedding_dim,
                recipe.hidden_size,
                recipe.num_layers,
                recipe.dropout,
                recipe.dropout,
            )
        model.load_state_dict(self.average if self.best is None else self.best)
        return model.eval()


_TENSORS = (
    "weights", "average", "best", "teachers", "optimizer", "hidden", "torch_random", "cuda_random",
)  # fmt: skip


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one that was there is kept beside it, see `previous_of`.

    At every moment one whole checkpoint is there, even if the disk fills up or the process dies.

    Raises:
        OptionError: not writable, or the disk is full; what was there is untouched.
    """
    content: dict[str, Any] = {name: getattr(checkpoint, name) for name in _TENSORS}
    facts = {
        f.name: getattr(checkpoint, f.name) for f in fields(checkpoint) if f.name not in _TENSORS
    }
    facts["vocabulary"] = asdict(checkpoint.vocabulary)
    facts["recipe"], facts["plan"] = asdict(checkpoint.recipe), asdict(checkpoint.plan)
    content["facts"] = json.dumps(facts)
    archive = io.BytesIO()
    torch.save(content, archive)
    payload = archive.getbuffer()
    digest = hashlib.sha256(payload).hexdigest().encode() + b"\n"
    write_atomically(path, b"".join((_MAGIC, digest, payload)), previous=previous_of(path))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; tensors are on the CPU.

    Raises:
        OptionError: missing, not readable, damaged, or not a checkpoint of this format.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise OptionError(f"no such checkpoint: {path}") from None
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from None
    payload = memoryview(data)[len(_MAGIC) + _DIGEST :]
    if not data.startswith(_MAGIC):
        raise OptionError(f"{path} is not a checkpoint that this version of train-export wrote")
    digest = data[len(_MAGIC) : len(_MAGIC) + _DIGEST]
    if digest != hashlib.sha256(payload).hexdigest().encode() + b"\n":
        raise OptionError(f"{path} is damaged: its SHA-256 does not match")
    try:
        if payload[:4] != _ZIP:
            raise ValueError("not an archive of PyTorch")
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        facts = json.loads(content.pop("facts"))
        facts["vocabulary"] = Vocabulary(**facts["vocabulary"])
        facts["recipe"], facts["plan"] = Recipe(**facts["recipe"]), Plan(**facts["plan"])
        checkpoint = Checkpoint(**facts, **content)
        _ = checkpoint.model  # its weights fit
    except (
        AttributeError, ChargenError, KeyError, RuntimeError, TypeError, ValueError,
        pickle.UnpicklingError,
    ) as error:  # fmt: skip
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OptionError(f"{path} is not a checkpoint of a run: {reason}") from None
    return checkpoint


def is_checkpoint(path: Path) -> bool:
    """Whether the file begins as a checkpoint of any version does."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)).startswith(_MAGIC[:18])
    except OSError:
        return False


def load_latest(path: Path) -> tuple[Checkpoint, str | None]:
    """The checkpoint at `path`; if it cannot be read, the previous one and a line that says why.

    The previous one then takes the place of the other, so that the next save keeps a good one.

    Raises:
        OptionError: neither can be read.
    """
    try:
        return load_checkpoint(path), None
    except OptionError as error:
        previous = previous_of(path)
        if not previous.exists():
            raise
        checkpoint = load_checkpoint(previous)
        os.replace(previous, path)
        return checkpoint, f"{error}; going on from the one before it, step {checkpoint.step}"


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def refuse_other(
    checkpoint: Checkpoint, corpus_sha256: str, settings: Mapping[str, object]
) -> None:
    """Refuse to go on with another corpus, or with `settings` other than the run's own.

    Raises:
        OptionError: naming what differs.
    """
    if corpus_sha256 != checkpoint.corpus_sha256:
        raise OptionError(
            f"cannot resume: the run read a corpus with SHA-256 {checkpoint.corpus_sha256[:12]}…, "
            f"this one has {corpus_sha256[:12]}…; give the same file, or leave --resume out"
        )
    for name, value in settings.items():
        own = getattr(checkpoint.recipe, name)
        if value != own:
            option = f"--{name.replace('_', '-')}"
            raise OptionError(
                f"cannot resume: {name} is {_shown(value)}, the run has {_shown(own)}; "
                f"leave {option} out, or leave --resume out to start anew"
            )


def _shown(value: object) -> str:
    return "not given" if value is None else f"{value}"
