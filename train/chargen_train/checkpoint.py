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
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from chargen_ort.checks import printable
from chargen_ort.errors import OptionError
from chargen_ort.provenance import Base
from chargen_ort.strict import record_of
from chargen_ort.vocabulary import Vocabulary
from chargen_train.collecting import SourceFile
from chargen_train.corpus import Corpus
from chargen_train.earlier import MAX_LENGTHS, Earlier
from chargen_train.files import write_atomically
from chargen_train.inputs import combined_sha256
from chargen_train.model import CharGRU, model_without_numbers
from chargen_train.planning import Plan
from chargen_train.reading import Reading
from chargen_train.recipe import Recipe
from chargen_train.run import Run, State
from chargen_train.split import Part
from chargen_train.state_checks import check_fields, check_like, check_range

_MAGIC = b"chargen checkpoint 5\n"
_ZIP = b"PK\x03\x04"  # the archive's first bytes; PyTorch would also read bare pickles
_DIGEST = 65  # 64 hexadecimal digits and a line end
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_THREADS = 1024
_MOST_PROCESSES = 1 << 20
_CUDA_RANDOM_BYTES = 16  # of PyTorch's generator on a GPU
_MOST_SHOWN = 160  # characters of what a file brings into a message


@dataclass(frozen=True)
class Checkpoint:
    """A training run between two steps.

    Attributes:
        vocabulary, corpus_name: of the text.
        sources, measure: the files that it was read from, and that which measures.
        reading: how that is read and split.
        recipe, plan: what is done.
        seconds: used up of the recipe's time.
        earlier: what the run had done when it was given more time.
        base: the model that the run began with; None if it began with nothing.
        state: of each part of the run, see `Run.state`.
    """

    vocabulary: Vocabulary
    corpus_name: str
    sources: tuple[SourceFile, ...]
    measure: tuple[SourceFile, ...]
    reading: Reading
    recipe: Recipe
    plan: Plan
    earlier: Earlier
    seconds: float
    base: Base | None
    state: State

    @classmethod
    def of(cls, run: Run) -> Self:
        """The checkpoint of this moment; it shares memory with the run."""
        corpus = run.corpus
        facts = corpus.vocabulary, corpus.name, corpus.sources, corpus.measure, corpus.reading
        plan, earlier, seconds = run.plan, run.earlier, run.seconds
        return cls(*facts, run.recipe, plan, earlier, seconds, run.base, run.state())

    @property
    def corpus_sha256(self) -> str:
        """See `Corpus.sha256`."""
        return combined_sha256([each.sha256 for each in self.sources])

    @property
    def known(self) -> Vocabulary | None:
        """What the text is read with: the characters of a base, or pieces that were learnt."""
        return self.vocabulary if self.base is not None or self.vocabulary.has_pieces else None

    @property
    def step(self) -> int:
        """Steps done."""
        step: int = self.state["counters"]["step"]
        return step

    @property
    def has_begun(self) -> bool:
        """Whether a step of the recipe's time was taken."""
        return self.step > self.earlier.steps

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
        best: dict[str, Tensor] | None = self.state["best"]["weights"]
        model.load_state_dict(best or self.state["learner"]["average"])
        return model.eval()


_RECORDS = {
    "vocabulary": Vocabulary,
    "reading": Reading,
    "recipe": Recipe,
    "plan": Plan,
    "earlier": Earlier,
}
_FILES = ("sources", "measure")
_FACTS = ("corpus_name", "seconds", "base", *_FILES, *_RECORDS)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one that was there is kept beside it, see `previous_of`.

    At every moment one whole checkpoint is there, even if the disk fills up or the process dies.

    Raises:
        OptionError: not writable, or the disk is full; what was there is untouched.
    """
    facts = {name: value for name, value in vars(checkpoint).items() if name in _FACTS}
    for name in _RECORDS:
        facts[name] = asdict(facts[name])
    for name in _FILES:
        facts[name] = [asdict(each) for each in facts[name]]
    if checkpoint.base is not None:
        facts["base"] = checkpoint.base.to_json()
    content = {"facts": json.dumps(facts), "state": checkpoint.state}
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
    for name, kind in _RECORDS.items():
        values = check_fields(kind, _with_tuples(facts[name]))
        if kind is Vocabulary:
            values["characters"].encode()  # no lone surrogates
        facts[name] = kind(**values)
    for name in _FILES:
        facts[name] = tuple(SourceFile(**check_fields(SourceFile, each)) for each in facts[name])
    if facts["base"] is not None:
        facts["base"] = record_of(Base, facts["base"], "base")
    return Checkpoint(**check_fields(Checkpoint, {**facts, **content}))


def _with_tuples(values: Mapping[str, object]) -> dict[str, object]:
    """Values of a record, whose lists, as JSON has them, are tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _check(checkpoint: Checkpoint) -> None:
    """Refuse values that no run could have saved; those that depend on the corpus come later."""
    plan = checkpoint.plan
    if not checkpoint.sources:
        raise ValueError("it has no sources")
    for each in (*checkpoint.sources, *checkpoint.measure):
        each.name.encode()  # no lone surrogates
        if not _SHA256.fullmatch(each.sha256):
            raise ValueError("sha256 is no SHA-256")
    if plan.device not in ("cpu", "cuda"):
        raise ValueError("device is neither cpu nor cuda")
    check_range("threads", plan.threads, 1, _MOST_THREADS)
    check_range("reserve", plan.reserve, 0)
    check_range("measured", plan.measured, 2)
    check_range("seconds", checkpoint.seconds, 0)
    earlier = checkpoint.earlier
    for name in ("parts", "seconds"):
        check_range(f"earlier {name}", getattr(earlier, name), 0)
    if len(earlier.lengths) > MAX_LENGTHS or not earlier.lengths.isprintable():
        raise ValueError("earlier lengths is no line of words")
    os.fsencode(checkpoint.reading.holdout or "")  # a path that can be asked for
    check_like("", checkpoint.state, _form(checkpoint))
    check_range("processes", checkpoint.state["counters"]["processes"], 1, _MOST_PROCESSES)
    check_range("earlier steps", earlier.steps, 0, checkpoint.step)
    torch.Generator().set_state(checkpoint.state["random"]["torch"])
    if not checkpoint.vocabulary.end:
        np.random.default_rng(0).bit_generator.state = checkpoint.state["windows"]["generator"]


def _form(checkpoint: Checkpoint) -> State:
    """The state of a fresh run of the same recipe, whose tensors have no numbers.

    What a run does not have from its beginning, but the checkpoint has, is there as well.
    """
    state, recipe, distinct = checkpoint.state, checkpoint.recipe, len(checkpoint.vocabulary)
    sizes = recipe.embedding_dim, recipe.hidden_size, recipe.num_layers
    model = model_without_numbers(distinct, *sizes)  # sizes that a file claims take no memory
    part = Part(np.zeros(3, dtype=np.uint8), np.array([[1, 3]]), int(checkpoint.vocabulary.end))
    corpus = Corpus("", (), 2, checkpoint.vocabulary, part.tokens, part, part)
    run = Run(model, corpus, recipe, replace(checkpoint.plan, device="meta"))
    form = run.state()
    weights = form["learner"]["weights"]
    for name, part in form.items():
        if not isinstance(state.get(name), type(part)):
            raise TypeError(f"{name} is not what it is in a run")
    if state["learner"].get("moments"):
        form["learner"]["moments"] = run.learner.later_moments()
    if state["best"].get("weights") is not None:
        form["best"] |= {"weights": weights, "loss": 0.0}
    elif state["best"].get("loss") is not None:
        raise ValueError("best has a loss and no weights")
    if len(state["teachers"]) > recipe.teachers:
        raise ValueError("it has more teachers than its recipe")
    form["teachers"] = [weights] * len(state["teachers"])
    if checkpoint.plan.device == "cuda":
        form["random"]["cuda"] = torch.zeros(_CUDA_RANDOM_BYTES, dtype=torch.uint8)
    return form


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
