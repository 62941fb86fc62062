"""The limits of the server, one by one, over real sockets."""

import contextlib
import json
import os
import random
import socket
import threading
import time

import pytest

from chargen_ort.errors import ArtifactError
from chargen_ort.generator import CharGenerator
from chargen_ort.serve.lanes import RunLane
from chargen_ort.serve.requests import (
    completion_fields,
    detokenize_fields,
    score_fields,
    tokenize_fields,
)
from tests.tools.serving import eventually, serving

ENDLESS = 10**9  # characters: such a text ends only if it is ended
FUZZED = int(os.environ.get("SERVE_FUZZED", "300"))
JSON = "Content-Type: application/json\r\n"


def request(fields, path="/v1/completions"):
    """The bytes of a request."""
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{JSON}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def answer_of(connection):
    """All that comes until the server closes, as (status, headers, body)."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            found += data
    head, _, body = found.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), head.lower(), body


@contextlib.contextmanager
def texts(served, count, **fields):
    """So many endless texts that are being streamed, read by a thread each."""
    connections = [served.connect() for _ in range(count)]
    readers = [threading.Thread(target=answer_of, args=(each,)) for each in connections]
    try:
        for connection, reader in zip(connections, readers, strict=True):
            endless = {"prompt": "a", "max_tokens": ENDLESS, "stream": True, "temperature": 0.9}
            connection.sendall(request(endless | fields))
            reader.start()
        eventually(lambda: served.service.texts == count)
        yield
    finally:
        for connection, reader in zip(connections, readers, strict=True):
            connection.shutdown(socket.SHUT_RDWR)
            reader.join()
            connection.close()
        eventually(lambda: not served.service.texts)


# What a connection may do


def test_a_long_body_is_refused(small_path):
    with serving(small_path, body=1000) as served:
        code, error = served.refusal(prompt="a" * 1000)
        assert (code, error["message"]) == (413, "the body has more than 1,000 bytes")
        pieces = iter([b"a" * 600, b"a" * 600])  # its length is not told
        answer = served.client.post(
            "/v1/completions", content=pieces, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413


def test_long_headers_and_what_is_no_http_are_refused(small_path):
    with serving(small_path, headers=2000) as served:
        for sent in (b"GET / HTTP/1.1\r\nX: " + b"a" * 3000, b"\x16\x03\x01\x02\x00\r\n\r\n"):
            with served.connect() as connection:
                connection.sendall(sent)
                status, _, body = answer_of(connection)
            assert status == 400
            assert json.loads(body)["error"]["code"] == "malformed"


@pytest.mark.parametrize("sent", [b"", b"POST /v1/completions HTT", request({})[:-1]])
@pytest.mark.parametrize("trickle", [False, True])
def test_slow_headers_and_bodies_are_ended(small_path, sent, trickle):
    with serving(small_path, patience=0.3) as served, served.connect() as connection:
        begun = time.monotonic()
        connection.sendall(sent)
        if trickle and b"\r\n\r\n" not in sent:
            for _ in range(5):
                time.sleep(0.05)
                connection.sendall(b"X")
        status, _, body = answer_of(connection)
        assert 0.25 < time.monotonic() - begun < 2
    assert status == 408
    assert "within 0.3 seconds" in json.loads(body)["error"]["message"]


def test_connections_are_limited(small_path):
    with serving(small_path, connections=2) as served:
        first, second = served.connect(), served.connect()
        eventually(lambda: len(served.server.server_state.connections) == 2)
        with served.connect() as third:
            assert answer_of(third)[0] == 0
        first.close()
        eventually(lambda: len(served.server.server_state.connections) == 1)
        assert served.client.get("/health").status_code == 200
        second.close()


@pytest.mark.alone
def test_an_answer_does_not_wait_for_its_acknowledgement(small_path):
    with serving(small_path) as served:
        begun = time.monotonic()
        for _ in range(25):
            served.client.get("/health")
        assert time.monotonic() - begun < 25 * 0.03  # such a wait takes 40 ms


# Texts


def test_what_waits_is_limited(small_path):
    with serving(small_path, concurrent=2, waiting=1, length=ENDLESS) as served:
        with texts(served, 3):
            answer = served.client.post("/v1/completions", json={"prompt": "a"})
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "queue_full"
            assert "chargen_waiting_texts 1.0" in served.client.get("/metrics").text
            assert served.refusal("/score", text="once")[0] == 429
        assert served.text(prompt="a")
        assert served.refusal(prompt="a", n=4)[0] == 429


def test_streams_are_limited(small_path):
    with serving(small_path, streams=1, length=ENDLESS) as served:
        with texts(served, 1):
            code, error = served.refusal(prompt="a", stream=True)
            assert (code, error["code"]) == (429, "too_many_streams")
            assert served.text(prompt="a")
        assert served.client.post("/v1/completions", json={"stream": True}).status_code == 200


def test_short_texts_do_not_wait_for_long_ones(small_path, generator):
    with serving(small_path, concurrent=2, length=ENDLESS) as served, texts(served, 4):
        for seed in range(3):  # all places are taken by texts without an end
            begun = time.monotonic()
            text = served.text(prompt="a", max_tokens=600, seed=seed)
            assert time.monotonic() - begun < 2
            assert text == generator.generate("a", 600, seed=seed)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("waiting", [0, 1])
def test_a_client_that_leaves_frees_its_place(small_path, stream, waiting):
    with serving(small_path, concurrent=1, length=ENDLESS) as served, texts(served, waiting):
        taken = []
        for _ in range(3):
            with served.connect() as connection:
                fields = {"prompt": "a", "max_tokens": ENDLESS, "stream": stream}
                connection.sendall(request(fields))
                eventually(lambda: served.service.texts == 1 + waiting)
                time.sleep(0.05)
            taken.append(eventually(lambda: served.service.texts == waiting))
        assert min(taken) < 0.1  # seconds; another process may have had the processor


def test_a_text_stands_still_while_its_reader_does_and_is_ended(small_path):
    with serving(small_path, patience=1.5, length=ENDLESS) as served:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", served.port))
            fields = {"prompt": "a", "max_tokens": ENDLESS, "stream": True, "logprobs": 5}
            connection.sendall(request(fields))
            before = -1.0

            def stands():
                nonlocal before
                time.sleep(0.3)
                now, was = served.metric("chargen_characters_total"), before
                before = now
                return now == was > 0

            eventually(stands)
            assert served.service.texts == 1
            assert before < 20_000  # characters that were written for nobody
            assert served.text(prompt="a", seed=1)
            eventually(lambda: not served.service.texts)
            status, _, body = answer_of(connection)
        assert status == 200
        assert b"[DONE]" not in body
        assert served.text(prompt="a")


def test_a_reader_that_is_slow_but_reads_gets_all_of_its_text(small_path, generator):
    with serving(small_path, length=30_000) as served, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.port))
        fields = {"prompt": "a", "max_tokens": 30_000, "stream": True, "seed": 5}
        connection.sendall(request(fields).replace(b"Host: a", b"Host: a\r\nConnection: close"))
        time.sleep(0.5)
        _, _, body = answer_of(connection)
        parts = [line for line in body.splitlines() if line.startswith(b"data: {")]
        text = "".join(json.loads(part[6:])["choices"][0]["text"] for part in parts)
        assert text == generator.generate("a", 30_000, seed=5)


def test_a_text_ends_with_its_time(small_path):
    with serving(small_path, timeout=0.3, length=ENDLESS) as served:
        begun = time.monotonic()
        (choice,) = served.complete(prompt="a", max_tokens=ENDLESS)["choices"]
        assert choice["finish_reason"] == "cancelled"
        assert len(choice["text"]) > 100
        assert 0.25 < time.monotonic() - begun < 2


# Failures


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_failure_is_answered_and_leaves_the_server_as_it_was(small_path, monkeypatch, capsys):
    with serving(small_path) as served:
        for error in (ArtifactError("ONNX Runtime does not run"), KeyError("secret")):
            with monkeypatch.context() as patch:
                patch.setattr(RunLane, "run", raising(error))
                code, told = served.refusal(prompt="a")
                assert (code, told["type"]) == (500, "server_error")
                assert "secret" not in told["message"]
                answer = served.client.post("/v1/completions", json={"stream": True})
                assert told["message"] in answer.text.splitlines()[0]
                assert answer.text.endswith("data: [DONE]\n\n")
        with monkeypatch.context() as patch:
            patch.setattr(CharGenerator, "score", raising(KeyError("the text: secret")))
            assert served.refusal("/score", text="secret")[0] == 500
        assert capsys.readouterr().err == (
            "chargen-ort serve: a request of 17 bytes failed: KeyError\n"
        )
        assert served.text(prompt="a")


ODD = [None, True, 0, -1, 2**70, 1e308, "", "a", "é", "\0", [], {}, [[]], [None], [1, "a"],
       {"a": 1}, {"1": "b"}, "a" * 3000, [0] * 50, 0.5, ["a"], {"include_usage": True}]  # fmt: skip


def fuzzed(source, tables):
    """A path and a body that is likely to be wrong."""
    path, names = source.choice(tables)
    fields = {name: source.choice(ODD) for name in source.sample(names, source.randint(0, 3))}
    body = bytearray(json.dumps(fields).encode())
    for _ in range(source.choice([0, 0, 0, 1, 3])):
        place = source.randint(0, len(body))
        body[place : place + source.randint(0, 2)] = source.randbytes(source.randint(0, 2))
    return path, bytes(body)


def test_no_body_makes_the_server_fail(small_path, capsys):
    source = random.Random(0)
    tables = [
        ("/v1/completions", [*completion_fields(9, 9), "odd"]),
        ("/score", [*score_fields(9), "odd"]),
        ("/tokenize", [*tokenize_fields(9), "odd"]),
        ("/detokenize", [*detokenize_fields(9), "odd"]),
    ]
    with serving(small_path, length=20) as served:
        codes = set()
        for _ in range(FUZZED):
            path, body = fuzzed(source, tables)
            answer = served.client.post(
                path, content=body, headers={"Content-Type": "application/json"}
            )
            codes.add(answer.status_code)
            if answer.status_code != 200:
                assert answer.json()["error"]["message"], body
        assert {200, 400} <= codes <= {200, 400, 404}  # 404: a model's name
        eventually(lambda: not served.service.texts)
    assert capsys.readouterr().err == ""
