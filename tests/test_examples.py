"""The examples run, and do what they say."""

import asyncio
import importlib.util
import json
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import chargen_ort
from chargen_ort.models import DEMO_MODEL

EXAMPLES = Path(__file__).parent.parent / "runtime" / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its functions pickle
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    return chargen_ort.load(DEMO_MODEL)


def test_the_thread_pool_writes_what_one_thread_writes(model):
    expected = [model.generate("hell", 40, seed=7, row=row) for row in range(32)]
    assert load("thread_pool").main() == expected


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_the_process_pool_writes_what_one_process_writes(model, method):
    expected = [model.generate("hell", 40, seed=7, row=row) for row in range(16)]
    result = subprocess.run(
        [sys.executable, "process_pool.py", method],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.splitlines() == expected


def test_the_notebook_runs(capsys):
    runpy.run_path(str(EXAMPLES / "notebook.py"))
    printed = capsys.readouterr().out
    assert "hello world: " in printed
    assert printed.count("\n") > 8


@pytest.fixture(scope="module")
def service():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--log-level", "warning"], cwd=EXAMPLES, stderr=subprocess.PIPE
    )
    url = f"http://127.0.0.1:{port}/stream"
    for _ in range(100):
        try:
            httpx.get(url, params={"length": "0"})
            break
        except httpx.ConnectError:
            time.sleep(0.1)
    yield url
    process.terminate()
    process.communicate(timeout=10)


def text_of(body):
    data = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return "".join(map(json.loads, data[:-1]))


def test_the_service_streams_to_many_clients_at_once(service, model):
    async def fetch_all():
        async with httpx.AsyncClient(timeout=60) as client:
            answers = await asyncio.gather(
                *(
                    client.get(service, params={"start": "hell", "length": 300, "seed": seed})
                    for seed in range(64)
                )
            )
        return [answer.text for answer in answers]

    for seed, body in enumerate(asyncio.run(fetch_all())):
        assert text_of(body) == model.generate("hell", 300, seed=seed, temperature=0.8)


def test_the_service_refuses_with_the_reason(service):
    answer = httpx.get(service, params={"start": "XYZ"})
    assert answer.status_code == 400
    assert "U+0058" in answer.json()["error"]
    assert httpx.get(service, params={"temperature": "-1"}).status_code == 400


def test_a_client_that_leaves_does_no_harm(service):
    with httpx.stream("GET", service, params={"start": "hell", "length": 10_000}) as answer:
        next(answer.iter_bytes())
    assert httpx.get(service, params={"length": "5"}).status_code == 200
