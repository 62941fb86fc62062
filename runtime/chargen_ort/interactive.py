"""A prompt that keeps its state: type, read what the model writes, type on."""

import contextlib
from collections.abc import Iterator

from chargen_ort.errors import ChargenError
from chargen_ort.generator import CharGenerator
from chargen_ort.models import ChosenModel
from chargen_ort.options import SamplingOptions
from chargen_ort.state import TextState
from chargen_ort.stream import TextStream
from chargen_ort.terminal import report, write_text
from chargen_ort.vocabulary import UnknownPolicy

_HELP = "type text and the model goes on; an empty line writes on; /undo, /reset, /quit"
_PROMPT = "> "


def run_interactive(
    generator: CharGenerator,
    model: ChosenModel,
    start: str,
    length: int,
    options: SamplingOptions,
    unknown: UnknownPolicy | None,
    raw: bool,
) -> None:
    """Read lines until the end of the input; after each, write up to `length` characters.

    A line that is typed begins a new line of the text, if the model knows line ends, and a new text
    where the model has ended the last one. Ctrl-C ends
    what is being written, not the session. Messages about the model name `model`.

    Raises:
        OutputError: standard output cannot take the text.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its history
    report(_HELP)
    state = generator.state(start, options=options, unknown=unknown)
    saved = [state.snapshot()]
    written = start
    while True:
        try:
            line = input(_PROMPT)
        except EOFError:
            report("")
            return
        if line == "/quit":
            return
        if line == "/reset":
            saved = saved[:1]
            state, written = generator.restore(saved[0]), start
        elif line == "/undo":
            if len(saved) > 1:
                saved.pop()
            state, written = generator.restore(saved[-1]), ""
        elif line.startswith("/"):
            report(_HELP)
        else:
            try:
                _feed(generator, state, line, written)
            except ChargenError as error:
                state = generator.restore(saved[-1])
                report(model.blame(str(error)))
                continue
            pieces: list[str] = []
            stream = generator.resume(state, length)
            with contextlib.suppress(KeyboardInterrupt):
                # what is left of a piece too: what is typed next follows all that was read
                write_text(_noted(stream, pieces), raw)
            written = "" if stream.ended == "end" else line + "".join(pieces)
            write_text(["\n"], raw)
            saved.append(state.snapshot())


def _feed(generator: CharGenerator, state: TextState, line: str, written: str) -> None:
    if line:
        if written and not written.endswith("\n") and "\n" in generator.vocabulary.characters:
            line = "\n" + line
        state.feed(line)


def _noted(stream: TextStream, pieces: list[str]) -> Iterator[str]:
    for piece in stream:
        pieces.append(piece)
        yield piece
    if stream.ended == "length":
        pieces.append(stream.state.rest())
        yield pieces[-1]
