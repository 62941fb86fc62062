"""What train-export shows while it works: a live line on a terminal, plain lines elsewhere."""

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.text import Text

from chargen_export.streams import SteadyStream
from chargen_ort.artifact import KINDS, STEP, Artifact
from chargen_ort.reports import (
    describe_certificate,
    describe_comparisons,
    describe_gate,
    describe_validation,
)
from chargen_train.corpus import Corpus
from chargen_train.device import choose_device
from chargen_train.earlier import Earlier
from chargen_train.events import Observer, Progress, TrainedModel
from chargen_train.recipe import Recipe
from chargen_train.words import describe_begin, describe_progress, describe_resumption

_BLOCKS = "▁▂▃▄▅▆▇█"
_SAMPLE_SHOWN = 72  # characters
_REFRESH = 4  # a second
_LARGE = 30_000_000  # bytes of a corpus, from which on it takes a moment to read it
_BAR = 40  # characters

_Arguments = ParamSpec("_Arguments")


def _shielded(show: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """`show`, whose failures are left out: what is shown is worth less than the run."""

    def call(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> None:
        with contextlib.suppress(Exception):
            show(*arguments, **options)

    return call


class Display(Observer):
    """A context that shows a run. No failure to show something ends the run.

    Args:
        file: what is shown goes there as long as it can be written; None takes nothing.

    Attributes:
        written: paths of the artifacts that were written, in their order.
    """

    def __init__(self, file: TextIO | None) -> None:
        self.written: list[Path] = []
        stream = SteadyStream(file)
        self._console = Console(file=cast(TextIO, stream), highlight=False, soft_wrap=True)
        self._is_live = stream.isatty() and not os.environ.get("CI")
        self._live: Live | None = None
        self._drawn = 0.0
        self._losses: list[float] = []  # of all steps so far

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(Exception):
            self._stop_live()

    def _line(self, label: str, text: str) -> None:
        self._console.print(Text.assemble((f"{label:<11} ", "bold"), text))

    @_shielded
    def on_reading(self, read: int, size: int) -> None:
        """On a terminal, a bar while a large corpus is read."""
        if not self._is_live or size < _LARGE:
            return
        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=_REFRESH, transient=True)
            self._live.start()
        if time.monotonic() - self._drawn >= 1 / _REFRESH:
            self._drawn = time.monotonic()
            done = round(_BAR * min(1.0, read / size))
            bar = "#" * done + "." * (_BAR - done)
            self._live.update(Text(f"reading     {bar} {read / 1e6:,.0f} of {size / 1e6:,.0f} MB"))

    @_shielded
    def on_begin(self, corpus: Corpus, recipe: Recipe) -> None:
        """Say what is trained, on what and how long."""
        self._stop_live()
        for label, text in describe_begin(corpus, recipe, str(choose_device(recipe.device))):
            self._line(label, text)
        if self._is_live:
            self._live = Live(console=self._console, refresh_per_second=_REFRESH, transient=True)
            self._live.start()

    @_shielded
    def on_resume(self, step: int, earlier: Earlier) -> None:
        """Say after which step the run goes on, and that what it is given adds to what it had."""
        self._line("resuming", describe_resumption(step, earlier))

    @_shielded
    def on_progress(self, progress: Progress) -> None:
        """Renew the live line; an evaluation gets a line that stays."""
        line = describe_progress(progress)
        self._losses.append(progress.loss)
        if self._live and time.monotonic() - self._drawn >= 1 / _REFRESH:
            self._drawn = time.monotonic()
            self._live.update(Text(f"{line}  {self._sparkline()}".rstrip()))
        if progress.sample is not None:
            self._line(f"{progress.fraction:.0%}", line if not self._live else _visible(progress))
            if not self._live:
                self._line("", _visible(progress))

    @_shielded
    def on_trained(self, trained: TrainedModel) -> None:
        """Say how good the model became."""
        self._stop_live()
        result = describe_validation(trained.summary.validation)
        summary = trained.summary
        exported = f"those of step {summary.exported_step:,} are exported"
        self._line("trained", f"{summary.steps:,} steps; {exported}: {result}")
        for label, sentence in describe_comparisons(summary):
            self._line(label, sentence)

    def on_written(self, artifact: Artifact, path: Path, corpus: Corpus | None = None) -> None:
        """Say what was written and how to run it."""
        self.written.append(path)
        self._describe(artifact, path, corpus)

    @_shielded
    def _describe(self, artifact: Artifact, path: Path, corpus: Corpus | None) -> None:
        certificate, precision = artifact.certificate, artifact.config.precision
        self._line("parity", describe_certificate(certificate, precision))
        if certificate.gate is not None:
            self._line("gate", describe_gate(certificate.gate, precision))
        if artifact.graph != STEP:
            self._line("graph", KINDS[artifact.graph])
        self._line("artifact", str(path))
        self._line("size", f"{len(artifact.data):,} bytes")
        self._line("sha256", artifact.sha256)
        self._line("next", _run_command(path, corpus))

    @_shielded
    def on_warning(self, message: str) -> None:
        """Show the message."""
        self._line("warning", message)

    def _sparkline(self) -> str:
        try:
            _BLOCKS.encode(self._console.encoding)
        except UnicodeEncodeError:
            return ""
        return sparkline(self._losses)

    def _stop_live(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The course of `values` as one line of blocks, each the mean of its part of them.

    The scale runs from the lowest to the highest block shown.
    """
    width = min(width, len(values))
    edges = [round(i * len(values) / width) for i in range(width + 1)] if width else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def _run_command(path: Path, corpus: Corpus | None) -> str:
    """How to write with the artifact, from how its corpus begins."""
    command = f"chargen-ort --model {shlex.quote(str(path))}"
    if corpus is None:
        return command
    if corpus.vocabulary.end:
        return f"{command} --num 20"
    start = corpus.beginning(40).strip().split("\n")[0][:4]
    return f"{command} --start {shlex.quote(start)}"


def _visible(progress: Progress) -> str:
    return repr((progress.sample or "")[:_SAMPLE_SHOWN])[1:-1]
