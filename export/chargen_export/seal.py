"""Writing the artifact: metadata and seal appended, then the file replaced in one move."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from chargen_ort.artifact import Artifact, ModelConfig, metadata_bytes, parse_artifact, seal
from chargen_ort.files import check_writable, write_atomically

__all__ = ["check_writable", "seal_artifact", "write_atomically"]


def seal_artifact(
    path: Path,
    model_bytes: bytes,
    config: ModelConfig,
    training: Mapping[str, Any],
    parity: Mapping[str, Any],
    properties: Mapping[str, str],
) -> Artifact:
    """Write the artifact: `model_bytes` as they are, then the metadata, then the seal.

    The bytes that parity was proven on are a prefix of the file.

    Raises:
        OptionError: the file cannot be written; the old one, if any, is untouched.
    """
    data = seal(model_bytes + metadata_bytes(config, training, parity, properties))
    onnx.checker.check_model(data, full_check=True)
    artifact = parse_artifact(data, str(path))
    write_atomically(path, data)
    return artifact
