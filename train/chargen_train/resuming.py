"""Whether a run may go on from its checkpoint: with this corpus, these files and these settings."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from chargen_ort.checks import printable
from chargen_ort.errors import OptionError
from chargen_ort.vocabulary import Vocabulary
from chargen_train.checkpoint import Checkpoint, load_checkpoint, previous_of
from chargen_train.collecting import SourceFile
from chargen_train.corpus import Corpus
from chargen_train.reading import Reading
from chargen_train.recipe import LENGTHS
from chargen_train.windows import batches_of


def refuse_other(checkpoint: Checkpoint, corpus: Corpus, settings: Mapping[str, object]) -> None:
    """Refuse to go on with another corpus, or with `settings` other than the run's own.

    Raises:
        OptionError: naming what differs.
    """
    refuse_other_files(checkpoint.sources, corpus.sources, "a corpus", "")
    refuse_other_files(checkpoint.measure, corpus.measure, "a text that measures", "--holdout ")
    for name, value in settings.items():
        own = getattr(checkpoint.recipe, name)
        if value != own:
            raise _other_setting(name, value, own)


def refuse_other_files(
    own: Sequence[SourceFile], given: Sequence[SourceFile], what: str, option: str
) -> None:
    """Refuse files whose bytes or order are not those that a run read.

    Raises:
        OptionError: naming the first that differs.
    """
    if len(own) != len(given):
        raise OptionError(
            f"cannot resume: the run read {what} of {len(own):,} files, this one has "
            f"{len(given):,}; give the same {option}files, or leave --resume out"
        )
    for mine, other in zip(own, given, strict=True):
        if mine.sha256 != other.sha256:
            name = f", {printable(other.name)}," if len(own) > 1 else ""
            raise OptionError(
                f"cannot resume: the run read {what} with SHA-256 {mine.sha256[:12]}…, this "
                f"one{name} has {other.sha256[:12]}…; give the same {option}file, or leave "
                "--resume out"
            )


def saved_reading(path: Path, given: Reading) -> tuple[Reading, Vocabulary | None]:
    """How the run with a checkpoint at `path` reads its corpus; `given` where none can be read.

    With it comes what its vocabulary has besides the corpus's characters, see `Checkpoint.known`.

    Raises:
        OptionError: `given` says something else.
    """
    for file in (path, previous_of(path)):
        with contextlib.suppress(OptionError):
            found = load_checkpoint(file)
            break
    else:
        return given, None
    own = found.reading
    for name, default in asdict(Reading()).items():
        value = getattr(given, name)
        if value not in (default, getattr(own, name)):
            raise _other_setting(name, value, getattr(own, name))
    return own, found.known


def refuse_misfit(checkpoint: Checkpoint, corpus: Corpus) -> None:
    """Refuse a checkpoint whose vocabulary or place in the text is none of `corpus`'s.

    Raises:
        OptionError: the SHA-256 may be right nevertheless: of a forged checkpoint, or of one that
            was made by a version that read the text otherwise.
    """
    if checkpoint.vocabulary != corpus.vocabulary:
        raise OptionError(
            f"the checkpoint has {len(checkpoint.vocabulary):,} tokens that are not the "
            f"{len(corpus.vocabulary):,} of {corpus.name}; train anew"
        )
    windows = batches_of(corpus.training, checkpoint.recipe, torch.device("cpu"))
    windows.load(checkpoint.state["windows"])


def _other_setting(name: str, value: object, own: object) -> OptionError:
    option = f"--{name.replace('_', '-')}"
    cure = f"leave {option} out, or leave --resume out to start anew"
    if name in LENGTHS:
        cure = (
            f"leave {option} out: a run takes more time once it has ended; or leave --resume out "
            "to start anew"
        )
    return OptionError(
        f"cannot resume: {name} is {_shown(value)}, the run has {_shown(own)}; {cure}"
    )


def _shown(value: object) -> str:
    return "not given" if value is None else f"{value}"
