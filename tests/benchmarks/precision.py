"""Speed and size of the precisions: this project, PyTorch and a C program side by side.

One thread, batch 1, sampling at temperature 0.8. The weights are random, which speed does not
notice. Contestants take turns, and each figure is the median of its turns.
"""

import contextlib
import shutil
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from chargen_export.graph import model_weights
from chargen_export.precision import build_variant
from chargen_export.seal import seal_artifact
from chargen_ort import Artifact, CharGenerator, parse_artifact
from tests.benchmarks.measure import Row
from tests.conftest import PROPERTIES, artifact_bytes, random_model

VOCAB_SIZE, EMBEDDING_DIM = 65, 64
CHARACTERS = "".join(map(chr, range(32, 32 + VOCAB_SIZE - 1))) + "\n"
TEMPERATURE = 0.8
ROUNDS = 9
SECONDS = 0.25  # of each turn

Writer = Callable[[int], float]  # writes so many characters, returns the seconds it took


def rows() -> Iterator[Row]:
    """All rows about precisions: about a minute of work."""
    yield from size_rows()
    yield from speed_rows(1, 256, "fp32", {"C program fp32": 1 / 3})
    yield from speed_rows(2, 512, "int8", {"fp32": 2.5, "C program int8": 1 / 3})
    yield from speed_rows(
        2, 1024, "int8", {"fp32": 6, "PyTorch eager fp32": 12, "PyTorch dynamic-quantised": 1.5}
    )


def size_rows() -> Iterator[Row]:
    """Files of a 2 x 512 model."""
    files = {name: len(artifact.data) for name, artifact in make_artifacts(512, 2).items()}
    for precision, share in (("fp16", 0.52), ("int8", 0.30)):
        work = f"2 x 512 {precision}, file size"
        yield Row(work, "fp32", files[precision], files["fp32"], "bytes", share, True)


def speed_rows(
    num_layers: int, hidden_size: int, precision: str, required: dict[str, float]
) -> Iterator[Row]:
    """Characters a second of this project's `precision` against each of `required`."""
    artifacts = make_artifacts(hidden_size, num_layers)
    with ExitStack() as stack:
        writers = {precision: runtime_writer(artifacts[precision])}
        missing: dict[str, str] = {}
        for peer in required:
            if peer in artifacts:
                writers[peer] = runtime_writer(artifacts[peer])
            elif peer.startswith("C program"):
                try:
                    c_precision = peer.rsplit(" ", 1)[1]
                    writers[peer] = stack.enter_context(
                        c_writer(c_precision, hidden_size, num_layers)
                    )
                except (OSError, subprocess.SubprocessError) as error:
                    missing[peer] = f"{peer} (not there: {error})"
            else:
                quantised = peer == "PyTorch dynamic-quantised"
                writers[peer] = torch_writer(hidden_size, num_layers, quantised)
        times = take_turns(writers)
    for peer, least in required.items():
        yield Row(
            f"{num_layers} x {hidden_size} {precision}, one stream",
            missing.get(peer, peer),
            times[precision],
            times.get(peer),
            "us a character",
            least,
        )


def take_turns(writers: dict[str, Writer]) -> dict[str, float]:
    """Microseconds a character of each, the median of turns that alternate."""
    counts = {}
    for name, write in writers.items():
        write(20)
        counts[name] = max(20, int(SECONDS * 100 / write(100)))
    times: dict[str, list[float]] = {name: [] for name in writers}
    for _ in range(ROUNDS):
        for name, write in writers.items():
            times[name].append(write(counts[name]) / counts[name] * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def make_artifacts(hidden_size: int, num_layers: int) -> dict[str, Artifact]:
    """The same random model in every precision; the gate has no say about random weights."""
    model = random_model(VOCAB_SIZE, EMBEDDING_DIM, hidden_size, num_layers, scale=1.0)
    base = parse_artifact(artifact_bytes(model, CHARACTERS))
    artifacts, history = {"fp32": base}, (base.training, base.certificate, PROPERTIES)
    for name in ("fp16", "int8"):
        data = build_variant(model_weights(model), name)
        config = replace(base.config, precision=name)
        artifacts[name] = seal_artifact(data, config, *history)
    return artifacts


def runtime_writer(artifact: Artifact) -> Writer:
    """`CharGenerator.generate` on one thread."""
    generator = CharGenerator(artifact, threads=1)

    def write(count: int) -> float:
        begun = time.perf_counter()
        generator.generate("A", count, temperature=TEMPERATURE, seed=1)
        return time.perf_counter() - begun

    return write


class TorchPeer(nn.Module):
    """What one writes in PyTorch: embedding, nn.GRU, linear."""

    def __init__(self, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, EMBEDDING_DIM)
        self.gru = nn.GRU(EMBEDDING_DIM, hidden_size, num_layers, batch_first=True)
        self.output = nn.Linear(hidden_size, VOCAB_SIZE)

    def forward(self, token: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Token ``[1, 1]``, hidden ``[num_layers, 1, hidden_size]``."""
        y, hidden = self.gru(self.embedding(token), hidden)
        return self.output(y), hidden


def torch_writer(hidden_size: int, num_layers: int, quantised: bool) -> Writer:
    """PyTorch eager on one thread, or its dynamic quantisation of GRU and linear layers."""
    model: nn.Module = TorchPeer(hidden_size, num_layers).eval()
    if quantised:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own deprecation
            model = torch.ao.quantization.quantize_dynamic(model, {nn.GRU, nn.Linear})
    hidden_shape = num_layers, 1, hidden_size

    @torch.inference_mode()
    def write(count: int) -> float:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        begun = time.perf_counter()
        token = torch.zeros(1, 1, dtype=torch.int64)
        hidden = torch.zeros(hidden_shape)
        for _ in range(count):
            logits, hidden = model(token, hidden)  # [1, 1, vocab_size]
            token = torch.multinomial(torch.softmax(logits[:, 0] / TEMPERATURE, -1), 1)  # [1, 1]
            token.item()
        seconds = time.perf_counter() - begun
        torch.set_num_threads(threads)
        return seconds

    return write


@contextlib.contextmanager
def c_writer(precision: str, hidden_size: int, num_layers: int) -> Iterator[Writer]:
    """The C program beside this file, compiled for this machine.

    Raises:
        OSError: there is no compiler.
        subprocess.SubprocessError: it fails.
    """
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise OSError("no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "step"
        source = Path(__file__).with_name("step.c")
        flags = ["-O3", "-march=native"]
        command = [compiler, *flags, "-o", program, source, "-lm"]
        subprocess.run(command, check=True, capture_output=True)
        sizes = map(str, (VOCAB_SIZE, hidden_size, num_layers))
        with subprocess.Popen(
            [program, precision, *sizes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            stdin, stdout = process.stdin, process.stdout
            assert stdin
            assert stdout

            def write(count: int) -> float:
                stdin.write(f"{count}\n")
                stdin.flush()
                return float(stdout.readline())

            yield write
            stdin.close()
