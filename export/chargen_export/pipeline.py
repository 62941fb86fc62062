"""From a corpus to an artifact: the whole path on one screen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chargen_export.graph import build_step_model
from chargen_export.parity import verify_parity
from chargen_export.seal import check_writable, seal_artifact
from chargen_ort import __version__
from chargen_ort.artifact import Artifact, ModelConfig
from chargen_ort.sampling import SamplingOptions
from chargen_train.corpus import Corpus, load_corpus
from chargen_train.device import choose_device
from chargen_train.model import CharGRU
from chargen_train.progress import Progress, TrainedModel
from chargen_train.recipe import Recipe, choose_recipe
from chargen_train.training import choose_separator, train

DEFAULT_FOLDER = Path("artifacts")
DEFAULT_SAMPLING = SamplingOptions(temperature=0.8)  # a little below 1 reads better than 1


@dataclass(frozen=True)
class Events:
    """What `train_and_export` calls as it goes; each may be left out."""

    on_begin: Callable[[Corpus, Recipe], None] | None = None
    on_progress: Callable[[Progress], None] | None = None
    on_trained: Callable[[TrainedModel], None] | None = None


def train_and_export(
    corpus_path: Path,
    out: Path | None = None,
    preset: str | None = None,
    events: Events = Events(),
    **overrides: Any,
) -> tuple[Artifact, Path, Corpus]:
    """Train on a text file and write the artifact; the default place is artifacts/<name>.onnx.

    Args:
        corpus_path: a UTF-8 text.
        out: where to write.
        preset: name of a preset of `chargen_train.recipe`.
        events: called as the work goes on.
        overrides: fields of `Recipe`; None means the recipe's own.

    Raises:
        ChargenError: a bad corpus, option or path, a training that diverged, or no parity; then
            nothing was written.
    """
    corpus = load_corpus(corpus_path)
    recipe = choose_recipe(corpus.cut, preset, **overrides)
    choose_device(recipe.device)
    out = out or DEFAULT_FOLDER / f"{corpus.name}.onnx"
    check_writable(out)
    if events.on_begin:
        events.on_begin(corpus, recipe)
    trained = train(corpus, recipe, events.on_progress)
    if events.on_trained:
        events.on_trained(trained)
    return export(trained.model, corpus, trained.summary, out), out, corpus


def export(model: CharGRU, corpus: Corpus, training: dict[str, Any], out: Path) -> Artifact:
    """Build the graph, prove parity on the corpus's text, seal and write.

    Raises:
        ParityError: the graph and the model disagree; nothing was written.
        OptionError: `out` cannot be written; an old file there is untouched.
    """
    model_bytes = build_step_model(model).SerializeToString(deterministic=True)
    text = corpus.validation if len(corpus.validation) else corpus.tokens
    parity = verify_parity(model_bytes, model, text)
    config = ModelConfig(
        vocabulary=corpus.vocabulary,
        embedding_dim=model.embedding_dim,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        separator=choose_separator(corpus),
        sampling=DEFAULT_SAMPLING,
    )
    properties = {
        "description": f"character-level GRU language model trained on {corpus.name} "
        f"({len(corpus)} characters)",
        "author": f"train-export (chargen-ort {__version__})",
        "license": "that of the corpus",
        "version": "1",
        "task": "text-generation",
    }
    return seal_artifact(out, model_bytes, config, training, parity, properties)
