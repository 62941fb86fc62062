"""The routes beside the completions: models, scores, tokens, and how the server is."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from chargen_ort.errors import OptionError, UnknownCharacterError
from chargen_ort.generator import CharGenerator
from chargen_ort.lines import score_figures
from chargen_ort.page import served_page
from chargen_ort.reports import model_facts
from chargen_ort.score import Score
from chargen_ort.serve.requests import (
    Refusal,
    check_tokens,
    detokenize_fields,
    read_fields,
    score_fields,
    tokenize_fields,
)
from chargen_ort.serve.service import Service, read_body


class Routes:
    """Answers to the smaller requests.

    Args:
        service: the state of the server.

    Attributes:
        score_fields, tokenize_fields, detokenize_fields: of their bodies.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.score_fields = score_fields(service.limits.prompt)
        self.tokenize_fields = tokenize_fields(service.limits.prompt)
        self.detokenize_fields = detokenize_fields(service.limits.prompt)
        self._scoring = asyncio.Semaphore(1)  # one core is for what is written
        self._page = served_page()

    async def page(self, request: Request) -> Response:
        """GET /: a page that writes with this server."""
        # the page has a policy of its own, which cannot forbid others to frame it
        headers = {"Content-Security-Policy": "frame-ancestors 'none'"}
        return HTMLResponse(self._page, headers=headers)

    async def health(self, request: Request) -> Response:
        """GET /health: the process lives."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """GET /ready: requests are taken."""
        if self._service.ending:
            raise Refusal(503, "the server is ending", "ending")
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: counts, for Prometheus."""
        found = generate_latest(self._service.metrics.registry)
        return Response(found, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def models(self, request: Request) -> Response:
        """GET /v1/models: their names."""
        data = [self._model(name) for name in self._service.models.paths]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{name}: one of them."""
        name = request.path_params["name"]
        return JSONResponse(self._model(self._service.models.known(name)))

    async def card(self, request: Request) -> Response:
        """GET /v1/models/{name}/card: what is in its file, as `chargen-ort info --json` has it."""
        async with self._service.models.use(request.path_params["name"]) as model:
            return JSONResponse(model_facts(model.generator.artifact))

    def _model(self, name: str) -> dict[str, object]:
        pool = self._service.models
        created = int(pool.paths[name].stat().st_mtime) if pool.paths[name].exists() else 0
        fixed: dict[str, object] = {"id": name, "object": "model", "created": created}
        return {**fixed, "owned_by": "chargen", "open": name in pool.is_open}

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize: the tokens of a text."""
        body = await read_body(self._service, request.scope, request.receive)
        values = read_fields(self.tokenize_fields, body)
        if "prompt" not in values:
            raise Refusal(400, "prompt is missing; give a text", "invalid_value", "prompt")
        async with self._service.models.use(values.get("model")) as model:
            try:
                encode = model.generator.vocabulary.encode
                tokens = encode(values["prompt"], values.get("unknown")).tolist()
            except UnknownCharacterError as error:
                raise Refusal(400, str(error), "unknown_character", "prompt") from None
            if not values["prompt"] and model.generator.config.end:
                tokens = [model.generator.config.separator_token]  # whose text is empty
        most = self._service.limits.prompt
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": most})

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize: the text of tokens."""
        body = await read_body(self._service, request.scope, request.receive)
        values = read_fields(self.detokenize_fields, body)
        if "tokens" not in values:
            raise Refusal(400, "tokens is missing; give a list", "invalid_value", "tokens")
        async with self._service.models.use(values.get("model")) as model:
            check_tokens(model.generator.vocabulary, values["tokens"], "tokens")
            texts = model.generator.config.tokens
        return JSONResponse({"prompt": "".join(texts[token] for token in values["tokens"])})

    async def tokenizer_info(self, request: Request) -> Response:
        """GET /tokenizer_info: what stands before a text of the first model.

        No text is said to end one: a model that ends its texts needs no stop string for it.
        """
        async with self._service.models.use(None) as model:
            begin = model.generator.config.separator
        return JSONResponse({"bos_token": begin, "eos_token": None, "chat_template": None})

    async def score(self, request: Request) -> Response:
        """POST /score: how likely the model finds texts."""
        body = await read_body(self._service, request.scope, request.receive)
        values = read_fields(self.score_fields, body)
        if ("text" in values) == ("texts" in values):
            raise Refusal(400, "give either text or texts", "invalid_value", "text")
        if "text" in values and "end" in values:
            raise Refusal(400, "end is for texts; leave it out", "invalid_value", "end")
        with self._service.scoring():
            async with self._service.models.use(values.get("model")) as model, self._scoring:
                try:
                    scores = await _in_thread(lambda: _scores(model.generator, values))
                except (OptionError, UnknownCharacterError) as error:
                    param = "text" if "text" in values else "texts"
                    raise Refusal(400, str(error), "invalid_value", param) from None
        each = values.get("per_character", False)
        facts = {"model": model.name, "scores": [_figures(score, each) for score in scores]}
        return JSONResponse(facts)


def _scores(generator: CharGenerator, values: Mapping[str, Any]) -> list[Score]:
    unknown = values.get("unknown")
    if "text" in values:
        return [generator.score(values["text"], unknown=unknown)]
    return generator.score_batch(values["texts"], unknown=unknown, end=values.get("end", False))


async def _in_thread(work: Callable[[], list[Score]]) -> list[Score]:
    """What `work` returns or raises, in a thread that the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[Score]] = loop.create_future()

    def finish(result: list[Score] | Exception) -> None:
        if done.cancelled():
            return
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)

    def run() -> None:
        result: list[Score] | Exception
        try:
            result = work()
        except Exception as error:
            result = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(finish, result)

    threading.Thread(target=run, name="scores", daemon=True).start()
    return await done


def _figures(score: Score, each: bool) -> dict[str, object]:
    figures: dict[str, object] = {**score_figures(score)}
    if each and score.log_probabilities is not None:
        figures["log_probabilities"] = score.log_probabilities.tolist()
    return figures
