"""Running the application: its socket, the limits of connections, the end."""

import asyncio
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from chargen_ort.artifact import read_artifact
from chargen_ort.checks import printable, whole_number
from chargen_ort.errors import OptionError
from chargen_ort.serve.app import make_app
from chargen_ort.serve.limits import Limits
from chargen_ort.serve.requests import Refusal
from chargen_ort.serve.service import Service

_MOST_PORTS = 65535
_LAST_SECONDS = 5.0  # beyond `grace`, for what was written to reach its readers
_SEND_BUFFER = 128 << 10  # bytes that the system holds for a slow reader
_MALFORMED = "this is no HTTP request, or its headers are too long"


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        OptionError: the port is in use or not allowed, or there is no such address.
    """
    shown = f"{printable(host)}:{whole_number('port', port, 0, _MOST_PORTS)}"
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=1024)
    except UnicodeError:
        raise OptionError(f"cannot listen on {shown}; give the name of a host") from None
    except OSError as error:
        if isinstance(error, socket.gaierror) or not error.errno:
            reason = (error.strerror or "it is refused").lower()
        else:  # without what Python adds, which says the address again
            reason = os.strerror(error.errno).lower()
        raise OptionError(
            f"cannot listen on {shown}: {reason}; name another --port or --host"
        ) from None


def make_server(service: Service, app: ASGIApp) -> uvicorn.Server:
    """A server of the application; `run` it with the socket.

    Args:
        service: whose texts end with the server.
        app: the application of `service`.
    """
    limits = service.limits

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.end()
            await super().shutdown(sockets)

    return Server(
        uvicorn.Config(
            app,
            http=protocol_of(limits),
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="critical",  # a traceback may hold what a client sent
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=limits.headers,
            timeout_keep_alive=math.ceil(limits.patience),
            timeout_graceful_shutdown=math.ceil(limits.grace + _LAST_SECONDS),
        )
    )


def protocol_of(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol of uvicorn, with limits on connections, on slow headers and on slow readers."""

    class Protocol(H11Protocol):
        timer: asyncio.TimerHandle | None = None  # for headers, or for a reader

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            if not isinstance(transport, asyncio.Transport):
                return
            super().connection_made(transport)
            held = transport.get_extra_info("socket")
            # asyncio does it for sockets whose protocol is named, which an accepted one's is not
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if len(self.connections) > limits.connections:
                transport.abort()
            self.start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.is_idle():
                self.start_timer()  # one that runs goes on, so that headers cannot trickle
            elif not self.flow.write_paused:
                self.stop_timer()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.stop_timer()
            self.start_timer()

        def resume_writing(self) -> None:
            super().resume_writing()
            self.stop_timer()

        def is_idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def start_timer(self) -> None:
            if self.timer is None:
                self.timer = self.loop.call_later(limits.patience, self.be_impatient)

        def stop_timer(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def be_impatient(self) -> None:
            if self.is_idle() and not self.flow.write_paused:
                message = f"the headers did not come within {limits.patience:g} seconds"
                self.refuse(Refusal(408, message, "too_slow"))
            else:
                self.transport.abort()

        def send_400_response(self, msg: str) -> None:
            self.refuse(Refusal(400, _MALFORMED, "malformed"))

        def refuse(self, refusal: Refusal) -> None:
            body = refusal.to_bytes()
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            headers.append((b"content-length", str(len(body)).encode()))
            answer = h11.Response(status_code=refusal.status, headers=headers)
            try:
                for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
                self.transport.close()
            except h11.LocalProtocolError:  # in the middle of an answer
                self.transport.abort()

    return Protocol


def run(
    paths: Sequence[Path],
    limits: Limits,
    host: str,
    port: int,
    key: str | None,
    origins: Sequence[str],
) -> Iterator[str]:
    """Serve until a signal comes; the lines that tell where are yielded before.

    Args:
        paths: files of models.
        limits: of the server.
        host, port: where to listen.
        key: that requests must carry; None asks for none.
        origins: pages from elsewhere that may use the server.

    Raises:
        OptionError: no models or two of one name, or an address that cannot be listened on.
        ArtifactError: the first model cannot be opened.
    """
    service = Service(paths, limits)
    read_artifact(paths[0])
    listening = open_socket(host, port)
    yield from _greeting(listening, service, key)
    # asyncio warns of writes to clients that have left, and its tracebacks may hold what they sent
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if hasattr(signal, "SIGPIPE"):  # a client that leaves ends its own request alone
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    make_server(service, make_app(service, key, origins)).run([listening])


def _greeting(listening: socket.socket, service: Service, key: str | None) -> Iterator[str]:
    address, port = listening.getsockname()[:2]
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
    header = "" if key is None else " -H 'Authorization: Bearer KEY'"
    yield f"models  {', '.join(map(printable, service.models.paths))}"
    yield f"page    {url}/"
    yield f"try     curl {url}/v1/completions{header} -H 'Content-Type: application/json' \\"
    yield """          -d '{"prompt": "", "max_tokens": 100, "seed": 7}'"""
