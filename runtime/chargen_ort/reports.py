"""What chargen-ort prints about models and texts."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from chargen_ort.artifact import Artifact, config_to_json
from chargen_ort.errors import ChargenError, UnknownCharacterError
from chargen_ort.scoring import Score
from chargen_ort.vocabulary import UnknownPolicy

if TYPE_CHECKING:
    from chargen_ort.generator import CharGenerator

_LINES_AT_ONCE = 1024
_SHOWN_CHARACTERS = 100


def text_score(
    generator: "CharGenerator",
    text: str,
    window: int | None,
    unknown: UnknownPolicy | None,
    as_json: bool,
) -> Iterator[str]:
    """The score of a whole text, a line each figure."""
    score = generator.score(text, window=window, unknown=unknown, per_character=False)
    figures = _figures(score)
    if as_json:
        yield json.dumps(figures) + "\n"
        return
    yield f"characters     {score.characters:,}\n"
    yield f"log prob       {score.total:.4f} nats\n"
    yield f"nats per char  {score.nats_per_char:.4f}\n"
    yield f"bits per char  {score.bits_per_char:.4f}\n"
    yield f"perplexity     {score.perplexity:.4f}\n"


def line_scores(
    generator: "CharGenerator", text: str, unknown: UnknownPolicy | None, as_json: bool
) -> Iterator[str]:
    """A line for each line of `text`, tabs between: log probability, bits per character, the line.

    Log probabilities are in nats. A line without known characters has 0, and no bits per
    character.

    Raises:
        ChargenError: a character that the model does not know, with the number of its line.
    """
    numbered = enumerate(text.removesuffix("\n").split("\n"), start=1)
    while lines := list(islice(numbered, _LINES_AT_ONCE)):
        known = [line for number, line in lines if _has_known(generator, number, line, unknown)]
        scores = iter(generator.score_batch(known, unknown=unknown) if known else [])
        remaining = iter(known)
        expected = next(remaining, None)
        for _, line in lines:
            score = None
            if expected is not None and line == expected:
                score, expected = next(scores), next(remaining, None)
            if as_json:
                yield json.dumps({"line": line, **_figures(score)}) + "\n"
            elif score is None:
                yield f"0.0000\t-\t{line}\n"
            else:
                yield f"{score.total:.4f}\t{score.bits_per_char:.4f}\t{line}\n"


def _has_known(
    generator: "CharGenerator", number: int, line: str, unknown: UnknownPolicy | None
) -> bool:
    try:
        return len(generator.vocabulary.encode(line, unknown)) > 0
    except UnknownCharacterError as error:
        raise ChargenError(f"line {number}: {error}") from None


def _figures(score: Score | None) -> dict[str, float | int | None]:
    if score is None:
        return {
            "characters": 0,
            "log_probability": 0.0,
            "nats_per_char": None,
            "bits_per_char": None,
            "perplexity": None,
        }
    return {
        "characters": score.characters,
        "log_probability": score.total,
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity,
    }


def describe(artifact: Artifact, name: str, as_json: bool) -> Iterator[str]:
    """What is in a model file, a line each fact."""
    config = artifact.config
    if as_json:
        facts = {
            "model": name,
            "sha256": artifact.sha256,
            "bytes": len(artifact.data),
            "config": config_to_json(config),
            "training": dict(artifact.training),
            "parity": dict(artifact.parity),
            **artifact.properties,
        }
        yield json.dumps(facts) + "\n"
        return
    characters = config.vocabulary.characters
    shown = repr(characters[:_SHOWN_CHARACTERS]) + ("…" if len(characters) > 100 else "")
    rows = [
        ("model", name),
        ("sha256", artifact.sha256),
        ("size", f"{len(artifact.data):,} bytes"),
        ("about", artifact.properties["description"]),
        (
            "network",
            f"GRU {config.num_layers} x {config.hidden_size}, embedding {config.embedding_dim}, "
            f"{config.precision}",
        ),
        ("vocabulary", f"{len(characters):,} characters: {shown}"),
        ("unknown", _unknown(config.vocabulary.unknown, config.vocabulary.replacement)),
        ("separator", repr(config.separator)),
        ("sampling", _sampling(artifact)),
        *_training(artifact.training),
        *_parity(artifact.parity),
        ("licence", artifact.properties["license"]),
        ("made by", artifact.properties["author"]),
    ]
    yield from (f"{label:<11} {value}\n" for label, value in rows)


def _unknown(policy: str, replacement: str) -> str:
    return f"replaced by {replacement!r}" if policy == "replace" else policy


def _sampling(artifact: Artifact) -> str:
    options = artifact.config.sampling
    changed = [
        f"{name} {value:g}"
        for name, value, off in (
            ("top_k", options.top_k, 0),
            ("top_p", options.top_p, 1),
            ("min_p", options.min_p, 0),
            ("repetition_penalty", options.repetition_penalty, 1),
        )
        if value != off
    ]
    return ", ".join([f"temperature {options.temperature:g}", *changed])


def _training(training: Any) -> Iterator[tuple[str, str]]:
    if corpus := training.get("corpus"):
        yield (
            "corpus",
            f"{corpus['name']}: {corpus['characters']:,} characters, sha256 {corpus['sha256']}",
        )
        yield (
            "training",
            ", ".join([f"{training['steps']:,} steps", *_setup(training)]),
        )
        validation = training["validation"]
        yield (
            "validation",
            f"{validation['nats_per_char']:.4f} nats, {validation['bits_per_char']:.4f} bits a "
            f"character on {validation['characters']:,} held-out characters"
            if validation
            else "no text was held out",
        )


def _setup(training: Any) -> Iterator[str]:
    """What the format lets a training record leave out, and other keys may be of any kind."""
    if isinstance(epochs := training.get("epochs"), (int, float)):
        yield f"{epochs:.3g} epochs"
    if isinstance(device := training.get("device"), str):
        yield f"on {device}"
    settings = training.get("settings")
    if isinstance(settings, dict) and "seed" in settings:
        yield f"seed {settings['seed']}"
    if torch := training["versions"].get("torch"):
        yield f"torch {torch}"


def _parity(parity: Any) -> Iterator[tuple[str, str]]:
    if parity:
        texts = [parity[name] for name in ("greedy", "seeded") if name in parity]  # int8 has none
        equal = "equal" if all(text["equal"] for text in texts) else "equal but for near ties"
        written = f", greedy and seeded text {equal}" if texts else ""
        torch = parity["versions"].get("torch", "")
        against = parity.get("against", f"torch {torch}" if torch else "")
        yield (
            "parity",
            f"largest logit difference {parity['largest_logits_difference']:.1e} over "
            f"{parity['steps']:,} steps (limit {parity['tolerance']['logits']:g})"
            f"{written}{'; against ' if against else ''}{against}",
        )
