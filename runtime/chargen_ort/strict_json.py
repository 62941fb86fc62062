"""JSON from a file that nobody vouches for: read strictly, then held against a schema.

The schemas are the JSON Schema files beside this module; `check` knows as much of JSON Schema as
they use, so that the runtime needs no package for it. The tests compare it with jsonschema.
"""

import functools
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from chargen_ort.errors import ArtifactError

MAX_DEPTH = 16
_MAX_OPENINGS = 4096  # brackets: bounds the memory that the values need
_MAX_COLONS = 16384  # and this what keys need
_MAX_DIGITS = 20
_SCHEMAS = Path(__file__).with_name("schemas")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def load_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object in `text`; `where` says in messages what it is.

    Raises:
        ArtifactError: not JSON, not an object, a key twice, a number that is not finite or absurdly
            long, a lone surrogate, or nested too deeply.
    """
    if text.count("[") + text.count("{") > _MAX_OPENINGS:
        raise ArtifactError(f"{where} has more than {_MAX_OPENINGS} lists and objects")
    if text.count(":") > _MAX_COLONS:
        raise ArtifactError(f"{where} has more than {_MAX_COLONS} keys")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_short_integer,
            parse_float=_finite,
        )
    except RecursionError:
        raise ArtifactError(f"{where} is nested more than {MAX_DEPTH} deep") from None
    except ArtifactError as error:
        raise ArtifactError(f"{where}: {error}") from None
    except ValueError as error:
        raise ArtifactError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{where} is not a JSON object")
    _check_texts(value, where)
    return value


def check(value: object, schema: Mapping[str, Any], where: str) -> None:
    """Hold a value against a schema.

    Raises:
        ArtifactError: it does not match; the message says where.
    """
    kinds = schema.get("type", [])
    names = [kinds] if isinstance(kinds, str) else kinds
    if names and not any(_is(value, name) for name in names):
        raise ArtifactError(f"{where} is {_brief(value)}; it must be {' or '.join(names)}")
    if "enum" in schema and value not in schema["enum"]:
        raise ArtifactError(f"{where} is {_brief(value)}; it must be one of {schema['enum']}")
    if isinstance(value, str):
        _check_text(value, schema, where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(value, schema, where)
    elif isinstance(value, list):
        _check_size(len(value), schema, ("minItems", "maxItems"), f"{where} has", "values")
        for index, item in enumerate(value if "items" in schema else ()):
            check(item, schema["items"], f"{where}[{index}]")
        if schema.get("uniqueItems") and len(set(value)) != len(value):
            raise ArtifactError(f"{where} has a value twice")
    elif isinstance(value, dict):
        _check_object(value, schema, where)


@functools.cache
def schema(name: str) -> Mapping[str, Any]:
    """The schema of this name: config, training or parity."""
    value: dict[str, Any] = json.loads((_SCHEMAS / f"{name}.json").read_text("utf-8"))
    return value


def _check_object(value: dict[str, Any], schema: Mapping[str, Any], where: str) -> None:
    properties = schema.get("properties", {})
    missing = [key for key in schema.get("required", ()) if key not in value]
    if missing:
        raise ArtifactError(f"{where} lacks {', '.join(missing)}")
    for key, item in value.items():
        if key in properties:
            check(item, properties[key], f"{where}: {key}")
        elif schema.get("additionalProperties") is False:
            raise ArtifactError(f"{where} has a key that is not known: {_brief(key)}")


def _check_text(value: str, schema: Mapping[str, Any], where: str) -> None:
    _check_size(len(value), schema, ("minLength", "maxLength"), f"{where} has", "characters")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        raise ArtifactError(f"{where} is {_brief(value)}; it must match {schema['pattern']}")


def _check_number(value: float, schema: Mapping[str, Any], where: str) -> None:
    _check_size(value, schema, ("minimum", "maximum"), f"{where} is", "")
    if "exclusiveMinimum" in schema and not value > schema["exclusiveMinimum"]:
        raise ArtifactError(f"{where} is {value}; it must be above {schema['exclusiveMinimum']}")


def _check_size(
    size: float, schema: Mapping[str, Any], limits: tuple[str, str], what: str, unit: str
) -> None:
    low, high = schema.get(limits[0], -math.inf), schema.get(limits[1], math.inf)
    if not low <= size <= high:
        bounds = f"{low} to {high}"
        if -math.inf in (low, -high):
            bounds = f"at most {high}" if low == -math.inf else f"at least {low}"
        raise ArtifactError(f"{what} {size} {unit}".rstrip() + f"; allowed is {bounds}")


def _is(value: object, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ArtifactError(f"the key {_brief(twice)} appears twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ArtifactError(f"{name} is not a number that JSON has")


def _short_integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ArtifactError(f"an integer of {len(digits)} digits; at most {_MAX_DIGITS} are read")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if len(digits) > 64 or not math.isfinite(value):
        raise ArtifactError(f"the number {_brief(digits)} is too long or too large")
    return value


def _check_texts(value: object, where: str) -> None:
    """Refuse lone surrogates and deep nesting, without recursion."""
    waiting, depth = [value], 0
    texts: list[str] = []
    while waiting:
        depth += 1
        if depth > MAX_DEPTH:
            raise ArtifactError(f"{where} is nested more than {MAX_DEPTH} deep")
        inner: list[object] = []
        for item in waiting:
            if isinstance(item, str):
                texts.append(item)
            elif isinstance(item, dict):
                texts.extend(item)
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        waiting = inner
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        raise ArtifactError(f"{where} has a lone surrogate, which no text has") from None


def _brief(value: object) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = ascii(value)
    return text if len(text) <= 60 else text[:60] + "…"
