"""Where an artifact may be written: over nothing that the user would miss."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chargen_ort.artifact import Artifact, read_artifact, seal
from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.provenance import Training
from chargen_train.files import as_option_error, refuse_special, write_atomically
from chargen_train.inputs import combined_sha256, describe_many, find_inputs
from chargen_train.reading import Reading
from chargen_train.run_folder import RunFolder

_DIGITS = 12  # of a SHA-256, in messages
_SEAL = seal(b"")  # what every artifact of any format ends with, but for the 64 digits


@dataclass(frozen=True)
class Origin:
    """The corpus that a model comes from.

    Attributes:
        name: for messages.
        sha256: of the file, or of several, see `combined_sha256`; it tells corpora apart.
    """

    name: str
    sha256: str

    @classmethod
    def of(cls, training: Training) -> "Origin":
        """That of an artifact, by what its `chargen.training` says."""
        names, hashes = zip(*((each.name, each.sha256) for each in training.corpora), strict=True)
        return cls(describe_many(names), combined_sha256(hashes))

    def __str__(self) -> str:
        return f"{self.name} (SHA-256 {self.sha256[:_DIGITS]}…)"


@dataclass(frozen=True)
class Target:
    """What the artifacts of one command may replace.

    Attributes:
        corpus: that the models come from.
        inputs: files that the command reads.
        overwrite: whether a model of another corpus may be replaced.
    """

    corpus: Origin
    inputs: tuple[Path, ...] = ()
    overwrite: bool = False

    def check(self, path: Path) -> None:
        """Refuse a path where there is anything but nothing, or an artifact of the same corpus.

        Nothing is written, and no pipe or device is opened.

        Raises:
            OptionError: an input of the command (by name or by link), a link, pipe, socket, device
                or folder, a file that is no artifact, or, without `overwrite`, an artifact of
                another corpus or one that cannot be read.
        """
        for source in self.inputs:
            if _is_same_file(path, source):
                raise OptionError(
                    f"cannot write {path}: it is the file {source}, which this command reads; "
                    "choose another --out"
                )
        refuse_special(path)
        with as_option_error(path):
            if not path.exists():
                return
            ours = is_artifact(path)
        if not ours:
            raise OptionError(
                f"cannot write {path}: there is a file that train-export did not write; move it "
                "away, or choose another --out"
            )
        if not self.overwrite:
            self._refuse_other_corpus(path)

    def check_run(self, folder: RunFolder) -> None:
        """Refuse to begin a run where the files of another one would be lost.

        An unfinished run is moved aside by `RunFolder.begin` and need not be feared for.

        Raises:
            OptionError: the folder is none of a run, the corpus is a file of the run, or, without
                `overwrite`, there is a finished run of another corpus.
        """
        folder.refuse_foreign()
        for source in self.inputs:
            for file in folder.files:
                if _is_same_file(file, source):
                    raise OptionError(
                        f"{source} is a file of the run {folder.path}, which begins anew; copy it "
                        "elsewhere first, or choose another --out"
                    )
        found = folder.finished_corpus
        if found is not None and found[1] != self.corpus.sha256 and not self.overwrite:
            raise OptionError(self._describe_other(folder.path, "run", Origin(*found)))

    def write(self, path: Path, artifact: Artifact) -> None:
        """Check again, as hours may have passed, and write.

        Raises:
            OptionError: see `check`, or the path cannot be written; what was there is untouched.
        """
        self.check(path)
        write_atomically(path, artifact.data)

    def _refuse_other_corpus(self, path: Path) -> None:
        try:
            found = Origin.of(read_artifact(path).training)
        except ArtifactError as error:
            raise OptionError(
                f"cannot tell which corpus the model in {path} is of ({error}); give --overwrite "
                "to replace it, or choose another --out"
            ) from None
        if found.sha256 != self.corpus.sha256:
            raise OptionError(self._describe_other(path, "model", found))

    def _describe_other(self, path: Path, what: str, found: Origin) -> str:
        return (
            f"{path} holds the {what} of another corpus, {found}, and this one is {self.corpus}; "
            "give --overwrite to replace it, or choose another --out"
        )


def find_read(
    paths: Sequence[Path], path: Path, reading: Reading, base: Path | None
) -> tuple[Path, ...]:
    """Every file that a run reads, of which none may be written to.

    Raises:
        CorpusError: see `find_inputs`.
        OptionError: the artifact would lie in a folder that is read.
    """
    for folder in paths:
        if folder.is_dir() and path.resolve().is_relative_to(folder.resolve()):
            raise OptionError(
                f"cannot write {path}: it is in the folder {folder}, which this command reads, and "
                "would be part of the corpus the next time; choose another --out"
            )
    inputs = [each.path for each in find_inputs(paths)]
    if reading.holdout_kind == "file":
        inputs.append(Path(str(reading.holdout)))
    return (*inputs, *([] if base is None else [base]))


def is_artifact(path: Path) -> bool:
    """Whether a regular file ends with a seal, as the artifacts of every format version do.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= len(_SEAL):
            return False
        file.seek(-len(_SEAL), os.SEEK_END)
        return file.read()[:-64] == _SEAL[:-64]


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # one of them is not there
        return False
