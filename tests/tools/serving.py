"""A server in a thread of this process, with real sockets."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from chargen_ort.serve.app import make_app
from chargen_ort.serve.limits import Limits
from chargen_ort.serve.server import make_server, open_socket
from chargen_ort.serve.service import Service


@dataclass(frozen=True)
class Served:
    """A server that runs, and a client of it."""

    port: int
    service: Service
    server: Any
    client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def complete(self, **fields: object) -> dict[str, Any]:
        """What a completion answers; it must be 200."""
        answer = self.client.post("/v1/completions", json=fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def text(self, **fields: object) -> str:
        """The one text that it answers."""
        return self.complete(**fields)["choices"][0]["text"]

    def refusal(self, path: str = "/v1/completions", **fields: object) -> tuple[int, dict]:
        """The status and error of an answer that must be none of 200."""
        answer = self.client.post(path, json=fields)
        assert answer.status_code != 200
        return answer.status_code, answer.json()["error"]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def metric(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(name, labels) or 0


@contextlib.contextmanager
def serving(
    *paths: Path, key: str | None = None, origins: tuple[str, ...] = (), **limits: float
) -> Iterator[Served]:
    """Serve models on a free port until the block ends."""
    service = Service(paths, Limits(**{"grace": 0.2, **limits}))
    listening = open_socket("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = make_server(service, make_app(service, key, origins))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield Served(port, service, server, client)
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def eventually(condition: Any, seconds: float = 5) -> float:
    """Wait until something holds; returns how long that took, in seconds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it did not come to hold"
        time.sleep(0.002)
    return time.monotonic() - begun


def free_port() -> int:
    """A port that nobody listens on, for now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
