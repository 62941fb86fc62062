"""Sealing: metadata and SHA-256 appended to the graph that parity was proven on."""

from collections.abc import Mapping

import onnx

from chargen_ort.artifact import Artifact, metadata_bytes, parse_artifact, seal
from chargen_ort.certificate import Certificate
from chargen_ort.config import Config
from chargen_ort.provenance import Training


def seal_artifact(
    model_bytes: bytes,
    config: Config,
    training: Training,
    certificate: Certificate,
    properties: Mapping[str, str],
    name: str = "the model",
    filter_text: str = "",
) -> Artifact:
    """The artifact in memory: `model_bytes` as they are, then the metadata, then the seal.

    It is checked as a reader checks it. The bytes that parity was proven on are a prefix of it.
    `name` is for messages; `filter_text` is of its documents, or empty.

    Raises:
        ArtifactError: what a reader would refuse.
    """
    metadata = metadata_bytes(config, training, certificate, properties, filter_text=filter_text)
    data = seal(model_bytes + metadata)
    onnx.checker.check_model(data, full_check=True)
    return parse_artifact(data, name)
