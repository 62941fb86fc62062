"""A process that tries mutants by the chunk; it keeps its place in a file that outlives a crash."""

import collections
import json
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx

from chargen_ort.artifact import seal
from tests.fuzz.mutations import mutant
from tests.hostile.worker import attempt


def literals(data: bytes) -> bytes:
    """A model without its metadata and weights, as onnx reads it: what no mutant may change."""
    model = onnx.load_from_string(data)
    del model.metadata_props[:]
    for tensor in (node for graph in _graphs(model.graph) for node in graph.initializer):
        if tensor.data_type != onnx.TensorProto.INT64 and tensor.dims:  # axes, scales, zero points
            tensor.raw_data = bytes(len(tensor.raw_data))
    return model.SerializeToString(deterministic=True)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def main(folder: Path) -> None:
    bases = [path.read_bytes() for path in sorted((folder / "bases").glob("*.bin"))]
    with open(folder / "place", "r+b") as file:
        place = mmap.mmap(file.fileno(), 8)
    originals = {literals(base) for base in bases}
    honest = {form for base in bases for form in (base, seal(base))}
    for line in sys.stdin:
        begin, end = json.loads(line)
        counts: collections.Counter[str] = collections.Counter()
        defects = []
        for seed in range(begin, end):
            place[:8] = seed.to_bytes(8, "little")
            data, sealed = mutant(seed, bases)
            outcome, message = attempt(data)
            if data in honest:  # the mutation changed nothing, or undid itself
                outcome = "unchanged"
            elif outcome == "accepted" and (not sealed or literals(data) not in originals):
                defects.append([seed, outcome, "it differs in more than weights and metadata"])
            elif outcome == "another error":
                defects.append([seed, outcome, message])
            counts["sealed"] += sealed
            counts[outcome] += 1
        print(json.dumps({"counts": counts, "defects": defects}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
