"""Proof that the exported graph computes what the PyTorch model computes."""

import copy
import platform
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray

from chargen_export.vectors import make_vectors
from chargen_ort.engine import Stepper, open_session, run_steps
from chargen_ort.errors import ParityError
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import Tolerance
from chargen_ort.records import Certificate, TextComparison
from chargen_ort.sampling import Sampler, SamplingOptions, uniform_draws
from chargen_train.model import CharGRU

STEPS = 1000  # teacher-forced, the state carried all the way
BATCHES = (1, 8)
COMPARED = STEPS + max(BATCHES) * 17  # tokens of a text that are used
TEXT_LENGTH = 200  # tokens of greedy and of seeded text
SEED = 0


FLOAT32_TOLERANCE = VARIANTS["fp32"].tolerance


def verify_parity(
    model_bytes: bytes,
    model: CharGRU,
    tokens: NDArray[np.integer],
    tolerance: Tolerance = FLOAT32_TOLERANCE,
    against: str = "the PyTorch model",
) -> Certificate:
    """Compare the graph in `model_bytes` with `model` on the text `tokens` ``[characters]``.

    ONNX Runtime runs at its default optimisation, as it will for users. Compared are the logits at
    each of `STEPS` single steps and the carried hidden state, at several batch sizes; the same
    steps fed in one call; greedy text; and seeded text at temperature 1.

    Args:
        model_bytes: the file, or its graph alone.
        model: what it should compute.
        tokens: a text ``[characters]``.
        tolerance: the largest differences that are allowed.
        against: what `model` is, in words, for the certificate.

    Raises:
        ParityError: a difference above the tolerance; the message says where and by how much.
    """
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    session = open_session(model_bytes, threads=1)
    text = np.resize(tokens, COMPARED).astype(np.int64)
    logits_difference = hidden_difference = prefill_difference = 0.0
    for batch in BATCHES:
        token = np.stack([text[17 * row : 17 * row + STEPS] for row in range(batch)])
        expected_logits, expected_hidden = _torch_steps(model, token)
        stepper = Stepper(session, batch, _shape(model))
        for time in range(STEPS):
            stepper.step(token[:, time])
            difference = _difference(stepper.logits, expected_logits[:, time])
            _require(difference, tolerance.logits, f"logits at step {time}, batch {batch}")
            logits_difference = max(logits_difference, difference)
        difference = _difference(stepper.hidden, expected_hidden)
        _require(difference, tolerance.hidden, f"hidden after {STEPS} steps, batch {batch}")
        hidden_difference = max(hidden_difference, difference)
        zeros = np.zeros_like(stepper.hidden)
        logits, _ = run_steps(session, token, zeros)
        difference = _difference(logits, expected_logits)
        _require(difference, tolerance.logits, f"logits of {STEPS} steps in one call, {batch=}")
        prefill_difference = max(prefill_difference, difference)
    new_stepper = partial(Stepper, session, 1, _shape(model))
    greedy, seeded = (SamplingOptions(temperature=t, seed=SEED) for t in (0, 1))
    return Certificate(
        against=against,
        steps=STEPS,
        batches=BATCHES,
        largest_logits_difference=logits_difference,
        largest_hidden_difference=hidden_difference,
        largest_prefill_difference=prefill_difference,
        greedy=_compare_text(model, new_stepper(), text[:1], greedy, tolerance),
        seeded=_compare_text(model, new_stepper(), text[:1], seeded, tolerance),
        vectors=make_vectors(new_stepper, text),
        versions={"torch": torch.__version__, **library_versions()},
    )


def library_versions() -> dict[str, str]:
    """What computed a certificate, besides PyTorch."""
    return {
        "onnx": version("onnx"),
        "onnxruntime": version("onnxruntime"),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }


def _shape(model: CharGRU) -> tuple[int, int, int]:
    return model.vocab_size, model.num_layers, model.hidden_size


@torch.no_grad()
def _torch_steps(
    model: CharGRU, token: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    logits, hidden = model(torch.from_numpy(token), model.zero_hidden(len(token)))
    return logits.numpy(), hidden.numpy()


def _compare_text(
    model: CharGRU,
    stepper: Stepper,
    start: NDArray[np.int64],
    options: SamplingOptions,
    tolerance: Tolerance,
) -> TextComparison:
    """Let the graph write from `start`, and the model choose each token by the same draws.

    Where they part, it must be a near tie: a draw that lands on a boundary between two tokens
    within the tolerance may fall to either side. Such cases are counted in the certificate, and
    both go on with the graph's token, so that the model reads the whole text at once.
    """
    ours, theirs = (Sampler(options, model.vocab_size) for _ in range(2))
    tokens = [start]
    for _ in range(TEXT_LENGTH):
        stepper.step(tokens[-1])
        tokens.append(ours.sample(stepper.logits))
    text = np.stack(tokens, axis=1)  # [1, 1 + TEXT_LENGTH]
    expected, _ = _torch_steps(model, text[:, :-1])  # [1, TEXT_LENGTH, vocab_size]
    near_ties = 0
    for position, token in enumerate(text[0, 1:]):
        [other] = theirs.sample(expected[:, position])
        if token != other:
            margin = _margin(expected[0, position], int(token), int(other), options, position)
            _require(
                margin,
                tolerance.logits,
                f"text at temperature {options.temperature:g}, "
                f"character {position}: the draw's distance from the boundary",
            )
            near_ties += 1
    return TextComparison(
        characters=TEXT_LENGTH,
        temperature=options.temperature,
        seed=SEED,
        equal=near_ties == 0,
        near_ties=near_ties,
    )


def _margin(
    logits: NDArray[np.float32], ours: int, theirs: int, options: SamplingOptions, position: int
) -> float:
    """How far the PyTorch side was from choosing `ours`: in logits if greedy, else in mass."""
    if options.temperature == 0:
        return float(abs(logits[ours] - logits[theirs]))
    weights = np.exp(logits.astype(np.float64) - logits.max())
    cdf = np.cumsum(weights) / weights.sum()
    u = uniform_draws(SEED, 0, position, 1)[0]
    return float(np.abs(cdf[min(ours, theirs) : max(ours, theirs)] - u).max())


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max())


def _require(difference: float, tolerance: float, where: str) -> None:
    if not difference <= tolerance:
        raise ParityError(
            f"the exported graph differs from the PyTorch model in {where}: "
            f"{difference:.3g}, the tolerance is {tolerance:g}; nothing was written"
        )
