"""Small models, made once: random weights for contracts, trained ones for text."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from chargen_export import cli as export_cli
from chargen_export.graph import render_step
from chargen_export.pipeline import train_and_export
from chargen_ort import CharGenerator, Vocabulary
from chargen_ort import cli as runtime_cli
from chargen_ort.artifact import metadata_bytes, seal
from chargen_ort.certificate import Certificate, TextComparison
from chargen_ort.config import Config
from chargen_ort.options import SamplingOptions
from chargen_ort.provenance import CorpusFacts, Split, Training
from chargen_ort.vocabulary import UnknownPolicy
from chargen_train.events import Observer
from chargen_train.model import CharGRU

BIN = Path(sys.executable).parent  # where the commands are installed
HELLO = "hello world hello world"
TIMES = "it was the best of times, it was the worst of times; " * 400
SMALL = {"hidden_size": 16, "embedding_dim": 8, "num_layers": 1}
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


def observing(**methods: Callable[..., object]) -> Observer:
    """An observer that calls these functions, each by the name of the method it stands for."""
    observer = Observer()
    for name, function in methods.items():
        assert hasattr(observer, name), name
        setattr(observer, name, function)
    return observer


def run(
    command: str,
    *arguments: object,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """A command of ours, run as a user runs it."""
    return subprocess.run(
        [BIN / command, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        input=stdin,
        env={**os.environ, "COLUMNS": "100", **(env or {})},
        timeout=120,
        check=False,
    )


def train_export(*arguments: object) -> Result:
    """`train-export` in this process, and any exception that it does not turn into a line."""
    return CliRunner().invoke(export_cli.app, list(map(str, arguments)), prog_name="train-export")


def run_here(
    command: str,
    *arguments: object,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """As `run`, in this process, which has loaded PyTorch already and so takes seconds less.

    An exception that the command does not turn into a line is raised.
    """
    app = {"train-export": export_cli.app, "chargen-ort": runtime_cli.app}[command]
    pipe = signal.getsignal(signal.SIGPIPE)  # which a command has end it; the tests are not to end
    try:
        with contextlib.chdir(cwd or Path.cwd()):
            result = CliRunner().invoke(
                app,
                list(map(str, arguments)),
                stdin,
                {"COLUMNS": "100", **(env or {})},
                prog_name=command,
            )
    finally:
        signal.signal(signal.SIGPIPE, pipe)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def assert_refused(result: subprocess.CompletedProcess[str], *parts: str, status: int = 2) -> None:
    """The command ended with one line that says each of `parts`, and wrote nothing else."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr


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
    return render_step(model)


def artifact_bytes(
    model: CharGRU,
    characters: str = ALPHABET,
    separator: str = "\n",
    sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 - frozen
    unknown: UnknownPolicy = "error",
    end: bool = False,
    training: Training = TRAINING,
    vocabulary: Vocabulary | None = None,
) -> bytes:
    """A sealed artifact of `model`, by default with a history in which nothing happened."""
    vocabulary = vocabulary or Vocabulary(characters, unknown, end=end)
    end = vocabulary.end
    config = Config.of(
        vocabulary,
        model.embedding_dim,
        model.hidden_size,
        model.num_layers,
        "" if end else separator,
        sampling,
    )
    return seal(model_bytes(model) + metadata_bytes(config, training, PARITY, PROPERTIES))


@pytest.fixture(scope="session", autouse=True)
def brief_samples() -> Iterator[None]:
    """Runs in this process write short samples, which would be half of a small run's time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("planning", "run"):
            patch.setattr(f"chargen_train.{module}.SAMPLE_LENGTH", 8)
        yield


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A command that a test runs in this process has a closed pipe end it; the tests are not to."""
    before = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, before)


@pytest.fixture(scope="session")
def generator() -> CharGenerator:
    """Random weights over the lower case letters, space, full stop and newline."""
    return CharGenerator.from_bytes(artifact_bytes(random_model()))


@pytest.fixture(scope="session")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `generator`."""
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    path.write_bytes(artifact_bytes(random_model()))
    return path


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No test writes where a user's models lie, of which the newest would be taken for theirs."""
    artifacts = Path(__file__).parent.parent / "artifacts"
    before = sorted(artifacts.iterdir())
    yield
    assert sorted(artifacts.iterdir()) == before


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
