"""How a server is set up: the command, the key, and its models."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

import httpx
import openai
import pytest

from tests.conftest import artifact_bytes, assert_refused, random_model, run_here
from tests.tools.serving import eventually, serving

ENDLESS = 10**9  # characters: such a text ends only if it is ended


# The command


@contextlib.contextmanager
def command(*arguments):
    """The command on a free port: its process and a client."""
    code = "from chargen_ort.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", *map(str, arguments), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = [process.stderr.readline() for _ in range(4)]
    url = lines[1].split()[1]
    try:
        with httpx.Client(base_url=url, timeout=20) as client:
            yield process, client, lines
    finally:
        process.kill()
        process.communicate()


def test_the_command_tells_where_it_serves_and_nothing_of_a_request(small_path):
    with command(small_path) as (process, client, lines):
        assert lines[0] == "models  small\n"
        assert lines[2].startswith(f"try     curl {client.base_url}v1/completions")
        assert client.get("/").status_code == 200
        for fields in ({"prompt": "secret"}, {"prompt": "secret#"}, {"secret": 1}):
            client.post("/v1/completions", json=fields)
        client.get("/secret")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == ""


def test_sigterm_ends_what_is_written_and_says_so(small_path):
    options = ("--grace", 0.5, "--max-length", ENDLESS)
    with command(small_path, *options) as (process, client, _):
        fields = {"prompt": "a", "max_tokens": ENDLESS, "stream": True}
        with client.stream("POST", "/v1/completions", json=fields) as answer:
            lines = answer.iter_lines()
            next(lines)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            *_, last, done = filter(None, lines)
        assert json.loads(last[6:])["choices"][0]["finish_reason"] == "cancelled"
        assert done == "data: [DONE]"
        process.wait(10)
        assert 0.4 < time.monotonic() - begun < 5
        assert process.stderr.read() == ""


def test_a_used_port_is_one_line(small_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_here("chargen-ort", "serve", small_path, "--port", port)
    assert_refused(result, f"127.0.0.1:{port}", "in use", "--port")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--port", 70_000], ["70000", "65535"]),
        (["--host", "no.such.host.invalid"], ["no.such.host.invalid", "--host"]),
        (["--max-concurrent", 0], ["max_concurrent is 0"]),
        (["--memory", 0], ["memory is 0; give 1 to"]),
        (["--cors", "example.com"], ["cors is example.com", "https://example.com"]),
        (["--host", "192.0.2.1"], ["192.0.2.1:8080: cannot assign requested address; name"]),
        (["--timeout", 0], ["timeout is 0"]),
        (["--api-key-file", "missing"], ["missing", "No such file"]),
        (["--api-key-file", "empty"], ["empty", "one key"]),
        (["--api-key-file", "long"], ["long", "4,096 bytes"]),
        (["nowhere.onnx"], ["nowhere.onnx"]),
        (["folder"], ["folder has no .onnx file"]),
        (["a.onnx", "folder/../a.onnx"], ["two models have the name a"]),
    ],
)  # fmt: skip
def test_the_command_refuses_with_one_line(small_path, tmp_path, arguments, parts):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "long").write_text("k" * 5000)
    (tmp_path / "a.onnx").write_bytes(small_path.read_bytes())
    models = [] if not str(arguments[0]).startswith("-") else ["a.onnx"]
    assert_refused(run_here("chargen-ort", "serve", *models, *arguments, cwd=tmp_path), *parts)


# Several models


def test_models_are_opened_when_asked_and_the_least_used_is_closed(small_path, tmp_path):
    paths = [tmp_path / f"{name}.onnx" for name in "abc"]
    for seed, each in enumerate(paths):
        each.write_bytes(artifact_bytes(random_model(seed=seed)))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    two = 13 * paths[0].stat().st_size
    with serving(*paths, tmp_path / "broken.onnx", memory=two) as served:

        def opened():
            found = served.client.get("/v1/models").json()["data"]
            return "".join(model["id"] for model in found if model["open"])

        assert opened() == ""
        texts = [served.text(model=name, prompt="a", seed=1) for name in "ab"]
        assert opened() == "ab"
        assert served.text(prompt="a", seed=1) == texts[0]  # the first
        assert served.text(model="c", prompt="a", seed=1) not in texts
        assert opened() == "ac"
        assert served.text(model="b", prompt="a", seed=1) == texts[1]
        status, error = served.refusal(model="broken", prompt="a")
        assert (status, error["code"]) == (503, "model_not_loaded")
        assert "broken.onnx" in error["message"]


def test_a_model_that_writes_is_not_closed(small_path, tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(small_path.read_bytes())
    memory, length = small_path.stat().st_size * 7, 10**8
    with serving(small_path, other, memory=memory, length=length) as served:
        fields = {"prompt": "a", "max_tokens": length, "stream": True, "model": "small"}
        with httpx.stream("POST", f"{served.url}/v1/completions", json=fields) as answer:
            pieces = answer.iter_bytes()
            next(pieces)
            status, error = served.refusal(model="other", prompt="a")
            assert (status, error["code"]) == (503, "models_busy")
        eventually(lambda: not served.service.texts)
        assert served.text(model="other", prompt="a")


# The key, and pages from elsewhere


def test_the_key_covers_every_route_but_health(small_path):
    with serving(small_path, key="secret") as served:
        for route in served.server.config.app.routes:
            answer = served.client.get(route.path, headers={"Authorization": "Bearer secre"})
            assert (answer.status_code == 200) == (route.path == "/health"), route.path
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert served.client.get("/nowhere").status_code == 401
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="secret")
        assert client.completions.create(model="small", prompt="a").choices
        client.close()
        answer = served.client.get("/")
        assert answer.headers["www-authenticate"].startswith("Basic")  # a browser asks for it
        assert served.client.get("/", auth=("", "secret")).status_code == 200
        for wrong in ("secret", "Bearer", "Basic !", "Basic c2VjcmV0", "Digest secret", "Bearer é"):
            headers = [(b"Authorization", wrong.encode())]
            assert served.client.get("/ready", headers=headers).status_code == 401, wrong


def test_pages_from_elsewhere_may_not_unless_they_are_named(small_path):
    asking = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    with serving(small_path) as served:
        answer = served.client.options("/score", headers=asking)
        assert "access-control-allow-origin" not in answer.headers
    with serving(small_path, key="secret", origins=("https://a.example",)) as named:
        answer = named.client.options("/score", headers=asking)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        answer = named.client.options("/score", headers=asking | {"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in answer.headers
