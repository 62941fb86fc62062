"""Going on from a model: its weights, and the characters that it did not know."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from chargen_ort.artifact import read_artifact
from chargen_ort.checks import printable
from chargen_ort.errors import OptionError
from chargen_ort.provenance import Base
from chargen_ort.reports import describe_base
from chargen_ort.samplers import as_step
from chargen_ort.vocabulary import Vocabulary
from chargen_train.choosing import table_recipe
from chargen_train.corpus import Corpus
from chargen_train.model import CharGRU
from chargen_train.recipe import LENGTHS, SIZES, Overrides, given_settings

# measured, see EXPERIMENTS.md: dropout unlearns what the base knows before it saves the new text
_SETTINGS = {"learning_rate": 4e-3, "dropout": 0.0, "teachers": 0, "ngram_share": 0.0}
_EPOCHS = 12.0  # of a short text; its best weights come about half way
_SHOWN = 40  # new characters, in a note


@dataclass(frozen=True)
class BaseModel:
    """A model to go on from.

    Attributes:
        facts: for the record.
        model: on the CPU.
        vocabulary: of its tokens.
    """

    facts: Base
    model: CharGRU
    vocabulary: Vocabulary


def load_base(path: Path, unit: str = "char") -> BaseModel:
    """The model in an fp32 artifact of this unit.

    Raises:
        ArtifactError: not an artifact.
        OptionError: of another precision or unit.
    """
    artifact = as_step(read_artifact(path))
    config = artifact.config
    if config.precision != "fp32":
        raise OptionError(
            f"cannot go on from {path}, which is {config.precision}; give the fp32 file that it "
            "was made of"
        )
    if config.unit != unit:
        raise OptionError(
            f"cannot go on from {path}, whose unit is {config.unit}, with --unit {unit}; give "
            f"--unit {config.unit}, or another model"
        )
    facts = Base(name=printable(path.name.removesuffix(".onnx")), sha256=artifact.sha256)
    return BaseModel(facts, CharGRU.from_artifact(artifact), config.vocabulary)


def base_settings(base: BaseModel, preset: str | None, overrides: Overrides) -> Overrides:
    """The settings of a run that goes on: sizes are the base's, and nothing teaches it.

    Raises:
        OptionError: a preset, or a setting that contradicts the base.
    """
    if preset is not None:
        raise OptionError(f"--preset {preset} has sizes of its own; leave it or --from out")
    settings: dict[str, Any] = _SETTINGS | given_settings(overrides)
    if settings["teachers"]:
        raise OptionError("a run that goes on from a model has no teachers; leave them out")
    for name in SIZES:
        size = getattr(base.model, name)
        if settings.setdefault(name, size) != size:
            raise OptionError(
                f"{name} is {settings[name]}, the model {base.facts.name} has {size}; leave "
                f"--{name.replace('_', '-')} out, or --from"
            )
    return cast(Overrides, settings)


def base_length(characters: int, overrides: Overrides) -> Overrides:
    """The settings of a run that goes on, with its length where a text is short and none is given.

    From nothing, such a text is read fifty times and more; a model that knows much already has the
    best of it after some six, and then learns it by heart.

    Args:
        characters: that are trained on.
        overrides: as `base_settings` gives them.
    """
    given = given_settings(overrides).keys() & set(LENGTHS)
    if given or table_recipe(characters).steps is None:
        return overrides
    return {**overrides, "epochs": _EPOCHS}


def refuse_other_base(base: BaseModel, own: Base | None) -> None:
    """Refuse to resume a run with another base than its own.

    Raises:
        OptionError: naming both.
    """
    if own is None or own.sha256 != base.facts.sha256:
        began = f"with {describe_base(own)}" if own else "with nothing"
        raise OptionError(
            f"cannot resume: --from names {describe_base(base.facts)}, and the run began {began}; "
            "leave --from out"
        )


def describe_start(base: BaseModel, corpus: Corpus) -> str:
    """A note: what training goes on from, and which characters of the corpus are new to it."""
    met = zip(corpus.vocabulary.characters, corpus.counts.tolist(), strict=False)
    new = "".join(c for c, count in met if count and c not in base.vocabulary.characters)
    knows = "knows all characters of the corpus"
    if new:
        more = "…" if len(new) > _SHOWN else ""
        knows = f"does not know {len(new):,} of the characters: {new[:_SHOWN]!r}{more}"
    return f"training goes on from {describe_base(base.facts)}, which {knows}"


@torch.no_grad()
def take_weights(model: CharGRU, vocabulary: Vocabulary, base: BaseModel) -> None:
    """Put the weights of a base into a model of the same sizes, whose vocabulary may be larger.

    A character that the base does not know keeps the embedding that it has in `model`, and is as
    likely as a character of the base is in the mean: its output weights are the mean of theirs.

    Args:
        model: with start weights.
        vocabulary: of the model's tokens.
        base: the model to go on from.
    """
    place_of = {text: place for place, text in enumerate(_texts(base.vocabulary))}
    places = torch.tensor([place_of.get(text, -1) for text in _texts(vocabulary)])
    known, given = places >= 0, base.model.state_dict()
    for name, tensor in model.state_dict().items():
        if name.startswith("layers."):
            tensor.copy_(given[name])
            continue
        if name.startswith("output."):
            tensor.copy_(given[name].mean(0))
        tensor[known] = given[name][places[known]]


def _texts(vocabulary: Vocabulary) -> list[str]:
    """What each token stands for; the end token's text is empty."""
    return list(vocabulary.texts)
