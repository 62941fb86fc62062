"""The command chargen-ort serve: options and printing."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from chargen_ort.checks import printable, whole_number
from chargen_ort.errors import OptionError
from chargen_ort.models import choose_model
from chargen_ort.terminal import command, report

_NAME = "chargen-ort serve"
_NEEDED = ("starlette", "uvicorn", "prometheus_client")
_MEGABYTE, _MOST_MEMORY = 1 << 20, 1 << 20
_MOST_KEY = 4096  # bytes
_ORIGIN = re.compile(r"https?://[^/\s]+")
_NETWORK, _LIMITS = "Network", "Limits"

_Models = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Files of train-export, or a folder of them; the first is the one that a request "
        "without a name gets. By default the one that chargen-ort writes with."
    ),
]
_Host = Annotated[
    str,
    typer.Option(
        help="The address to listen on; 0.0.0.0 is all of them.", rich_help_panel=_NETWORK
    ),
]
_Port = Annotated[
    int, typer.Option(help="The port to listen on; 0 takes a free one.", rich_help_panel=_NETWORK)
]
_KeyFile = Annotated[
    Path | None,
    typer.Option(
        help="A file with the key that every request but /health must carry.",
        rich_help_panel=_NETWORK,
    ),
]
_Cors = Annotated[
    list[str] | None,
    typer.Option(
        help="An origin, as https://example.com, whose pages may use the server. The option may "
        "be repeated.",
        rich_help_panel=_NETWORK,
    ),
]
_Concurrent = Annotated[
    int,
    typer.Option(help="Texts that a model writes side by side.", rich_help_panel=_LIMITS),
]
_Waiting = Annotated[
    int,
    typer.Option(help="Texts that may wait; more are refused with 429.", rich_help_panel=_LIMITS),
]
_Streams = Annotated[
    int, typer.Option(help="Answers that are streamed at once.", rich_help_panel=_LIMITS)
]
_Length = Annotated[
    int,
    typer.Option(help="Characters that a request may ask for.", rich_help_panel=_LIMITS),
]
_Timeout = Annotated[
    float,
    typer.Option(help="Seconds after which a text ends as it is.", rich_help_panel=_LIMITS),
]
_Grace = Annotated[
    float,
    typer.Option(help="Seconds that texts may go on after SIGTERM.", rich_help_panel=_LIMITS),
]
_Memory = Annotated[
    int,
    typer.Option(
        help="Megabytes for open models; the least used one is closed above it.",
        rich_help_panel=_LIMITS,
    ),
]


def serve(
    context: typer.Context,
    models: _Models = None,
    host: _Host = "127.0.0.1",
    port: _Port = 8080,
    api_key_file: _KeyFile = None,
    cors: _Cors = None,
    max_concurrent: _Concurrent = 256,
    max_waiting: _Waiting = 1024,
    max_streams: _Streams = 1024,
    max_length: _Length = 10_000,
    timeout: _Timeout = 120,
    grace: _Grace = 10,
    memory: _Memory = 1024,
) -> None:
    """Serve models over HTTP, with the completions interface that most programs speak.

    All texts are written in one batch, and the same seed gives the same text,
    however many others are written beside it.
    """
    with command(_NAME):
        if missing := [name for name in _NEEDED if find_spec(name) is None]:
            raise OptionError(
                f"serving needs {missing[0].replace('_', '-')}, which is not installed; run: "
                "pip install 'chargen-ort[serve]'"
            )
        from chargen_ort.serve.limits import Limits
        from chargen_ort.serve.server import run

        limits = Limits(
            concurrent=max_concurrent,
            waiting=max_waiting,
            streams=max_streams,
            length=max_length,
            timeout=timeout,
            grace=grace,
            memory=whole_number("memory", memory, 1, _MOST_MEMORY) * _MEGABYTE,
        )
        named = context.parent.params.get("model") if context.parent else None
        paths = _paths([*([Path(named)] if named else []), *(models or [])])
        key = None if api_key_file is None else _read_key(api_key_file)
        for line in run(paths, limits, host, port, key, _origins(cors or ())):
            report(line)


def _paths(named: list[Path]) -> list[Path]:
    """The files that are named, those of a folder by name, or else the chosen one."""
    if not named:
        chosen = choose_model()
        report(f"model {chosen}")
        return [chosen.path]
    paths: list[Path] = []
    for path in named:
        found = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
        if not found:
            raise OptionError(f"{printable(str(path))} has no .onnx file; name another folder")
        paths += found
    return paths


def _read_key(path: Path) -> str:
    """The key in a file: one line of printable ASCII."""
    shown = printable(str(path))
    try:
        with open(path, "rb") as file:
            found = file.read(_MOST_KEY + 1)
    except OSError as error:
        raise OptionError(f"cannot read the key file {shown}: {error.strerror}") from None
    key = found.strip()
    if not key or len(found) > _MOST_KEY or not all(33 <= byte <= 126 for byte in key):
        what = f"one key of printable ASCII without spaces, {_MOST_KEY:,} bytes at most"
        raise OptionError(f"{shown} must hold {what}")
    return key.decode()


def _origins(named: Sequence[str]) -> Sequence[str]:
    """Origins as browsers send them, so that none is named in vain."""
    for origin in named:
        if not _ORIGIN.fullmatch(origin):
            shown = printable(origin)
            raise OptionError(f"cors is {shown}; give scheme and host, as https://example.com")
    return named
