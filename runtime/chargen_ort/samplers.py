"""Samplers: files with another graph around the same weights, in which one run is a text.

They are for programs in other languages, see ARTIFACT.md. A sampler holds all that the model has
that it was made of, so that it can be turned back into that very file.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.artifact import (
    SAMPLER,
    SAMPLER_UNIFORMS,
    STEP,
    Artifact,
    graph_of,
    metadata_bytes,
    parse_artifact,
    read_weights,
    seal,
)
from chargen_ort.form import fill, render
from chargen_ort.graphs.spec import HIDDEN
from chargen_ort.options import SamplingOptions
from chargen_ort.sampling import uniform_draws
from chargen_ort.sessions import inside, translated

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def as_sampler(artifact: Artifact, uniforms: bool = False) -> Artifact:
    """The sampler of a model, in memory; of a sampler, that sampler or the other one.

    Args:
        artifact: as `read_artifact` gives it.
        uniforms: whether the caller hands it the numbers to draw by, instead of a seed.

    Raises:
        ArtifactError: the model's tokens are not characters.
    """
    return _with_graph(artifact, SAMPLER_UNIFORMS if uniforms else SAMPLER)


def as_step(artifact: Artifact) -> Artifact:
    """The model that a sampler was made of, byte for byte; of a model, that model."""
    return _with_graph(artifact, STEP)


def _with_graph(artifact: Artifact, kind: str) -> Artifact:
    if artifact.graph == kind:
        return artifact
    config, history = artifact.config, (artifact.training, artifact.certificate)
    data = fill(render(graph_of(config, kind)), read_weights(artifact))
    metadata = metadata_bytes(config, *history, artifact.properties, kind, artifact.filter)
    return parse_artifact(seal(data + metadata))


@dataclass(frozen=True)
class Sampled:
    """What a run of a sampler gives.

    Attributes:
        texts: one of each row.
        ended: whether each of them has ended, in a model whose texts end.
        next_hidden: the states after them, float32 ``[batch, num_layers, hidden_size]``.
    """

    texts: list[str]
    ended: list[bool]
    next_hidden: NDArray[np.float32]


def run_sampler(
    session: "InferenceSession",
    prompts: list[str],
    hidden: NDArray[np.float32],
    length: int,
    options: SamplingOptions,
    drawn: int = 0,
) -> Sampled:
    """One run of a sampler of either kind, as a program in another language makes it.

    Args:
        session: of the file.
        prompts: one a row, all of the same length.
        hidden: the states before them, ``[batch, num_layers, hidden_size]``; zeros at the
            beginning of texts.
        length: how many characters a row are written at most.
        options: temperature, top-k, top-p, min-p and seed; the others play no part.
        drawn: how many draws the texts have made before.

    Raises:
        ArtifactError: ONNX Runtime does not run it, as with a character that it does not know.
    """
    seed = options.seed or 0
    inputs = {
        "prompt": np.array([list(map(ord, p)) for p in prompts], dtype=np.int64),  # [batch, time]
        HIDDEN: hidden,
        "temperature": np.array([options.temperature], dtype=np.float64),
        "top_k": np.array([options.top_k], dtype=np.int64),
        "top_p": np.array([options.top_p], dtype=np.float64),
        "min_p": np.array([options.min_p], dtype=np.float64),
    }
    if any(each.name == "uniforms" for each in session.get_inputs()):
        rows = [uniform_draws(seed, row, drawn, length) for row in range(len(prompts))]
        inputs["uniforms"] = np.stack(rows)  # [batch, length]
    else:
        inputs["seed"] = np.array([seed], dtype=np.uint64).view(np.int64)
        inputs["drawn"] = np.array([drawn], dtype=np.int64)
        inputs["length"] = np.array([length], dtype=np.int64)
    try:
        with inside():
            found, next_hidden = session.run(["code_points", "next_hidden"], inputs)
    except Exception as error:
        raise translated(error, "does not run the sampler") from None
    code_points = np.asarray(found).reshape(len(prompts), -1)  # [batch, written]
    texts = ["".join(map(chr, row[row >= 0])) for row in code_points]
    return Sampled(texts, [bool((row < 0).any()) for row in code_points], np.asarray(next_hidden))
