"""The published JSON Schemas, made of the records; ``python -m tests.tools.schemas`` writes them.

Descriptions are the lines under ``Attributes:`` of each record's docstring.
"""

import inspect
import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import chargen_ort
from chargen_ort.certificate import Certificate
from chargen_ort.config import Config
from chargen_ort.options import MAX_STOP_LENGTH, MAX_STOPS, TABLE, SamplingOptions
from chargen_ort.provenance import Training
from chargen_ort.strict import Record, Within

FOLDER = Path(chargen_ort.__file__).with_name("schemas")
SCHEMAS = {"config": Config, "training": Training, "parity": Certificate}
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_STOPS = {
    "description": "texts that end the output, of the vocabulary's characters",
    "type": "array",
    "maxItems": MAX_STOPS,
    "items": {"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH},
}


def schema_text(name: str) -> str:
    """The file of this name: config, training or parity."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"chargen.{name}",
    }
    return json.dumps(head | schema_of(SCHEMAS[name]), indent=2) + "\n"


def schema_of(record: type[Record]) -> dict[str, Any]:
    """The JSON Schema of a record."""
    hints = get_type_hints(record, include_extras=True)
    about = descriptions(record)
    return _object(
        {f.name: {"description": about[f.name]} | _schema(hints[f.name]) for f in fields(record)}
    )


def descriptions(record: type[Record]) -> dict[str, str]:
    """What a record's docstring says of each field."""
    section = inspect.cleandoc(record.__doc__ or "").split("Attributes:\n")[1].split("\n\n")[0]
    return dict(re.findall(r"^    (\w+): (.+)$", section, re.MULTILINE))


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": sorted(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def _schema(hint: Any, limits: Within | None = None) -> dict[str, Any]:
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return _schema(*parts)
    if kind in (UnionType, Union):
        return {"anyOf": [_schema(part) for part in parts]}
    if kind is NoneType:
        return {"type": "null"}
    if kind is Literal:
        return {"enum": list(parts)}
    if kind is tuple:
        unique = {"uniqueItems": True} if limits.unique else {}
        items = {"items": _schema(parts[0])}
        return {"type": "array"} | _limits(limits, "minItems", "maxItems") | unique | items
    if kind is Mapping:
        size = _limits(limits, "minProperties", "maxProperties")
        return {
            "type": "object",
            **size,
            "propertyNames": {"maxLength": 64},
            "additionalProperties": _schema(parts[1]),
        }
    if kind in _TYPES:
        names = ("minLength", "maxLength") if kind is str else ("minimum", "maximum")
        pattern = {"pattern": f"^{limits.pattern}$"} if limits and limits.pattern else {}
        return {"type": _TYPES[kind]} | _limits(limits, *names) | pattern
    return _sampling() if kind is SamplingOptions else schema_of(kind)


def _sampling() -> dict[str, Any]:
    rows = {name: {"description": TABLE[name].help} | TABLE[name].schema for name in TABLE}
    names = SamplingOptions().to_json()
    return _object({name: rows.get(name, _STOPS) for name in names})


def _limits(limits: Within | None, low: str, high: str) -> dict[str, float]:
    found = {low: limits.low, high: limits.high} if limits else {}
    if low != "minimum" and found.get(low) == 0:  # no length is below
        del found[low]
    return {name: limit for name, limit in found.items() if math.isfinite(limit)}


def main() -> None:
    """Write them all."""
    for name in SCHEMAS:
        (FOLDER / f"{name}.json").write_text(schema_text(name), encoding="utf-8")


if __name__ == "__main__":
    main()
