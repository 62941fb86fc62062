"""Small models, made once: random weights for contracts, trained ones for text."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from chargen_export.graph import build_step_model
from chargen_export.pipeline import train_and_export
from chargen_ort import CharGenerator, Vocabulary
from chargen_ort.artifact import metadata_bytes, seal
from chargen_ort.records import Certificate, Config, CorpusFacts, Split, TextComparison, Training
from chargen_ort.sampling import SamplingOptions
from chargen_ort.vocabulary import UnknownPolicy
from chargen_train.model import CharGRU

HELLO = "hello world hello world"
ALPHABET = "".join(map(chr, range(97, 123))) + " .\n"
PROPERTIES = {
    "description": "random weights, for tests",
    "author": "the tests",
    "license": "MIT",
    "version": "1",
    "task": "text-generation",
}

TRAINING = Training(
    corpora=(CorpusFacts(name="none", sha256="0" * 64, characters=2),),
    characters=2,
    training_characters=2,
    split=Split(holdout="none"),
    settings={},
    versions={},
)
_TEXT = TextComparison(characters=0, temperature=0, seed=0, equal=True, near_ties=0)
PARITY = Certificate(
    against="nothing",
    steps=1,
    batches=(1,),
    largest_logits_difference=0,
    largest_hidden_difference=0,
    largest_prefill_difference=0,
    greedy=_TEXT,
    seeded=_TEXT,
    versions={},
)

ModelFactory = Callable[..., CharGRU]


def random_model(
    vocab_size: int = len(ALPHABET),
    embedding_dim: int = 8,
    hidden_size: int = 16,
    num_layers: int = 1,
    seed: int = 0,
    scale: float = 2.0,
) -> CharGRU:
    """A model with random weights, large enough that its text is not noise around one token."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CharGRU(vocab_size, embedding_dim, hidden_size, num_layers).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
    return model


def model_bytes(model: CharGRU) -> bytes:
    """The graph of `model` without metadata."""
    return build_step_model(model).SerializeToString(deterministic=True)


def artifact_bytes(
    model: CharGRU,
    characters: str = ALPHABET,
    separator: str = "\n",
    sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 - frozen
    unknown: UnknownPolicy = "error",
) -> bytes:
    """A sealed artifact of `model`, with a history in which nothing happened."""
    config = Config.of(
        Vocabulary(characters, unknown),
        model.embedding_dim,
        model.hidden_size,
        model.num_layers,
        separator,
        sampling,
    )
    return seal(model_bytes(model) + metadata_bytes(config, TRAINING, PARITY, PROPERTIES))


@pytest.fixture(scope="session")
def generator() -> CharGenerator:
    """Random weights over the lower case letters, space, full stop and newline."""
    return CharGenerator.from_bytes(artifact_bytes(random_model()))


@pytest.fixture(scope="session")
def hello_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lesson, trained and exported: it has learnt "hello world hello world"."""
    folder = tmp_path_factory.mktemp("hello")
    corpus = folder / "hello.txt"
    corpus.write_text(HELLO)
    train_and_export(corpus, folder / "hello.onnx", preset="lesson")
    return folder / "hello.onnx"


@pytest.fixture(scope="session")
def hello(hello_path: Path) -> CharGenerator:
    return CharGenerator.load(hello_path)


@pytest.fixture(scope="session")
def lines_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt that "hello" is a whole line."""
    folder = tmp_path_factory.mktemp("lines")
    (folder / "lines.txt").write_text("hello\n" * 8)
    train_and_export(folder / "lines.txt", folder / "lines.onnx", preset="lesson")
    return folder / "lines.onnx"
