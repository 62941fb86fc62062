"""The runtime against the best plain ways to write the same, one thread each."""

import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from chargen_ort import CharGenerator
from tests.benchmarks.measure import RUNS, Row, side_by_side
from tests.conftest import artifact_bytes, random_model

TEMPERATURE = 0.8
_BIN = Path(sys.executable).parent


class PlainGRU(nn.Module):
    """The model as a lesson writes it, with the weights of ours."""

    def __init__(self, vocab_size: int, embedding_dim: int, hidden_size: int, num_layers: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.gru = nn.GRU(embedding_dim, hidden_size, num_layers, batch_first=True)
        self.output = nn.Linear(hidden_size, vocab_size)

    def forward(self, token, hidden=None):
        x, hidden = self.gru(self.embedding(token), hidden)
        return self.output(x), hidden


def models(hidden_size: int, num_layers: int = 1, vocab_size: int = 65, embedding_dim: int = 64):
    """Ours, and the plain PyTorch model of the same sizes."""
    characters = "".join(chr(0x100 + i) for i in range(vocab_size - 1)) + "\n"
    ours = random_model(vocab_size, embedding_dim, hidden_size, num_layers, scale=1.0)
    data = artifact_bytes(ours, characters)
    plain = PlainGRU(vocab_size, embedding_dim, hidden_size, num_layers).eval()
    return CharGenerator.from_bytes(data, threads=1), plain, characters


def torch_stream(plain, characters, length):
    """The lesson's loop, in inference mode."""

    @torch.inference_mode()
    def run():
        text, hidden, token = [], None, 0
        for _ in range(length):
            logits, hidden = plain(torch.tensor([[token]]), hidden)
            probabilities = F.softmax(logits[0, -1] / TEMPERATURE, dim=-1)
            token = int(torch.multinomial(probabilities, 1).item())
            text.append(characters[token])
        return "".join(text)

    return run


def scripted_stream(plain, characters, length):
    """The same with the model compiled by TorchScript."""
    with torch.inference_mode():
        hidden = torch.zeros(plain.gru.num_layers, 1, plain.gru.hidden_size)
        traced = torch.jit.freeze(
            torch.jit.trace(plain, (torch.zeros(1, 1, dtype=torch.long), hidden))
        )

    @torch.inference_mode()
    def run():
        text, state, token = [], hidden, 0
        for _ in range(length):
            logits, state = traced(torch.tensor([[token]]), state)
            probabilities = F.softmax(logits[0, -1] / TEMPERATURE, dim=-1)
            token = int(torch.multinomial(probabilities, 1).item())
            text.append(characters[token])
        return "".join(text)

    return run


def bare_session_stream(generator, characters, length):
    """ONNX Runtime as most people would drive it: session.run and NumPy sampling."""
    session, config = generator.session, generator.config

    def run():
        rng = np.random.default_rng(0)
        hidden = np.zeros((1, config.num_layers, config.hidden_size), dtype=np.float32)
        token, text = 0, []
        for _ in range(length):
            feeds = {"token": np.array([[token]]), "hidden": hidden}
            logits, hidden = session.run(None, feeds)
            scaled = logits[0, -1] / TEMPERATURE
            weights = np.exp(scaled - scaled.max())
            token = int(rng.choice(len(weights), p=weights / weights.sum()))
            text.append(characters[token])
        return "".join(text)

    return run


def numpy_stream(generator, plain, characters, length):
    """NumPy alone: the step written out, one layer."""
    w_ih, w_hh = (getattr(plain.gru, n).detach().numpy() for n in ("weight_ih_l0", "weight_hh_l0"))
    b_ih, b_hh = (getattr(plain.gru, n).detach().numpy() for n in ("bias_ih_l0", "bias_hh_l0"))
    embedding = plain.embedding.weight.detach().numpy()
    table = embedding @ w_ih.T + b_ih  # the input product of every token, once
    output, bias = plain.output.weight.detach().numpy(), plain.output.bias.detach().numpy()
    size = plain.gru.hidden_size

    def run():
        rng = np.random.default_rng(0)
        h, token, text = np.zeros(size, dtype=np.float32), 0, []
        for _ in range(length):
            x, g = table[token], w_hh @ h + b_hh
            rz = 1 / (1 + np.exp(-(x[: 2 * size] + g[: 2 * size])))
            n = np.tanh(x[2 * size :] + rz[:size] * g[2 * size :])
            h = n + rz[size:] * (h - n)
            scaled = (output @ h + bias) / TEMPERATURE
            cdf = np.cumsum(np.exp(scaled - scaled.max()))
            token = int(np.searchsorted(cdf, rng.random() * cdf[-1], "right"))
            text.append(characters[token])
        return "".join(text)

    return run


def our_stream(generator, characters, length):
    def run():
        return "".join(generator.stream(characters[0], length, seed=1, temperature=TEMPERATURE))

    return run


def streams() -> Iterator[Row]:
    """One text at a time."""
    for name, sizes, length, asked in (
        ("one stream, hidden 32", (32, 1, 8, 16), 2000, 10.0),
        ("one stream, hidden 256", (256,), 1000, 6.5),
        ("one stream, 2 x 512 fp32", (512, 2), 300, 1.5),
    ):
        generator, plain, characters = models(*sizes)
        ours = our_stream(generator, characters, length)
        peers = [("PyTorch loop", torch_stream(plain, characters, length), asked)]
        peers.append(("PyTorch, TorchScript", scripted_stream(plain, characters, length), None))
        bare = bare_session_stream(generator, characters, length)
        peers.append(("bare session.run", bare, 2.0 if sizes[0] == 32 else None))
        if len(sizes) != 2:
            peers.append(("NumPy alone", numpy_stream(generator, plain, characters, length), None))
        for against, theirs, at_least in peers:
            medians = side_by_side(ours, theirs, length, length)
            yield Row(name, against, *medians, "us/char", at_least)


def batches() -> Iterator[Row]:
    """64 texts at a time, hidden 128."""
    generator, plain, characters = models(128)
    length, rows = 200, 64
    starts = [characters[0]] * rows

    def ours():
        return generator.generate_batch(starts, length, seed=1, temperature=TEMPERATURE)

    @torch.inference_mode()
    def theirs():
        hidden, token, written = None, torch.zeros(rows, 1, dtype=torch.long), []
        for _ in range(length):
            logits, hidden = plain(token, hidden)
            token = torch.multinomial(F.softmax(logits[:, -1] / TEMPERATURE, dim=-1), 1)
            written.append(token)
        tokens = torch.cat(written, dim=1).tolist()
        return ["".join(map(characters.__getitem__, row)) for row in tokens]

    work = "64 streams, hidden 128, generate_batch"
    single = our_stream(generator, characters, length)
    medians = side_by_side(ours, single, rows * length, length)
    yield Row(work, "one stream of the same", *medians, "us/char", 4.0)
    yield Row(
        work, "PyTorch, batched", *side_by_side(ours, theirs, rows * length, rows * length),
        "us/char", 2.5,
    )  # fmt: skip


def scoring(characters_scored: int = 100_000) -> Iterator[Row]:
    """Teacher-forced scoring, 2 x 512, P1 windows and one pass; per character, one thread."""
    generator, plain, characters = models(512, 2)
    rng = np.random.default_rng(0)
    for name, window, size in (
        ("scoring, 2 x 512, windows of 256", 256, characters_scored),
        ("scoring, 2 x 512, one pass", None, characters_scored // 10),
    ):
        tokens = rng.integers(0, len(characters), size + 1)
        text = "".join(characters[i] for i in tokens)

        def ours(text=text, window=window):
            return generator.score(text, window=window).total

        @torch.inference_mode()
        def theirs(tokens=tokens, window=window, size=size):
            tokens = torch.from_numpy(tokens)
            total, width = 0.0, window or 4096
            whole = size // width * width
            if window:
                x, y = tokens[:whole].view(-1, width), tokens[1 : whole + 1].view(-1, width)
                parts = list(zip(x.split(64), y.split(64), strict=True))
            else:
                parts = list(
                    zip(
                        tokens[None, :-1].split(width, 1),
                        tokens[None, 1:].split(width, 1),
                        strict=True,
                    )
                )
            hidden = None
            for x, y in parts:
                logits, state = plain(x, hidden)
                hidden = None if window else state
                total -= F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").item()
            return total

        medians = side_by_side(ours, theirs, size, size, runs=5)
        yield Row(name, "PyTorch, teacher-forced", *medians, "us/char", 1.0)


def processes() -> Iterator[Row]:
    """The whole command against importing ONNX Runtime."""
    ours = [str(_BIN / "chargen-ort"), "--start", "hell"]
    theirs = [sys.executable, "-c", "import onnxruntime"]
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    memory: dict[str, list[float]] = {"ours": [], "theirs": []}
    for run in range(RUNS + 1):
        for name, command in (("ours", ours), ("theirs", theirs)):
            seconds, mebibytes = run_process(command)
            if run:  # the first is the warm-up
                times[name].append(seconds * 1e3)
                memory[name].append(mebibytes)
    for what, figures, unit, most in (
        ("time", times, "ms", 1.6),
        ("peak memory", memory, "MiB", 1.3),
    ):
        yield Row(
            f"chargen-ort --start hell, {what}",
            'python -c "import onnxruntime"',
            statistics.median(figures["ours"]),
            statistics.median(figures["theirs"]),
            unit,
            most,
            smaller_is_better=True,
        )


def run_process(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak MiB of a process, measured in a process of its own."""
    code = (
        "import resource, subprocess, sys, time; begun = time.perf_counter(); "
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, "
        "stderr=subprocess.DEVNULL); print(time.perf_counter() - begun, "
        "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *command], check=True, capture_output=True, text=True
    )
    seconds, kilobytes = map(float, result.stdout.split())
    return seconds, kilobytes / 1024


def rows() -> Iterator[Row]:
    """Every row of the runtime."""
    torch.set_num_threads(1)
    yield from processes()
    yield from streams()
    yield from batches()
    yield from scoring()
