"""Checkpoints: all that a training run needs to go on as if it had never stopped.

The file is a line that names the format, the SHA-256 of what follows, and an archive of PyTorch
that holds tensors and one JSON text, read with ``weights_only=True``.
"""

import hashlib
import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chargen_ort.checks import printable
from chargen_ort.errors import OptionError
from chargen_ort.files import write_atomically
from chargen_ort.vocabulary import Vocabulary
from chargen_train.corpus import Corpus
from chargen_train.model import CharGRU
from chargen_train.recipe import Recipe
from chargen_train.state_checks import (
    check_fields,
    check_optimizer,
    check_random_states,
    check_range,
    check_tensor,
    check_weights,
    check_windows,
    meta_model,
)
from chargen_train.windows import Windows

_MAGIC = b"chargen checkpoint 2\n"
_ZIP = b"PK\x03\x04"  # the archive's first bytes; PyTorch would also read bare pickles
_DIGEST = 65  # 64 hexadecimal digits and a line end
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_THREADS = 1024
_MOST_SHOWN = 160  # characters of what a file brings into a message

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
    if path.exists() and not path.is_file():  # a pipe may never end
        raise OptionError(f"{path} is no regular file; give the checkpoint of a run")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise OptionError(f"no such checkpoint: {path}") from None
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:  # a NUL in it
        raise OptionError(f"cannot read {str(path)!a}: it is not a path") from None
    payload = memoryview(data)[len(_MAGIC) + _DIGEST :]
    if not data.startswith(_MAGIC):
        raise OptionError(f"{path} is not a checkpoint that this version of train-export wrote")
    digest = data[len(_MAGIC) : len(_MAGIC) + _DIGEST]
    if digest != hashlib.sha256(payload).hexdigest().encode() + b"\n":
        raise OptionError(f"{path} is damaged: its SHA-256 does not match")
    try:
        checkpoint = _from_archive(payload)
        _check(checkpoint)
    except Exception as error:  # PyTorch raises whatever a forged archive leads it to
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise OptionError(
            f"{path} is not a checkpoint of a run: {printable(reason, _MOST_SHOWN)}"
        ) from None
    return checkpoint


def _from_archive(payload: memoryview) -> Checkpoint:
    """The checkpoint in an archive; only its form is checked, not its values."""
    if payload[:4] != _ZIP:
        raise ValueError("it is no archive of PyTorch")
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(payload):
            raise ValueError("it is compressed")  # it could be a thousand times larger
    with warnings.catch_warnings(action="ignore"):
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    facts = json.loads(content.pop("facts"))
    vocabulary = check_fields(Vocabulary, facts["vocabulary"])
    vocabulary["characters"].encode()  # no lone surrogates
    facts["vocabulary"] = Vocabulary(**vocabulary)
    facts["recipe"] = Recipe(**check_fields(Recipe, facts["recipe"]))
    facts["plan"] = Plan(**check_fields(Plan, facts["plan"]))
    return Checkpoint(**check_fields(Checkpoint, {**facts, **content}, may_be_nan=("loss",)))


def _check(checkpoint: Checkpoint) -> None:
    """Refuse values that no run could have saved; those that depend on the corpus come later."""
    recipe, plan = checkpoint.recipe, checkpoint.plan
    if not _SHA256.fullmatch(checkpoint.corpus_sha256):
        raise ValueError("corpus_sha256 is no SHA-256")
    if plan.device not in ("cpu", "cuda"):
        raise ValueError("device is neither cpu nor cuda")
    check_range("threads", plan.threads, 1, _MOST_THREADS)
    check_range("reserve", plan.reserve, 0)
    check_range("measured", plan.measured, 2)
    for name in ("step", "evaluations", "phase_step", "seconds", "phase_begun", "best_step"):
        check_range(name, getattr(checkpoint, name), 0)
    check_range("measured_step", checkpoint.measured_step or 0, 0)
    if (checkpoint.best is None) != (checkpoint.best_loss is None):
        raise ValueError("best and best_loss are not there together")
    if len(checkpoint.teachers) > recipe.teachers:
        raise ValueError("it has more teachers than its recipe")
    model = meta_model(
        len(checkpoint.vocabulary), recipe.embedding_dim, recipe.hidden_size, recipe.num_layers
    )
    check_weights("weights", checkpoint.weights, model)
    check_weights("average", checkpoint.average, model)
    if checkpoint.best is not None:
        check_weights("best", checkpoint.best, model)
    for teacher in checkpoint.teachers:
        check_weights("teachers", teacher, model)
    check_optimizer(checkpoint.optimizer, model)
    shape = recipe.batch_size, recipe.num_layers, recipe.hidden_size
    check_tensor("hidden", checkpoint.hidden, shape)
    on_cuda = plan.device == "cuda"
    check_random_states(checkpoint.torch_random, checkpoint.cuda_random, on_cuda)
    check_windows(checkpoint.windows)


def is_checkpoint(path: Path) -> bool:
    """Whether it is a file that begins as a checkpoint of any version does."""
    try:
        if not path.is_file():  # opening a pipe would wait for somebody to write into it
            return False
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)).startswith(_MAGIC[:18])
    except (OSError, ValueError):
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


def refuse_misfit(checkpoint: Checkpoint, corpus: Corpus) -> None:
    """Refuse a checkpoint whose vocabulary or place in the text is none of `corpus`'s.

    Raises:
        OptionError: the SHA-256 may be right nevertheless: of a forged checkpoint, or of one that
            was made by a version that read the text otherwise.
    """
    if checkpoint.vocabulary.characters != corpus.vocabulary.characters:
        raise OptionError(
            f"the checkpoint has {len(checkpoint.vocabulary):,} characters that are not the "
            f"{len(corpus.vocabulary):,} of {corpus.name}; train anew"
        )
    windows = Windows(corpus.training, checkpoint.recipe, torch.device("cpu"))
    windows.restore(checkpoint.windows)


def _shown(value: object) -> str:
    return "not given" if value is None else f"{value}"
