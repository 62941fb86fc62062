"""The graphs of a model file, each described once: the exporter fills them, the reader compares."""

from collections.abc import Mapping

from chargen_ort.graphs.gru import fp16_graph, fp32_graph
from chargen_ort.graphs.int8 import int8_graph
from chargen_ort.graphs.spec import Tolerance, Variant

# Carried states of int8 may fall to another integer on another machine: with each state moved by
# two units in its last place at every step, the logits of 2 x 512 moved by 0.042 at most.
_INT8_TOLERANCE = Tolerance(vectors=0.1)

VARIANTS: Mapping[str, Variant] = {
    "fp32": Variant(fp32_graph),
    "fp16": Variant(fp16_graph),
    "int8": Variant(int8_graph, _INT8_TOLERANCE),
}
