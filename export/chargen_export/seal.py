"""Sealing: metadata and SHA-256 appended to the graph that parity was proven on."""

from collections.abc import Mapping
from typing import Any

import onnx

from chargen_ort.artifact import Artifact, ModelConfig, metadata_bytes, parse_artifact, seal


def seal_artifact(
    model_bytes: bytes,
    config: ModelConfig,
    training: Mapping[str, Any],
    parity: Mapping[str, Any],
    properties: Mapping[str, str],
    name: str = "the model",
) -> Artifact:
    """The artifact in memory: `model_bytes` as they are, then the metadata, then the seal.

    It is checked as a reader checks it. The bytes that parity was proven on are a prefix of it.
    `name` is for messages.

    Raises:
        ArtifactError: what a reader would refuse.
    """
    data = seal(model_bytes + metadata_bytes(config, training, parity, properties))
    onnx.checker.check_model(data, full_check=True)
    return parse_artifact(data, name)
