"""Keeping a run: its folder is written as training goes on, and no failure to write ends it."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from chargen_export.report import render_report
from chargen_ort.artifact import Artifact
from chargen_ort.errors import OptionError
from chargen_ort.files import write_atomically
from chargen_train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_latest,
    previous_of,
    refuse_misfit,
    refuse_other,
)
from chargen_train.corpus import Corpus
from chargen_train.progress import Progress
from chargen_train.recipe import Recipe
from chargen_train.run_folder import RunFolder


class RunKeeper:
    """Writes a run's folder and reports; what cannot be written is a warning, given once."""

    def __init__(self, folder: RunFolder, on_warning: Callable[[str], None] | None) -> None:
        self.folder = folder
        self._on_warning = on_warning
        self._warned = False

    def begin(self, corpus: Corpus, recipe: Recipe) -> None:
        """Start a run.

        Raises:
            OptionError: the folder cannot be written.
        """
        self._warn(self.folder.begin(corpus, recipe))

    def resume(self, corpus: Corpus, settings: Mapping[str, object]) -> Checkpoint:
        """The checkpoint to go on from.

        Raises:
            OptionError: there is none, or it is of another corpus or other `settings`.
        """
        checkpoint, note = load_latest(self.folder.checkpoint)
        refuse_other(checkpoint, corpus.sha256, settings)
        refuse_misfit(checkpoint, corpus)
        self._warn(note)
        self.folder.go_on(corpus, checkpoint)
        return checkpoint

    def record(self, progress: Progress) -> None:
        """Note a step; an evaluation also makes the report anew."""
        try:
            self.folder.record(progress)
            if progress.evaluation is not None:
                self._write_report()
        except Exception as error:  # a full disk, or a file that another program changed
            self._warn_once(error)

    def finish(self, artifact: Artifact) -> None:
        """Note the results and make the last report."""
        try:
            self.folder.finish(artifact)
            self._write_report()
        except Exception as error:  # the artifact is there
            self._warn_once(error)

    def describe_rest(self, corpus_path: Path, steps: int) -> str:
        """What there is of a model of so many steps that could not be written, and how to go on."""
        for path in (self.folder.checkpoint, previous_of(self.folder.checkpoint)):
            try:
                saved = load_checkpoint(path).step
            except OptionError:
                continue
            if saved == steps:
                command = ["train-export", "--from", str(path), "--text", str(corpus_path)]
                return f"the trained model is whole in {path}; go on with: {shlex.join(command)}"
            out = str(self.folder.artifact)
            command = ["train-export", str(corpus_path), "--out", out, "--resume"]
            return (
                f"the last checkpoint, of step {saved:,} of {steps:,}, is whole in {path}; go on "
                f"with: {shlex.join(command)}"
            )
        return "no checkpoint could be saved either, so the model is lost"

    def _write_report(self) -> None:
        page = render_report(self.folder.read_config(), self.folder.read_metrics())
        write_atomically(self.folder.report, page.encode())

    def _warn_once(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"the run folder is not complete: {error!s}")

    def _warn(self, message: str | None) -> None:
        if message is not None and self._on_warning:
            self._on_warning(message)
