"""POST /v1/completions: from a body to texts, and from their pieces to an answer."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable
from secrets import token_hex

import numpy as np
from numpy.typing import NDArray
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from chargen_ort.errors import OptionError, UnknownCharacterError
from chargen_ort.generator import CharGenerator
from chargen_ort.options import SamplingOptions
from chargen_ort.sampling import fresh_seed
from chargen_ort.serve.answers import Choices, Head
from chargen_ort.serve.pool import OpenModel
from chargen_ort.serve.requests import (
    Completion,
    Refusal,
    TextOrTokens,
    check_tokens,
    completion_fields,
    read_completion,
)
from chargen_ort.serve.service import Service, read_body
from chargen_ort.serve.texts import FEW_UNREAD, Piece, Prompt, Wanted, Writing

_MOST_AT_ONCE = 250_000  # characters, and scores of characters, of an answer in one piece
_MOST_SHARED = 256  # characters of a prompt that is kept for requests to come
_EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx passes on what comes
]


class Job:
    """The texts of one request, and the pieces of them that have come.

    Args:
        service: where they are counted.
        model: that writes them.
    """

    def __init__(self, service: Service, model: OpenModel) -> None:
        self._service, self._model = service, model
        self._texts: list[Writing] = []
        self._pieces: deque[tuple[int, Piece]] = deque()
        self._came = asyncio.Event()
        self._open = 0  # texts that have not ended
        self._begun: float | None = time.monotonic()  # None once a character has come

    def submit(self, texts: Iterable[Writing]) -> None:
        """Have texts written, which deliver their pieces here."""
        self._texts = list(texts)
        self._open = len(self._texts)
        self._service.texts += self._open
        self._model.batcher.submit(self._texts)

    def deliver(self, index: int, piece: Piece) -> None:
        """Hear of a piece of text number `index`."""
        metrics = self._service.metrics
        if self._begun is not None and piece.text:
            metrics.first.observe(time.monotonic() - self._begun)
            self._begun = None
        metrics.characters.inc(len(piece.text))
        if piece.ended:
            self._open -= 1
            self._service.texts -= 1
        self._pieces.append((index, piece))
        self._came.set()

    async def pieces(self) -> list[tuple[int, Piece]]:
        """The pieces that have come, each with the number of its text; none after the last.

        Raises:
            Refusal: a text could not be written.
        """
        while not self._pieces and self._open:
            self._came.clear()
            await self._came.wait()
        found = list(self._pieces)
        self._pieces.clear()
        for _, piece in found:
            if piece.failure:
                raise Refusal(500, piece.failure, "failed")
        return found

    @property
    def has_ended(self) -> bool:
        """Whether no more pieces come."""
        return not self._open and not self._pieces

    def took(self, index: int, count: int) -> None:
        """The client has taken so many more characters."""
        text = self._texts[index]
        before = text.unread
        text.read += count
        if before > FEW_UNREAD >= text.unread:
            self._model.batcher.wake()

    def cancel(self) -> None:
        """End the texts that have not ended."""
        if self._open:
            for text in self._texts:
                text.cancelled = True
            self._model.batcher.wake()

    async def watch(self, receive: Receive) -> None:
        """Cancel as soon as the client has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancel()


class Completions:
    """The route, an ASGI application.

    Args:
        service: the state of the server.

    Attributes:
        fields: of the body.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.fields = completion_fields(service.limits.length, service.limits.prompt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            Refusal: it is not answered.
        """
        service = self._service
        body = await read_body(service, scope, receive)
        asked = read_completion(self.fields, body, max(_MOST_AT_ONCE, service.limits.length))
        async with service.models.use(asked.model) as model:
            options = _options(model.generator, asked)
            prompts = _prompts(model, asked, options.controlled)
            service.check_room(len(prompts), asked.stream)
            job = Job(service, model)
            texts = _texts(job, asked, options, prompts, service.limits.timeout)
            job.submit(await asyncio.to_thread(_confined, texts) if options.controlled else texts)
            watcher = asyncio.create_task(job.watch(receive))
            head = Head(f"cmpl-{token_hex(12)}", int(time.time()), model.name, options.seed or 0)
            choices = Choices(model.generator.config.tokens, asked, prompts)
            try:
                if asked.stream:
                    with service.streaming():
                        await _stream(job, head, choices, asked.include_usage, send)
                else:
                    answer = JSONResponse(await _whole(job, head, choices))
                    await answer(scope, receive, send)
            finally:
                watcher.cancel()
                job.cancel()


def _options(generator: CharGenerator, asked: Completion) -> SamplingOptions:
    """How the texts are drawn, with a seed.

    Raises:
        Refusal: a stop string, or a token, that the model does not have.
    """
    try:
        options = generator.options(**({"seed": fresh_seed()} | asked.sampling))
    except OptionError as error:
        raise Refusal(400, str(error), "invalid_value", "stop") from None
    if options.exact:  # by the model's own setting
        message = "exact is the model's setting, and is not done here; serve another model"
        raise Refusal(400, message, "invalid_value", "exact")
    check_tokens(generator.vocabulary, asked.logit_bias, "logit_bias")
    if asked.logprobs is not None and generator.config.unit != "char":
        message = (
            f"logprobs are for models of characters, and this model's unit is "
            f"{generator.config.unit}; leave it out, and have texts scored by POST /score"
        )
        raise Refusal(400, message, "invalid_value", "logprobs")
    return options


def _prompts(model: OpenModel, asked: Completion, confined: bool) -> list[Prompt]:
    """The prompt of each choice; choices that go on from the same one share it."""
    top = asked.logprobs if asked.echo else None
    prompts = []
    for given in asked.prompts:

        def read(given: TextOrTokens = given) -> Prompt:
            tokens, rest = _encode(model.generator, asked, given, confined)
            return Prompt(model.generator.engine, tokens, top, rest)

        shared = top is None and len(given) <= _MOST_SHARED
        shared = shared and not (confined and model.generator.vocabulary.has_pieces)
        prompt = model.shared_prompt((given, asked.unknown), read) if shared else read()
        prompts += [prompt] * asked.n
    return prompts


def _encode(
    generator: CharGenerator, asked: Completion, given: TextOrTokens, confined: bool
) -> tuple[NDArray[np.int64], str]:
    """The tokens of a prompt and the run that is taken back; none is where tokens are given."""
    if not isinstance(given, str):
        check_tokens(generator.vocabulary, given, "prompt")
        return np.array(given, dtype=np.int64), ""
    try:
        return generator.vocabulary.encode_open(given, asked.unknown, confined)
    except UnknownCharacterError as error:
        raise Refusal(400, str(error), "unknown_character", "prompt") from None


def _texts(
    job: Job,
    asked: Completion,
    options: SamplingOptions,
    prompts: list[Prompt],
    timeout: float,
) -> Iterable[Writing]:
    """A text for each choice; choice i is row i of the seed's family."""
    deadline = time.monotonic() + timeout
    for row, prompt in enumerate(prompts):
        wanted = Wanted(
            options,
            row=row,
            length=asked.max_tokens,
            top=asked.logprobs,
            bias=asked.logit_bias,
            presence=asked.presence_penalty,
            frequency=asked.frequency_penalty,
            whole=not asked.stream,
        )

        def deliver(piece: Piece, row: int = row) -> None:
            job.deliver(row, piece)

        yield Writing(prompt, wanted, deadline, deliver)


def _confined(texts: Iterable[Writing]) -> list[Writing]:
    """Texts whose language takes a while to make.

    Raises:
        Refusal: a pattern that is none, or no text goes on so.
    """
    try:
        return list(texts)
    except OptionError as error:
        raise Refusal(400, str(error), "invalid_value", "pattern") from None


async def _whole(job: Job, head: Head, choices: Choices) -> dict[str, object]:
    """The answer with all of the texts, each of which comes in one piece."""
    made: dict[int, dict[str, object]] = {}
    while found := await job.pieces():
        for index, piece in found:
            made[index] = choices.whole(index, piece)
    in_order = [made[index] for index in sorted(made)]
    return {**head.to_json(), "choices": in_order, "usage": choices.usage()}


async def _stream(job: Job, head: Head, choices: Choices, usage: bool, send: Send) -> None:
    """The answer as server-sent events; those that come together are sent together."""
    begin = json.dumps(head.to_json() | ({"usage": None} if usage else {}))[:-1]

    async def send_events(events: list[str], more: bool = True) -> None:
        body = "".join(f"data: {event}\n\n" for event in events).encode()
        await send({"type": "http.response.body", "body": body, "more_body": more})

    await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
    last: list[str] = []
    try:
        while found := await job.pieces():
            parts = [part for index, piece in found for part in choices.parts(index, piece)]
            events = [f'{begin}, "choices": [{json.dumps(part)}]}}' for part in parts]
            if job.has_ended:
                last = events
                break
            await send_events(events)
            for index, piece in found:
                job.took(index, len(piece.text))
    except Refusal as refusal:
        last = [refusal.to_bytes().decode()]
    else:
        if usage:
            facts = {**head.to_json(), "choices": [], "usage": choices.usage()}
            last.append(json.dumps(facts))
    await send_events([*last, "[DONE]"], more=False)
