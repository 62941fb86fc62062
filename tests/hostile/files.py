"""Files that are not what they seem: kinds of file, seals, and the wire format."""

import os
from collections.abc import Callable
from pathlib import Path

from chargen_ort.artifact import CONFIG_KEY, MAX_FILE_BYTES, SEAL_KEY, seal
from chargen_ort.protobuf import bytes_field, fields, integer_field, varint
from tests.hostile.build import Case, body, entry, file, honest, sealed

SEAL_BYTES = len(seal(b""))
OTHER = b"\x08\x08\x12\x07pytorch\x3a\x0a\x12\x08"


def place(make: Callable[[Path], object]) -> Callable[[Path], Path]:
    def put(folder: Path) -> Path:
        path = folder / "hostile.onnx"
        make(path)
        return path

    return put


def sparse(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with open(path, "wb") as out:
            out.truncate(size)

    return make


def graph_of(data: bytes) -> bytes:
    field = next(field for field in fields(memoryview(data)) if field.number == 7)
    assert isinstance(field.value, memoryview)
    return bytes(field.value)


def with_graph(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Replace the graph's bytes."""

    def make(data: bytes) -> bytes:
        graph = graph_of(data)
        return data.replace(bytes_field(7, graph), bytes_field(7, change(graph)))

    return make


KINDS = [
    Case("missing", lambda folder: folder / "none.onnx", "no such model file"),
    Case("directory", lambda folder: folder, "is not a regular file"),
    Case("fifo", place(os.mkfifo), "is not a regular file"),
    Case("dev_zero", lambda _: Path("/dev/zero"), "is not a regular file"),
    Case("dev_null", lambda _: Path("/dev/null"), "is not a regular file"),
    Case("link_to_dev_zero", place(lambda p: p.symlink_to("/dev/zero")), "is not a regular file"),
    Case("link_to_itself", place(lambda p: p.symlink_to(p)), "cannot read"),
    Case("link_to_nothing", place(lambda p: p.symlink_to("none")), "no such model file"),
    Case("link_to_passwd", place(lambda p: p.symlink_to("/etc/passwd")), "no seal"),
    Case("under_a_file", place(lambda p: p.write_bytes(b"x")), "no seal"),
    Case("nul_in_the_path", lambda folder: folder / "a\0b.onnx", "not a path"),
    Case("name_too_long", lambda folder: folder / ("a" * 5000), "cannot read"),
    Case("sparse_over_the_cap", place(sparse(MAX_FILE_BYTES + 1)), f"limit is {MAX_FILE_BYTES}"),
    Case("sparse_8_gib", place(sparse(8 << 30)), f"limit is {MAX_FILE_BYTES}"),
    Case("sparse_at_the_cap", place(sparse(MAX_FILE_BYTES)), "no seal"),
    file("empty", lambda: b"", "the file is empty"),
    file("one_byte", lambda: b"\x08", "no seal"),
    file("one_zero", lambda: b"\0", "no seal"),
    file("seal_alone", lambda: seal(b""), "not the last thing"),
    file("lfs_pointer", lambda: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    file("html_page", lambda: b"\r\n <!DOCTYPE html><html></html>", "HTML"),
    file("xml", lambda: b"<?xml version='1.0'?>", "HTML or XML"),
    file("zip", lambda: b"PK\x03\x04" + bytes(100), "a ZIP archive or PyTorch checkpoint"),
    file("pickle", lambda: b"\x80\x04\x95" + bytes(100), "a Python pickle"),
    file("gzip", lambda: b"\x1f\x8b\x08" + bytes(100), "gzip data"),
    file("gguf", lambda: b"GGUF" + bytes(100), "a GGUF model"),
    file("another_onnx_model", lambda: OTHER + bytes(10), "an ONNX model of another program"),
    file("text", lambda: b"hello world\n" * 100, "no seal"),
    file("zeros", lambda: bytes(1 << 20), "no seal"),
    file("ones", lambda: b"\xff" * (1 << 20), "no seal"),
]

SEALS = [
    file("unsealed", body, "no seal"),
    file("byte_after_the_seal", lambda: honest() + b"\0", "not the last thing"),
    file("field_after_the_seal", lambda: honest() + entry("a", "b"), "not the last thing"),
    file("line_end_after_the_seal", lambda: honest() + b"\n", "not the last thing"),
    file("cut_in_the_seal", lambda: honest()[:-1], "not the last thing"),
    file("cut_before_the_seal", lambda: honest()[:-100], "no seal"),
    file("cut_in_the_middle", lambda: honest()[: len(honest()) // 2], "no seal"),
    file("cut_at_the_start", lambda: honest()[100:], "does not match"),
    file("two_models", lambda: honest() + honest(), "does not match"),
    file("sealed_twice", lambda: seal(honest()), "appears twice"),
    file("zero_seal", lambda: honest()[:-64] + b"0" * 64, "does not match"),
    file("upper_case_seal", lambda: honest()[:-64] + honest()[-64:].upper(), "does not match"),
    file("swapped_weights", lambda: honest().replace(b"layer_0_W", b"layer_1_W"), "does not match"),
    sealed("seal_key_elsewhere", lambda b: entry(SEAL_KEY, "0" * 64) + b, "appears twice"),
    file(
        "seal_inside_another_field",
        lambda: seal(body() + entry(SEAL_KEY, "0" * 64) + b"\x1a" + varint(SEAL_BYTES)),
        "the seal is not the last metadata entry",
    ),
]

WIRE = [
    sealed("unknown_field", lambda b: integer_field(99, 1) + b, "field 99"),
    sealed("field_zero", lambda b: b"\x00\x00" + b, "field number 0"),
    sealed("huge_field_number", lambda b: b"\xf8\xff\xff\xff\x0f\x00" + b, "field 536870911"),
    sealed("field_number_too_large", lambda b: b"\x80\x80\x80\x80\x40\x00" + b, "not valid"),
    sealed("group_start", lambda b: b"\x0b\x0c" + b, "wire type 3"),
    sealed("group_end", lambda b: b"\x0c" + b, "wire type 4"),
    sealed("wire_type_6", lambda b: b"\x0e" + b, "wire type 6"),
    sealed("wire_type_7", lambda b: b"\x0f" + b, "wire type 7"),
    sealed("fixed_64_for_a_varint", lambda b: b"\x09" + bytes(8) + b, "field 1 has wire type 1"),
    sealed("fixed_32_for_a_varint", lambda b: b"\x0d" + bytes(4) + b, "field 1 has wire type 5"),
    sealed(
        "varint_for_the_graph",
        lambda b: integer_field(7, 1) + b,
        "model: field 7; train-export writes ir_version",
    ),
    sealed(
        "varint_metadata",
        lambda b: integer_field(14, 1) + b,
        "field 14; train-export writes ir_version",
    ),
    sealed("varint_of_11_bytes", lambda b: b"\x08" + b"\x80" * 10 + b"\x01" + b, "longer than"),
    sealed("varint_over_64_bits", lambda b: b"\x08" + b"\xff" * 9 + b"\x7f" + b, "longer than"),
    sealed("padded_varint", lambda b: b"\x08\x88\x00" + b[2:], "longer than its value"),
    sealed("cut_off_varint", lambda b: b + b"\x80", "lacks chargen.sha256"),
    sealed("length_beyond_the_end", lambda b: b + b"\x3a\xff\xff\xff\xff\x7f", "the file is cut"),
    sealed("length_of_2_to_63", lambda b: b + b"\x3a" + b"\x80" * 9 + b"\x01", "the file is cut"),
    sealed(
        "two_graphs",
        lambda b: b + bytes_field(7, graph_of(b)),
        "field 14; train-export writes nothing more",
    ),
    sealed(
        "empty_second_graph",
        lambda b: b + b"\x3a\x00",
        "field 14; train-export writes nothing more",
    ),
    sealed(
        "two_ir_versions", lambda b: b"\x08\x08" + b, "field 1; train-export writes producer_name"
    ),
    sealed(
        "two_producers",
        lambda b: b + bytes_field(2, b"x"),
        "field 14; train-export writes nothing more",
    ),
    sealed(
        "no_graph",
        with_graph(lambda _: b""),
        "graph ends; train-export writes node 0 embed (Gather)",
    ),
    sealed("graph_cut_off", with_graph(lambda g: g[:-1]), "graph: the file is cut off"),
    sealed("graph_of_zeros", with_graph(lambda g: bytes(len(g))), "field number 0"),
    sealed("unknown_graph_field", with_graph(lambda g: g + integer_field(50, 1)), "field 50"),
    sealed("graph_in_a_graph", with_graph(lambda g: bytes_field(7, g)), "field 7"),
    sealed(
        "a_million_empty_fields",
        with_graph(lambda g: g + b"\x0a\x00" * 1_000_000),
        "field 1; train-export writes nothing more",
    ),
    sealed("a_million_top_fields", lambda b: b"\x12\x00" * 1_000_000 + b, "more than 128 fields"),
    sealed(
        "long_producer",
        lambda b: b[:2] + bytes_field(2, b"x" * 5000) + b[11:],
        "producer_name is 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'",
    ),
    sealed(
        "producer_not_utf8",
        lambda b: b.replace(b"chargen", b"charge\xff", 1),
        "model: producer_name is 'charge\\ufffd'",
    ),
    sealed("config_key_not_utf8", lambda b: b.replace(CONFIG_KEY.encode(), b"\xff" * 14), "UTF-8"),
]
