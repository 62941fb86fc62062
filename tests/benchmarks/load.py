"""Clients that ask a server as quickly as it answers, in one process without an HTTP library.

    python -m tests.benchmarks.load PORT ours|streamed|example CLIENTS SECONDS

Prints JSON: requests, seconds of each (sorted), and seconds to the first bytes of each answer's
body. An answer that is not 200, or is cut, is an error.
"""

import asyncio
import json
import sys
import time

LENGTH = 200


def request(kind: str, seed: int) -> bytes:
    """One request for 200 characters."""
    if kind == "example":
        path = f"/stream?start=THE&length={LENGTH}&seed={seed}&temperature=0.8"
        return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    fields = {"prompt": "THE", "max_tokens": LENGTH, "seed": seed, "temperature": 0.8}
    body = json.dumps(fields | {"stream": kind == "streamed"}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + body


class Client(asyncio.Protocol):
    """A connection that asks again as soon as it has its answer."""

    def __init__(self, kind: str, seed: int, until: float) -> None:
        self.kind, self.seed, self.until = kind, seed, until
        self.taken: list[float] = []
        self.first: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.held, self.begun = b"", time.perf_counter()
        self.waits = True
        self.transport.write(request(self.kind, self.seed))
        self.seed += 1000

    def data_received(self, data: bytes) -> None:
        self.held += data
        head, found, body = self.held.partition(b"\r\n\r\n")
        if self.waits and body:
            self.first.append(time.perf_counter() - self.begun)
            self.waits = False
        if found and self.is_whole(head.lower(), body):
            if not self.held.startswith(b"HTTP/1.1 200"):
                sys.exit(f"refused: {self.held[:300]!r}")
            self.taken.append(time.perf_counter() - self.begun)
            if time.perf_counter() < self.until:
                self.ask()
            else:
                self.transport.close()

    @staticmethod
    def is_whole(head: bytes, body: bytes) -> bool:
        _, found, size = head.partition(b"content-length: ")
        if found:
            return len(body) >= int(size.split(b"\r\n")[0])
        return body.endswith(b"0\r\n\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def main(port: int, kind: str, clients: int, seconds: float) -> None:
    loop, begun = asyncio.get_running_loop(), time.perf_counter()
    made = []
    for seed in range(clients):
        _, client = await loop.create_connection(
            lambda seed=seed: Client(kind, seed, begun + seconds), "127.0.0.1", port
        )
        made.append(client)
    await asyncio.gather(*(client.done for client in made))
    found = {
        "seconds": time.perf_counter() - begun,
        "taken": sorted(t for client in made for t in client.taken),
        "first": sorted(t for client in made for t in client.first),
        "cut": sum(len(client.taken) != len(client.first) for client in made),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    port, kind, clients, seconds = sys.argv[1:]
    asyncio.run(main(int(port), kind, int(clients), float(seconds)))
