"""Strict records: frozen dataclasses that check themselves, and read and write their own JSON.

A record declares the type and the limits of each field once, in its annotation. From that this
module makes the check that constructor and reader apply; the tests make the JSON Schemas of it.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, FrozenInstanceError, dataclass, fields
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from chargen_ort.checks import instance, json_object, number, shown_value, whole_number
from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.options import SamplingOptions

MAX_DEPTH = 16
MAX_OPENINGS = 4096  # brackets: bounds the memory that the values need
MAX_COLONS = 16384  # and this what keys need
MAX_DIGITS = 20


@dataclass(frozen=True)
class Within:
    """What a value is limited to: a number itself, a text or a list by its length.

    Attributes:
        low, high: the limits, both allowed.
        pattern: of a whole text, and `what` says in words what that is.
        unique: whether a list has no value twice.
    """

    low: float = 0
    high: float = math.inf
    pattern: str = ""
    what: str = ""
    unique: bool = False


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """The base of all records: its subclasses are frozen dataclasses that check every value.

    Numbers may be NumPy's, tuples may be given as lists, and parts as their JSON objects; what is
    kept are plain numbers, tuples and records. The methods are written out once, here, since the
    dataclass module would compile them anew for each class, each time a program starts.

    Raises:
        OptionError: a value of another kind or out of its limits, or one that contradicts another.
        TypeError: a field without a default is missing, or there is no such field.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls) -> None:
        dataclass(init=False, repr=False, eq=False)(cls)

    def __init__(self, **values: object) -> None:
        name = type(self).__name__
        if unknown := values.keys() - self.__dataclass_fields__.keys():
            raise TypeError(f"{name} has no field {min(unknown)}")
        kind = cast(Any, type(self))  # mypy does not see that a class is hashable
        for field, read in readers(kind).items():
            if field not in values and not hasattr(type(self), field):
                raise TypeError(f"{name} needs a value for {field}")
            value = values[field] if field in values else getattr(type(self), field)
            object.__setattr__(self, field, read(field, value))
        if problem := self.contradiction():
            raise OptionError(problem)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to {name}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete {name}")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self._values().items())
        return f"{type(self).__name__}({values})"

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def contradiction(self) -> str:
        """What one value says against another, in words; empty where nothing does."""
        return ""

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object: every key, null where there is nothing."""
        return {name: _plain(value) for name, value in self._values().items()}

    def dump(self) -> str:
        """The record as JSON text, the same for equal records: ASCII, keys in order, no spaces."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))


R = TypeVar("R", bound=Record)
Reader = Callable[[str, Any], Any]


def parse_record(kind: type[R], text: str, where: str) -> R:
    """The record that JSON text holds; `where` says in messages what the text is.

    Raises:
        ArtifactError: not strict JSON, see `load_object`; a key that is missing or not known; or a
            value that the record refuses.
    """
    return record_of(kind, load_object(text, where), where)


def record_of(kind: type[R], value: object, where: str) -> R:
    """`parse_record`, of a JSON value."""
    try:
        return _build(kind, where, value)
    except OptionError as error:
        raise ArtifactError(str(error)) from None


def _build(kind: type[R], name: str, value: object) -> R:
    values = json_object(name, value, kind.__dataclass_fields__)
    try:
        return kind(**values)
    except OptionError as error:
        raise OptionError(f"{name}: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, SamplingOptions):
        return value.to_json()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


@functools.cache
def readers(kind: type[Record]) -> Mapping[str, Reader]:
    """How each field of a record is read: functions of its name and a value that return it."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: _reader(hints[field.name]) for field in fields(kind)}


def _reader(hint: Any, limits: Within = Within()) -> Reader:
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return _reader(*parts)
    if kind in (UnionType, Union):
        return _read_one_of(parts)
    if kind is Literal:
        return functools.partial(_read_choice, parts)
    if kind is tuple:
        return functools.partial(_read_list, _reader(parts[0]), limits)
    if kind is Mapping:
        return functools.partial(_read_mapping, _reader(parts[1]), limits)
    if kind is SamplingOptions:
        return _read_sampling
    if issubclass(kind, Record):
        return lambda name, value: value if type(value) is kind else _build(kind, name, value)
    return functools.partial(_READ[kind], limits)


def _read_one_of(kinds: tuple[Any, ...]) -> Reader:
    """Of a union: one kind and perhaps None, or several that the type of a value tells apart."""
    by_type = {
        get_args(kind)[0] if get_origin(kind) is Annotated else kind: _reader(kind)
        for kind in kinds
        if kind is not NoneType
    }
    only = next(iter(by_type.values())) if len(by_type) == 1 else None

    def read(name: str, value: object) -> object:
        if value is None and NoneType in kinds:
            return None
        if only is not None:
            return only(name, value)
        if type(value) not in by_type:
            raise OptionError(f"{name} is {shown_value(value)}; give a text, a number or a boolean")
        return by_type[type(value)](name, value)

    return read


def _read_choice(choices: tuple[str, ...], name: str, value: object) -> object:
    if not isinstance(value, str) or value not in choices:
        raise OptionError(f"{name} is {shown_value(value)}; it must be one of {choices}")
    return value


def _read_list(item: Reader, limits: Within, name: str, value: object) -> tuple[object, ...]:
    if not isinstance(value, (list, tuple)):
        raise OptionError(f"{name} is {shown_value(value)}; it must be a list")
    _check_size(name, len(value), "values", limits)
    try:
        values = tuple([item(name, each) for each in value])
    except OptionError:  # again with names, which would cost too much where all is well
        for index, each in enumerate(value):
            item(f"{name}[{index}]", each)
        raise
    if limits.unique and len(set(values)) != len(values):
        raise OptionError(f"{name} has a value twice")
    return values


def _read_mapping(item: Reader, limits: Within, name: str, value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise OptionError(f"{name} is {shown_value(value)}; it must be an object")
    _check_size(name, len(value), "keys", limits)
    return {
        _read_text(Within(0, 64), f"a key of {name}", key): item(f"{name}: {key:.64}", each)
        for key, each in value.items()
    }


def _read_sampling(name: str, value: object) -> SamplingOptions:
    return value if isinstance(value, SamplingOptions) else SamplingOptions.from_json(name, value)


def _read_integer(limits: Within, name: str, value: object) -> int:
    return whole_number(name, value, int(limits.low), int(limits.high))


def _read_float(limits: Within, name: str, value: object) -> float:
    # the plain case first: a certificate has hundreds of logits
    if type(value) is float and limits.low <= value <= limits.high and math.isfinite(value):
        return value
    return number(name, value, limits.low, limits.high)


def _read_text(limits: Within, name: str, value: object) -> str:
    instance(name, value, str)
    text = str(value)
    _check_size(name, len(text), "characters", limits)
    if limits.pattern and not re.fullmatch(limits.pattern, text):
        raise OptionError(f"{name} is {shown_value(text)}; it must be {limits.what}")
    return text


def _read_boolean(limits: Within, name: str, value: object) -> object:
    instance(name, value, bool)
    return value


_READ: Mapping[type, Callable[[Within, str, object], object]] = {
    int: _read_integer,
    float: _read_float,
    str: _read_text,
    bool: _read_boolean,
}


def _check_size(name: str, size: int, unit: str, limits: Within) -> None:
    if not limits.low <= size <= limits.high:
        raise OptionError(f"{name} has {size} {unit}; give {_range(limits)}")


def _range(limits: Within) -> str:
    if limits.high == math.inf:
        return f"{limits.low:g} or more"
    return f"{limits.low:g} to {limits.high:g}"


def load_object(text: str, where: str, counted: bool = True) -> dict[str, Any]:
    """The JSON object in a text that nobody vouches for; `where` says in messages what it is.

    Args:
        text: whose length is limited already.
        where: what it is.
        counted: refuse more brackets and colons than records have; texts may hold any number.

    Raises:
        ArtifactError: not JSON, not an object, a key twice, a number that is not finite or absurdly
            long, a lone surrogate, or too much or too deep.
    """
    if counted and text.count("[") + text.count("{") > MAX_OPENINGS:
        raise ArtifactError(f"{where} has more than {MAX_OPENINGS} lists and objects")
    if counted and text.count(":") > MAX_COLONS:
        raise ArtifactError(f"{where} has more than {MAX_COLONS} keys")
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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ArtifactError(f"the key {shown_value(key)} appears twice")
        value[key] = item
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ArtifactError(f"{name} is not a number that JSON has")


def _short_integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ArtifactError(f"an integer of {len(digits)} digits; at most {MAX_DIGITS} are read")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if len(digits) > 64 or not math.isfinite(value):
        raise ArtifactError(f"the number {shown_value(digits)} is too long or too large")
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
