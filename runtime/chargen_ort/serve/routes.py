"""The routes beside the completions: models, scores, tokens, and how the server is."""

import asyncio
import base64
import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from chargen_ort.errors import OptionError, UnknownCharacterError
from chargen_ort.generator import CharGenerator
from chargen_ort.lines import score_figures
from chargen_ort.scoring import Score
from chargen_ort.serve.requests import Refusal, read_fields, score_fields, tokenize_fields
from chargen_ort.serve.service import Service, read_body

_PAGE = Path(__file__).with_name("page.html")


class Routes:
    """Answers to the smaller requests.

    Args:
        service: the state of the server.

    Attributes:
        score_fields, tokenize_fields: of their bodies.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.score_fields = score_fields(service.limits.prompt)
        self.tokenize_fields = tokenize_fields(service.limits.prompt)
        self._scoring = asyncio.Semaphore(1)  # one core is for what is written
        self._page = _PAGE.read_text(encoding="utf-8")

    async def page(self, request: Request) -> Response:
        """GET /: a page that writes with this server."""
        return HTMLResponse(self._page, headers={"Content-Security-Policy": _policy(self._page)})

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
        most = self._service.limits.prompt
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": most})

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
                    raise Refusal(400, str(error), "invalid_value", "text") from None
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


def _policy(page: str) -> str:
    """What the page may load: its own script and style, and the server's answers."""
    parts = ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"]
    for kind in ("script", "style"):
        found = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in found]
        parts.append(" ".join([f"{kind}-src", *[f"'sha256-{each.decode()}'" for each in hashes]]))
    return "; ".join(parts)
