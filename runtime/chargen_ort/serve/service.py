"""What all requests of a server share: its models, its limits, its counts."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import Receive, Scope

from chargen_ort.serve.limits import Limits
from chargen_ort.serve.pool import Pool
from chargen_ort.serve.requests import Refusal

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_RETRY, _CLOSE = {"Retry-After": "1"}, {"Connection": "close"}
_JSON = b"application/json"


class Metrics:
    """What /metrics tells; nothing of it is about one request."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "chargen_requests", "Answers by HTTP status.", ["code"], registry=registry
        )
        self.bytes = Counter("chargen_request_bytes", "Bytes of bodies.", registry=registry)
        self.running = Gauge(
            "chargen_running_texts", "Texts that are written now.", registry=registry
        )
        self.waiting = Gauge(
            "chargen_waiting_texts", "Texts that wait for a place.", registry=registry
        )
        self.streams = Gauge("chargen_streams", "Answers that are streamed.", registry=registry)
        self.models = Gauge("chargen_open_models", "Models that are open.", registry=registry)
        self.characters = Counter(
            "chargen_characters", "Characters that were sent.", registry=registry
        )
        self.first = Histogram(
            "chargen_first_character_seconds",
            "From a request to its first characters.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.fill = Histogram(
            "chargen_batch_rows", "Texts in one run.", buckets=_ROWS, registry=registry
        )


class Service:
    """The state of a server.

    Args:
        paths: files of models.
        limits: as given to the command.

    Attributes:
        limits: as given.
        metrics: what was counted.
        models: by name.
        texts: that are written or wait, of all models.
        scores: requests for scores that are answered or wait.
        streams: answers that are streamed.
        ending: whether SIGTERM came.

    Raises:
        OptionError: no models, or two of one name.
    """

    def __init__(self, paths: Iterable[Path], limits: Limits) -> None:
        self.limits, self.metrics = limits, Metrics()
        self.models = Pool(paths, limits.memory, limits.concurrent, self.metrics.fill.observe)
        self.texts = self.scores = self.streams = 0
        self.ending = False
        self.metrics.running.set_function(lambda: min(self.texts, self._places()))
        self.metrics.waiting.set_function(lambda: max(0, self.texts - self._places()))
        self.metrics.streams.set_function(lambda: self.streams)
        self.metrics.models.set_function(lambda: len(self.models.is_open))

    def _places(self) -> int:
        return self.limits.concurrent * max(1, len(self.models.is_open))

    def check_room(self, texts: int, stream: bool) -> None:
        """Refuse texts for which there is no room now.

        Raises:
            Refusal: the queue is full, there are too many streams, or the server ends.
        """
        if self.ending:
            raise Refusal(503, "the server is ending; try another", "ending", None, _RETRY)
        limits = self.limits
        if self.texts + self.scores + texts > limits.concurrent + limits.waiting:
            message = f"{limits.waiting:,} texts may wait, and there is no room; try again"
            raise Refusal(429, message, "queue_full", None, _RETRY)
        if stream and self.streams >= limits.streams:
            message = f"{limits.streams:,} answers are streamed already, which is the most"
            raise Refusal(429, f"{message}; try again", "too_many_streams", None, _RETRY)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Count a request for scores, where there is room for it.

        Raises:
            Refusal: see `check_room`.
        """
        self.check_room(1, stream=False)
        self.scores += 1
        try:
            yield
        finally:
            self.scores -= 1

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count an answer that is streamed."""
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def end(self) -> None:
        """Take no more requests, and end what is written within the time that is given."""
        if not self.ending:
            self.ending = True
            self.models.end_by(time.monotonic() + self.limits.grace)


async def read_body(service: Service, scope: Scope, receive: Receive) -> bytes:
    """The body of a request.

    Raises:
        Refusal: it is too long, is no JSON by its type, or does not come whole, or in time.
    """
    most, patience = service.limits.body, service.limits.patience
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != _JSON:
        message = "the body must have the Content-Type application/json"
        raise Refusal(415, message, "content_type", None, _CLOSE)
    if int(headers.get(b"content-length", 0)) > most:
        raise _too_long(most)
    try:
        async with asyncio.timeout(patience):
            body = await _read(receive, most)
    except TimeoutError:
        message = f"the body did not come within {patience:g} seconds"
        raise Refusal(408, message, "too_slow", None, _CLOSE) from None
    service.metrics.bytes.inc(len(body))
    return body


async def _read(receive: Receive, most: int) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the body did not come whole", "disconnected", None, _CLOSE)
        body += message.get("body", b"")
        if len(body) > most:
            raise _too_long(most)
        more = message.get("more_body", False)
    return bytes(body)


def _too_long(most: int) -> Refusal:
    return Refusal(413, f"the body has more than {most:,} bytes", "too_long", None, _CLOSE)
