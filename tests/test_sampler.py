"""Samplers: one run is a text, and it is the text that Python writes by the same seed."""

import hashlib
import random
from dataclasses import replace

import numpy as np
import onnx
import pytest

from chargen_ort import ArtifactError, CharGenerator, SamplingOptions, parse_artifact, verify
from chargen_ort.artifact import (
    GRAPH_KEY,
    SAMPLER,
    SAMPLER_UNIFORMS,
    graph_of,
    metadata_bytes,
    read_artifact,
    seal,
)
from chargen_ort.form import fill, fits, metadata_entry, read_metadata, render
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import Graph
from chargen_ort.models import DEMO_MODEL
from chargen_ort.samplers import as_sampler, as_step, run_sampler
from chargen_ort.sessions import open_session
from chargen_ort.verify import verify_artifact
from tests.conftest import artifact_bytes, assert_refused, random_model, run_here
from tests.hostile.build import of_precision, without_seal
from tests.tools import golden_sampler

OPTIONS = [
    {},
    {"temperature": 0.6},
    {"temperature": 0},
    {"temperature": 0, "top_k": 3},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 29},
    {"top_p": 0.8},
    {"top_p": 1e-9},
    {"min_p": 0.1},
    {"min_p": 1},
    {"temperature": 1.5, "top_k": 10, "top_p": 0.9, "min_p": 0.02},
]
PROMPTS = ["", "a", "the quick brown fox.\njumps "]
MODELS = {
    "fp32": lambda: of_precision("fp32", 2, 0.75),
    "fp16": lambda: of_precision("fp16", 1, 0.75),
    "int8": lambda: of_precision("int8", 2, 0.02),
    "with ends": lambda: artifact_bytes(random_model(30), end=True),
    "three layers": lambda: artifact_bytes(random_model(num_layers=3)),
    "without a table": lambda: artifact_bytes(random_model(29, hidden_size=12100, num_layers=1)),
    "replacing": lambda: artifact_bytes(random_model(), unknown="replace"),
}
KINDS = (SAMPLER, SAMPLER_UNIFORMS)
SMALL = [name for name in MODELS if name != "without a table"]


@pytest.fixture(scope="module")
def opened():
    """A model, the session of its sampler, and that of the one that is handed uniforms."""
    made = {}

    def of(name):
        if name not in made:
            model = parse_artifact(MODELS[name]())
            samplers = [as_sampler(model), as_sampler(model, uniforms=True)]
            sessions = [open_session(each.data, 1) for each in samplers]
            made[name] = CharGenerator(model), dict(zip(KINDS, sessions, strict=True))
        return made[name]

    return of


def written(model, session, prompts, length, drawn=0, hidden=None, **options):
    hidden = model.engine.zero_hidden(len(prompts)) if hidden is None else hidden
    return run_sampler(session, prompts, hidden, length, SamplingOptions(**options), drawn)


# What it writes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SMALL)
def test_it_writes_what_python_writes(name, kind, opened):
    model, sessions = opened(name)
    for seed, (prompt, options) in enumerate(zip(PROMPTS * 4, OPTIONS, strict=True)):
        found = written(model, sessions[kind], [prompt], 60, seed=seed, **options)
        expected = model.stream(prompt, 60, seed=seed, **options)
        assert found.texts == [expected.read()], (prompt, options)
        assert found.ended == [expected.ended == "end"]


@pytest.mark.parametrize("seed", [0, 1, (1 << 63) + 5, (1 << 64) - 1])
def test_every_seed_draws_as_python_does(seed, opened):
    model, sessions = opened("fp32")
    found = written(model, sessions[SAMPLER], ["a"], 40, seed=seed)
    assert found.texts == [model.generate("a", 40, seed=seed)]


def test_a_long_text_is_the_same(opened):
    model, sessions = opened("fp32")
    found = written(model, sessions[SAMPLER], ["the "], 3000, seed=3)
    assert found.texts == [model.generate("the ", 3000, seed=3)]


@pytest.mark.parametrize("name", ["fp32", "int8", "with ends"])
def test_rows_are_the_texts_of_a_batch(name, opened):
    model, sessions = opened(name)
    prompts = ["the ", "abcd", "zz\n."]
    found = written(model, sessions[SAMPLER], prompts, 50, seed=7)
    assert found.texts == model.generate_batch(prompts, 50, seed=7)


@pytest.mark.parametrize("name", ["fp32", "int8", "with ends"])
@pytest.mark.parametrize("piece", [1, 3, 7, 64])
def test_a_text_goes_on_from_its_state(name, piece, opened):
    model, sessions = opened(name)
    expected = model.generate("the ", 64, seed=9)
    text, prompt, hidden, ended = "", "the ", None, False
    while len(text) < 64 and not ended:
        size = min(piece, 64 - len(text))
        found = written(model, sessions[SAMPLER], [prompt], size, len(text), hidden, seed=9)
        text, prompt, hidden, ended = text + found.texts[0], "", found.next_hidden, found.ended[0]
    assert text == expected


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_the_state_is_that_of_all_that_was_read_and_written(name, opened):
    model, sessions = opened(name)
    found = written(model, sessions[SAMPLER], ["the "], 20, seed=1)
    state = model.state("the " + found.texts[0])
    assert np.abs(found.next_hidden[0] - state.hidden()).max() < 1e-5


def test_a_length_of_0_reads_the_prompt_alone(opened):
    model, sessions = opened("fp32")
    found = written(model, sessions[SAMPLER], ["the ", "abcd"], 0)
    assert found.texts == ["", ""]
    assert np.abs(found.next_hidden[1] - model.state("abcd").hidden()).max() < 1e-5


def test_the_state_after_an_end_is_the_one_before_a_text(opened):
    model, sessions = opened("with ends")
    found = written(model, sessions[SAMPLER], ["the ", "zzzz"], 400, seed=5)
    assert found.ended == [True, True]
    assert not found.next_hidden.any()
    again = written(model, sessions[SAMPLER], ["a"], 50, seed=6, hidden=found.next_hidden[:1])
    assert again.texts == [model.generate("a", 50, seed=6)]


@pytest.mark.parametrize("unknown", ["X", "\U0010ffff", "aXb"])
@pytest.mark.parametrize("name", ["fp32", "int8", "with ends"])
def test_a_character_that_it_does_not_know_is_refused(name, unknown, opened, capfd):
    model, sessions = opened(name)
    for session in sessions.values():
        with pytest.raises(ArtifactError, match="does not run the sampler"):
            written(model, session, [unknown], 5)
    capfd.readouterr()  # ONNX Runtime says it too


def test_the_end_token_is_no_character_of_a_prompt(opened, capfd):
    model, sessions = opened("with ends")
    inputs = {each.name: each for each in sessions[SAMPLER].get_inputs()}
    assert inputs["prompt"].type == "tensor(int64)"
    zero = np.zeros(1)
    with pytest.raises(Exception, match="out of data bounds"):
        sessions[SAMPLER].run(
            None,
            {
                "prompt": np.array([[-1]]), "hidden": model.engine.zero_hidden(1),
                "seed": np.zeros(1, np.int64), "drawn": np.zeros(1, np.int64),
                "length": np.ones(1, np.int64), "temperature": zero + 1,
                "top_k": np.zeros(1, np.int64), "top_p": zero + 1, "min_p": zero,
            },
        )  # fmt: skip
    capfd.readouterr()


def test_the_models_policy_replaces_it(opened):
    model, sessions = opened("replacing")
    found = written(model, sessions[SAMPLER], ["aXbY"], 30, seed=2)
    assert found.texts == [model.generate("aXbY", 30, seed=2)]


# The file


# SHA-256 over the literal bytes for 2 layers: who changes one of them changes the format
LITERALS = {
    ("fp32", SAMPLER): "b39ab037c9dbf288d91bfaaf6ed03aefd4302f9e573e3919566d2d8f8204ee19",
    ("fp32", SAMPLER_UNIFORMS): "4b5032482e392b1a376f012e5b3df73e83d9e7264eeb869a32218272380166cc",
    ("fp16", SAMPLER): "a9130fed93c0feba148c1a6e1cf27dd8d2698c3b250ef113d30d9b5109d5ee67",
    ("fp16", SAMPLER_UNIFORMS): "367b0f6ee51b474b7b79b1555af92307d00a409a2346e2c95d392749dacb2ee2",
    ("int8", SAMPLER): "a4b2759f14c6395215b3f56ed3457ae14d12a9372e82b5435e71a05a3670f176",
    ("int8", SAMPLER_UNIFORMS): "31a1c334131eb883f2317e96281755f584de4e059bb77b7265e22b12c3be097d",
}


@pytest.mark.parametrize(("precision", "kind"), LITERALS)
def test_the_literals_are_those_of_the_format(precision, kind):
    form = render(graph_of(parse_artifact(of_precision(precision)).config, kind))
    literals = b"".join(part for part in form.parts if isinstance(part, bytes))
    assert hashlib.sha256(literals).hexdigest() == LITERALS[precision, kind]


def inputs_of(nodes):
    """The names of all values that nodes take, and the bodies of nodes."""
    for node in nodes:
        yield from node.inputs
        for inner in node.attributes.values():
            if isinstance(inner, Graph):
                yield from inputs_of(inner.nodes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SMALL)
def test_each_tensor_is_used(name, kind):
    graph = graph_of(parse_artifact(MODELS[name]()).config, kind)
    assert {tensor.name for tensor in graph.tensors} <= set(inputs_of(graph.nodes))


@pytest.mark.parametrize("uniforms", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_it_is_a_file_that_onnx_accepts_and_that_holds_the_model(name, uniforms):
    model = parse_artifact(MODELS[name]())
    made = as_sampler(model, uniforms)
    onnx.checker.check_model(made.data, full_check=True)
    proto = onnx.load_from_string(made.data)
    assert proto.SerializeToString(deterministic=True) == made.data
    assert {opset.domain: opset.version for opset in proto.opset_import} == {"": 18}
    assert made.graph == (SAMPLER_UNIFORMS if uniforms else SAMPLER)
    assert as_step(made).data == model.data
    assert as_sampler(made, not uniforms).data == as_sampler(model, not uniforms).data
    assert CharGenerator(made).artifact.sha256 == model.sha256
    verdicts = {each.what: each.passed for each in verify_artifact(made)}
    assert verdicts["texts"] is True
    assert False not in verdicts.values()


@pytest.mark.parametrize("name", ["fp32", "int8", "with ends"])
def test_the_reference_of_onnx_writes_the_same(name, opened):
    """Of the draws by uniforms; its matrices are NumPy's, so a draw may fall the other way."""
    from onnx.reference import ReferenceEvaluator

    model, _ = opened(name)
    made = as_sampler(model.artifact, uniforms=True)

    class Session(ReferenceEvaluator):
        def get_inputs(self):
            return onnx.load_from_string(made.data).graph.input

    with np.errstate(all="ignore"):
        found = written(model, Session(made.data), ["the "], 12, seed=1)
    assert found.texts == [model.generate("the ", 12, seed=1)]


def misspelt(*arguments):
    """A sampler whose every text has another first character."""
    found = run_sampler(*arguments)
    texts = [("h" if text[:1] != "h" else "e") + text[1:] for text in found.texts]
    return replace(found, texts=texts)


def test_verify_fails_where_the_texts_differ(monkeypatch):
    made = as_sampler(read_artifact(DEMO_MODEL))
    monkeypatch.setattr(verify, "run_sampler", misspelt)
    failed = [each for each in verify_artifact(made) if each.passed is False]
    assert [each.what for each in failed] == ["texts"]
    assert failed[0].finding.startswith("0 of 6 are what chargen-ort writes, the others by a draw")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["fp32", "int8", "with ends"])
def test_a_file_with_a_flipped_bit_is_refused_unless_it_lies_in_a_weight(name, kind):
    made = as_sampler(parse_artifact(MODELS[name]()), kind == SAMPLER_UNIFORMS)
    body = without_seal(made.data)
    _, end = read_metadata(memoryview(body))
    literals, at = set(), 0
    for part in render(graph_of(made.config, kind)).parts:
        size = len(part) if isinstance(part, bytes) else part.nbytes
        literals |= set(range(at, at + size)) if isinstance(part, bytes) else set()
        at += size
    assert at == end
    rng, form = random.Random(0), render(graph_of(made.config, kind))
    for place in rng.sample(range(end), 2000):
        data = bytearray(body)
        data[place] ^= 1 << rng.randrange(8)
        assert fits(memoryview(data)[:end], form) == (place not in literals)
    for place in rng.sample(sorted(literals), 5):
        data = bytearray(body)
        data[place] ^= 1 << rng.randrange(8)
        with pytest.raises(ArtifactError):
            parse_artifact(seal(bytes(data)))


def tampered(proto, name, value):
    """The file with another value of a literal."""
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.raw_data = np.full(tuple(tensor.dims), value, kind).tobytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("characters", 97), ("separator", 1), ("left", 5), ("rounds", 11), ("all_tokens", 5),
        ("unknown_token", 0), ("unit", 0.5), ("no_limit", 1), ("flat_shape", 1),
    ],
)  # fmt: skip
def test_other_literals_are_refused_by_name(name, value):
    proto = onnx.load_from_string(without_seal(as_sampler(read_artifact(DEMO_MODEL)).data))
    tampered(proto, name, value)
    with pytest.raises(ArtifactError, match=f"tensor {name}: raw_data"):
        parse_artifact(seal(proto.SerializeToString(deterministic=True)))


def resealed(kind, graph_kind):
    """The demo with the graph of one kind, and the word of another."""
    model = read_artifact(DEMO_MODEL)
    form = render(graph_of(model.config, graph_kind))
    weights = {h.name: np.zeros(h.shape, h.dtype) for h in form.holes}
    history = model.training, model.certificate, model.properties
    return seal(fill(form, weights) + metadata_bytes(model.config, *history, kind))


@pytest.mark.parametrize("kind", ["step", *KINDS])
@pytest.mark.parametrize("graph_kind", ["step", *KINDS])
def test_the_graph_is_the_one_that_the_file_names(kind, graph_kind):
    if kind == graph_kind:
        assert parse_artifact(resealed(kind, graph_kind)).graph == kind
        return
    with pytest.raises(ArtifactError, match=r"model: .*train-export writes"):
        parse_artifact(resealed(kind, graph_kind))


@pytest.mark.parametrize("value", ["step", "", "sampler2", "Sampler", "x" * 5000])
def test_a_graph_that_is_not_known_is_refused(value):
    body = without_seal(DEMO_MODEL.read_bytes())
    with pytest.raises(ArtifactError, match=r"chargen\.graph is .*does not know; update") as caught:
        parse_artifact(seal(body + metadata_entry(GRAPH_KEY, value)))
    assert len(str(caught.value)) < 300


def test_a_sampler_is_refused_for_what_its_model_is_refused_for():
    proto = onnx.load_from_string(without_seal(as_sampler(read_artifact(DEMO_MODEL)).data))
    tampered(proto, "output_bias", np.inf)
    with pytest.raises(ArtifactError, match="a weight is finite"):
        parse_artifact(seal(proto.SerializeToString(deterministic=True)))


# The commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sampler")
    (path / "x.onnx").write_bytes(DEMO_MODEL.read_bytes())
    for extra in ([], ["--uniforms"]):
        result = run_here("train-export", "convert", "x.onnx", "--sampler", *extra, cwd=path)
        assert result.returncode == 0, result.stderr
    return path


def test_convert_writes_it_beside_the_model(folder):
    assert {path.name for path in folder.iterdir()} == {
        "x.onnx", "x.sampler.onnx", "x.sampler-uniforms.onnx",
    }  # fmt: skip
    assert read_artifact(folder / "x.sampler.onnx").graph == SAMPLER
    assert read_artifact(folder / "x.sampler-uniforms.onnx").graph == SAMPLER_UNIFORMS


def test_the_other_commands_take_it(folder):
    path = folder / "x.sampler.onnx"
    assert "one run is a text" in run_here("chargen-ort", "info", path).stdout
    assert '"graph": "sampler"' in run_here("chargen-ort", "info", path, "--json").stdout
    assert "texts    ok" in run_here("chargen-ort", "verify", path).stdout
    names = ("x.onnx", "x.sampler.onnx", "x.sampler-uniforms.onnx")
    given = ("--seed", 1, "--start", "h")
    told = [run_here("chargen-ort", "--model", folder / name, *given).stdout for name in names]
    assert len(told[0]) > 200
    assert set(told) == {told[0]}
    pages = [folder / f"{name}.html" for name in ("x", "x.sampler")]
    for page in pages:
        model = folder / f"{page.name.removesuffix('.html')}.onnx"
        assert run_here("chargen-ort", "web", model, page).returncode == 0
    embedded = [page.read_text().replace("x.sampler", "x") for page in pages]
    assert embedded[0] == embedded[1]
    for page in pages:
        page.unlink()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["x.sampler.onnx", "--sampler"], "is a sampler; give the model that it was made of"),
        (["x.onnx", "--uniforms"], "--uniforms is for --sampler"),
        (["x.onnx", "--sampler", "--precision", "fp16"], "leave out --precision"),
        (["x.onnx", "--sampler", "--text", "x.txt"], "leave out --precision"),
        (["x.onnx", "--sampler", "--out", "x.onnx"], "it is the file x.onnx"),
        (["none.onnx", "--sampler"], "no such model file"),
    ],
)
def test_convert_says_in_one_line_what_is_wrong(arguments, told, folder):
    before = sorted(path.name for path in folder.iterdir())
    assert_refused(run_here("train-export", "convert", *arguments, cwd=folder), told)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_sampler_that_writes_other_texts_is_not_written(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(verify, "run_sampler", misspelt)
    out = tmp_path / "y.onnx"
    result = run_here("train-export", "convert", folder / "x.onnx", "--sampler", "--out", out)
    assert_refused(result, "does not write what the model does", status=1)
    assert not out.exists()


def test_the_vectors_are_what_the_models_write():
    for case in golden_sampler.read():
        model, _ = golden_sampler.opened(SAMPLER)
        options = SamplingOptions(**case["options"], seed=int(case["seed"]))
        for row, (prompt, expected) in enumerate(
            zip(case["prompt"], case["code_points"], strict=True)
        ):
            state = model.state("".join(map(chr, prompt)), options=options, row=row)
            if case["drawn"]:
                continue
            assert [ord(state.draw()) for _ in range(case["length"])] == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", golden_sampler.read(), ids=lambda case: case["name"])
def test_the_vectors(case, kind):
    assert golden_sampler.written(case, kind) == case["code_points"]


def test_the_bytes_of_a_sampler_are_what_they_were():
    found = {k: hashlib.sha256(golden_sampler.rendered(k)).hexdigest() for k in KINDS}
    assert found == golden_sampler.hashes()


def test_every_precision_has_a_sampler():
    assert set(VARIANTS) <= set(MODELS)
