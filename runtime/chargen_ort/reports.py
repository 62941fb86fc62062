"""What chargen-ort prints about models and texts."""

import json
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping

from chargen_ort.artifact import KINDS, Artifact
from chargen_ort.batch_plain import WrittenText
from chargen_ort.certificate import Certificate, Gate
from chargen_ort.confined import log_weight
from chargen_ort.documents import DOCUMENT_WORDS, cut_documents
from chargen_ort.engine import Engine
from chargen_ort.errors import OptionError
from chargen_ort.generator import CharGenerator
from chargen_ort.graphs import VARIANTS
from chargen_ort.lines import LineOptions, score_figures
from chargen_ort.models import ChosenModel
from chargen_ort.options import TABLE, SamplingOptions
from chargen_ort.provenance import PIECE, Base, HeldOut, Training
from chargen_ort.score import Score
from chargen_ort.scoring import score_continuations
from chargen_ort.shading import shaded
from chargen_ort.vocabulary import UnknownPolicy, Vocabulary

_TEXTS_AT_ONCE = 64  # scored side by side for --json …
_SECONDS = 0.1  # … but what is written need not wait longer than this for others
_WINDOWS_AT_ONCE = 64
_SHOWN_CHARACTERS = 100
_SHOWN_PIECES = 20


def written_lines(texts: Iterable[WrittenText], before: str) -> Iterator[str]:
    """The texts as they come, each after `before` and with a line end."""
    yield from (f"{before}{written.text}\n" for written in texts)


def written_objects(
    engine: Engine,
    texts: Iterable[WrittenText],
    start: str,
    length: int,
    options: SamplingOptions,
    unknown: UnknownPolicy | None,
) -> Iterator[str]:
    """The texts as they come, a JSON object and a line end each.

    `log_probability` is that of `text` as what follows `start`, in nats, under the model's own
    probabilities: no temperature and no filters. A stop string is not part of it; the end of a
    text is that the model has ended. A text that is confined has its `log_weight` as well.
    """
    waiting: list[WrittenText] = []
    flushed = time.monotonic()
    for written in texts:
        waiting.append(written)
        if len(waiting) == _TEXTS_AT_ONCE or time.monotonic() - flushed > _SECONDS:
            yield from _objects(engine, waiting, start, length, options, unknown)
            waiting, flushed = [], time.monotonic()
    yield from _objects(engine, waiting, start, length, options, unknown)


def _objects(
    engine: Engine,
    texts: list[WrittenText],
    start: str,
    length: int,
    options: SamplingOptions,
    unknown: UnknownPolicy | None,
) -> Iterator[str]:
    ended = [written.ended == "end" for written in texts]
    totals = score_continuations(engine, start, [each.text for each in texts], unknown, ended)
    before = engine.vocabulary.encode(start, unknown).tolist()
    for written, total in zip(texts, totals, strict=True):
        fields: dict[str, object] = {
            "start": start,
            "text": written.text,
            "log_probability": total,
            "ended": written.ended,
            "seed": options.seed,
            "row": written.index,
        }
        if options.controlled:
            ends = written.ended == "end" and engine.config.end
            weight = log_weight(engine, options, before, written.drawn, length, ends)
            fields["log_weight"] = weight
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
    it counts each end as a character. Of a model that knows how odd documents or windows are, the
    median of the percentiles of those in the text is shown.
    """
    known = generator.engine.calibration
    if not generator.config.end:
        score = generator.score(text, window=window, unknown=unknown, per_character=False)
        by_character = generator.config.unit == "char"
        measured = by_character and known is not None and known.window == window
        parts = [each for _, each in scored_windows(generator, text, unknown)] if measured else []
        count, kind = {}, f"windows of {window} characters"
    else:
        if window is not None:
            raise OptionError(
                "window is for running text, and this model's texts end; leave it out"
            )
        texts = list(cut_documents([text], generator.artifact.training.split.documents)) or [""]
        parts = generator.score_batch(texts, unknown=unknown, end=True)
        total = math.fsum(each.total for each in parts)
        characters = sum(each.characters for each in parts)
        tokens = None if parts[0].tokens is None else sum(each.tokens or 0 for each in parts)
        unknown_ones = sum(each.unknown for each in parts)
        score = Score(total, characters, None, unknown_ones, tokens=tokens)
        count, kind = {"documents": len(texts)}, "documents"
    percentiles = [each.percentile for each in parts if each.percentile is not None]
    median = statistics.median(percentiles) if percentiles else None
    if as_json:
        figures = score_figures(score) | {"percentile": median}
        yield json.dumps(figures | count) + "\n"
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
    if median is not None:
        of = f", the median of its {len(percentiles):,} {kind}" if len(percentiles) > 1 else ""
        yield f"percentile     {median:.3f}{of}\n"


def scored_windows(
    generator: CharGenerator, text: str, unknown: UnknownPolicy | None
) -> Iterator[tuple[int, Score]]:
    """Place in a running text, and score, of each whole window of it.

    A window has as many characters as those of the held-out text had, and is scored from a zero
    state after the character before it, as those were.
    """
    known = generator.engine.calibration
    size = known.window if known and known.window else len(text)
    whole = (len(text) - 1) // size * size
    for first in range(0, whole, _WINDOWS_AT_ONCE * size):
        last = min(whole, first + _WINDOWS_AT_ONCE * size)
        part = generator.score(text[first : last + 1], window=size, unknown=unknown)
        assert part.log_probabilities is not None
        for begin, scored in zip(
            range(first, last, size), part.log_probabilities.reshape(-1, size), strict=True
        ):
            shown = text[begin + 1 : begin + 1 + size]
            yield begin + 1, Score(math.fsum(scored), size, scored, text=shown, calibration=known)


def odd_windows(
    generator: CharGenerator, text: str, options: LineOptions
) -> Iterator[tuple[bool, str]]:
    """Whether each window is above the percentile of `options`, and what to print of it.

    The columns are those of lines, and before them the place of the window's first character,
    counted from 0; without the unknown characters. The text is a JSON string.
    """
    for place, score in scored_windows(generator, text, options.unknown):
        percentile, shown = score.percentile or 0.0, score.text or ""
        odd = percentile > (options.above or 0.0)
        if not odd or options.count:
            yield odd, ""
        elif options.as_json:
            figures = {"place": place, "text": shown} | score_figures(score)
            yield odd, json.dumps(figures) + "\n"
        else:
            text_column = json.dumps(shown, ensure_ascii=False)
            if options.coloured and score.log_probabilities is not None:
                text_column = "\n" + shaded(shown, score.log_probabilities)
            columns = f"{score.total:.4f}\t{score.bits_per_char:.4f}\t{percentile:.3f}"
            yield odd, f"{place}\t{columns}\t{text_column}\n"


def model_facts(artifact: Artifact) -> dict[str, object]:
    """What is in a model file, as JSON has it."""
    return {
        "sha256": artifact.sha256,
        "bytes": len(artifact.data),
        "graph": artifact.graph,
        "filter": bool(artifact.filter),
        "config": artifact.config.to_json(),
        "training": artifact.training.to_json(),
        "parity": artifact.certificate.to_json(),
        **artifact.properties,
    }


def describe(artifact: Artifact, model: ChosenModel, as_json: bool) -> Iterator[str]:
    """What is in a model file, a line each fact."""
    config = artifact.config
    if as_json:
        yield json.dumps({"model": str(model.path), **model_facts(artifact)}) + "\n"
        return
    rows = [
        ("model", str(model)),
        ("sha256", artifact.sha256),
        ("size", f"{len(artifact.data):,} bytes"),
        ("graph", KINDS[artifact.graph]),
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
        *([("filter", "of the documents; --new writes none of them")] if artifact.filter else []),
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
        *([f"{training.processes:,} processes"] if training.processes > 1 else []),
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
        part = "" if samples.searched == 1 else f"the {samples.searched:.1%} looked through of "
        sentence = (
            f"of {samples.count:,} texts{each} that it wrote, {samples.share_in_corpus:.1%} stand "
            f"in {part}the corpus and {samples.share_of_doubles:.1%} are equal to an earlier one"
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
