"""One thread a model, which writes all texts of all clients side by side.

Its turns are short. In each, texts leave whose clients left or whose time is over, others take
their places, prompts are read for a while, and each lane runs once. When a text comes and goes
changes none of its characters, see `chargen_ort.serve.lanes`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from chargen_ort.engine import Engine
from chargen_ort.errors import ChargenError
from chargen_ort.serve.lanes import RunLane, StepLane
from chargen_ort.serve.texts import FEW_UNREAD, MOST_UNREAD, Piece, Writing

_TURN = 256  # characters after which a text makes room, where others wait
_READING_SECONDS = 0.005  # of a turn, for prompts
_GATHERING, _GATHERING_SECONDS = 8, 0.001  # waits for others that may come
_FORGETTING = 0.9  # of how many there were, with each run
_POLL_SECONDS = 0.05  # where nothing runs, but a time may end

Deliveries = list[tuple[Writing, Piece]]
Lane = RunLane | StepLane


class Batcher:
    """Writes texts in a thread of its own.

    Args:
        engine: the model that is open.
        most: how many texts are written side by side at most.
        deliver: is called in that thread with what is to be sent, once a turn.
        observe: is called in that thread with the number of rows of each run.
    """

    def __init__(
        self,
        engine: Engine,
        most: int,
        deliver: Callable[[Deliveries], None],
        observe: Callable[[int], None],
    ) -> None:
        self._engine, self._most = engine, most
        self._deliver, self._observe = deliver, observe
        self._changed = threading.Condition()
        self._arrived: list[Writing] = []
        self._closing = False
        self._deadline = float("inf")
        self._waiting: deque[Writing] = deque()  # for a place
        self._reading: deque[Writing] = deque()  # their prompts
        self._parked: list[Writing] = []  # their clients read slowly
        self._lanes: dict[str, Lane] = {}
        self._open: set[Writing] = set()  # all that have not ended
        self._recent = 0.0  # texts in a run, of late
        self._out: Deliveries = []
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, texts: Iterable[Writing]) -> None:
        """Write texts; the last piece of each says why it ended. From any thread."""
        with self._changed:
            self._arrived += texts
            self._changed.notify()

    def wake(self) -> None:
        """Look again at what clients have cancelled or read. From any thread."""
        with self._changed:
            self._changed.notify()

    def end_by(self, deadline: float) -> None:
        """End all texts at this moment of the monotonic clock. From any thread."""
        self._deadline = deadline
        self.wake()

    def close(self) -> None:
        """End all texts now, and wait for the thread."""
        self._closing = True
        self.end_by(0)
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._arrived and not self._closing and not self._has_work():
                    held = self._parked or self._waiting
                    self._changed.wait(_POLL_SECONDS if held else None)
            self._gather()
            with self._changed:
                self._waiting += self._arrived
                self._open.update(self._arrived)
                self._arrived = []
            try:
                self._turn()
            except Exception as error:  # whatever it is, nobody may wait for ever
                known = isinstance(error, ChargenError)
                self._fail(str(error) if known else f"the server failed: {type(error).__name__}")
            if self._out:
                out, self._out = self._out, []
                self._deliver(out)
            if self._closing and not self._arrived:
                return

    def _gather(self) -> None:
        """Wait for others, while they come and many did lately: a run of many costs little more."""
        for _ in range(_GATHERING):
            before = len(self._open) + len(self._arrived)
            if not self._arrived or 2 * before >= self._recent:
                return
            time.sleep(_GATHERING_SECONDS)
            if len(self._open) + len(self._arrived) == before:
                return

    def _has_work(self) -> bool:
        ready = any(text.unread <= FEW_UNREAD or text.cancelled for text in self._parked)
        running = any(_texts(lane) for lane in self._lanes.values())
        return bool(ready or running or self._waiting or self._reading)

    def _turn(self) -> None:
        self._end_those_over()
        self._park()
        self._admit()
        self._read_prompts()
        for lane in self._lanes.values():
            texts = _texts(lane)
            if texts:
                self._recent = max(len(texts), self._recent * _FORGETTING)
                self._observe(lane.run())
                for text in texts:
                    self._send(text)

    def _send(self, text: Writing) -> None:
        piece = text.piece()
        if piece is not None:
            self._out.append((text, piece))
        if text.ended:
            self._open.discard(text)

    def _end(self, texts: Iterable[Writing]) -> None:
        for text in texts:
            text.end("cancelled")
            self._send(text)

    def _end_those_over(self) -> None:
        now = time.monotonic()
        if now >= self._deadline:
            now = float("inf")
        for queue in (self._waiting, self._reading, self._parked):
            if over := [text for text in queue if text.is_over(now)]:
                self._end(over)
                kept = [text for text in queue if text.ended is None]
                queue.clear()
                queue.extend(kept)
        for lane in self._lanes.values():
            over = [text for text in _texts(lane) if text.is_over(now)]
            for text in over:
                lane.leave(text)
            self._end(over)

    def _park(self) -> None:
        """Let texts stand still that their clients do not read, and go on those that they do."""
        ready = [text for text in self._parked if text.unread <= FEW_UNREAD]
        self._parked = [text for text in self._parked if text.unread > FEW_UNREAD]
        self._waiting += ready
        for lane in self._lanes.values():
            for text in _texts(lane):
                if text.unread > MOST_UNREAD:
                    lane.leave(text)
                    self._parked.append(text)

    def _admit(self) -> None:
        """Give places to those that wait, the first come first."""
        if not self._waiting:
            return
        taken = len(self._reading) + sum(len(_texts(lane)) for lane in self._lanes.values())
        if taken + len(self._waiting) > self._most:
            taken -= self._make_room(taken + len(self._waiting) - self._most)
        joining: dict[str, list[Writing]] = {}
        for _ in range(min(len(self._waiting), self._most - taken)):
            text = self._waiting.popleft()
            text.turn = _TURN
            if text.state is not None:
                joining.setdefault(self._kind(text), []).append(text)
            else:
                self._reading.append(text)
        self._join(joining)

    def _make_room(self, wanted: int) -> int:
        """Have texts wait that have had their turn; returns how many."""
        made = 0
        for lane in self._lanes.values():
            for text in _texts(lane):
                if made < wanted and text.turn <= 0:
                    lane.leave(text)
                    self._waiting.append(text)
                    made += 1
        return made

    def _read_prompts(self) -> None:
        until = time.monotonic() + _READING_SECONDS
        joining: dict[str, list[Writing]] = {}
        while self._reading:
            text = self._reading.popleft()
            if not text.prompt.is_read:
                text.prompt.read_piece()
            if text.prompt.is_read:
                text.begin()
                if text.left and text.ended is None:
                    joining.setdefault(self._kind(text), []).append(text)
                else:
                    text.end("length")
                    self._send(text)
            else:
                self._reading.append(text)
            if time.monotonic() >= until:
                break
        self._join(joining)

    def _kind(self, text: Writing) -> str:
        if not text.wanted.is_plain(len(self._engine.vocabulary)):
            return "steps"
        return "greedy" if text.wanted.options.temperature == 0 else "drawn"

    def _join(self, joining: dict[str, list[Writing]]) -> None:
        for kind, texts in joining.items():
            if kind not in self._lanes:
                if kind == "steps":
                    self._lanes[kind] = StepLane(self._engine)
                else:
                    self._lanes[kind] = RunLane(self._engine, kind == "greedy")
            self._lanes[kind].join(texts)

    def _fail(self, message: str) -> None:
        """End all texts: the model, or the memory, does not do what it should."""
        for each in (self._waiting, self._reading, self._parked, self._lanes):
            each.clear()
        for text in self._open:
            self._out.append((text, Piece("", None, text.written, "cancelled", message)))
        self._open.clear()


def _texts(lane: Lane) -> Sequence[Writing]:
    return lane.texts
