"""The protobuf walker and the form under atheris, which steers by coverage; `make fuzz-walker`."""

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["chargen_ort"]):
    from chargen_ort import form, protobuf, records, strict
    from chargen_ort.errors import ArtifactError
    from chargen_ort.graphs import VARIANTS
    from chargen_ort.graphs.spec import Sizes

_FORM = form.render(VARIANTS["fp32"].graph(Sizes(2, 1, 1, 1)))


def one(data: bytes) -> None:
    view = memoryview(data)
    with contextlib.suppress(ArtifactError):
        for _, value, _, _ in protobuf.fields(view):
            assert value < 1 << 64 if isinstance(value, int) else len(value) <= len(data)
    with contextlib.suppress(ArtifactError):
        form.read_metadata(view)
    with contextlib.suppress(ArtifactError):
        form.read(view, _FORM)
    with contextlib.suppress(ArtifactError, UnicodeDecodeError):
        strict.parse_record(records.Certificate, data.decode("utf-8"), "x")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
