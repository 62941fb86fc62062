"""Keeping a run: its folder is written as training goes on, and no failure to write ends it."""

from collections.abc import Callable, Mapping

from chargen_export.report import render_report
from chargen_ort.artifact import Artifact
from chargen_ort.errors import ChargenError
from chargen_ort.files import write_atomically
from chargen_train.checkpoint import Checkpoint, load_latest, refuse_other
from chargen_train.corpus import Corpus
from chargen_train.progress import Progress
from chargen_train.recipe import Recipe
from chargen_train.run_folder import RunFolder

# a full disk, or a file in the folder that another program changed
_NOT_WORTH_A_RUN = (ChargenError, OSError, KeyError, TypeError, ValueError)


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
        self._warn(note)
        self.folder.go_on(corpus, checkpoint)
        return checkpoint

    def record(self, progress: Progress) -> None:
        """Note a step; an evaluation also makes the report anew."""
        try:
            self.folder.record(progress)
            if progress.evaluation is not None:
                self._write_report()
        except _NOT_WORTH_A_RUN as error:
            self._warn_once(error)

    def finish(self, artifact: Artifact) -> None:
        """Note the results and make the last report."""
        try:
            self.folder.finish(artifact.training, artifact.parity, len(artifact.data))
            self._write_report()
        except _NOT_WORTH_A_RUN as error:
            self._warn_once(error)

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
