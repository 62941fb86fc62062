"""Run chargen's character models with ONNX Runtime alone.

    import chargen_ort

    model = chargen_ort.load("artifacts/hello.onnx")
    print(model.generate("hell", length=40, seed=7))

Names are imported at first use, so that a command's --help need not wait for NumPy.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from chargen_ort._version import __version__

if TYPE_CHECKING:
    from chargen_ort.artifact import Artifact, parse_artifact, read_artifact
    from chargen_ort.certificate import Certificate
    from chargen_ort.config import Config
    from chargen_ort.errors import (
        ArtifactError,
        ChargenError,
        CorpusError,
        OptionError,
        ParityError,
        TrainingError,
        UnknownCharacterError,
    )
    from chargen_ort.generator import CharGenerator
    from chargen_ort.options import SamplingOptions
    from chargen_ort.provenance import Training
    from chargen_ort.score import Score
    from chargen_ort.state import TextState
    from chargen_ort.stream import TextStream
    from chargen_ort.vocabulary import Vocabulary

__all__ = [
    "Artifact",
    "ArtifactError",
    "Certificate",
    "CharGenerator",
    "ChargenError",
    "Config",
    "CorpusError",
    "OptionError",
    "ParityError",
    "SamplingOptions",
    "Score",
    "TextState",
    "TextStream",
    "Training",
    "TrainingError",
    "UnknownCharacterError",
    "Vocabulary",
    "__version__",
    "load",
    "parse_artifact",
    "read_artifact",
]

_MODULE_OF = {
    "artifact": ("Artifact", "parse_artifact", "read_artifact"),
    "certificate": ("Certificate",),
    "config": ("Config",),
    "generator": ("CharGenerator",),
    "options": ("SamplingOptions",),
    "provenance": ("Training",),
    "scoring": ("Score",),
    "state": ("TextState",),
    "stream": ("TextStream",),
    "vocabulary": ("Vocabulary",),
}


def load(path: str | os.PathLike[str], threads: int = 1) -> "CharGenerator":
    """Read, check and open a model file; see `CharGenerator.load`."""
    from chargen_ort.generator import CharGenerator

    return CharGenerator.load(path, threads)


def __getattr__(name: str) -> Any:
    module = next((m for m, names in _MODULE_OF.items() if name in names), "errors")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return __all__
