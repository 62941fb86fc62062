"""What chargen-ort prints about models and texts."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from chargen_ort.artifact import Artifact
from chargen_ort.batch import WrittenText
from chargen_ort.documents import DOCUMENT_WORDS, cut_documents
from chargen_ort.engine import Engine
from chargen_ort.errors import OptionError, UnknownCharacterError
from chargen_ort.generator import CharGenerator
from chargen_ort.graphs import VARIANTS
from chargen_ort.models import ChosenModel
from chargen_ort.options import TABLE
from chargen_ort.records import PIECE, Base, Certificate, Gate, HeldOut, Training
from chargen_ort.scoring import LINE_END, Score, score_continuations
from chargen_ort.vocabulary import UnknownPolicy, Vocabulary

_LINES_AT_ONCE = 1024
_CHARACTERS_AT_ONCE = 1 << 20
_TEXTS_AT_ONCE = 64  # scored side by side for --json …
_SECONDS = 0.1  # … but what is written need not wait longer than this for others
_SHOWN_CHARACTERS = 100
_SHOWN_PIECES = 20


def written_lines(texts: Iterable[WrittenText], before: str) -> Iterator[str]:
    """The texts in the order of their rows, each after `before` and with a line end."""
    yield from (f"{before}{written.text}\n" for written in in_order(texts))


def written_objects(
    engine: Engine,
    texts: Iterable[WrittenText],
    start: str,
    seed: int | None,
    unknown: UnknownPolicy | None,
) -> Iterator[str]:
    """The texts in the order of their rows, a JSON object and a line end each.

    `log_probability` is that of `text` as what follows `start`, in nats, under the model's own
    probabilities: no temperature and no filters. A stop string is not part of it; the end of a
    text is that the model has ended.
    """
    waiting: list[WrittenText] = []
    flushed = time.monotonic()
    for written in in_order(texts):
        waiting.append(written)
        if len(waiting) == _TEXTS_AT_ONCE or time.monotonic() - flushed > _SECONDS:
            yield from _objects(engine, waiting, start, seed, unknown)
            waiting, flushed = [], time.monotonic()
    yield from _objects(engine, waiting, start, seed, unknown)


def _objects(
    engine: Engine,
    texts: list[WrittenText],
    start: str,
    seed: int | None,
    unknown: UnknownPolicy | None,
) -> Iterator[str]:
    ended = [written.ended == "end" for written in texts]
    totals = score_continuations(engine, start, [each.text for each in texts], unknown, ended)
    for written, total in zip(texts, totals, strict=True):
        fields = {
            "start": start,
            "text": written.text,
            "log_probability": total,
            "ended": written.ended,
            "seed": seed,
            "row": written.index,
        }
        yield json.dumps(fields) + "\n"


def in_order(texts: Iterable[WrittenText]) -> Iterator[WrittenText]:
    """The texts in the order of their rows, each as soon as those before it are there."""
    waiting: dict[int, WrittenText] = {}
    due = 0
    for written in texts:
        waiting[written.index] = written
        while due in waiting:
            yield waiting.pop(due)
            due += 1


def text_score(
    generator: CharGenerator,
    text: str,
    window: int | None,
    unknown: UnknownPolicy | None,
    as_json: bool,
) -> Iterator[str]:
    """The score of a whole text, a line each figure.

    A model of documents scores the documents of the text, each on its own, and their sum is shown:
    it counts each end as a character.
    """
    documents = generator.artifact.training.split.documents
    if not generator.config.end:
        score = generator.score(text, window=window, unknown=unknown, per_character=False)
        count = {}
    else:
        if window is not None:
            raise OptionError(
                "window is for running text, and this model's texts end; leave it out"
            )
        texts = list(cut_documents([text], documents)) or [""]
        scores = generator.score_batch(texts, unknown=unknown, end=True)
        total = math.fsum(each.total for each in scores)
        characters = sum(each.characters for each in scores)
        tokens = None if scores[0].tokens is None else sum(each.tokens or 0 for each in scores)
        score = Score(total, characters, None, sum(each.unknown for each in scores), tokens)
        count = {"documents": len(texts)}
    if as_json:
        yield json.dumps(score_figures(score) | count) + "\n"
        return
    if count:
        yield f"documents      {len(texts):,}\n"
    yield f"characters     {score.characters:,}\n"
    if score.unknown:
        yield f"unknown        {score.unknown:,}\n"
    if score.tokens is not None:
        yield f"tokens         {score.tokens:,}\n"
    yield f"log prob       {score.total:.4f} nats\n"
    yield f"nats per char  {score.nats_per_char:.4f}\n"
    yield f"bits per char  {score.bits_per_char:.4f}\n"
    yield f"perplexity     {score.perplexity:.4f}\n"
    if score.tokens is not None:
        yield f"nats per token {score.nats_per_token:.4f}\n"


def line_scores(
    generator: CharGenerator,
    text: str,
    unknown: UnknownPolicy | None,
    as_json: bool,
    complain: Callable[[str], None],
) -> Iterator[str]:
    """A line for each line of `text`, with tabs between the columns.

    The columns are the log probability in nats, bits per character, the number of unknown
    characters, and the line. Each line is scored as a text of its own, from its beginning to its
    end, which is one of the characters scored: the end token of a model of documents, or else the
    line end, if the model knows it.

    A line without a score has ``-`` (null in JSON) in each column of figures: an empty one, where
    the model knows no end, and with the policy ``error`` one that has an unknown character.
    `complain` is told of the latter.
    """
    for lines in _some_at_once(_numbered_lines(text)):
        for (_, line), score in zip(
            lines, _scores_of(generator, lines, unknown, complain), strict=True
        ):
            if as_json:
                yield json.dumps({"line": line, **score_figures(score)}) + "\n"
            elif score is None:
                yield f"-\t-\t-\t{line}\n"
            else:
                yield f"{score.total:.4f}\t{score.bits_per_char:.4f}\t{score.unknown}\t{line}\n"


def _numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines of `text` one by one, from 1; a list of all of them could be larger than the text."""
    number, begin = 1, 0
    while begin < len(text):
        end = text.find(LINE_END, begin)
        end = len(text) if end < 0 else end
        yield number, text[begin:end]
        number, begin = number + 1, end + 1


def _some_at_once(lines: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    some: list[tuple[int, str]] = []
    characters = 0
    for number, line in lines:
        some.append((number, line))
        characters += len(line)
        if len(some) == _LINES_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield some
            some, characters = [], 0
    if some:
        yield some


def _scores_of(
    generator: CharGenerator,
    lines: list[tuple[int, str]],
    unknown: UnknownPolicy | None,
    complain: Callable[[str], None],
) -> list[Score | None]:
    has_end = generator.config.end or LINE_END in generator.vocabulary.characters
    places: list[int] = []
    for place, (number, line) in enumerate(lines):
        try:
            if unknown == "error":
                generator.vocabulary.encode(line, unknown)
        except UnknownCharacterError as error:
            complain(f"line {number}: {error}")
        else:
            if line or has_end:
                places.append(place)
    scores: list[Score | None] = [None] * len(lines)
    if places:
        texts = [lines[place][1] for place in places]
        scored = generator.score_batch(texts, unknown=unknown, end=True)
        for place, score in zip(places, scored, strict=True):
            scores[place] = score
    return scores


def score_figures(score: Score | None) -> dict[str, float | int | None]:
    """What is said of a score in JSON: null in each figure where there is none."""
    if score is None:
        names = ("characters", "unknown", "log_probability")
        return dict.fromkeys((*names, "nats_per_char", "bits_per_char", "perplexity"))
    return {
        "characters": score.characters,
        "unknown": score.unknown,
        "log_probability": score.total,
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity if math.isfinite(score.perplexity) else None,
    } | ({} if score.tokens is None else token_figures(score))


def token_figures(score: Score) -> dict[str, float | int | None]:
    """What is said of a score by tokens, where these are no characters."""
    return {"tokens": score.tokens, "nats_per_token": score.nats_per_token}


def describe(artifact: Artifact, model: ChosenModel, as_json: bool) -> Iterator[str]:
    """What is in a model file, a line each fact."""
    config = artifact.config
    if as_json:
        facts = {
            "model": str(model.path),
            "sha256": artifact.sha256,
            "bytes": len(artifact.data),
            "config": config.to_json(),
            "training": artifact.training.to_json(),
            "parity": artifact.certificate.to_json(),
            **artifact.properties,
        }
        yield json.dumps(facts) + "\n"
        return
    rows = [
        ("model", str(model)),
        ("sha256", artifact.sha256),
        ("size", f"{len(artifact.data):,} bytes"),
        ("about", artifact.properties["description"]),
        (
            "network",
            f"GRU {config.num_layers} x {config.hidden_size}, embedding {config.embedding_dim}, "
            f"{config.precision}",
        ),
        ("unit", f"{config.unit}, {describe_unit(config.vocabulary)}"),
        ("vocabulary", _vocabulary(config.vocabulary)),
        ("unknown", _unknown(config.vocabulary.unknown, config.vocabulary.replacement)),
        ("separator", "the end token" if config.end else repr(config.separator)),
        ("sampling", _sampling(artifact)),
        *describe_training(artifact.training),
        ("parity", describe_certificate(artifact.certificate, config.precision)),
        *_gate(artifact),
        ("licence", artifact.properties["license"]),
        ("made by", artifact.properties["author"]),
    ]
    yield from (f"{label:<11} {value}\n" for label, value in rows)


def describe_unit(vocabulary: Vocabulary) -> str:
    """What a token is, in a few words."""
    characters, pieces = len(vocabulary.characters), len(vocabulary.pieces)
    return {
        "char": "one character",
        "byte": "one byte of UTF-8",
        "word": f"one of {pieces:,} frequent words or {characters:,} characters",
        "bpe": f"one of {characters:,} characters or of {pieces:,} pieces joined of them",
    }[vocabulary.unit]


def _vocabulary(vocabulary: Vocabulary) -> str:
    if vocabulary.unit == "byte":
        return "256 bytes: every text"
    characters = vocabulary.characters
    more = "…" if len(characters) > _SHOWN_CHARACTERS else ""
    shown = f"{len(characters):,} characters: {characters[:_SHOWN_CHARACTERS]!r}{more}"
    if not vocabulary.pieces:
        return shown
    some = ", ".join(map(repr, vocabulary.pieces[:_SHOWN_PIECES]))
    return f"{shown}; {len(vocabulary.pieces):,} pieces: {some}…"


def _unknown(policy: str, replacement: str) -> str:
    return f"replaced by {replacement!r}" if policy == "replace" else policy


def _sampling(artifact: Artifact) -> str:
    options = artifact.config.sampling
    values = ((name, getattr(options, name), row.off) for name, row in TABLE.items())
    changed = [f"{name} {value:g}" for name, value, off in values if value not in (off, None)]
    return ", ".join(changed)


def _gate(artifact: Artifact) -> Iterator[tuple[str, str]]:
    if artifact.certificate.gate is not None:
        yield "gate", describe_gate(artifact.certificate.gate, artifact.config.precision)


def describe_training(training: Training) -> Iterator[tuple[str, str]]:
    """What a training record says, a label and a sentence for each part."""
    for corpus in training.corpora:
        yield "corpus", f"{corpus.name}: {corpus.characters:,} characters, sha256 {corpus.sha256}"
    if training.split.count:
        yield "documents", f"{training.split.count:,}, {DOCUMENT_WORDS[training.split.documents]}"
    setup = [
        f"{training.steps:,} steps",
        f"{training.epochs:.3g} epochs",
        f"on {training.device}",
        f"seed {training.seed}",
        *describe_versions(training.versions),
    ]
    yield "training", ", ".join(setup)
    yield "validation", describe_validation(training.validation)
    yield from describe_comparisons(training)


def describe_base(base: Base) -> str:
    """The model that training began with, in a few words."""
    return f"the model {base.name}, sha256 {base.sha256}"


def describe_validation(validation: HeldOut | None) -> str:
    """How well a model predicts held-out text, in one sentence."""
    if validation is None:
        return "no text was held out"
    texts = f" in {validation.documents:,} documents" if validation.documents else ""
    return (
        f"{validation.nats_per_char:.4f} nats, {validation.bits_per_char:.4f} bits a character on "
        f"{validation.characters:,} held-out characters{texts}"
    )


def describe_comparisons(training: Training) -> Iterator[tuple[str, str]]:
    """What the model began with and was held against, a label and a sentence each."""
    if training.base is not None:
        yield "base", f"training went on from {describe_base(training.base)}"
    baseline, validation = training.baseline, training.validation
    if baseline is not None and validation is not None:
        sentence = (
            f"on the same text an n-gram reaches {baseline.nats_per_char:.4f} nats, this model "
            f"{validation.nats_per_char:.4f} ({baseline.method}, order {baseline.order})"
        )
        yield "yardstick", sentence
    if (samples := training.samples) is not None:
        each = f" of {PIECE} characters" if training.split.documents == "none" else ""
        sentence = (
            f"of {samples.count:,} texts{each} that it wrote, {samples.share_in_corpus:.1%} stand "
            f"in the corpus and {samples.share_of_doubles:.1%} are equal to an earlier one"
        )
        yield "samples", sentence


def describe_certificate(certificate: Certificate, precision: str) -> str:
    """What the exporter compared and how far it differed, in one sentence."""
    limit = VARIANTS[precision].tolerance.logits
    return (
        f"largest logit difference {certificate.largest_logits_difference:.1e} over "
        f"{certificate.steps:,} steps (limit {limit:g}){_written(certificate)}; against "
        f"{certificate.against}"
    )


def _written(certificate: Certificate) -> str:
    texts = [text for text in (certificate.greedy, certificate.seeded) if text is not None]
    if not texts:  # int8 is compared step by step
        return ""
    ties = sum(text.near_ties for text in texts)
    equal = "equal" if not ties else f"equal but for {ties} ties within the limit"
    return f", greedy and seeded text {equal}"


def describe_gate(gate: Gate, precision: str) -> str:
    """What a smaller precision costs, in one sentence."""
    return (
        f"{precision} {gate.nats_per_char:.4f} nats a character, fp32 "
        f"{gate.fp32_nats_per_char:.4f}: {gate.loss_increase:+.4f} (limit "
        f"{gate.max_loss_increase:g}); the likeliest character is the same at "
        f"{gate.greedy_agreement:.1%} of {gate.characters:,}"
    )


def describe_versions(versions: Mapping[str, str]) -> Iterator[str]:
    """Each library with its version."""
    yield from (f"{name} {version}" for name, version in versions.items())
