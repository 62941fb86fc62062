"""Writes runtime/web: what it shares with Python (src/tables.js), and all of src/ as chargen.js.

    make web-tools && python -m tests.tools.web

The tables are graphs, records, sampling options and limits, none of which is written by hand twice.

The graphs of all sizes become one description: a graph of sizes that are prime is made, its numbers
are written as products of those sizes, and what repeats from layer to layer is written once, with
``#`` for the layer and ``@`` for the number of layers.
"""

import functools
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chargen_ort import artifact, document_filter, form, options, pieces, snapshots, strict
from chargen_ort.certificate import Certificate
from chargen_ort.config import Config
from chargen_ort.fields import LINE_PATTERN, MAX_LINE
from chargen_ort.graphs import VARIANTS, int8, spec
from chargen_ort.graphs.spec import FORMAT, Graph, Node, Sizes, Tensor
from chargen_ort.provenance import Training
from chargen_ort.snapshots import Header
from tests.tools.schemas import schema_of

ROOT = Path(__file__).parent.parent.parent
MODULE, SOURCE = ROOT / "runtime/web/chargen.js", ROOT / "runtime/web/src"
TERSER = ROOT / "runtime/web/node_modules/.bin/terser"
HEAD = """\
// Run models of chargen in browsers, workers, Node and Deno, with no other code. MIT licence.
// src/ has it to be read, see runtime/WEB.md; python -m tests.tools.web made this of it (sha256 #).
"""

_DECLARED = r"^(?:async )?(?:const|let|class|function\*?) (\w+)"

_LETTERS = {"V": 1009, "E": 2003, "H": 4001}
_LAYERS = 9
_LARGEST = (1 << 63) - 1
_SHA256 = {"type": "string", "minLength": 64, "maxLength": 64, "pattern": "^[0-9a-f]{64}$"}
_NAMED = {  # what many keys are: written once, as the module is to be small
    "LINE": {"type": "string", "maxLength": MAX_LINE, "pattern": f"^{LINE_PATTERN}$"},
    "SHA256": _SHA256,
    "COUNT": {"type": "integer", "minimum": 0, "maximum": _LARGEST},
    "NUMBER": {"type": "integer", "minimum": 1, "maximum": _LARGEST},
    "NATS": {"type": "number", "minimum": 0},
}
_IMPLIED = ("description", "required", "additionalProperties", "propertyNames")
_EXACT = 1 << 53  # beyond it JavaScript's numbers are not whole

Item = Any  # of a description: text, a number, or a list of items


def tables() -> str:
    """The file tables.js."""
    records = {"config": Config, "training": Training, "parity": Certificate, "header": Header}
    parts = {
        "LIMITS": _limits(),
        "OPTIONS": {n: asdict(r) | {"range": r.range} for n, r in options.TABLE.items()},
        **_NAMED,
        "RECORDS": {name: _slim(schema_of(record)) for name, record in records.items()},
        "TOLERANCES": {name: asdict(variant.tolerance) for name, variant in VARIANTS.items()},
        "GRAPHS": {name: [described(name, 1), described(name, _LAYERS)] for name in VARIANTS},
    }
    for row in parts["OPTIONS"].values():
        del row["help"]
    lines = [f"/** @type {{any}} */\nexport const {n} = {_literal(v)};" for n, v in parts.items()]
    head = "// What is the same in Python; made by python -m tests.tools.web"
    begin = list(parts).index("RECORDS")
    for name, value in _NAMED.items():
        literal = _literal(value)
        lines[begin:] = [text.replace(literal, name) for text in lines[begin:]]
    return "\n\n".join([head, *lines]) + "\n"


def _limits() -> dict[str, Item]:
    return {
        "format": FORMAT,
        "ir": spec.IR_VERSION,
        "opset": spec.OPSET,
        "producer": spec.PRODUCER,
        "version": spec.PRODUCER_VERSION,
        "keys": artifact.KEYS,
        "filtered": document_filter.MAX_IN_FILE,
        "flat": artifact.FLAT_KEYS,
        "file": artifact.MAX_FILE_BYTES,
        "metadata": form.MAX_METADATA_BYTES,
        "entries": form.MAX_METADATA_ENTRIES,
        "fields": form.MAX_FIELDS,
        "weight": form.MAX_WEIGHT,
        "table": int8.MAX_TABLE,
        "depth": strict.MAX_DEPTH,
        "openings": strict.MAX_OPENINGS,
        "colons": strict.MAX_COLONS,
        "digits": strict.MAX_DIGITS,
        "length": options.MAX_LENGTH,
        "row": options.ROW_LIMIT - 1,
        "stops": options.MAX_STOPS,
        "stop": options.MAX_STOP_LENGTH,
        "letters": pieces.LETTERS,
        "run": pieces.MAX_RUN,
        "magic": snapshots.MAGIC.decode(),
        "controls": options.CONTROLS,
    }


def _slim(schema: Item) -> Item:
    """A schema without what is told again, is the same everywhere, or is for people."""
    if isinstance(schema, list):
        return [_slim(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties")
    kept = {name: _slim(value) for name, value in schema.items() if name not in _IMPLIED}
    if properties is not None:  # a property may have the name of a keyword
        kept["properties"] = {name: _slim(value) for name, value in properties.items()}
    if isinstance(schema.get("additionalProperties"), dict):
        kept["values"] = _slim(schema["additionalProperties"])
    return kept


def described(precision: str, num_layers: int) -> Item:
    """The graph of a precision for one layer, or for any larger number."""
    sizes = Sizes(*_LETTERS.values(), num_layers)
    return _graph(VARIANTS[precision].graph(sizes), num_layers)


def _graph(graph: Graph, layers: int) -> Item:
    values = (graph.inputs, graph.outputs)
    return [
        graph.name,
        graph.doc,
        _folded([_node(node, layers) for node in graph.nodes], layers),
        _folded([_tensor(tensor, layers) for tensor in graph.tensors], layers),
        *([[v.name, v.kind, _words(v.shape, layers)] for v in part] for part in values),
    ]


def _node(node: Node, layers: int) -> Item:
    attributes = {
        name: _graph(value, layers)
        if isinstance(value, Graph)
        else list(value)
        if isinstance(value, tuple)
        else _number(value, layers)
        for name, value in sorted(node.attributes.items())
    }
    names = _words(node.inputs, layers), _words(node.outputs, layers)
    rest = [attributes, node.doc] if node.doc else [attributes] if attributes else []
    return [node.name, node.op, *names, *rest]


def _tensor(tensor: Tensor, layers: int) -> Item:
    value = [] if tensor.value is None else [_words(tensor.value, layers)]
    return [tensor.name, tensor.kind, _words(tensor.shape, layers), *value]


def _number(value: float, layers: int) -> str:
    """A number as a product of letters and what is left: ``H*3``."""
    factors = []
    for letter, size in (*_LETTERS.items(), ("L", layers)):
        if value and size > 1 and isinstance(value, int) and value % size == 0:
            value //= size
            factors.append(letter)
    return "*".join([*factors, *([repr(value)] if value != 1 or not factors else [])])


def _words(values: Sequence[str | float], layers: int) -> str:
    """Names and numbers as one text; what repeats stands as ``*0:a,b`` for all layers from 0."""
    words = [each if isinstance(each, str) else _number(each, layers) for each in values]
    folded = _folded(words, layers, str)  # other names are changed where the node stands
    return " ".join(
        each if isinstance(each, str) else f"*{each[1]}:{','.join(each[2])}" for each in folded
    )


def _folded(
    items: list[Item], layers: int, rename: Callable[[int], str] | None = None
) -> list[Item]:
    """The items, those that repeat from layer to layer as ``["*", first layer, items]``.

    `rename` gives the layers in the names of others; by default late ones count from the last.
    """
    rename = rename or (lambda n: str(n) if n < 2 else _last(n, layers))
    folded: list[Item] = []
    at = 0
    while at < len(items):
        period, repeats = _period(items[at:], layers) if layers > 1 else (0, 0)
        if repeats:
            first = layers - repeats
            folded.append(
                ["*", first, _renamed(items[at : at + period], functools.partial(_of, first))]
            )
            at += period * repeats
        else:
            folded.append(_renamed(items[at], rename))
            at += 1
    return folded


def _of(layer: int, number: int) -> str:
    return "#" if number == layer else f"#{number - layer:+}"


def _last(number: int, layers: int) -> str:
    return "@" if number == layers else f"@{number - layers:+}"


def _period(items: list[Item], layers: int) -> tuple[int, int]:
    """How many items repeat from here on for all layers, or all but the first, and how often."""
    for period in range(1, len(items) // (layers - 1) + 1):
        block, repeats = items[:period], 1
        while items[repeats * period :][:period] == _renamed(block, _raised(repeats)):
            repeats += 1
        if repeats >= layers - 1:
            return period, repeats
    return 0, 0


def _raised(by: int) -> Callable[[int], str]:
    return lambda layer: str(layer + by)


def _renamed(item: Item, rename: Callable[[int], str]) -> Item:
    """An item whose names have other layers."""
    if isinstance(item, list):
        return [_renamed(each, rename) for each in item]
    if isinstance(item, dict):
        return {name: _renamed(value, rename) for name, value in item.items()}
    if isinstance(item, str):
        return re.sub(r"(?<=layer_)\d+", lambda found: rename(int(found[0])), item)
    return item


def _literal(value: Item) -> str:
    """A value as JavaScript."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_literal(each)}" for name, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_literal, value)) + "]"
    whole = isinstance(value, int) and abs(value) > _EXACT
    return f"{value}n" if whole else json.dumps(value, ensure_ascii=False)


def bundle() -> str:
    """The folder as one module: imports first, no import or export but at the end."""
    order: list[str] = []
    _after("index.js", order)
    bodies = [_body((SOURCE / name).read_text()) for name in order[:-1]]
    declared = re.findall(_DECLARED, "".join(bodies), re.MULTILINE)
    assert len(declared) == len(set(declared)), "two files declare the same name"
    return "".join([*bodies, f"export {{ {', '.join(_public())} }};\n"])


def head() -> str:
    """The first lines of chargen.js, by which it is known what it was made of."""
    return HEAD.replace("#", hashlib.sha256(bundle().encode()).hexdigest())


def shortened() -> str:
    """The file chargen.js: the module, shortened by terser but for the names that are public."""
    if not TERSER.exists():
        sys.exit("terser is not installed; make web-tools brings it")
    public = _public()
    command = [TERSER, "--module", "--compress", "--keep-classnames"]
    command += ["--mangle", f"reserved=[{','.join(public)}]"]
    made = subprocess.run(command, input=bundle(), capture_output=True, text=True, check=True)
    code = re.sub(r"export\{[^}]*\};?\s*$", "", made.stdout)
    return f"{head()}{code}\nexport {{ {', '.join(public)} }};\n"


def _public() -> list[str]:
    exported = re.findall(r"(?<=export \{ ).+(?= \})", (SOURCE / "index.js").read_text())
    return ", ".join(exported).split(", ")


def _after(name: str, order: list[str]) -> None:
    """Append a file to `order` after those that it imports."""
    source = (SOURCE / name).read_text()
    for imported in re.findall(r"^(?:import|export) [^;]*from \"\./(.+)\";$", source, re.MULTILINE):
        if imported not in order:
            _after(imported, order)
    order.append(name)


def _body(source: str) -> str:
    source = re.sub(r"^import [^;]*;\n", "", source, flags=re.MULTILINE)
    source = re.sub(r"^export ", "", source, flags=re.MULTILINE)
    return re.sub(r"^/\*\* @import .*\n", "", source, flags=re.MULTILINE)


def main() -> None:
    """Write them; to a path that is given also the module as it is read, for its types."""
    (SOURCE / "tables.js").write_text(tables())
    MODULE.write_text(shortened())
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(bundle())


if __name__ == "__main__":
    main()
