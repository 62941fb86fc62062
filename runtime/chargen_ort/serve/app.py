"""The application: its routes, the key before them, and errors in the interface's JSON."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chargen_ort.checks import printable
from chargen_ort.serve.completions import Completions
from chargen_ort.serve.openapi import describe_api
from chargen_ort.serve.requests import Refusal
from chargen_ort.serve.routes import Routes
from chargen_ort.serve.service import Service
from chargen_ort.terminal import report

_OPEN = "/health"  # needs no key
_MOST_SHOWN = 200  # characters of a path
_GONE = "499"  # the client left before an answer began


def make_app(service: Service, key: str | None = None, origins: Sequence[str] = ()) -> ASGIApp:
    """The application of a server.

    Args:
        service: its state.
        key: that every route but /health asks for; None asks for none.
        origins: pages from elsewhere that may talk to it.
    """
    routes, completions = Routes(service), Completions(service)
    fields = (routes.score_fields, routes.tokenize_fields, routes.detokenize_fields)
    api = describe_api(completions.fields, *fields)

    async def openapi(request: Request) -> Response:
        return JSONResponse(api)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await service.models.close()

    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
    )
    return Starlette(
        routes=[
            Route("/", routes.page),
            Route(_OPEN, routes.health),
            Route("/ready", routes.ready),
            Route("/metrics", routes.metrics),
            Route("/openapi.json", openapi),
            Route("/v1/models", routes.models),
            Route("/v1/models/{name}", routes.model),
            Route("/v1/models/{name}/card", routes.card),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/score", routes.score, methods=["POST"]),
            Route("/tokenize", routes.tokenize, methods=["POST"]),
            Route("/detokenize", routes.detokenize, methods=["POST"]),
            Route("/tokenizer_info", routes.tokenizer_info),
        ],
        middleware=[*([cors] if origins else []), Middleware(Gate, service=service, key=key)],
        exception_handlers={
            Refusal: _refuse,
            HTTPException: _refuse_http,
            Exception: _refuse_failure,
        },
        lifespan=lifespan,
    )


class Gate:
    """What stands before all routes: the key, and the count of answers.

    Args:
        app: behind it.
        service: whose answers are counted.
        key: as for `make_app`.
    """

    def __init__(self, app: ASGIApp, service: Service, key: str | None) -> None:
        self._app, self._metrics = app, service.metrics
        self._digest = None if key is None else _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        code = _GONE

        async def count(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = str(message["status"])
            await send(message)

        try:
            if scope["path"] == _OPEN or self._knows(dict(scope["headers"])):
                await self._app(scope, receive, count)
            else:
                await _without_key(scope["path"])(scope, receive, count)
        finally:
            self._metrics.requests.labels(code).inc()

    def _knows(self, headers: dict[bytes, bytes]) -> bool:
        if self._digest is None:
            return True
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        # digests are of one length, whatever was given, and are compared in constant time
        found = hmac.compare_digest(_digest(given.strip()), self._digest)
        return found and kind.lower() in (b"bearer", b"basic")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _without_key(path: str) -> Response:
    # a browser that opens the page asks for the key, and sends it with what the page asks for
    ask = 'Basic realm="chargen", charset="UTF-8"' if path == "/" else "Bearer"
    message = "a key is needed; send Authorization: Bearer KEY"
    headers = {"WWW-Authenticate": ask, "Connection": "close"}
    return _answer(Refusal(401, message, "invalid_api_key", None, headers))


def _answer(refusal: Refusal) -> Response:
    return JSONResponse(refusal.to_json(), refusal.status, refusal.headers)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _answer(error)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = printable(request.url.path[:_MOST_SHOWN])
    known = {404: f"there is no route {path}", 405: f"{path} does not take this method"}
    message = f"{known.get(error.status_code, error.detail)}; see /openapi.json"
    headers = {**(error.headers or {}), "Connection": "close"}
    return _answer(Refusal(error.status_code, message, None, None, headers))


async def _refuse_failure(request: Request, error: Exception) -> Response:
    size = request.headers.get("content-length", "0")
    report(f"chargen-ort serve: a request of {size} bytes failed: {type(error).__name__}")
    return _answer(Refusal(500, "the server failed", "failed", None, {"Connection": "close"}))
