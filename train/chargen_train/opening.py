"""A run is begun, taken up where it stopped, or given more time: what its folder has to do with it.

Both commands that train open a run in the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from chargen_train.base import BaseModel, describe_start, refuse_other_base
from chargen_train.checkpoint import Checkpoint, load_latest, save_checkpoint
from chargen_train.choosing import choose_recipe, typical_speed
from chargen_train.continuation import with_more_time
from chargen_train.corpus import Corpus
from chargen_train.device import choose_device
from chargen_train.events import Observer
from chargen_train.files import output_path
from chargen_train.inputs import corpus_name
from chargen_train.recipe import LENGTHS, Overrides, Recipe, given_settings
from chargen_train.resuming import refuse_misfit, refuse_other
from chargen_train.run_folder import RunFolder
from chargen_train.training import measure_speed

DEFAULT_FOLDER = Path("artifacts")

Speed = Callable[[Recipe], float]  # characters a second that are trained with a recipe


@dataclass(frozen=True)
class Opening:
    """How a run begins.

    Attributes:
        corpus: with the characters of a base.
        recipe: what is done.
        checkpoint: where the run stood; None is a new one.
    """

    corpus: Corpus
    recipe: Recipe
    checkpoint: Checkpoint | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether no step of the recipe's time is taken yet."""
        return self.checkpoint is None or not self.checkpoint.has_begun


def training_path(corpus_paths: Sequence[Path], out: str | Path | None) -> Path:
    """The artifact that a run writes; without `out`, artifacts/<corpus name>.onnx.

    Raises:
        OptionError: `out` is empty.
    """
    return output_path(out, f"{corpus_name(corpus_paths)}.onnx", DEFAULT_FOLDER)


def recipe_for(
    corpus: Corpus, preset: str | None, overrides: Overrides, speed: Speed = typical_speed
) -> Recipe:
    """The recipe for a corpus, see `choose_recipe`."""
    documents = corpus.training.documents
    sizes = documents, len(corpus.vocabulary), len(corpus.training) - documents
    return choose_recipe(corpus.training.characters, preset, speed, *sizes, **overrides)


def begin_run(
    folder: RunFolder,
    corpus: Corpus,
    observer: Observer,
    preset: str | None,
    overrides: Overrides,
    base: BaseModel | None = None,
    speed: Speed | None = None,
) -> Opening:
    """Begin a new run in a folder that is locked.

    Args:
        folder: whose unfinished run is moved aside.
        corpus, preset, overrides: what is trained.
        observer: is told.
        base: that the run goes on from.
        speed: of this machine; None measures it if it matters.

    Raises:
        OptionError: the folder cannot be written.
    """
    if base is not None:
        corpus = replace(corpus, notes=(*corpus.notes, describe_start(base, corpus)))
    recipe = recipe_for(corpus, preset, overrides, speed or partial(measure_speed, corpus))
    if note := folder.begin(corpus, recipe):
        observer.on_warning(note)
    observer.on_begin(corpus, recipe)
    return Opening(corpus, recipe)


def resume_run(
    folder: RunFolder,
    corpus: Corpus,
    observer: Observer,
    preset: str | None,
    overrides: Overrides,
    base: BaseModel | None = None,
) -> Opening:
    """Go on with the run of a folder that is locked; one that has ended takes more time.

    A run has ended if nothing of its time is left and its folder says so. A length that is given is
    then in addition to what it had. So whoever repeats the command after it was interrupted adds
    nothing: the run that it goes on with has not ended.

    Raises:
        OptionError: the folder cannot be written, or has no checkpoint of this corpus, this base
            and these settings.
    """
    settings = asdict(recipe_for(corpus, preset, overrides))
    given = settings if preset else {name: settings[name] for name in given_settings(overrides)}
    checkpoint, note = load_latest(folder.checkpoint)
    more = {name: given[name] for name in LENGTHS if given.get(name) is not None}
    ended = folder.trained_steps == checkpoint.step and checkpoint.has_begun
    if ended and more and not preset:
        given = {name: value for name, value in given.items() if name not in LENGTHS}
    refuse_other(checkpoint, corpus, given)
    if base is not None:
        refuse_other_base(base, checkpoint.base)
    refuse_misfit(checkpoint, corpus)
    choose_device(checkpoint.recipe.device)
    if note:
        observer.on_warning(note)
    if ended and more and not preset:
        checkpoint = with_more_time(checkpoint, **more)
        # before the folder says that the run is not finished: a kill in between loses neither
        save_checkpoint(folder.checkpoint, checkpoint)
    folder.go_on(corpus, checkpoint)
    observer.on_begin(corpus, checkpoint.recipe)
    observer.on_resume(checkpoint.step, checkpoint.earlier)
    return Opening(corpus, checkpoint.recipe, checkpoint)
