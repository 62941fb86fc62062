"""A service that streams text to many clients as server-sent events (Starlette).

    pip install starlette uvicorn
    uvicorn service:app --app-dir runtime/examples
    curl -N "http://127.0.0.1:8000/stream?start=hell&length=200"

One model serves all clients: streams share its weights and nothing else. A client that goes away
ends its stream, and no stream takes longer than its deadline.
"""

import json
import os
from collections.abc import Iterator
from itertools import islice

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import chargen_ort
from chargen_ort.models import DEMO_MODEL

MODEL = chargen_ort.load(os.environ.get("CHARGEN_MODEL", DEMO_MODEL))
LONGEST, SECONDS, PIECE = 10_000, 10.0, 16


def events(stream: chargen_ort.TextStream) -> Iterator[str]:
    """The stream as events of a few characters each; leaving early closes it."""
    with stream:
        characters = iter(stream)
        while piece := "".join(islice(characters, PIECE)):
            yield f"data: {json.dumps(piece)}\n\n"
        yield f"event: end\ndata: {stream.seed}\n\n"


def stream_text(request: Request) -> Response:
    """Answer GET /stream?start=…&length=…&temperature=…&seed=… with events."""
    query = request.query_params
    try:
        stream = MODEL.stream(
            query.get("start", ""),
            min(int(query.get("length", "200")), LONGEST),
            temperature=float(query.get("temperature", "0.8")),
            seed=int(query["seed"]) if "seed" in query else None,
            timeout=SECONDS,
        )
    except ValueError as error:  # chargen's option errors are ValueErrors too
        return JSONResponse({"error": str(error)}, status_code=400)
    return StreamingResponse(events(stream), media_type="text/event-stream")


app = Starlette(routes=[Route("/stream", stream_text)])
