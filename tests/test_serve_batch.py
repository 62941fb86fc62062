"""One batch for all: a text is the same alone, among others, and again."""

import asyncio
import json
import os
import random
import threading
import time

import httpx
import numpy as np
import pytest

from chargen_ort.sampling import Draws
from chargen_ort.serve.batcher import Batcher
from chargen_ort.serve.texts import Prompt, Wanted, Writing
from chargen_ort.writer import RunWriter
from tests.tools.serving import serving

REPEATS = int(os.environ.get("SERVE_REPEATS", "2"))
OPTIONS = [
    {},
    {"temperature": 0},
    {"temperature": 0.6},
    {"temperature": 1.4, "stop": "e"},
    {"stop": ["th", "o "]},
    {"top_k": 4},
    {"top_p": 0.7, "temperature": 1.2},
    {"repetition_penalty": 1.4, "temperature": 0},
]
STARTS = ["", "a", "once upon", "z. "]


# Rows


def test_rows_of_any_seed_and_temperature_share_a_run(generator):
    """Each draws as in a writer of its own, as the batch grows and shrinks."""
    engine, rows = generator.engine, [(5, 0, 0.7), (5, 3, 1.0), (2**63, 1, 1.9), (7, 0, 0.5)]
    alone = [RunWriter(engine, Draws(seed, [row]), heat) for seed, row, heat in rows]
    whole = RunWriter(engine, Draws(0, [0]), 1.0)
    written = [[] for _ in rows]
    for place, (seed, row, heat) in enumerate(rows):
        whole = whole.keep_rows([*range(place), 0])  # one more, which is a copy of the first
        whole.start_row(place, alone[place].row_state(0), row, seed, heat)
        for tokens, more in zip(written, whole.write(50).T.tolist(), strict=False):
            tokens += more
    smaller = whole.keep_rows([3, 1])
    for place, more in zip((3, 1), smaller.write(60).T.tolist(), strict=True):
        written[place] += more
    for writer, tokens in zip(alone, written, strict=True):
        assert tokens == [writer.draw() for _ in tokens]
        assert len(set(tokens)) > 5
    assert smaller.row_state(1).drawn == alone[1].drawn(0) == 210
    np.testing.assert_array_equal(smaller.row_state(1).hidden, alone[1].hidden[0])


# Texts


@pytest.mark.parametrize("most", [3, 64])
def test_texts_that_come_and_go_are_those_of_the_library(generator, most):
    """Where there are few places, long texts make room for others and go on later."""
    source, rows, done = random.Random(most), [], threading.Semaphore(0)
    batcher = Batcher(
        generator.engine,
        most,
        lambda deliveries: [text.deliver(piece) for text, piece in deliveries],
        rows.append,
    )
    wanted = []
    for seed in range(60):
        start, length = source.choice(STARTS), source.choice([0, 1, 30, 700])
        given = source.choice(OPTIONS) | {"seed": seed}
        pieces = []

        def deliver(piece, pieces=pieces):
            pieces.append(piece)
            if piece.ended:
                done.release()

        prompt = Prompt(generator.engine, generator.vocabulary.encode(start))
        asked = Wanted(generator.options(**given), 0, length, whole=source.random() < 0.9)
        text = Writing(prompt, asked, time.monotonic() + 60, deliver)
        wanted.append((start, length, given, pieces))
        batcher.submit([text])
        time.sleep(source.choice([0, 0, 0.004]))
    assert all(done.acquire(timeout=20) for _ in wanted)
    batcher.close()
    assert max(rows) <= most
    for start, length, given, pieces in wanted:
        text = "".join(piece.text for piece in pieces)
        assert text == generator.generate(start, length, **given), given
        assert [piece.ended for piece in pieces[:-1]] == [None] * (len(pieces) - 1)


def asked_for(number):
    """What client number `number` asks for."""
    asked = {"prompt": STARTS[number % 4], "max_tokens": (40, 200, 333)[number % 3]}
    return asked | {"seed": number, "stream": number % 2 == 0} | OPTIONS[number % 8]


def text_of(answer):
    assert answer.status_code == 200, answer.text
    if "event-stream" not in answer.headers["content-type"]:
        return answer.json()["choices"][0]["text"]
    events = [line[6:] for line in answer.text.splitlines() if line][:-1]
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


def test_64_clients_get_the_same_bytes_alone_together_and_again(small_path):
    with serving(small_path) as served:

        async def together():
            limits = httpx.Limits(max_connections=64)
            async with httpx.AsyncClient(base_url=served.url, timeout=120, limits=limits) as client:
                answers = [
                    client.post("/v1/completions", json=asked_for(number)) for number in range(64)
                ]
                return list(map(text_of, await asyncio.gather(*answers)))

        alone = [
            text_of(served.client.post("/v1/completions", json=asked_for(number)))
            for number in range(64)
        ]
        assert len(set(alone)) > 50
        for _ in range(REPEATS):
            assert asyncio.run(together()) == alone
