"""Proof that a model file is whole and computes here what it computed where it was exported."""

from dataclasses import dataclass

import numpy as np

from chargen_ort.artifact import Artifact, read_weights
from chargen_ort.engine import open_session, run_steps
from chargen_ort.graphs import VARIANTS


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
    graphs = VARIANTS[artifact.config.precision].graph(artifact.config.sizes).with_bodies()
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
    session = open_session(artifact.data, threads=1)
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
