"""The run folder: what a training run leaves beside its artifact.

`config.json` holds the settings and, in the end, the results; `metrics.jsonl` one JSON object a
line; `checkpoint.pt` and `checkpoint.previous.pt` what is needed to go on.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chargen_ort import __version__
from chargen_ort.errors import OptionError
from chargen_ort.files import write_atomically
from chargen_train.checkpoint import Checkpoint, previous_of
from chargen_train.corpus import Corpus
from chargen_train.evaluate import bits_per_char
from chargen_train.progress import Progress
from chargen_train.recipe import Recipe

_LINES = 200  # of metrics a run, evaluations not counted


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
        self._recorded = 0.0  # fraction of the run at the last line

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
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def unfinished(self) -> bool:
        """Whether there is a checkpoint to go on from, and no artifact of this run yet."""
        saved = self.checkpoint.exists() or previous_of(self.checkpoint).exists()
        return saved and not self.read_config().get("finished")

    def begin(self, corpus: Corpus, recipe: Recipe) -> str | None:
        """Start a run in an empty folder.

        An unfinished run that could still be resumed is moved aside, not overwritten; then a line
        that says where is returned.

        Raises:
            OptionError: the folder cannot be written.
        """
        note = self._set_aside()
        for old in (self.metrics, self.report, self.checkpoint, previous_of(self.checkpoint)):
            with contextlib.suppress(OSError):
                old.unlink()
        self._write_config(self._describe(corpus, recipe))
        return note

    def go_on(self, corpus: Corpus, checkpoint: Checkpoint) -> None:
        """Forget what was recorded after `checkpoint`, as the run will record it again.

        Raises:
            OptionError: the folder cannot be written.
        """
        self._write_config(self._describe(corpus, checkpoint.recipe))
        kept = [line for line in self.read_metrics() if line["step"] <= checkpoint.step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(self.metrics, text.encode())
        self._recorded = kept[-1]["fraction"] if kept else 0.0

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
        if evaluation is not None:
            if evaluation.validation is not None:
                line["validation"] = evaluation.validation
                line["bits_per_char"] = bits_per_char(evaluation.validation)
            line["samples"] = {f"{t:g}": text for t, text in evaluation.samples.items()}
        self._losses, self._recorded = [], progress.fraction
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return True

    def finish(self, training: Mapping[str, Any], parity: Mapping[str, Any], size: int) -> None:
        """Note the results; from here on the next run may overwrite this one.

        Raises:
            OptionError: the folder cannot be written.
        """
        results = {"training": training, "parity": parity, "artifact_bytes": size}
        self._write_config(self.read_config() | {"finished": True} | results)

    def read_config(self) -> dict[str, Any]:
        """What `config.json` holds; empty if it is missing or not JSON."""
        with contextlib.suppress(OSError, ValueError):
            config = json.loads(self.config.read_text(encoding="utf-8"))
            if isinstance(config, dict):
                return config
        return {}

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, without one that was cut off when a run was killed."""
        lines = []
        with contextlib.suppress(OSError):
            for line in self.metrics.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    lines.append(json.loads(line))
        return lines

    def _describe(self, corpus: Corpus, recipe: Recipe) -> dict[str, Any]:
        characters = corpus.vocabulary.characters
        return {
            "chargen": __version__,
            "finished": False,
            "artifact": self.artifact.name,
            "corpus": {
                "name": corpus.name,
                "sha256": corpus.sha256,
                "characters": len(corpus),
                "training_characters": corpus.cut,
                "vocabulary": characters,
                "begins": corpus.vocabulary.decode(corpus.tokens[:200]),
                "counts": corpus.counts().tolist(),
            },
            "settings": asdict(recipe),
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
            if not aside.exists():
                break
            count += 1
        try:
            os.rename(self.path, aside)
        except OSError as error:
            raise OptionError(
                f"cannot move the unfinished run {self.path} aside: {error.strerror}"
            ) from None
        artifact = self.artifact.with_name(f"{name}.onnx")
        return f"an unfinished run was moved to {aside}; --resume --out {artifact} goes on with it"
