"""Snapshots: the state of a text as bytes, a line of JSON and then its numbers.

A text that is confined has a record more, after the numbers.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from chargen_ort.engine import Engine
from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.fields import MAX_TOKENS, Count, Sha256, TokenId
from chargen_ort.options import ROW_LIMIT, SEED_LIMIT, SamplingOptions
from chargen_ort.pieces import MAX_RUN
from chargen_ort.strict import Record, Within, parse_record
from chargen_ort.vocabulary import UnknownPolicy

MAGIC = b"chargen-state-2\n"


class Header(Record):
    """What a snapshot says before its numbers.

    Attributes:
        model: the seal of the model's file
        options: the sampling options
        seed: of the draws
        row: number of the row in the seed's family of texts
        drawn: how many tokens were drawn
        fed: whether anything was fed
        unknown: policy for characters that the model does not know; null is the model's own
        seen: tokens that the repetition penalty counts as used
        rest: the last run of what was fed, with which what follows is to begin; of word and bpe
        ready: characters that were drawn with others and come next
        partial: tokens that have begun a character; of byte
    """

    model: Sha256
    options: SamplingOptions
    seed: Annotated[int, Within(0, SEED_LIMIT - 1)]
    row: Annotated[int, Within(0, ROW_LIMIT - 1)]
    drawn: Count
    fed: bool
    unknown: UnknownPolicy | None
    seen: Annotated[tuple[TokenId, ...], Within(0, MAX_TOKENS, unique=True)]
    rest: Annotated[str, Within(0, MAX_RUN + 1)] = ""
    ready: Annotated[str, Within(0, 256)] = ""
    partial: Annotated[tuple[TokenId, ...], Within(0, 3)] = ()


class Course(Record):
    """Where a text that is confined stands, which follows the numbers of a snapshot.

    Attributes:
        tokens: of the text so far
        begun: characters of the text in which no stop string is looked for
        room: characters that the text may have; null is any number
    """

    tokens: tuple[TokenId, ...]
    begun: Count
    room: Count | None


def snapshot_bytes(
    header: Header, arrays: Sequence[NDArray[np.float32]], course: Course | None
) -> bytes:
    """The snapshot with this header, these numbers, hidden and logits, and this course."""
    numbers = b"".join(array.astype("<f4").tobytes() for array in arrays)
    last = b"" if course is None else course.dump().encode()
    return MAGIC + header.dump().encode() + b"\n" + numbers + last


def parse_snapshot(
    snapshot: bytes, engine: Engine
) -> tuple[Header, NDArray[np.float32], Course | None]:
    """What a snapshot of a text of this model says.

    Returns:
        the header; hidden and logits in a row; and the course of a text that is confined.

    Raises:
        ArtifactError: not a snapshot, damaged, or of another model.
        OptionError: not bytes.
    """
    if not isinstance(snapshot, bytes):
        raise OptionError(f"a snapshot must be bytes, got {type(snapshot).__name__}")
    head, _, rest = snapshot.removeprefix(MAGIC).partition(b"\n")
    if not snapshot.startswith(MAGIC):
        raise ArtifactError("these bytes are not a snapshot of this version of chargen-ort")
    try:
        header = parse_record(Header, head.decode(), "its header")
    except (ArtifactError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the snapshot is damaged: {error}") from None
    if header.model != engine.artifact.sha256:
        raise ArtifactError(f"the snapshot is of another model: {header.model[:12]}…")
    config = engine.config
    expected = 4 * (config.num_layers * config.hidden_size + len(config.vocabulary))
    course = None
    if header.options.controlled:
        try:
            course = parse_record(Course, rest[expected:].decode(), "its end")
        except (ArtifactError, UnicodeDecodeError) as error:
            raise ArtifactError(f"the snapshot is damaged: {error}") from None
        rest = rest[:expected]
    if len(rest) != expected:
        raise ArtifactError(f"the snapshot has {len(rest)} bytes of state, {expected} are needed")
    floats = np.frombuffer(rest, dtype="<f4").astype(np.float32)
    if not np.isfinite(floats).all():
        raise ArtifactError("the snapshot is damaged: a number in it is not finite")
    # before its next text a state may have drawn others
    drawn = header.drawn and not config.end and not header.options.controlled
    begun = header.ready or header.partial
    if not header.fed and (floats.any() or drawn or header.seen or begun):
        raise ArtifactError("the snapshot is damaged: nothing was fed, and yet it has a state")
    return header, floats, course
