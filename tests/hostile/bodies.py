"""The same of the other precisions: fp16's casts, and int8's Scan with its body."""

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from chargen_ort.artifact import CONFIG_KEY
from tests.hostile.build import Case, changed, metadata, model
from tests.hostile.graphs import body_of, set_fields


def scan(m: ModelProto) -> Any:
    return m.graph.node[-2]


def body(m: ModelProto) -> Any:
    return attribute(m, "body").g


def tensor(m: ModelProto, name: str) -> TensorProto:
    return next(t for t in [*m.graph.initializer, *body(m).initializer] if t.name == name)


def numbers(m: ModelProto, name: str, *values: float, dtype: str = "<i8") -> None:
    tensor(m, name).raw_data = np.array(values, dtype).tobytes()


def attribute(m: ModelProto, name: str) -> Any:
    return next(a for a in scan(m).attribute if a.name == name)


def half(m: ModelProto) -> None:
    m.graph.initializer[0].raw_data = np.full(29 * 8, np.inf, "<f2").tobytes()


def int8(name: str, change: Any, message: str) -> Case:
    return model(f"int8_{name}", change, message, "int8")


CASES: list[Case] = [
    model("fp16_infinite", half, "tensor embedding_fp16: number 0 is inf", "fp16"),
    model(
        "fp16_cast_to_text",
        lambda m: set_fields(m.graph.node[0].attribute[0], i=8),
        "node 0 embedding_cast (Cast): attribute to: i is 8",
        "fp16",
    ),
    model("fp16_no_cast", lambda m: m.graph.node.pop(0), "input 0 is 'layer_0_W_fp16'", "fp16"),
    metadata(
        "fp16_in_name_alone",
        CONFIG_KEY,
        changed(CONFIG_KEY, precision="fp16"),
        "input 0 is 'embedding'",
    ),
    metadata(
        "int8_in_name_alone",
        CONFIG_KEY,
        changed(CONFIG_KEY, precision="int8"),
        "field 1; train-export writes output 0",
    ),
    int8(
        "no_body", lambda m: attribute(m, "body").ClearField("g"), "field 20; train-export writes g"
    ),
    int8(
        "body_without_name",
        lambda m: body(m).ClearField("name"),
        "g: field 5; train-export writes name",
    ),
    int8(
        "body_twice",
        lambda m: scan(m).attribute.append(attribute(m, "body")),
        "field 5; train-export writes doc_string",
    ),
    int8(
        "body_is_a_number",
        lambda m: set_fields(attribute(m, "body"), type=2),
        "node 8 steps (Scan): attribute body: type is 2",
    ),
    int8(
        "body_and_a_number",
        lambda m: set_fields(attribute(m, "body"), i=1),
        "attribute body: field 3; train-export writes g",
    ),
    int8(
        "number_and_a_body",
        lambda m: attribute(m, "num_scan_inputs").g.CopyFrom(body_of(2)),
        "field 6; train-export writes type",
    ),
    int8("loop_in_the_body", lambda m: set_fields(body(m).node[0], op_type="Loop"), "is 'Loop'"),
    int8(
        "scan_in_the_body",
        lambda m: body(m).node[0].CopyFrom(helper.make_node("Scan", ["state"], ["x"])),
        "field 2; train-export writes input 1",
    ),
    int8(
        "if_for_the_scan",
        lambda m: set_fields(scan(m), op_type="If"),
        "node 8 steps (Scan): op_type is 'If'",
    ),
    int8(
        "more_nodes",
        lambda m: body(m).node.append(body(m).node[0]),
        "g: field 1; train-export writes name",
    ),
    int8(
        "a_node_less",
        lambda m: body(m).node.pop(),
        "field 2; train-export writes node 41 step_logits (Squeeze)",
    ),
    int8(
        "body_domain",
        lambda m: set_fields(body(m).node[0], domain="x"),
        "field 7; train-export writes nothing more",
    ),
    int8(
        "body_external",
        lambda m: tensor(m, "layer_0_R").external_data.add(key="location", value="/etc/passwd"),
        "tensor layer_0_R: field 13",
    ),
    int8(
        "body_sparse",
        lambda m: body(m).sparse_initializer.add(),
        "g: field 15; train-export writes nothing more",
    ),
    int8(
        "body_value_info",
        lambda m: body(m).value_info.add(),
        "g: field 13; train-export writes nothing more",
    ),
    int8(
        "body_renamed_input",
        lambda m: set_fields(body(m).input[0], name="x"),
        "g: input state: name is 'x'",
    ),
    int8(
        "body_more_inputs",
        lambda m: body(m).input.append(body(m).input[0]),
        "field 11; train-export writes output next_state",
    ),
    int8(
        "body_output_size",
        lambda m: set_fields(body(m).output[1].type.tensor_type.shape.dim[1], dim_value=1 << 40),
        "shape: dim 1: dim_value is 1099511627776",
    ),
    int8(
        "scan_inputs_0",
        lambda m: set_fields(attribute(m, "num_scan_inputs"), i=0),
        "attribute num_scan_inputs: i is 0",
    ),
    int8(
        "scan_inputs_huge",
        lambda m: set_fields(attribute(m, "num_scan_inputs"), i=1 << 62),
        "attribute num_scan_inputs: i is 4611686018427387904",
    ),
    int8(
        "scan_axis_9",
        lambda m: scan(m).attribute.append(helper.make_attribute("scan_input_axes", [9])),
        "field 5; train-export writes doc_string",
    ),
    int8(
        "perm_negative",
        lambda m: m.graph.node[-1].attribute[0].ints.__setitem__(0, -9),
        "attribute perm: ints 0 is -9",
    ),
    int8(
        "scan_reverse",
        lambda m: scan(m).attribute.append(helper.make_attribute("scan_input_directions", [1])),
        "field 5; train-export writes doc_string",
    ),
    int8(
        "split_huge",
        lambda m: numbers(m, "input_sizes", 1 << 62, 16),
        "raw_data is (4611686018427387904, 16)",
    ),
    int8(
        "split_negative",
        lambda m: numbers(m, "recurrent_sizes", -1, 49, 32, 16),
        "raw_data is (-1, 49, 32, 16)",
    ),
    int8(
        "squeeze_axis",
        lambda m: numbers(m, "time_axis", 7),
        "g: tensor time_axis: raw_data is (7,)",
    ),
    int8(
        "zero_scale",
        lambda m: numbers(m, "activation_scale", 0, dtype="<f4"),
        "tensor activation_scale: raw_data is (0.0,)",
    ),
    int8(
        "zero_point",
        lambda m: numbers(m, "activation_zero", 3, dtype="u1"),
        "g: tensor activation_zero: raw_data is (3,)",
    ),
    int8("nan_scale", lambda m: numbers(m, "output_scale", *[np.nan] * 29, dtype="<f4"), "nan"),
    int8("short_weights", lambda m: set_fields(tensor(m, "layer_1_W"), raw_data=b"1"), "1 bytes"),
]
