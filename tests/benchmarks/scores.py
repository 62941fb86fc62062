"""`make bench-scores`: how well a score tells made-up domain names from real ones.

    python -m tests.benchmarks.scores FOLDER [MODEL.onnx]

The folder has benign.txt, which models are trained on, and choose.csv and report.csv (label,
family, domain). Whatever is chosen (a way to score, a setting) is chosen by the first; what is
told of a model is measured with the second alone. Without a model, one is trained first.
"""

import csv
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chargen_ort import CharGenerator
from chargen_ort.calibration import Calibration
from chargen_train.corpus import Corpus, load_corpus
from chargen_train.evaluate import Losses
from chargen_train.history import describe_spread
from chargen_train.ngram import count_ngrams, nats_by_order, visible_before
from chargen_train.reading import Reading
from tests.benchmarks.measure import machine

DICTIONARY = {"suppobox", "matsnu", "gozi", "rovnix"}  # families that join real words
ORDERS = (3, 5)
FALSE_POSITIVES = 0.01
MODEL = Path("build/domains.onnx")

Ranking = NDArray[np.float64]
Nats = list[NDArray[np.float64]]


@dataclass(frozen=True)
class Labelled:
    """Domains, which of them are made up, and which of those of dictionary words."""

    domains: list[str]
    made_up: NDArray[np.bool_]
    of_words: NDArray[np.bool_]


def read_labelled(path: Path) -> Labelled:
    """One of the two lists."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Labelled(
        [row["domain"] for row in rows],
        np.array([row["label"] == "dga" for row in rows]),
        np.array([row["family"] in DICTIONARY for row in rows]),
    )


def rankings(
    model: CharGenerator, corpus: Corpus, domains: list[str]
) -> Iterator[tuple[str, Ranking]]:
    """Ways to say how odd each domain is, and what each says, ``[domains]``."""
    held_out = [
        model.vocabulary.decode(corpus.validation.tokens[begin:end])
        for begin, end in corpus.validation.ranges
    ]
    network, usual = network_nats(model, domains), network_nats(model, held_out)
    yield "this model, mean", mean(network)
    yield "this model, percentile", by_length(network, usual)
    for order in ORDERS:
        grams, usual_grams = (ngram_nats(corpus, texts, order) for texts in (domains, held_out))
        both, usual_both = halves(network, grams), halves(usual, usual_grams)
        yield f"{order}-gram, mean", mean(grams)
        yield f"half and half, {order}-gram, mean", mean(both)
        yield f"half and half, {order}-gram, percentile", by_length(both, usual_both)


def network_nats(model: CharGenerator, texts: list[str]) -> Nats:
    """What each character of each text, and its end, costs."""
    return [-np.asarray(each.log_probabilities) for each in model.iterate_scores(texts)]


def halves(network: Nats, grams: Nats) -> Nats:
    """The same, where each of two models has half of each probability."""
    return [np.log(2) - np.logaddexp(-a, -b) for a, b in zip(network, grams, strict=True)]


def by_length(nats: Nats, held_out: Nats) -> Ranking:
    """What a percentile is told by, which has no highest value."""
    total = np.array([each.sum() for each in held_out])
    lengths = np.array([len(each) for each in held_out])
    known = Calibration.of(describe_spread(Losses(total, lengths), documents=True))
    return np.array([known.oddness(float(each.mean()), len(each)) for each in nats])


def mean(nats: Nats) -> Ranking:
    """Of each domain."""
    return np.array([each.mean() for each in nats])


def ngram_nats(corpus: Corpus, domains: list[str], order: int) -> Nats:
    """What each character of each domain, and its end, costs in an n-gram of the trained part."""
    vocabulary, end = corpus.vocabulary, corpus.vocabulary.end_token
    assert end is not None
    counted = corpus.training[: len(corpus.tokens)]
    counts = count_ngrams(counted, visible_before(counted, end), end + 1, order)
    rarest = int(np.bincount(counted, minlength=end + 1)[:end].argmin())
    pieces = [np.array([end])]
    for domain in domains:
        known = vocabulary.look_up(domain)
        pieces += [np.where(known < 0, rarest, known), np.array([end])]
    tokens = np.concatenate(pieces).astype(np.int64)
    *_, nats = nats_by_order(counts, tokens, visible_before(tokens, end))
    ends = np.cumsum([len(domain) + 1 for domain in domains])
    return np.split(nats[1:], ends[:-1])


def area(odd: Ranking, usual: Ranking) -> float:
    """Area under the ROC curve: how often a made-up one is odder than a real one; ties are half."""
    ordered = np.sort(usual)
    below, upto = (np.searchsorted(ordered, odd, side=side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(usual))


def found_at(odd: Ranking, usual: Ranking, rate: float) -> float:
    """Share of the made-up ones above the threshold that so many of the real ones are above."""
    threshold = np.sort(usual)[len(usual) - 1 - int(rate * len(usual))]
    return float((odd > threshold).mean())


def report(model: CharGenerator, corpus: Corpus, name: str, labelled: Labelled) -> None:
    """A line for each way to rank."""
    families = {
        "all families": labelled.made_up,
        "without dictionaries": labelled.made_up & ~labelled.of_words,
    }
    print(f"\n{name}: {sum(~labelled.made_up):,} real, {sum(labelled.made_up):,} made up")
    print(f"{'':34}" + "".join(f"{each:>32}" for each in families))
    print(f"{'':34}" + f"{'AUC':>16}{'TPR at FPR 1%':>16}" * len(families))
    for way, odd in rankings(model, corpus, labelled.domains):
        usual = odd[~labelled.made_up]
        cells = "".join(
            f"{area(odd[which], usual):>16.4f}{found_at(odd[which], usual, FALSE_POSITIVES):>16.3f}"
            for which in families.values()
        )
        print(f"{way:34}{cells}")
    if model.engine.calibration is not None:
        real = [d for d, odd in zip(labelled.domains, labelled.made_up, strict=True) if not odd]
        flagged = np.mean([(each.percentile or 0) > 99 for each in model.iterate_scores(real)])
        print(f"above the 99th percentile of the model's own quantiles: {flagged:.2%} of the real")


def main(folder: str, model: str | None = None) -> None:
    """Measure a model with both lists, and train it first if none is named."""
    benign = Path(folder) / "benign.txt"
    path = Path(model or MODEL)
    if model is None:
        path.parent.mkdir(exist_ok=True)
        command = [Path(sys.executable).parent / "train-export", benign, "--documents", "lines"]
        subprocess.run([*command, "--out", path, "--overwrite"], check=True)
    generator = CharGenerator.load(path, threads=1)
    corpus = load_corpus(benign, Reading("lines"))
    sizes = f"{generator.config.num_layers} x {generator.config.hidden_size}"
    print("  ".join(f"{key} {value}" for key, value in machine().items()))
    validation = generator.artifact.training.validation
    loss = f", {validation.nats_per_char:.4f} nats held out" if validation else ""
    print(f"{path.name}: {sizes}{loss}")
    for name, file in (
        ("for choosing", "choose.csv"),
        ("for reporting, not for choosing", "report.csv"),
    ):
        report(generator, corpus, f"{file}, {name}", read_labelled(Path(folder) / file))


if __name__ == "__main__":
    main(*sys.argv[1:])
