"""What clients ask for: the fields of each body, their limits, and how a body is read.

A row of a table is a field. From it follow its check, its message, and what /openapi.json says.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from chargen_ort.checks import number, shown_value
from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.options import (
    CONTROL_TABLE,
    MAX_PATTERN,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    TABLE,
    SamplingOverrides,
    check_stops,
)
from chargen_ort.serve.fields import (
    Field,
    flag_field,
    number_field,
    read_flag,
    refused_field,
    row_field,
    text_field,
    whole_field,
)
from chargen_ort.strict import load_object
from chargen_ort.vocabulary import UNKNOWN_POLICIES, UnknownPolicy, Vocabulary, check_policy

DEFAULT_LENGTH = 16  # the interface's
MOST_CHOICES = 128
MOST_TOP = 20
_MOST_BIAS, _MOST_PENALTY = 100.0, 2.0
_MOST_NAME = 256

TextOrTokens = str | tuple[int, ...]


class Refusal(Exception):  # noqa: N818 - what is refused is the client's
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        message: one line: the value, the limit and the cure.
        kind: the interface's type of error.
        code: what a program may tell it by.
        param: the field that it is about.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    @property
    def kind(self) -> str:
        """The interface's type of error."""
        names = {401: "authentication_error", 429: "rate_limit_error"}
        return names.get(self.status, "server_error" if self.status >= 500 else _INVALID)

    def to_bytes(self) -> bytes:
        """As JSON, for an answer."""
        return json.dumps(self.to_json()).encode()

    def to_json(self) -> dict[str, dict[str, str | None]]:
        """As the interface has it."""
        facts = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": facts}


_INVALID = "invalid_request_error"


def _prompt(most: int) -> Field:
    numbers = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    lists = {"type": "array", "items": {"anyOf": [{"type": "string"}, numbers]}}

    def read(name: str, value: object) -> object:
        several = isinstance(value, list) and value and not isinstance(value[0], int)
        prompts = cast("list[object]", value) if several else [value]
        if len(prompts) > MOST_CHOICES:
            raise OptionError(f"{name} has {len(prompts)} texts; give at most {MOST_CHOICES}")
        read_ones = tuple(_read_prompt(name, prompt) for prompt in prompts)
        if (size := sum(map(len, read_ones))) > most:
            raise OptionError(f"{name} has {size:,} characters; give at most {most:,}")
        return read_ones

    about = "What to go on from: a text, a list of tokens, or a list of either."
    return Field(about, {"anyOf": [{"type": "string"}, numbers, lists]}, read)


def _read_prompt(name: str, value: object) -> TextOrTokens:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(type(token) is int for token in value):
        return tuple(value)
    raise OptionError(f"{name} is {shown_value(value)}; give a text, tokens, or a list of either")


def _read_bias(name: str, value: object) -> object:
    if not isinstance(value, dict):
        raise OptionError(f"{name} is {shown_value(value)}; give an object of tokens and numbers")
    bias = {}
    for token, amount in value.items():
        if not token.isascii() or not token.isdecimal() or len(token) > 8:
            raise OptionError(f"{name} has the key {shown_value(token)}; give tokens, as digits")
        what = f"{name} of token {token}"
        bias[int(token)] = number(what, amount, -_MOST_BIAS, _MOST_BIAS)
    return bias


def _read_stream_options(name: str, value: object) -> object:
    if not isinstance(value, dict):
        raise OptionError(f"{name} is {shown_value(value)}; give an object")
    for key in value:
        if key not in ("include_usage", "include_obfuscation"):
            raise OptionError(f"{name} has a key that is not known: {shown_value(key)}")
        read_flag(f"{name}.{key}", value[key])
    return bool(value.get("include_usage"))


_STOP_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH}
_STOPS: Mapping[str, object] = {
    "anyOf": [_STOP_TEXT, {"type": "array", "maxItems": MAX_STOPS, "items": _STOP_TEXT}]
}
_MODEL = text_field("The model's name; /v1/models lists them. Null is the first.", _MOST_NAME)
_UNKNOWN = Field(
    "What to do with characters that the model does not know; null is the model's own setting.",
    {"enum": list(UNKNOWN_POLICIES)},
    lambda name, value: check_policy(value),
)


# each is a field of SamplingOptions and goes there as it is; a number comes from its table
SAMPLING: Mapping[str, Field] = {
    **{name: row_field(row) for name, row in {**TABLE, **CONTROL_TABLE}.items()},
    "stop": Field(
        "Texts that end the output; they are not part of it.",
        _STOPS,
        lambda name, value: check_stops(value),
    ),
    "pattern": text_field("A regular expression that prompt and output match.", MAX_PATTERN),
    "ban": Field(
        "Texts that prompt and output do not have.",
        _STOPS,
        lambda name, value: check_stops(value, "ban", "banned"),
    ),
}


def completion_fields(length: int, prompt: int) -> dict[str, Field]:
    """Those of POST /v1/completions.

    Args:
        length: characters that may be asked for.
        prompt: characters of all prompts together.
    """
    stream_options = {
        "type": "object",
        "properties": {"include_usage": {"type": "boolean"}},
    }
    return {
        "model": _MODEL,
        "prompt": _prompt(prompt),
        "max_tokens": whole_field(f"Characters to write; null is {DEFAULT_LENGTH}.", 0, length),
        "n": whole_field("Texts for each prompt.", 1, MOST_CHOICES),
        "best_of": whole_field("As many as n: no text is chosen among more.", 1, MOST_CHOICES),
        "echo": flag_field("Begin each text with its prompt."),
        "logprobs": whole_field("Score each character, and so many of the likeliest.", 0, MOST_TOP),
        "stream": flag_field("Send the text as it is written, as server-sent events."),
        "stream_options": Field(
            "With include_usage the last event tells the usage.",
            stream_options,
            _read_stream_options,
        ),
        "logit_bias": Field(
            "What is added to the scores of tokens, -100 to 100.",
            {"type": "object", "additionalProperties": {"type": "number"}},
            _read_bias,
        ),
        "presence_penalty": number_field(
            "Taken from the score of each character that was written.", _MOST_PENALTY
        ),
        "frequency_penalty": number_field(
            "Taken from it for each time that the character was written.", _MOST_PENALTY
        ),
        **SAMPLING,
        "unknown": _UNKNOWN,
        "user": text_field("Taken, and not looked at.", _MOST_NAME),
        "suffix": refused_field("suffix", {"type": "null"}),
        "exact": refused_field("exact", {"type": "null"}),
    }


def score_fields(prompt: int) -> dict[str, Field]:
    """Those of POST /score; `prompt` is how many characters may be scored."""

    def read_texts(name: str, value: object) -> object:
        if not isinstance(value, list) or not value:
            raise OptionError(f"{name} is {shown_value(value)}; give a list of texts")
        if any(not isinstance(text, str) for text in value):
            raise OptionError(f"{name} holds what is no text")
        if (size := sum(map(len, value))) > prompt or len(value) > prompt:
            raise OptionError(f"{name} has {size:,} characters; give at most {prompt:,}")
        return value

    texts = {"type": "array", "minItems": 1, "items": {"type": "string"}}
    return {
        "model": _MODEL,
        "text": text_field("A text; each character but its first is scored.", prompt),
        "texts": Field("Texts of their own; each character is scored.", texts, read_texts),
        "end": flag_field("Score the line end after each of the texts too."),
        "per_character": flag_field("Tell the log probability of each character."),
        "unknown": _UNKNOWN,
    }


def tokenize_fields(prompt: int) -> dict[str, Field]:
    """Those of POST /tokenize; `prompt` is how many characters a text may have."""
    return {
        "model": _MODEL,
        "prompt": text_field("A text.", prompt),
        "unknown": _UNKNOWN,
        "add_special_tokens": flag_field("Taken, and not looked at."),
    }


def detokenize_fields(prompt: int) -> dict[str, Field]:
    """Those of POST /detokenize; `prompt` is how many tokens a text may have."""

    def read(name: str, value: object) -> object:
        if not isinstance(value, list) or not all(type(token) is int for token in value):
            raise OptionError(f"{name} is {shown_value(value)}; give a list of tokens")
        if len(value) > prompt:
            raise OptionError(f"{name} has {len(value):,} tokens; give at most {prompt:,}")
        return value

    numbers = {"type": "array", "maxItems": prompt, "items": {"type": "integer", "minimum": 0}}
    return {"model": _MODEL, "tokens": Field("The tokens of a text.", numbers, read)}


def read_fields(fields: Mapping[str, Field], body: bytes) -> dict[str, Any]:
    """The values in a body; what is null or not there is left out.

    Raises:
        Refusal: not strict JSON, a field that is not known, or a value that its row refuses.
    """
    try:
        found = load_object(body.decode(), "the body", counted=False)
    except UnicodeDecodeError:
        raise Refusal(400, "the body is not UTF-8; send JSON in UTF-8", "invalid_json") from None
    except ArtifactError as error:
        raise Refusal(400, str(error), "invalid_json") from None
    values = {}
    for name, value in found.items():
        if name not in fields:
            shown = shown_value(name)
            raise Refusal(400, f"{shown} is no field; leave it out", "unknown_field", name[:64])
        if value is not None:
            try:
                values[name] = fields[name].read(name, value)
            except OptionError as error:
                raise Refusal(400, str(error), "invalid_value", name) from None
    return values


def check_tokens(vocabulary: Vocabulary, tokens: Iterable[int], name: str) -> None:
    """Refuse tokens that a model does not have; `name` is the field's.

    Raises:
        Refusal: there is one.
    """
    most = len(vocabulary) - 1
    if not all(0 <= token <= most for token in tokens):
        message = f"{name} has a token that the model does not; give 0 to {most}"
        raise Refusal(400, message, "invalid_value", name)


@dataclass(frozen=True)
class Completion:
    """What a body of POST /v1/completions asks for; the names are the interface's."""

    model: str | None
    prompts: tuple[TextOrTokens, ...]
    max_tokens: int
    n: int
    echo: bool
    logprobs: int | None
    stream: bool
    include_usage: bool
    sampling: SamplingOverrides
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    presence_penalty: float = 0
    frequency_penalty: float = 0
    unknown: UnknownPolicy | None = None


def read_completion(fields: Mapping[str, Field], body: bytes, most: int) -> Completion:
    """What a body asks for.

    Args:
        fields: as `completion_fields` gives them.
        body: of the request.
        most: characters of an answer that is not streamed, and scores of characters.

    Raises:
        Refusal: a value is out of its limits, or contradicts another.
    """
    values = read_fields(fields, body)
    prompts: Sequence[TextOrTokens] = values.get("prompt", ("",))
    count = values.get("n", 1)
    if values.get("best_of", count) != count:
        cure = f"best_of is {values['best_of']}; only n, {count}, is done here: leave it out"
        raise Refusal(400, cure, "invalid_value", "best_of")
    if count * len(prompts) > MOST_CHOICES:
        message = f"n texts for each prompt are {count * len(prompts)}; ask for {MOST_CHOICES}"
        raise Refusal(400, f"{message} at most", "invalid_value", "n")
    if "stream_options" in values and not values.get("stream"):
        message = "stream_options is for streams; leave it out, or set stream to true"
        raise Refusal(400, message, "invalid_value", "stream_options")
    length, scored = values.get("max_tokens", DEFAULT_LENGTH), values.get("logprobs", -1) + 1
    size = length * count * len(prompts) * (1 + scored)
    if size > most and not values.get("stream"):
        message = f"the texts and scores of an answer come to {size:,}; ask for {most:,} at most"
        raise Refusal(400, f"{message}, or set stream to true", "invalid_value", "max_tokens")
    chosen = {name: values[name] for name in SAMPLING if name in values}
    return Completion(
        model=values.get("model"),
        prompts=tuple(prompts),
        max_tokens=length,
        n=count,
        echo=values.get("echo", False),
        logprobs=values.get("logprobs"),
        stream=values.get("stream", False),
        include_usage=values.get("stream_options", False),
        sampling=cast("SamplingOverrides", chosen),
        logit_bias=values.get("logit_bias", {}),
        presence_penalty=values.get("presence_penalty", 0.0),
        frequency_penalty=values.get("frequency_penalty", 0.0),
        unknown=values.get("unknown"),
    )
