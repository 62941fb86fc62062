"""Which model to use, and how to speak of it."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chargen_ort.errors import ArtifactError, ChargenError, OptionError, UnknownCharacterError

ENVIRONMENT_VARIABLE = "CHARGEN_MODEL"
FOLDER = Path("artifacts")
DEMO_MODEL = Path(__file__).with_name("demo.onnx")
_ABOUT_A_MODEL = (ArtifactError, UnknownCharacterError)


@dataclass(frozen=True)
class ChosenModel:
    """A model file and how it came to be used; its text says both.

    Attributes:
        path: the file.
        by_default: True if it is the demo model, taken because no other was named or found.
    """

    path: Path
    by_default: bool = False

    def __str__(self) -> str:
        return (
            f"{self.path} (the demo: no model in ./{FOLDER})" if self.by_default else f"{self.path}"
        )

    def blame(self, message: str) -> str:
        """`message`, which is about this model, with the model's name if it lacks that."""
        if self.by_default:
            return f"the demo model (no model in ./{FOLDER}; name one with --model): {message}"
        named = re.search(rf"(?<![\w./-]){re.escape(str(self.path))}(?![\w/-])", message)
        return message if named else f"{self.path}: {message}"


def choose_model(*named: Path | None) -> ChosenModel:
    """The model that is named, else `$CHARGEN_MODEL`, the newest in ./artifacts, or the demo.

    Args:
        named: what each place that may name a model says; None where it names none.

    Raises:
        OptionError: two different models are named.
    """
    distinct = list(dict.fromkeys(path for path in named if path is not None))
    if len(distinct) > 1:
        raise OptionError(
            f"two models are named, {distinct[0]} and {distinct[1]}; leave one of them out"
        )
    if distinct:
        return ChosenModel(distinct[0])
    variable = os.environ.get(ENVIRONMENT_VARIABLE)
    if variable:
        return ChosenModel(Path(variable))
    found = [path for path in FOLDER.glob("*.onnx") if path.is_file()]
    if not found:
        return ChosenModel(DEMO_MODEL, by_default=True)
    return ChosenModel(max(found, key=lambda path: (path.stat().st_mtime_ns, path.name)))


@contextlib.contextmanager
def naming(
    model: ChosenModel, kinds: tuple[type[ChargenError], ...] = _ABOUT_A_MODEL
) -> Iterator[None]:
    """Let errors of `kinds` name `model`; by default those that can only be about a model."""
    try:
        yield
    except kinds as error:
        raise ChargenError(model.blame(str(error))) from None
