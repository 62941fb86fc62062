"""What a file says of itself, held against itself: a contradiction is a reason not to believe it.

The schemas say of what kind each value is; here is what one value says about another.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from chargen_ort.checks import shown_value
from chargen_ort.errors import ArtifactError
from chargen_ort.graphs.spec import Tolerance

_BITS_AGREE = 1e-6  # relative
_TEXTS = ("greedy", "seeded")


def check_training(training: Mapping[str, Any]) -> None:
    """Hold a training record that its schema has passed against itself.

    Raises:
        ArtifactError: bits that are not the nats, or more characters in a part than in the whole.
    """
    corpus, validation = training["corpus"], training["validation"]
    whole, part = corpus["characters"], corpus["training_characters"]
    if part > whole:
        raise _contradiction("corpus: training_characters", part, f"the corpus has {whole}")
    if validation is None:
        return
    if validation["characters"] > whole - part:
        left = f"{whole - part} were held out"
        raise _contradiction("validation: characters", validation["characters"], left)
    nats, bits = validation["nats_per_char"], validation["bits_per_char"]
    if not math.isclose(bits, nats / math.log(2), rel_tol=_BITS_AGREE):
        raise _contradiction(
            "validation: bits_per_char", bits, f"{nats:g} nats are {nats / math.log(2):g} bits"
        )


def check_parity(parity: Mapping[str, Any], tolerance: Tolerance, vocab_size: int) -> None:
    """Hold a certificate that its schema has passed against itself and against the format.

    Args:
        parity: the certificate.
        tolerance: the format's for the file's precision; the file may name none that is wider.
        vocab_size: number of tokens.

    Raises:
        ArtifactError: a wider tolerance, a difference above it, texts that are both equal and not,
            or a test vector that does not fit the vocabulary.
    """
    allowed = {name: getattr(tolerance, name) for name in ("logits", "hidden", "vectors")}
    named = allowed | {
        name: parity["tolerance"][name] for name in allowed & parity["tolerance"].keys()
    }
    for name, limit in allowed.items():
        if named[name] > limit:
            raise _wrong(f"tolerance: {name} is {named[name]:g}; the format allows {limit:g}")
    for what, limit in (("logits", "logits"), ("hidden", "hidden"), ("prefill", "logits")):
        key = f"largest_{what}_difference"
        if parity[key] > named[limit]:
            raise _wrong(f"{key} is {parity[key]:g}; the tolerance is {named[limit]:g}")
    for name in _TEXTS:
        if text := parity.get(name):
            _check_text(text, name)
    for index, vector in enumerate(parity.get("vectors", ())):
        if problem := vector_misfit(vector, vocab_size):
            raise _wrong(f"vector {index}: {problem}")


def _check_text(text: Mapping[str, Any], name: str) -> None:
    ties = text["near_ties"]
    if text["equal"] != (ties == 0):
        raise _wrong(f"{name}: equal is {text['equal']} with {ties} near ties")
    if ties > text["characters"]:
        raise _wrong(f"{name}: {ties} near ties in {text['characters']} characters")


def vector_misfit(vector: Mapping[str, Any], vocab_size: int) -> str:
    """Why a test vector cannot be one of a model with so many tokens; empty where it can."""
    if _largest(vector["tokens"], vector["greedy"]) >= vocab_size:
        return f"a token is not below {vocab_size}, the size of the vocabulary"
    expected = -(-vocab_size // vector["stride"])
    if len(vector["logits"]) != expected:
        return f"{len(vector['logits'])} logits; the vocabulary and the stride ask for {expected}"
    return ""


def _largest(*tokens: Sequence[int]) -> int:
    return max(max(part, default=0) for part in tokens)


def _contradiction(what: str, value: object, other: str) -> ArtifactError:
    return ArtifactError(
        f"chargen.training: {what} is {shown_value(value)}, but {other}; export it again"
    )


def _wrong(problem: str) -> ArtifactError:
    return ArtifactError(f"chargen.parity: {problem}; export it again")
