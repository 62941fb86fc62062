"""The rest of verification: an artifact against the PyTorch model that it was exported from."""

from pathlib import Path

import numpy as np

from chargen_export.graph import StepWeights, model_weights
from chargen_export.parity import STEPS
from chargen_export.precision import build_variant, verify_variant
from chargen_ort.artifact import Artifact, read_artifact
from chargen_ort.errors import ParityError
from chargen_ort.graphs import VARIANTS
from chargen_ort.samplers import as_step
from chargen_ort.verify import Verdict, verify_artifact
from chargen_ort.vocabulary import Vocabulary
from chargen_train.checkpoint import load_checkpoint
from chargen_train.model import CharGRU


def verify_against_checkpoint(artifact: Path, checkpoint: Path) -> list[Verdict]:
    """`verify_against_model`, from files.

    Raises:
        ArtifactError: the artifact is missing or damaged.
        OptionError: the checkpoint is.
    """
    found = as_step(read_artifact(artifact))
    run = load_checkpoint(checkpoint)
    return verify_against_model(found, run.model, run.vocabulary)


def verify_against_model(
    artifact: Artifact, model: CharGRU, vocabulary: Vocabulary | None = None
) -> list[Verdict]:
    """All that `chargen_ort.verify` checks, then sizes, graph bytes and parity with `model`.

    Args:
        artifact: as `read_artifact` gives it.
        model: the weights that it should hold, as a checkpoint has them.
        vocabulary: that of the checkpoint; None leaves its comparison out.

    Raises:
        ArtifactError: ONNX Runtime refuses the file.
    """
    config = artifact.config
    verdicts = verify_artifact(artifact)
    if vocabulary is not None:
        own = config.vocabulary
        same = (vocabulary.texts, vocabulary.merges) == (own.texts, own.merges)
        same = same and vocabulary.unit == own.unit
        pieces = f", {len(own.pieces):,} pieces" if own.has_pieces else ""
        of = "bytes" if own.unit == "byte" else "characters"
        number = f"{len(own.characters)} {of}{pieces}"
        finding = f"{number}{' and an end' * own.end} in the artifact"
        verdicts.append(Verdict("vocab", same, finding))
    ours = (len(config.vocabulary), config.embedding_dim, config.hidden_size, config.num_layers)
    theirs = (model.vocab_size, model.embedding_dim, model.hidden_size, model.num_layers)
    sizes = "vocabulary {}, embedding {}, hidden {}, layers {}".format
    if ours != theirs:
        finding = f"artifact: {sizes(*ours)}; checkpoint: {sizes(*theirs)}"
        return [*verdicts, Verdict("sizes", False, finding)]
    verdicts.append(Verdict("sizes", True, sizes(*ours)))
    weights = model_weights(model)
    graph = build_variant(weights, config.precision)
    same = artifact.data.startswith(graph)
    finding = "equal, byte for byte" if same else "not those that this checkpoint exports to"
    verdicts.append(Verdict("bytes", same, f"{len(graph):,} bytes of graph and weights {finding}"))
    return [*verdicts, _verify_parity(artifact, model, weights)]


def _verify_parity(artifact: Artifact, model: CharGRU, weights: StepWeights) -> Verdict:
    limits = VARIANTS[artifact.config.precision].tolerance
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, STEPS)
    precision, end = artifact.config.precision, artifact.config.vocabulary.end_token
    try:
        found = verify_variant(artifact.data, precision, weights, model, tokens, end)
    except ParityError as error:
        return Verdict("parity", False, str(error).removesuffix("; nothing was written"))
    return Verdict(
        "parity",
        True,
        f"largest logit difference {found.largest_logits_difference:.1e} over "
        f"{found.steps:,} steps (limit {limits.logits:g})",
    )
