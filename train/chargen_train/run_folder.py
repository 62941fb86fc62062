"""The run folder: what a training run leaves beside its artifact.

`config.json` holds the settings and, in the end, the results; `metrics.jsonl` one JSON object a
line; `checkpoint.pt` and `checkpoint.previous.pt` what is needed to go on; `corpus.ids` the tokens
of a large corpus, until the run is finished. While a run uses the folder, it holds the lock of
`run.lock` there.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chargen_ort import __version__
from chargen_ort.artifact import Artifact
from chargen_ort.errors import OptionError
from chargen_train.checkpoint import Checkpoint, is_checkpoint, previous_of
from chargen_train.corpus import Corpus
from chargen_train.earlier import Earlier, recorded_settings
from chargen_train.evaluate import bits_per_char
from chargen_train.events import Observer, Progress
from chargen_train.files import as_option_error, write_atomically
from chargen_train.recipe import Recipe
from chargen_train.report import render_report
from chargen_train.run_lock import LOCK_NAME, FolderLock, lock_folder

_LINES = 200  # of metrics a run, evaluations not counted
_NUMBERS = ("fraction", "seconds", "loss", "learning_rate", "chars_per_second")  # of each line
_MOST = 1e18  # of any number there
_MEASURED = ("validation", "bits_per_char")  # of some


class RunFolder:
    """The folder of one artifact's run.

    Attributes:
        path: of the folder.
        artifact: where the run will write its model.
    """

    def __init__(self, artifact: Path) -> None:
        self.artifact = artifact
        self.path = artifact.with_name(artifact.name.removesuffix(".onnx") + ".run")
        self._losses: list[float] = []
        self._recorded = 0.0  # fraction of the run, or of its part, at the last line
        self._part = 1  # of a run that was given more time, the second, and so on
        self._lock: FolderLock | None = None

    @property
    def config(self) -> Path:
        """Settings and results, JSON."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """The course of the run, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """What is needed to go on."""
        return self.path / "checkpoint.pt"

    @property
    def ids(self) -> Path:
        """The tokens of a large corpus, while the run is not finished; see `TokenStore`."""
        return self.path / "corpus.ids"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that a run writes here."""
        saved = self.checkpoint, previous_of(self.checkpoint)
        return self.config, self.metrics, self.report, self.ids, *saved

    @property
    def unfinished(self) -> bool:
        """Whether there is a checkpoint to go on from, and no artifact of this run yet."""
        saved = self.checkpoint.exists() or previous_of(self.checkpoint).exists()
        return saved and not self.read_config().get("finished")

    @property
    def finished_corpus(self) -> tuple[str, str] | None:
        """Name and SHA-256 of the corpus of a run that is finished; None if there is no such."""
        config = self.read_config()
        corpus = config.get("corpus")
        if not config.get("finished") or not isinstance(corpus, dict):
            return None
        return str(corpus.get("name")), str(corpus.get("sha256"))

    @property
    def trained_steps(self) -> int | None:
        """The steps of the run here if its training has ended; None if it has not."""
        config = self.read_config()
        facts = config.get("training") if config.get("finished") else config.get("trained")
        steps = facts.get("steps") if isinstance(facts, dict) else None
        return steps if type(steps) is int else None

    def refuse_foreign(self) -> None:
        """Refuse a folder with files in it that are no run's, as a run would remove some of them.

        Raises:
            OptionError: there is something else than a run's folder, an empty one, or nothing.
        """
        cure = "move it away, or choose another --out"
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise OptionError(f"{self.path} is no folder, a run could not be kept there; {cure}")
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OptionError(f"cannot read {self.path}: {error.strerror}; {cure}") from None
        saved = self.checkpoint, previous_of(self.checkpoint)
        if "chargen" in self.read_config() or any(map(is_checkpoint, saved)):
            return
        # what is left of a run that was killed as it began
        names = [name for name in names if name != LOCK_NAME and not name.endswith(".part")]
        if names:
            raise OptionError(
                f"{self.path} is not empty and has no config.json of a run, so its files may be of "
                f"something else; {cure}"
            )

    @contextlib.contextmanager
    def in_use(self, create: bool) -> Iterator[None]:
        """A context in which no other run can use the folder.

        Args:
            create: make it if it is not there; else there is nothing to lock.

        Raises:
            OptionError: another run uses it, it is not a run's, or it cannot be written.
        """
        self.refuse_foreign()
        if not create and not self.path.exists():
            yield
            return
        with as_option_error(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(self.path)
        try:
            yield
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None
            with contextlib.suppress(OSError):  # there are files in it, as a rule
                self.path.rmdir()

    def begin(self, corpus: Corpus, recipe: Recipe) -> str | None:
        """Start a run in an empty folder.

        An unfinished run that could still be resumed is moved aside, not overwritten; then a line
        that says where is returned.

        Raises:
            OptionError: the folder cannot be written.
        """
        note = self._set_aside()
        for old in self.files[1:]:
            with contextlib.suppress(OSError):
                old.unlink()
        self._write_config(self._describe(corpus, recipe))
        return note

    def go_on(self, corpus: Corpus, checkpoint: Checkpoint) -> None:
        """Forget what was recorded after `checkpoint`, as the run will record it again.

        Raises:
            OptionError: the folder cannot be written.
        """
        earlier = checkpoint.earlier
        self._write_config(self._describe(corpus, checkpoint.recipe, earlier))
        kept = [line for line in self.read_metrics() if line["step"] <= checkpoint.step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(self.metrics, text.encode())
        here = [line["fraction"] for line in kept if line["step"] > earlier.steps]
        self._recorded, self._part = here[-1] if here else 0.0, earlier.parts + 1

    def record(self, progress: Progress) -> bool:
        """Add a line to the metrics if one is due; returns whether.

        Raises:
            OSError: the line cannot be written.
        """
        self._losses.append(progress.loss)
        evaluation = progress.evaluation
        if evaluation is None and progress.fraction < self._recorded + 1 / _LINES:
            return False
        line: dict[str, Any] = {
            "step": progress.step,
            "fraction": progress.fraction,
            "seconds": progress.seconds,
            "loss": sum(self._losses) / len(self._losses),
            "learning_rate": progress.learning_rate,
            "chars_per_second": progress.chars_per_second,
        }
        if progress.phase:
            line["phase"] = progress.phase
        if self._part > 1:
            line["part"] = self._part
        if evaluation is not None:
            if evaluation.validation is not None:
                line["validation"] = evaluation.validation
                line["bits_per_char"] = bits_per_char(evaluation.validation)
            line["samples"] = {f"{t:g}": text for t, text in evaluation.samples.items()}
        self._losses, self._recorded = [], progress.fraction
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return True

    def finish(self, artifact: Artifact) -> None:
        """Note the results; from here on the next run may overwrite this one.

        Raises:
            OptionError: the folder cannot be written.
        """
        results = {
            "precision": artifact.config.precision,
            "training": artifact.training.to_json(),
            "parity": artifact.certificate.to_json(),
            "artifact_bytes": len(artifact.data),
        }
        self._write_config(self.read_config() | {"finished": True} | results)
        with contextlib.suppress(OSError):  # as large as the corpus, and quickly made again
            self.ids.unlink()

    def note_trained(self, steps: int) -> None:
        """Note that the training has ended after so many steps; there is no artifact yet.

        Raises:
            OptionError: the folder cannot be written.
        """
        self._write_config(self.read_config() | {"trained": {"steps": steps}})

    def read_config(self) -> dict[str, Any]:
        """What `config.json` holds; empty if it is missing or not a JSON object."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            config = json.loads(self.config.read_text(encoding="utf-8"))
            if isinstance(config, dict):
                return config
        return {}

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl` that a run wrote.

        One that was cut off when a run was killed, was damaged, or came from elsewhere is left out.
        """
        lines = []
        with contextlib.suppress(OSError):
            for data in self.metrics.read_bytes().split(b"\n"):
                with contextlib.suppress(ValueError, RecursionError):
                    line = json.loads(data)
                    if _is_line(line):
                        lines.append(line)
        return lines

    def _describe(
        self,
        corpus: Corpus,
        recipe: Recipe,
        earlier: Earlier = Earlier(),  # noqa: B008 - frozen
    ) -> dict[str, Any]:
        text = corpus.in_characters
        return {
            "chargen": __version__,
            "finished": False,
            "artifact": self.artifact.name,
            "corpus": {
                "name": corpus.name,
                "sha256": corpus.sha256,
                "files": [asdict(each) for each in corpus.sources],
                "characters": len(corpus),
                "training_characters": corpus.training.characters,
                "held_out_characters": corpus.validation.characters,
                "decision": corpus.decision,
                "reading": asdict(corpus.reading),
                "vocabulary": text.vocabulary.characters,
                "begins": text.beginning(200),
                "counts": text.counts.tolist(),
            },
            "settings": recorded_settings(recipe, earlier),
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
        }

    def _write_config(self, config: Mapping[str, Any]) -> None:
        text = json.dumps(config, indent=2, ensure_ascii=True)
        write_atomically(self.config, text.encode() + b"\n")

    def _set_aside(self) -> str | None:
        if not self.unfinished:
            return None
        stem, count = self.path.name.removesuffix(".run"), 1
        while True:
            name = f"{stem}.unfinished-{count}"
            aside = self.path.with_name(f"{name}.run")
            if not os.path.lexists(aside):
                break
            count += 1
        lock = self._lock
        if lock is not None and sys.platform == "win32":  # a folder of open files cannot be renamed
            lock.release()
        try:
            os.rename(self.path, aside)
            self.path.mkdir()
        except OSError as error:
            raise OptionError(
                f"cannot move the unfinished run {self.path} aside: {error.strerror}"
            ) from None
        if lock is not None:  # it went with the folder
            self._lock = lock_folder(self.path)
            replace(lock, path=aside / LOCK_NAME).release()
        artifact = self.artifact.with_name(f"{name}.onnx")
        return f"an unfinished run was moved to {aside}; --resume --out {artifact} goes on with it"


class RunRecorder(Observer):
    """Writes the course of a run and its report into its folder.

    What cannot be written is a warning, given once, and never the run's end.

    Args:
        folder: of a run that has begun.
        warn: takes the warning, one line.
    """

    def __init__(self, folder: RunFolder, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._warn = warn
        self._warned = False

    def on_progress(self, progress: Progress) -> None:
        """Note a step; an evaluation also makes the report anew."""
        try:
            self._folder.record(progress)
            if progress.evaluation is not None:
                self._write_report()
        except Exception as error:  # a full disk, or a file that another program changed
            self._warn_once(error)

    def finish(self, artifact: Artifact) -> None:
        """Note the results and make the last report."""
        try:
            self._folder.finish(artifact)
            self._write_report()
        except Exception as error:  # the artifact is there
            self._warn_once(error)

    def _write_report(self) -> None:
        page = render_report(self._folder.read_config(), self._folder.read_metrics())
        write_atomically(self._folder.report, page.encode())

    def _warn_once(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"the run folder is not complete: {error!s}")


def _is_line(value: object) -> bool:
    """Whether a JSON value is a line as `RunFolder.record` writes it."""
    if not isinstance(value, dict) or type(value.get("step")) is not int or value["step"] < 0:
        return False
    numbers = [value.get(name) for name in _NUMBERS]
    numbers += [value[name] for name in _MEASURED if name in value]
    if not all(type(number) in (int, float) for number in numbers):
        return False
    if not isinstance(value.get("phase", ""), str) or not 0 <= value["fraction"] <= 1:
        return False
    if type(value.get("part", 1)) is not int:
        return False
    samples = value.get("samples", {})
    if not isinstance(samples, dict) or not all(isinstance(v, str) for v in samples.values()):
        return False
    return all(abs(n) < _MOST for n in (value["step"], *numbers))  # NaN is not
