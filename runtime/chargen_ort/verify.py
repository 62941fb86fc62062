"""Proof that a model file is whole and computes here what it computed where it was exported."""

from dataclasses import dataclass

import numpy as np

from chargen_ort.artifact import STEP, Artifact, graph_of, read_weights
from chargen_ort.engine import open_session
from chargen_ort.generator import CharGenerator
from chargen_ort.graphs import VARIANTS
from chargen_ort.options import SamplingOptions
from chargen_ort.samplers import as_step, run_sampler
from chargen_ort.sampling import uniform_draws
from chargen_ort.stepper import run_steps

_TEXT_LENGTH, _TEXT_SEED = 100, 7  # of the texts that a sampler is to write
_TEMPERATURES = (1.2, 0.8, 0.0)


@dataclass(frozen=True)
class Verdict:
    """The result of one check; its text is one line.

    Attributes:
        what: was checked.
        passed: whether it holds; None where there was nothing to check.
        finding: the figures.
    """

    what: str
    passed: bool | None
    finding: str

    def __str__(self) -> str:
        result = {True: "ok", False: "FAILED", None: "absent"}[self.passed]
        return f"{self.what:<8} {result:<6} {self.finding}"


def verify_artifact(artifact: Artifact) -> list[Verdict]:
    """Recompute all that needs no PyTorch: seal, graph, weights, and the stored test vectors.

    Raises:
        ArtifactError: the file is damaged, or ONNX Runtime refuses it.
    """
    weights = read_weights(artifact)
    graphs = graph_of(artifact.config, artifact.graph).with_bodies()
    nodes = sum(len(graph.nodes) for graph in graphs)
    tensors = sum(len(graph.tensors) for graph in graphs)
    finite = sum(array.size for array in weights.values() if array.dtype.kind == "f")
    return [
        Verdict("seal", True, f"sha256 {artifact.sha256}"),
        Verdict(
            "graph",
            True,
            f"{nodes} nodes and {tensors} tensors, "
            f"as train-export writes them for {artifact.config.precision}",
        ),
        Verdict("weights", True, f"{finite:,} numbers, all finite"),
        verify_vectors(artifact),
        *([] if artifact.graph == STEP else [verify_texts(artifact)]),
    ]


def verify_vectors(artifact: Artifact) -> Verdict:
    """Run the test vectors of the certificate and compare logits and greedy text.

    The tolerance is the format's for the precision. A greedy token counts as equal if its logit is
    within it of the largest, so that a tie that falls to the other side on another machine is none.
    """
    vectors = artifact.certificate.vectors
    if not vectors:
        return Verdict("vectors", None, "no test vectors are stored; nothing was run")
    tolerance = VARIANTS[artifact.config.precision].tolerance.vectors
    difference = margin = 0.0
    for index, vector in enumerate(vectors):
        if problem := vector.misfit(len(artifact.config.vocabulary)):
            return Verdict("vectors", False, f"vector {index}: {problem}")
    session = open_session(as_step(artifact).data, threads=1)
    config = artifact.config
    for vector in vectors:
        prompt, greedy = vector.tokens, vector.greedy
        token = np.array([prompt + greedy[:-1]], dtype=np.int64)  # [1, time]
        hidden = np.zeros((1, config.num_layers, config.hidden_size), dtype=np.float32)
        logits = run_steps(session, token, hidden)[0][0, len(prompt) - 1 :]  # [steps, vocab_size]
        if not np.isfinite(logits).all():
            return Verdict("vectors", False, "the graph gives logits that are not finite")
        stored = np.array(vector.logits)
        difference = max(difference, float(np.abs(logits[0, :: vector.stride] - stored).max()))
        for row, chosen in zip(logits, greedy, strict=False):
            margin = max(margin, float(row.max() - row[chosen]))
    greedy_text = "equal" if margin == 0 else f"within {margin:.1e} of equal"
    return Verdict(
        "vectors",
        difference <= tolerance and margin <= tolerance,
        f"{len(vectors)} prompts: largest logit difference {difference:.1e} "
        f"(limit {tolerance:g}), greedy text {greedy_text}",
    )


def verify_texts(artifact: Artifact) -> Verdict:
    """Whether a sampler writes the texts that the model it was made of writes, by the same seed.

    Where the two differ, the draw was as near to the boundary of another token as the format's
    tolerance for the precision allows, or the check fails.
    """
    generator = CharGenerator(artifact)
    session = open_session(artifact.data, threads=1)
    start = generator.generate("", 10, seed=_TEXT_SEED, temperature=0.8)
    hidden, equal, margin = generator.engine.zero_hidden(1), 0, 0.0
    for prompt in ("", start):
        for temperature in _TEMPERATURES:
            options = SamplingOptions(temperature=temperature, seed=_TEXT_SEED)
            ours = generator.generate(prompt, _TEXT_LENGTH, options=options)
            theirs = run_sampler(session, [prompt], hidden, _TEXT_LENGTH, options).texts[0]
            equal += ours == theirs
            if ours != theirs:
                margin = max(margin, _margin(generator, prompt, ours, theirs, options))
    count = 2 * len(_TEMPERATURES)
    near = f", the others by a draw within {margin:.1e}" if margin else ""
    limit = VARIANTS[artifact.config.precision].tolerance.vectors
    finding = f"{equal} of {count} are what chargen-ort writes{near} (limit {limit:g})"
    return Verdict("texts", margin <= limit, finding)


def _margin(
    generator: CharGenerator, prompt: str, ours: str, theirs: str, options: SamplingOptions
) -> float:
    """How far the first draw that differs was from the other token, in probability.

    Greedy ones differ in the logits of the two tokens.
    """
    pairs = zip(ours, theirs, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    token = generator.config.tokens.index(theirs[place : place + 1])  # or the end token
    logits = generator.state(prompt + ours[:place]).logits().astype(np.float64)  # [vocab_size]
    if options.temperature == 0:
        return float(logits.max() - logits[token])
    sums = np.exp((logits - logits.max()) / options.temperature).cumsum()
    high, low = sums[token] / sums[-1], (sums[token - 1] if token else 0.0) / sums[-1]
    u = float(uniform_draws(options.seed or 0, 0, place, 1)[0])
    return max(float(low) - u, u - float(high), 0.0)
