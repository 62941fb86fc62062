"""A mixed load on the server: readers, leavers, slow readers and bad bodies, for so many seconds.

    python -m tests.soak_serve 600

Each answer must be the one that was asked for, a text the one of its seed, and the server's memory
must not grow. Prints what was done and exits with 1 where something of this did not hold.
"""

import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.conftest import artifact_bytes, random_model
from tests.tools.serving import free_port

CLIENTS = 32
LENGTH = 150
_WARM = 0.2  # part of the time after which memory is looked at first
_GROWTH = 12.0  # MB that it may grow from then on
_LIMITS = ("--max-length", "1000000", "--timeout", "20")


def request(fields: dict[str, object] | bytes) -> bytes:
    """A request whose connection is closed after it."""
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Load:
    """Clients of a server, and what they found."""

    def __init__(self, port: int, until: float) -> None:
        self.port, self.until = port, until
        self.done: Counter[str] = Counter()
        self.texts: dict[int, str] = {}

    async def client(self, number: int) -> None:
        """Do one thing after the other until the time is over."""
        source = random.Random(number)
        deeds: list[Callable[[random.Random], Awaitable[str]]] = [
            self.read, self.read, self.stream, self.leave, self.dawdle, self.spoil,
        ]  # fmt: skip
        while time.monotonic() < self.until:
            try:
                self.done[await source.choice(deeds)(source)] += 1
            except (OSError, ValueError, KeyError, asyncio.IncompleteReadError) as error:
                self.done[f"ERROR {type(error).__name__}: {error}"] += 1

    async def ask(self, sent: bytes) -> tuple[int, bytes]:
        """The status and body of an answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        found = await reader.read(-1)
        writer.close()
        head, _, body = found.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def check(self, seed: int, text: str) -> str:
        """Whether a seed gave the text that it gave before."""
        same = self.texts.setdefault(seed, text) == text and len(text) == LENGTH
        return "text" if same else "ERROR another text"

    async def read(self, source: random.Random) -> str:
        seed = source.randrange(50)
        fields = {"prompt": "a", "max_tokens": LENGTH, "seed": seed}
        status, body = await self.ask(request(fields))
        if status != 200:
            return f"ERROR {status}"
        return self.check(seed, json.loads(body)["choices"][0]["text"])

    async def stream(self, source: random.Random) -> str:
        seed = source.randrange(50)
        fields = {"prompt": "a", "max_tokens": LENGTH, "seed": seed, "stream": True}
        status, body = await self.ask(request(fields))
        events = [line[6:] for line in body.splitlines() if line.startswith(b"data: {")]
        if status != 200 or b"[DONE]" not in body:
            return f"ERROR {status}, cut"
        text = "".join(json.loads(event)["choices"][0]["text"] for event in events)
        return self.check(seed, text)

    async def leave(self, source: random.Random) -> str:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        stream = source.random() < 0.5
        writer.write(request({"prompt": "a", "max_tokens": 1_000_000, "stream": stream}))
        await asyncio.sleep(source.random() * 0.1)
        writer.transport.abort()
        return "left"

    async def dawdle(self, source: random.Random) -> str:
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        held.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(held, ("127.0.0.1", self.port))
        fields = {"prompt": "a", "max_tokens": 1_000_000, "stream": True, "logprobs": 3}
        await loop.sock_sendall(held, request(fields))
        for _ in range(5):
            await loop.sock_recv(held, 1000)
            await asyncio.sleep(0.1)
        held.close()
        return "slow"

    async def spoil(self, source: random.Random) -> str:
        body = source.choice([b"{", b"[]", b'{"n": 0}', b'{"x": 1}', source.randbytes(20)])
        status, found = await self.ask(request(body))
        return "refused" if status == 400 and b"error" in found else f"ERROR {status}"


async def run(port: int, pid: int, seconds: float) -> tuple[Counter[str], float, float]:
    """What was done, and the server's memory after the beginning and at the end, MB."""
    load = Load(port, time.monotonic() + seconds)
    clients = asyncio.gather(*(load.client(number) for number in range(CLIENTS)))
    await asyncio.sleep(seconds * _WARM)
    before = memory(pid)
    await clients
    return load.done, before, memory(pid)


def memory(pid: int) -> float:
    """What a process has in memory, MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main(seconds: float) -> int:
    """Serve and load; returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        path.write_bytes(artifact_bytes(random_model(hidden_size=64)))
        port = free_port()
        code = "from chargen_ort.cli import main; main()"
        command = [sys.executable, "-c", code, "serve", str(path), "--port", str(port), *_LIMITS]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        while "curl" not in process.stderr.readline():
            pass
        time.sleep(0.5)
        done, before, after = asyncio.run(run(port, process.pid, seconds))
        process.terminate()
        rest = process.stderr.read().splitlines()[1:]
        process.wait()
    for what, count in done.most_common():
        print(f"{count:8,}  {what}")
    print(f"memory {before:.1f} MB, at the end {after:.1f} MB; lines to standard error: {rest}")
    failed = any(what.startswith("ERROR") for what in done) or after - before > _GROWTH or rest
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
