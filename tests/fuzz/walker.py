"""The protobuf walker and the guard under atheris, which steers by coverage; `make fuzz-walker`."""

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["chargen_ort"]):
    from chargen_ort import graph_spec, guard, records, strict, variants, wire
    from chargen_ort.errors import ArtifactError

_SIZES = graph_spec.Sizes(vocab_size=2, embedding_dim=1, hidden_size=1, num_layers=1)


def one(data: bytes) -> None:
    view = memoryview(data)
    with contextlib.suppress(ArtifactError):
        for _, _, value in wire.fields(view):
            assert value < 1 << 64 if isinstance(value, int) else len(value) <= len(data)
    with contextlib.suppress(ArtifactError):
        guard.read_metadata(view)
    with contextlib.suppress(ArtifactError):
        guard.check_model(view, variants.VARIANTS["fp32"], _SIZES)
    with contextlib.suppress(ArtifactError, UnicodeDecodeError):
        strict.parse_record(records.Certificate, data.decode("utf-8"), "x")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
