"""The description of the interface that /openapi.json gives, made of the tables of fields."""

from collections.abc import Mapping

from chargen_ort._version import __version__
from chargen_ort.serve.fields import Field

Fields = Mapping[str, Field]
Json = dict[str, object]

_ERROR: Json = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_GETS = {
    "/": "A page that writes with this server.",
    "/health": "The process lives; needs no key.",
    "/ready": "Requests are taken.",
    "/tokenizer_info": "What stands before a text of the first model.",
    "/metrics": "Counts, for Prometheus.",
    "/v1/models": "The models.",
    "/v1/models/{name}": "One of them.",
    "/v1/models/{name}/card": "What is in its file, as chargen-ort info --json tells it.",
}


def describe_api(completion: Fields, score: Fields, tokenize: Fields, detokenize: Fields) -> Json:
    """The whole description.

    Args:
        completion, score, tokenize, detokenize: the fields of the bodies of these routes.
    """
    posts = {
        "/v1/completions": ("Write on from prompts.", completion),
        "/score": ("How likely the model finds texts, in nats.", score),
        "/tokenize": ("The tokens of a text.", tokenize),
        "/detokenize": ("The text of tokens.", detokenize),
    }
    paths: Json = {path: {"get": _get(path, summary)} for path, summary in _GETS.items()}
    paths |= {path: {"post": _post(*facts)} for path, facts in posts.items()}
    key = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "chargen-ort serve", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"key": key}, "schemas": {"Error": _ERROR}},
        "security": [{"key": []}],
    }


def _get(path: str, summary: str) -> Json:
    found: Json = {"summary": summary, "responses": _responses()}
    if "{name}" in path:
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        found["parameters"] = [name]
    return found


def _post(summary: str, fields: Fields) -> Json:
    properties = {name: _property(field) for name, field in fields.items()}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"summary": summary, "requestBody": body, "responses": _responses()}


def _property(field: Field) -> Json:
    return {"description": field.help, "anyOf": [dict(field.schema), {"type": "null"}]}


def _responses() -> Json:
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    return {
        "200": {"description": "The answer."},
        "4XX": {"description": "What is wrong with the request.", **error},
        "5XX": {"description": "What the server cannot do now.", **error},
    }
