"""What the server answers: the completions interface, scores, tokens, and what it refuses."""

import dataclasses
import json

import jsonschema
import numpy as np
import openai
import pytest

from chargen_ort import CharGenerator, SamplingOptions
from tests.conftest import ALPHABET, artifact_bytes, random_model
from tests.tools.serving import serving


@pytest.fixture(scope="module")
def served(small_path):
    with serving(small_path) as served:
        yield served


def streamed(served, **fields):
    """The events of a stream, which must end as one does."""
    answer = served.client.post("/v1/completions", json=fields | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    *events, last = [line[6:] for line in answer.text.splitlines() if line]
    assert last == "[DONE]"
    return list(map(json.loads, events))


# The text


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0},
        {"temperature": 0.7, "stop": "e"},
        {"stop": ["th", "zq", " a"], "top_k": 5},
        {"top_p": 0.8, "min_p": 0.01},
        {"repetition_penalty": 1.3, "temperature": 0},
    ],
)
@pytest.mark.parametrize("prompt", ["", "once upon"])
def test_a_text_is_the_one_that_the_library_writes(served, generator, prompt, options):
    expected = generator.generate(prompt, 200, seed=5, **options)
    fields = {"prompt": prompt, "max_tokens": 200, "seed": 5, **options}
    assert served.text(**fields) == expected
    events = streamed(served, **fields)
    assert "".join(event["choices"][0]["text"] for event in events) == expected
    reasons = [event["choices"][0]["finish_reason"] for event in events]
    assert reasons == [None] * (len(events) - 1) + ["length" if len(expected) == 200 else "stop"]


def test_the_answer_has_the_shape_of_the_interface(served):
    answer = served.complete(model="small", prompt="once", max_tokens=9, seed=1)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert (answer["model"], answer["seed"]) == ("small", 1)
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 9, "total_tokens": 13}
    (choice,) = answer["choices"]
    assert choice | {"text": ""} == {
        "text": "", "index": 0, "logprobs": None, "finish_reason": "length",
    }  # fmt: skip


def test_a_seed_that_was_not_given_is_told(served):
    answer = served.complete(prompt="once", max_tokens=30)
    assert (
        answer["choices"]
        == served.complete(prompt="once", max_tokens=30, seed=answer["seed"])["choices"]
    )


def test_choices_are_rows_of_the_seed(served, generator):
    prompts = ["once", "upon"]
    answer = served.complete(prompt=prompts, n=3, max_tokens=40, seed=8)
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert [choice["text"] for choice in answer["choices"]] == [
        generator.generate(prompts[row // 3], 40, seed=8, row=row) for row in range(6)
    ]
    assert answer["usage"]["prompt_tokens"] == 8


@pytest.mark.parametrize("several", [False, True])
def test_a_prompt_may_be_tokens(served, generator, several):
    tokens = generator.vocabulary.encode("once").tolist()
    texts = served.complete(prompt=[tokens] * 2 if several else tokens, seed=3)["choices"]
    assert texts[0]["text"] == generator.generate("once", 16, seed=3)
    assert len(texts) == 1 + several


def test_an_echo_puts_the_prompt_before_the_text(served):
    plain = served.text(prompt="once", max_tokens=20, seed=1)
    assert served.text(prompt="once", max_tokens=20, seed=1, echo=True) == "once" + plain
    events = streamed(served, prompt="once", max_tokens=20, seed=1, echo=True)
    assert events[0]["choices"][0]["text"] == "once"
    assert served.text(prompt="once", max_tokens=0, echo=True) == "once"


def test_a_stream_tells_the_usage_where_asked(served):
    events = streamed(served, prompt="once", max_tokens=70, stream_options={"include_usage": True})
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 70
    assert all(event["usage"] is None for event in events[:-1])


def test_what_to_do_with_unknown_characters_may_be_said(served, generator):
    status, error = served.refusal(prompt="a#b")
    assert (status, error["param"], error["code"]) == (400, "prompt", "unknown_character")
    assert served.text(prompt="a#b", unknown="skip", seed=1) == generator.generate("ab", 16, seed=1)


# Log probabilities


def test_log_probabilities_are_those_of_score(served, generator):
    fields = {"prompt": "once upon", "max_tokens": 80, "seed": 2, "logprobs": 3, "echo": True}
    (choice,) = served.complete(**fields)["choices"]
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"]
    assert found["text_offset"] == list(range(len(choice["text"])))
    assert found["token_logprobs"][0] is None
    own = generator.score(choice["text"]).log_probabilities
    np.testing.assert_allclose(found["token_logprobs"][1:], own, atol=1e-5)
    likely = generator.next_probabilities("once", top=3)
    for character, probability in likely.items():
        assert found["top_logprobs"][4][character] == pytest.approx(np.log(probability), abs=1e-5)
    merged = {name: [] for name in found}
    for event in streamed(served, **fields):
        for name, values in (event["choices"][0]["logprobs"] or {}).items():
            merged[name] += values
    assert merged["tokens"] == found["tokens"]
    assert merged["text_offset"] == found["text_offset"]


@pytest.fixture(scope="module")
def ending(tmp_path_factory):
    """A server of a model that ends its texts."""
    path = tmp_path_factory.mktemp("ending") / "ending.onnx"
    path.write_bytes(artifact_bytes(random_model(len(ALPHABET) + 1), end=True))
    with serving(path) as served:
        yield served, CharGenerator.load(path)


@pytest.mark.parametrize("options", [{}, {"top_k": 20}, {"stop": "e"}, {"repetition_penalty": 2}])
@pytest.mark.parametrize("prompt", ["", "once"])
def test_a_text_may_end_by_itself(ending, prompt, options):
    served, model = ending
    reasons = set()
    for seed in range(12):
        fields = {"prompt": prompt, "max_tokens": 60, "seed": seed, **options}
        stream = model.stream(prompt, 60, seed=seed, **options)
        text = stream.read()
        reasons.add(stream.ended)
        answer = served.complete(**fields, logprobs=0)
        (choice,) = answer["choices"]
        assert choice["text"] == text
        assert choice["finish_reason"] == {"end": "stop"}.get(stream.ended, stream.ended)
        by_itself = stream.ended == "end"  # which is the last token, of no characters
        assert choice["logprobs"]["tokens"] == [*text, *[""] * by_itself]
        if stream.ended == "end":
            assert answer["usage"]["completion_tokens"] == len(text) + 1
        assert "".join(e["choices"][0]["text"] for e in streamed(served, **fields)) == text
    assert "end" in reasons


@pytest.mark.parametrize("as_tokens", [False, True])
def test_where_texts_have_an_end_the_first_character_has_a_probability(ending, as_tokens):
    served, model = ending
    score = model.score("once").log_probabilities
    prompt = "once"
    if as_tokens:
        prompt = [model.vocabulary.end_token, *model.vocabulary.encode("once").tolist()]
    fields = {"prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 2}
    (choice,) = served.complete(**fields)["choices"]
    assert choice["text"] == "once"
    found = choice["logprobs"]["token_logprobs"]
    assert found[:as_tokens] == [None] * as_tokens
    np.testing.assert_allclose(found[as_tokens:], score[:4], atol=1e-6)
    assert choice["logprobs"]["text_offset"] == [0] * as_tokens + [0, 1, 2, 3]


@pytest.mark.parametrize("options", [{}, {"top_k": 4}, {"stop": "e"}])
def test_asking_for_log_probabilities_changes_no_text(served, options):
    fields = {"prompt": "once", "max_tokens": 150, "seed": 4, **options}
    (scored,) = served.complete(**fields, logprobs=0)["choices"]
    assert scored["text"] == served.text(**fields)
    found = scored["logprobs"]
    pairs = zip(scored["text"], found["token_logprobs"], strict=True)
    assert [{character: own} for character, own in pairs] == found["top_logprobs"]


def test_what_lm_eval_asks_for_is_what_score_says(served, generator):
    """The request of lm-eval's local-completions, and how it reads the answer."""
    contexts, continuations = ["once upon a", "the"], [" time.", " end"]
    encode = generator.vocabulary.encode
    prompts = [encode(a + b).tolist() for a, b in zip(contexts, continuations, strict=True)]
    answer = served.complete(
        model="small", prompt=prompts, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True
    )
    for choice in sorted(answer["choices"], key=lambda choice: choice["index"]):
        context, continuation = contexts[choice["index"]], continuations[choice["index"]]
        begin = len(context)
        found = sum(choice["logprobs"]["token_logprobs"][begin:-1])
        scored = generator.score(context + continuation).log_probabilities[begin - 1 :]
        assert found == pytest.approx(scored.sum(), abs=1e-6)
        tops = choice["logprobs"]["top_logprobs"][begin:-1]
        pairs = zip(continuation, tops, strict=True)
        greedy = generator.generate(context, len(continuation), temperature=0)
        assert all(c == max(top, key=top.get) for c, top in pairs) == (greedy == continuation)


@pytest.mark.parametrize("which", ["served", "ending"])
def test_lm_eval_finds_tokens_and_where_a_text_begins(which, served, ending, generator):
    """The requests of lm-eval's remote tokenizer, and how it finds the token before a text."""
    served, model = (served, generator) if which == "served" else ending

    def encode(text):
        asked = {"prompt": text, "add_special_tokens": False}
        return served.client.post("/tokenize", json=asked).json()["tokens"]

    tokens = encode("once upon")
    answer = served.client.post("/detokenize", json={"tokens": tokens}).json()
    assert answer == {"prompt": "once upon"}
    facts = served.client.get("/tokenizer_info").json()
    assert facts["eos_token"] is None  # or lm-eval would stop there
    begin = encode(facts["bos_token"])[0]
    (score,) = model.score_batch(["once upon"], end=False)
    # what is drawn, which lm-eval leaves out, may be the end
    for bias in ({}, {str(model.config.tokens.index("")): 100} if which == "ending" else {}):
        answer = served.complete(
            prompt=[[begin, *tokens]], max_tokens=1, logprobs=1, echo=True, logit_bias=bias, seed=1
        )
        logprobs = answer["choices"][0]["logprobs"]
        assert len(logprobs["tokens"]) == len(tokens) + 2
        assert sum(logprobs["token_logprobs"][1:-1]) == pytest.approx(score.total, abs=1e-6)
        assert len(logprobs["top_logprobs"]) == len(logprobs["text_offset"]) == len(tokens) + 2


# What is added to scores


def test_a_bias_forbids_and_forces(served):
    space, a = str(ALPHABET.index(" ")), str(ALPHABET.index("a"))
    assert " " not in served.text(prompt="a", max_tokens=200, seed=1, logit_bias={space: -100})
    assert served.text(prompt="b", max_tokens=9, seed=1, logit_bias={a: 100}) == "a" * 9


def test_penalties_count_what_was_written(served):
    fields = {"prompt": "aaa", "max_tokens": len(ALPHABET), "temperature": 0}
    heavy = served.text(**fields, frequency_penalty=2, presence_penalty=2)
    assert len(set(heavy)) > len(set(served.text(**fields)))
    zero = served.text(**fields, frequency_penalty=0, presence_penalty=0, logit_bias={})
    assert zero == served.text(**fields)


@pytest.mark.parametrize(
    "options",
    [
        {"pattern": "[a-m]{3,9}( [n-z]+)*"},
        {"pattern": ".*x", "top_k": 9},
        {"ban": ["e", "th"], "min_length": 20},
        {"max_length": 12, "temperature": 0},
        {"pattern": "[a-z]+", "stop": "q", "repetition_penalty": 1.2},
    ],
)
@pytest.mark.parametrize("which", ["served", "ending"])
def test_a_confined_text_is_the_one_that_the_library_writes(
    served, ending, generator, which, options
):
    served, model = (served, generator) if which == "served" else ending
    for seed in range(4):
        stream = model.stream("abc", 60, seed=seed, **options)
        expected = stream.read()
        fields = {"prompt": "abc", "max_tokens": 60, "seed": seed, **options}
        (choice,) = served.complete(**fields, logprobs=0)["choices"]
        assert choice["text"] == expected
        assert choice["finish_reason"] == {"end": "stop"}.get(stream.ended, stream.ended)
        by_itself = stream.ended == "end" and bool(model.config.end)
        assert choice["logprobs"]["tokens"] == [*expected, *[""] * by_itself]
        texts = [event["choices"][0]["text"] for event in streamed(served, **fields)]
        assert "".join(texts) == expected


# Clients


def test_the_openai_client_works(served, generator):
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["small"]
    options = {"model": "small", "prompt": "once", "max_tokens": 80, "seed": 6}
    expected = generator.generate("once", 80, seed=6, top_k=7)
    answer = client.completions.create(**options, extra_body={"top_k": 7}, logprobs=1)
    assert answer.choices[0].text == expected
    assert answer.usage.completion_tokens == 80
    parts = client.completions.create(**options, stream=True, extra_body={"top_k": 7})
    assert "".join(part.choices[0].text for part in parts) == expected
    with pytest.raises(openai.BadRequestError, match="temperature is -1"):
        client.completions.create(**options, temperature=-1)
    with pytest.raises(openai.NotFoundError, match="no model large; there are small"):
        client.completions.create(model="large", prompt="")
    client.close()


def test_scores_are_those_of_the_library(served, generator):
    answer = served.client.post("/score", json={"text": "once upon", "per_character": True}).json()
    expected = generator.score("once upon")
    (score,) = answer["scores"]
    assert score["log_probability"] == pytest.approx(expected.total, abs=1e-9)
    np.testing.assert_allclose(score["log_probabilities"], expected.log_probabilities)
    texts = ["once", "upon#"]
    answer = served.client.post("/score", json={"texts": texts, "end": True}).json()
    scores = generator.score_batch(texts, end=True)
    for score, expected in zip(answer["scores"], scores, strict=True):
        assert score["log_probability"] == pytest.approx(expected.total, abs=1e-6)
        assert (score["characters"], score["unknown"]) == (expected.characters, expected.unknown)


def test_tokens_are_those_of_the_library(served, generator):
    answer = served.client.post("/tokenize", json={"prompt": "once"}).json()
    assert answer["tokens"] == generator.vocabulary.encode("once").tolist()
    assert answer["count"] == 4


# The other routes


def test_the_server_says_how_it_is(served):
    assert served.client.get("/health").json() == {"status": "ok"}
    assert served.client.get("/ready").json() == {"status": "ready"}
    served.text(prompt="once")
    served.refusal(n=0)
    text = served.client.get("/metrics").text
    for line in ('chargen_requests_total{code="200"}', 'chargen_requests_total{code="400"}',
                 "chargen_running_texts 0", "chargen_waiting_texts 0", "chargen_characters_total",
                 "chargen_first_character_seconds_count", "chargen_batch_rows_sum"):  # fmt: skip
        assert line in text, line


def test_the_description_of_the_interface_is_one(served):
    found = served.client.get("/openapi.json").json()
    assert found["openapi"] == "3.1.0"
    schema = found["paths"]["/v1/completions"]["post"]["requestBody"]["content"]
    schema = schema["application/json"]["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"prompt": ["a", "b"], "n": 2, "stop": "x", "seed": None}, schema)
    for wrong in ({"n": 0}, {"top_p": 0}, {"stop": [""]}, {"prompts": "a"}, {"logprobs": 21}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        assert served.refusal(**wrong)[0] == 400
    served_paths = {route.path for route in served.server.config.app.routes} - {"/openapi.json"}
    assert set(found["paths"]) == served_paths


# What is refused


@pytest.mark.parametrize(
    ("fields", "param", "part"),
    [
        ({"max_tokens": -1}, "max_tokens", "give 0 to 10000"),
        ({"max_tokens": 10_001}, "max_tokens", "give 0 to 10000"),
        ({"max_tokens": 1.5}, "max_tokens", "whole number"),
        ({"n": 129}, "n", "give 1 to 128"),
        ({"n": 64, "prompt": ["a"] * 3}, "n", "128 at most"),
        ({"n": 26, "max_tokens": 10_000}, "max_tokens", "260,000; ask for 250,000 at most"),
        ({"logprobs": 20, "n": 2, "max_tokens": 10_000}, "max_tokens", "set stream to true"),
        ({"n": 2, "best_of": 3}, "best_of", "only n, 2"),
        ({"logprobs": 21}, "logprobs", "give 0 to 20"),
        ({"temperature": "hot"}, "temperature", "temperature"),
        ({"temperature": 1e7}, "temperature", "1e+06"),
        ({"top_p": 0}, "top_p", "a value above 0"),
        ({"seed": 2**64}, "seed", "2**64 - 1"),
        ({"seed": True}, "seed", "seed"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"stop": "#"}, "stop", "does not know"),
        ({"stop": [""]}, "stop", "non-empty"),
        ({"echo": 1}, "echo", "true or false"),
        ({"prompt": 3}, "prompt", "give a text"),
        ({"prompt": [[1], 2]}, "prompt", "give a text"),
        ({"prompt": [99]}, "prompt", "0 to 28"),
        ({"prompt": "a" * 100_001}, "prompt", "at most 100,000"),
        ({"logit_bias": {"99": 1}}, "logit_bias", "0 to 28"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "as digits"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "100"),
        ({"presence_penalty": 3}, "presence_penalty", "2"),
        ({"suffix": "x"}, "suffix", "not done here"),
        ({"pattern": "[0-9]+"}, "pattern", "no text of this model's characters"),
        ({"pattern": "("}, "pattern", "pattern is '('"),
        ({"ban": [""]}, "ban", "non-empty"),
        ({"min_length": -1}, "min_length", "give 0"),
        ({"exact": True}, "exact", "not done here"),
        ({"unknown": "guess"}, "unknown", "replace"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "set stream"),
        ({"messages": []}, "messages", "is no field"),
    ],
)  # fmt: skip
def test_a_value_out_of_its_limits_is_refused_by_name(served, fields, param, part):
    status, error = served.refusal(**fields)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert part in error["message"]


def test_each_sampling_option_is_taken_or_refused_by_name(served):
    for option in dataclasses.fields(SamplingOptions):
        _, error = served.refusal(**{option.name: {"no": "value"}})
        assert error["param"] == option.name
        assert "is no field" not in error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"n": NaN}', b'{"n": 1, "n": 2}', b'{"prompt": "\\ud800"}',
     b"\xff", b"[" * 50_000, b'{"seed": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_a_body_that_is_no_strict_json_is_refused(served, body):
    answer = served.client.post(
        "/v1/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"


def test_null_is_as_if_it_were_not_there(served):
    fields = dict.fromkeys(["model", "n", "stop", "top_k", "suffix", "user", "stream", "logprobs"])
    assert len(served.text(prompt="once", **fields)) == 16


def test_other_routes_methods_and_types_are_refused_as_json(served):
    assert served.client.get("/v2").json()["error"]["message"].startswith("there is no route /v2;")
    answer = served.client.get("/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    for sent in ({"data": {"prompt": "a"}}, {"content": b"{}"}):  # a page from elsewhere can
        answer = served.client.post("/v1/completions", **sent)
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "content_type")
