"""What a server limits; a request beyond a limit is refused with its name, never changed."""

from dataclasses import dataclass

from chargen_ort.checks import number, whole_number

_MOST = 1 << 40
_OPTIONS = {name: f"max_{name}" for name in ("concurrent", "waiting", "streams", "length")}


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Args:
        concurrent: texts that a model writes side by side.
        waiting: texts that may wait for a place, beyond those of one model.
        streams: answers that are streamed at once.
        connections: that are open at once.
        body: bytes of a request.
        headers: bytes of its headers.
        length: characters that may be asked for in each text.
        prompt: characters of the prompts of a request, or of what it has scored.
        memory: bytes of all open models.
        patience: seconds for headers, for a body, and for a reader that takes nothing.
        timeout: seconds after which a text ends.
        grace: seconds that texts may go on after SIGTERM.

    Raises:
        OptionError: a value is out of its range.
    """

    concurrent: int = 256
    waiting: int = 1024
    streams: int = 1024
    connections: int = 4096
    body: int = 1 << 20
    headers: int = 16 << 10
    length: int = 10_000
    prompt: int = 100_000
    memory: int = 1 << 30
    patience: float = 10
    timeout: float = 120
    grace: float = 10

    def __post_init__(self) -> None:
        for name in ("concurrent", "streams", "connections", "body", "headers", "memory"):
            whole_number(_OPTIONS.get(name, name), getattr(self, name), 1, _MOST)
        for name in ("waiting", "length", "prompt"):
            whole_number(_OPTIONS.get(name, name), getattr(self, name), 0, _MOST)
        for name in ("patience", "timeout", "grace"):
            number(name, getattr(self, name), 0.001, 1e9, "seconds, 0.001 to 1e+09")
