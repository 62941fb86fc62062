"""What is told of a run while it goes on, in words: one source for all that show it."""

from collections.abc import Iterator

from chargen_ort.reports import describe_unit
from chargen_train.corpus import MIN_CHARACTERS_TO_VALIDATE, Corpus
from chargen_train.earlier import Earlier
from chargen_train.evaluate import bits_per_char
from chargen_train.events import Progress
from chargen_train.recipe import Recipe, describe_length, parameter_count


def describe_split(corpus: Corpus) -> str:
    """What trains and what measures the model, in words."""
    training, validation = corpus.training, corpus.validation
    if not len(validation):
        few = " (too few to hold any out)" if len(corpus) < MIN_CHARACTERS_TO_VALIDATE else ""
        return f"all of them train{few}"
    trains, measures = f"{training.characters:,}", f"{validation.characters:,}"
    if corpus.vocabulary.end:
        trains += f" in {training.documents:,} documents"
        measures = f"{validation.documents:,}"
    place = {
        "tail": f"the last {measures}",
        "spread": f"{measures} spread over all of it",
        "file": f"{measures} of another file",
    }[corpus.reading.holdout_kind]
    return f"{trains} train, {place} validate"


def describe_begin(corpus: Corpus, recipe: Recipe, device: str) -> tuple[tuple[str, str], ...]:
    """What is trained, on what and how long: a label and a line for each."""
    lines = [
        (
            "corpus",
            f"{corpus.name}: {len(corpus):,} characters, "
            f"vocabulary {len(corpus.vocabulary):,}; {describe_split(corpus)}",
        ),
        *_describe_unit(corpus),
        ("documents", corpus.decision),
        *(("note", note) for note in corpus.notes),
        *(("warning", warning) for warning in corpus.warnings),
        (
            "model",
            f"GRU {recipe.num_layers} x {recipe.hidden_size}, embedding {recipe.embedding_dim}: "
            f"{parameter_count(len(corpus.vocabulary), recipe):,} parameters, on {device}",
        ),
        (
            "training",
            f"{describe_length(recipe)}: {recipe.batch_size} x {recipe.seq_length} "
            f"{'characters' if corpus.spelled is None else 'tokens'} a step, "
            f"rate {recipe.learning_rate:g}, dropout {recipe.dropout:g}, seed {recipe.seed}",
        ),
    ]
    if recipe.teachers:
        lines.append(
            ("", f"{recipe.teachers} teachers first, then the model, which learns from them")
        )
    return tuple(lines)


def _describe_unit(corpus: Corpus) -> Iterator[tuple[str, str]]:
    """A line about what a token is, where it is no character."""
    if corpus.spelled is not None:
        each = 1 / corpus.tokens_per_character
        yield (
            "unit",
            f"{describe_unit(corpus.vocabulary)}; the text has {each:.2f} characters a token",
        )


def describe_resumption(step: int, earlier: Earlier) -> str:
    """After which step a run goes on, and that what it is given adds to what it had."""
    if not earlier.parts:
        return f"after step {step:,}"
    return (
        f"after step {step:,}; this comes in addition to {earlier.lengths}, which had ended at "
        f"step {earlier.steps:,}"
    )


def describe_progress(progress: Progress) -> str:
    """One line: which model, step, loss, validation, speed, time left."""
    validation = "no validation yet"
    if progress.validation is not None and progress.best is not None:
        validation = f"validation {bits_per_char(progress.validation):.3f} bits/char"
        if progress.best < progress.validation:
            best = bits_per_char(progress.best)
            validation += f" (best {best:.3f}, step {progress.best_step:,})"
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    phase = f"{progress.phase}  " if progress.phase else ""
    return (
        f"{phase}step {progress.step:,}  loss {progress.loss:.3f}  {validation}  "
        f"{progress.chars_per_second:,.0f} chars/s  {minutes}:{seconds:02d} left"
    )
