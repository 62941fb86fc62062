"""Graphs that would read files, hang, exhaust memory or crash ONNX Runtime, or lie."""

from collections.abc import Callable

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from tests.hostile.build import NUM_LAYERS, Case, model

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
WEIGHTS = [
    "embedding",
    *(f"layer_{layer}_{part}" for layer in range(NUM_LAYERS) for part in "WRB"),
    "output_weight",
    "output_bias",
]


def tensor(m: ModelProto, name: str) -> TensorProto:
    return next(t for t in m.graph.initializer if t.name == name)


def node(m: ModelProto, name: str) -> NodeProto:
    return next(n for n in m.graph.node if n.name == name)


def poison(name: str, value: float, index: int) -> Callable[[ModelProto], None]:
    def change(m: ModelProto) -> None:
        array = np.frombuffer(tensor(m, name).raw_data, "<f4").copy()
        array[index] = value
        tensor(m, name).raw_data = array.tobytes()

    return change


def external(location: str, keep: bool = False, **more: str) -> Callable[[ModelProto], None]:
    def change(m: ModelProto) -> None:
        t = tensor(m, "layer_0_R")
        if not keep:
            t.ClearField("raw_data")
        t.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            t.external_data.add(key=key, value=value)

    return change


def reshape(name: str, *dims: int) -> Callable[[ModelProto], None]:
    def change(m: ModelProto) -> None:
        tensor(m, name).ClearField("dims")
        tensor(m, name).dims.extend(dims)

    return change


def append(op: str, inputs: list[str], **attributes: object) -> Callable[[ModelProto], None]:
    def change(m: ModelProto) -> None:
        m.graph.node.append(helper.make_node(op, inputs, ["extra"], **attributes))

    return change


def instead(
    name: str, op: str, domain: str = "", inputs: list[str] | None = None, **attributes: object
) -> Callable[[ModelProto], None]:
    """Another operator in the place of a node."""

    def change(m: ModelProto) -> None:
        old = node(m, name)
        new = helper.make_node(
            op, inputs or old.input, old.output, name, domain=domain, **attributes
        )
        old.CopyFrom(new)

    return change


def body_of(depth: int) -> GraphProto:
    """A graph that holds If in If in If."""
    inner = [helper.make_node("Identity", ["token"], ["out"])]
    graph = helper.make_graph(inner, "g", [], [helper.make_tensor_value_info("out", INT64, None)])
    for _ in range(depth):
        branch = helper.make_node("If", ["c"], ["out"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([branch], "g", [], list(graph.output))
        if graph.ByteSize() > 1 << 20:
            break
    return graph


def endless_loop(m: ModelProto) -> None:
    """The logits go round and round."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["v"], ["w"])],
        "g",
        [info("i", INT64, []), info("c", TensorProto.BOOL, []), info("v", FLOAT, None)],
        [info("d", TensorProto.BOOL, []), info("w", FLOAT, None)],
    )
    m.graph.initializer.append(helper.make_tensor("true", TensorProto.BOOL, [], [True]))
    instead("bias", "Loop", inputs=["", "true", "scores"], body=body)(m)


def eight_gigabytes(m: ModelProto) -> None:
    """A constant that is folded on load."""
    m.graph.initializer.append(helper.make_tensor("huge", INT64, [3], [1 << 26, 1, 29]))
    m.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["ones"], "ones"))
    node(m, "bias").input[1] = "ones"


def functions(count: int, calls: int = 1) -> Callable[[ModelProto], None]:
    """Functions each of which calls the one before it, so often."""

    def change(m: ModelProto) -> None:
        opset = [helper.make_opsetid("", 17), helper.make_opsetid("x", 1)]
        for index in range(count):
            call = f"f{index - 1}" if index else "Identity"
            domain = "x" if index else ""
            body = [
                helper.make_node(call, [f"a{n}"], [f"a{n + 1}"], domain=domain)
                for n in range(calls)
            ]
            m.functions.append(
                helper.make_function("x", f"f{index}", ["a0"], [f"a{calls}"], body, opset)
            )
        m.opset_import.extend([helper.make_opsetid("x", 1)])
        instead("bias", f"f{count - 1}", "x", inputs=["scores"])(m)

    return change


def set_fields(message: object, **values: object) -> None:
    for key, value in values.items():
        setattr(message, key, value)


def attribute(m: ModelProto, name: str, index: int = 0) -> AttributeProto:
    return node(m, name).attribute[index]


def sparse(m: ModelProto) -> None:
    values = helper.make_tensor("layer_0_R", FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", INT64, [1], [0])
    m.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))


NOT_FINITE = [
    model(f"{label}_in_{name}", poison(name, value, -1), f"tensor {name}: number")
    for name in WEIGHTS
    for label, value in (("nan", np.nan), ("inf", np.inf), ("minus_inf", -np.inf), ("huge", 3e38))
]

EXTERNAL = [
    model(f"external_{name}", external(location, keep), "tensor layer_0_R: field 1")
    for name, location, keep in (
        ("parent", "../secret", False),
        ("passwd", "/etc/passwd", False),
        ("dev_zero", "/dev/zero", False),
        ("itself", "hostile.onnx", False),
        ("proc", "/proc/self/environ", False),
        ("beside_raw_data", "../secret", True),
        ("url", "https://example.org/x", False),
        ("memory", "*/_ORT_MEM_ADDR_/*", False),
        ("empty", "", False),
    )
] + [
    model(
        "external_with_huge_offset",
        external("x", offset=str(1 << 62), length=str(1 << 62)),
        "tensor layer_0_R: field 1",
    ),
    model(
        "external_location_alone",
        lambda m: set_fields(tensor(m, "layer_0_R"), data_location=1),
        "field 14",
    ),
]

DIMS = [
    model(
        "giant_dims",
        reshape("layer_0_R", 1, 1 << 31, 1 << 31),
        "tensor layer_0_R: dims 1 is 2147483648",
    ),
    model(
        "dims_of_2_to_62",
        reshape("layer_0_R", 1 << 62, 1 << 62, 4),
        "tensor layer_0_R: dims 0 is 4611686018427387904",
    ),
    model(
        "dims_that_overflow_to_the_size",
        reshape("output_bias", 29, 1 << 62, 1 << 2),
        "field 1; train-export writes data_type",
    ),
    model("negative_dims", reshape("layer_0_R", 1, -48, -16), "tensor layer_0_R: dims 1 is -48"),
    model("zero_dims", reshape("layer_0_R", 0, 48, 16), "tensor layer_0_R: dims 0 is 0"),
    model("no_dims", reshape("layer_0_R"), "field 2; train-export writes dims 0"),
    model("rank_1000", reshape("layer_0_R", *[1] * 1000), "tensor layer_0_R: dims 1 is 1"),
    model("transposed_dims", reshape("layer_0_W", 1, 8, 48), "tensor layer_0_W: dims 1 is 8"),
    model("too_little_data", lambda m: set_fields(tensor(m, "output_bias"), raw_data=b"1234"), "4"),
    model(
        "no_data",
        lambda m: tensor(m, "output_bias").ClearField("raw_data"),
        "tensor output_bias ends; train-export writes raw_data",
    ),
    model(
        "too_much_data",
        lambda m: set_fields(tensor(m, "output_bias"), raw_data=bytes(120)),
        "tensor output_bias: raw_data has 120 bytes; its shape has 116",
    ),
    model("float_data", lambda m: tensor(m, "output_bias").float_data.extend([1.0]), "field 4"),
    model(
        "float64",
        lambda m: set_fields(tensor(m, "output_bias"), data_type=11),
        "tensor output_bias: data_type is 11",
    ),
    model(
        "strings",
        lambda m: set_fields(tensor(m, "embedding"), data_type=8),
        "tensor embedding: data_type is 8",
    ),
    model("unknown_type", lambda m: set_fields(tensor(m, "embedding"), data_type=99), "type is 99"),
    model(
        "segment",
        lambda m: set_fields(tensor(m, "embedding").segment, begin=0, end=9),
        "field 3; train-export writes name",
    ),
    model(
        "squeeze_along_another_axis",
        lambda m: set_fields(tensor(m, "direction"), raw_data=(9).to_bytes(8, "little")),
        "tensor direction: raw_data is (9,)",
    ),
    model("sparse_tensor", sparse, "graph: field 15"),
    model(
        "tensor_missing",
        lambda m: m.graph.initializer.pop(),
        "field 10; train-export writes tensor output_bias",
    ),
    model(
        "tensor_twice",
        lambda m: m.graph.initializer.append(m.graph.initializer[0]),
        "graph: field 5; train-export writes doc_string",
    ),
    model(
        "tensor_renamed",
        lambda m: set_fields(tensor(m, "layer_1_R"), name="layer_0_R"),
        "tensor layer_1_R: name is 'layer_0_R'",
    ),
    model(
        "tensor_name_of_an_input",
        lambda m: set_fields(tensor(m, "embedding"), name="token"),
        "tensor embedding: name is 'token'",
    ),
]

OPERATORS = [
    model(
        "graph_without_name",
        lambda m: m.graph.ClearField("name"),
        "graph: field 5; train-export writes name",
    ),
    model(
        "one_more_node", append("Identity", ["logits"]), "graph: field 1; train-export writes name"
    ),
    model(
        "a_node_less",
        lambda m: m.graph.node.pop(),
        "field 2; train-export writes node 12 bias (Add)",
    ),
    model("loop", endless_loop, "node 12 bias (Add): input 0 is ''"),
    model(
        "loop_for_a_node", instead("project", "Loop"), "node 11 project (MatMul): op_type is 'Loop'"
    ),
    model(
        "if_in_if",
        instead("project", "If", inputs=["c"], then_branch=body_of(12)),
        "node 11 project (MatMul): input 0 is 'c'",
    ),
    model(
        "constant_of_shape",
        instead("project", "ConstantOfShape", inputs=["direction"]),
        "node 11 project (MatMul): input 0 is 'direction'",
    ),
    model("constant_of_8_gb", eight_gigabytes, "node 0 embed (Gather): input 0 is 'huge'"),
    model("functions", functions(3), "field 2; train-export writes input 1"),
    model(
        "functions_that_double_100_times", functions(100, 2), "field 2; train-export writes input 1"
    ),
    model("functions_3000", functions(3000), "more than 128 fields"),
    model(
        "custom_domain",
        instead("project", "MatMul", "evil.example"),
        "field 7; train-export writes doc_string",
    ),
    model(
        "microsoft_domain",
        instead("project", "MatMul", "com.microsoft"),
        "field 7; train-export writes doc_string",
    ),
    model(
        "training_domain",
        instead("project", "Adam", "ai.onnx.preview.training"),
        "node 11 project (MatMul): op_type is 'Adam'",
    ),
    model(
        "unknown_operator",
        instead("project", "Backdoor"),
        "node 11 project (MatMul): op_type is 'Backdoor'",
    ),
    model(
        "optional_input_filled",
        lambda m: m.graph.node[4].input.__setitem__(4, "x"),
        "node 4 layer_0_gru (GRU): input 4 is 'x'",
    ),
    model(
        "operator_without_name",
        lambda m: set_fields(m.graph.node[0], op_type=""),
        "node 0 embed (Gather): op_type is ''",
    ),
    model(
        "cycle",
        lambda m: m.graph.node[0].input.__setitem__(1, "logits"),
        "node 0 embed (Gather): input 1 is 'logits'",
    ),
    model(
        "weights_crossed",
        lambda m: m.graph.node[4].input.__setitem__(1, "layer_1_W"),
        "node 4 layer_0_gru (GRU): input 1 is 'layer_1_W'",
    ),
    model(
        "output_twice",
        lambda m: m.graph.node[5].output.__setitem__(0, "logits"),
        "output 0 is 'logits'",
    ),
    model(
        "inputs_300000",
        lambda m: m.graph.node[0].input.extend(["x"] * 300_000),
        "field 1; train-export writes output 0",
    ),
    model("node_metadata", lambda m: m.graph.node[0].metadata_props.add(key="a"), "field 9"),
    model("node_overload", lambda m: set_fields(m.graph.node[0], overload="x"), "field 8"),
    model(
        "order_of_nodes",
        lambda m: m.graph.node.append(m.graph.node.pop(0)),
        "node 0 embed (Gather): input 0 is 'embedded'",
    ),
    model(
        "same_name_twice",
        lambda m: set_fields(m.graph.node[1], name="embed"),
        "node 1 time_first (Transpose): name is 'embed'",
    ),
    model(
        "long_doc",
        lambda m: set_fields(m.graph.node[1], doc_string="x" * 5000),
        "doc_string is 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'; tr",
    ),
]

ATTRIBUTES = [
    model(
        "hidden_size_0",
        lambda m: set_fields(m.graph.node[4].attribute[0], i=0),
        "attribute hidden_size: i is 0",
    ),
    model(
        "hidden_size_huge",
        lambda m: set_fields(m.graph.node[4].attribute[0], i=1 << 40),
        "attribute hidden_size: i is 1099511627776",
    ),
    model(
        "reset_before",
        lambda m: set_fields(m.graph.node[4].attribute[1], i=0),
        "attribute linear_before_reset: i is 0",
    ),
    model(
        "reset_left_out",
        lambda m: m.graph.node[4].attribute.pop(),
        "field 6; train-export writes attribute linear_before_reset",
    ),
    model(
        "attribute_twice",
        lambda m: m.graph.node[4].attribute.append(m.graph.node[4].attribute[0]),
        "field 5; train-export writes doc_string",
    ),
    model(
        "perm_out_of_range",
        lambda m: m.graph.node[1].attribute[0].ints.__setitem__(0, 9),
        "attribute perm: ints 0 is 9",
    ),
    model(
        "perm_negative",
        lambda m: m.graph.node[1].attribute[0].ints.__setitem__(0, -1),
        "attribute perm: ints 0 is -1",
    ),
    model(
        "perm_long",
        lambda m: m.graph.node[1].attribute[0].ints.extend(range(199)),
        "field 8; train-export writes type",
    ),
    model(
        "perm_and_number",
        lambda m: set_fields(m.graph.node[1].attribute[0], i=1),
        "field 3; train-export writes ints 0",
    ),
    model(
        "attribute_of_no_type",
        lambda m: m.graph.node[1].attribute[0].ClearField("type"),
        "attribute perm ends; train-export writes type",
    ),
    model(
        "attribute_reference",
        lambda m: set_fields(m.graph.node[1].attribute[0], ref_attr_name="x"),
        "field 21",
    ),
    model(
        "attribute_tensor", lambda m: m.graph.node[1].attribute[0].t.dims.append(1 << 40), "field 5"
    ),
    model(
        "direction_reverse",
        lambda m: m.graph.node[4].attribute.append(helper.make_attribute("direction", "reverse")),
        "field 5; train-export writes doc_string",
    ),
    model(
        "gru_with_a_body",
        lambda m: m.graph.node[4].attribute.append(helper.make_attribute("body", body_of(3))),
        "field 5; train-export writes doc_string",
    ),
    model(
        "clip",
        lambda m: m.graph.node[4].attribute.append(helper.make_attribute("clip", 1.0)),
        "field 5; train-export writes doc_string",
    ),
]


def dims_of(m: ModelProto, kind: str, index: int) -> object:
    return getattr(m.graph, kind)[index].type.tensor_type.shape.dim


INTERFACE = [
    model(
        "opset_18",
        lambda m: set_fields(m.opset_import[0], version=18),
        "model: opset_import: version is 18",
    ),
    model(
        "opset_0",
        lambda m: set_fields(m.opset_import[0], version=0),
        "model: opset_import: version is 0",
    ),
    model(
        "opset_2_to_62",
        lambda m: set_fields(m.opset_import[0], version=1 << 62),
        "model: opset_import: version is 4611686018427387904",
    ),
    model(
        "no_opset", lambda m: m.opset_import.pop(), "model ends; train-export writes opset_import"
    ),
    model(
        "opset_twice",
        lambda m: m.opset_import.append(m.opset_import[0]),
        "field 8; train-export writes nothing more",
    ),
    model(
        "opsets_many",
        lambda m: m.opset_import.extend(list(m.opset_import) * 99),
        "field 8; train-export writes nothing more",
    ),
    model(
        "another_opset",
        lambda m: m.opset_import.append(helper.make_opsetid("x", 1)),
        "field 8; train-export writes nothing more",
    ),
    model("ir_version_7", lambda m: set_fields(m, ir_version=7), "ir_version is 7"),
    model("ir_version_99", lambda m: set_fields(m, ir_version=99), "ir_version is 99"),
    model("ir_version_negative", lambda m: set_fields(m, ir_version=-1), "ir_version is -1"),
    model(
        "no_ir_version",
        lambda m: m.ClearField("ir_version"),
        "model: field 2; train-export writes ir_version",
    ),
    model("model_domain", lambda m: set_fields(m, domain="x"), "field 4"),
    model("model_version", lambda m: set_fields(m, model_version=1), "field 5"),
    model(
        "training_info",
        lambda m: m.training_info.add(),
        "field 14; train-export writes nothing more",
    ),
    model("value_info", lambda m: m.graph.value_info.append(m.graph.input[0]), "graph: field 13"),
    model("quantization", lambda m: m.graph.quantization_annotation.add(), "graph: field 14"),
    model(
        "input_renamed",
        lambda m: set_fields(m.graph.input[0], name="text"),
        "input token: name is 'text'",
    ),
    model(
        "input_missing", lambda m: m.graph.input.pop(), "field 12; train-export writes input hidden"
    ),
    model(
        "input_more",
        lambda m: m.graph.input.append(m.graph.input[0]),
        "field 11; train-export writes output logits",
    ),
    model(
        "inputs_swapped",
        lambda m: m.graph.input.append(m.graph.input.pop(0)),
        "input token: name is 'hidden'",
    ),
    model(
        "input_type",
        lambda m: set_fields(m.graph.input[0].type.tensor_type, elem_type=8),
        "input token: type: tensor_type: elem_type is 8",
    ),
    model(
        "input_fixed",
        lambda m: set_fields(dims_of(m, "input", 0)[0], dim_value=0),
        "dim 0: field 1; train-export writes dim_param",
    ),
    model(
        "input_of_rank_9",
        lambda m: dims_of(m, "input", 0).extend([dims_of(m, "input", 0)[0]] * 9),
        "field 1; train-export writes nothing more",
    ),
    model(
        "input_no_shape",
        lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"),
        "tensor_type ends; train-export writes shape",
    ),
    model(
        "input_sequence", lambda m: m.graph.input[0].type.sequence_type.elem_type.Clear(), "field 4"
    ),
    model(
        "input_is_a_weight",
        lambda m: m.graph.input.append(helper.make_tensor_value_info("embedding", FLOAT, [29, 8])),
        "field 11; train-export writes output logits",
    ),
    model(
        "hidden_of_other_size",
        lambda m: set_fields(dims_of(m, "input", 1)[2], dim_value=1 << 40),
        "shape: dim 2: dim_value is 1099511627776",
    ),
    model(
        "output_renamed",
        lambda m: set_fields(m.graph.output[0], name="x"),
        "output logits: name is 'x'",
    ),
    model(
        "output_missing",
        lambda m: m.graph.output.pop(),
        "graph ends; train-export writes output next_hidden",
    ),
    model(
        "output_size",
        lambda m: set_fields(dims_of(m, "output", 0)[2], dim_value=1 << 40),
        "shape: dim 2: dim_value is 1099511627776",
    ),
]

CASES: list[Case] = [*NOT_FINITE, *EXTERNAL, *DIMS, *OPERATORS, *ATTRIBUTES, *INTERFACE]
