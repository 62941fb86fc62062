"""Lines scored by several processes, reported in the order of the lines.

Each process opens the model once, from its bytes. No more lines are read ahead than keep the
processes busy, so memory stays constant however many there are.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Thread

from chargen_ort.errors import ChargenError
from chargen_ort.generator import CharGenerator
from chargen_ort.lines import LineOptions, Report, SomeLines, score_some

_AHEAD = 2  # lots of lines that wait or are scored, for each process

_model: list[CharGenerator] = []  # of a worker process, from its start on


class WorkerError(ChargenError):
    """A process that scored lines has ended before its time."""


def score_in_order(
    generator: CharGenerator, lots: Iterable[SomeLines], options: LineOptions, jobs: int
) -> Generator[Report, None, None]:
    """What there is to say of lines, lot by lot, by so many processes; one is this process.

    Raises:
        WorkerError: a process has ended, because the memory was not enough or somebody killed it.
    """
    if jobs == 1:
        yield from (score_some(generator, some, options) for some in lots)
        return
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(generator.artifact.data,),
    )
    waiting: deque[Future[Report]] = deque()
    finished = False
    try:
        for some in lots:
            waiting.append(pool.submit(_score, some, options))
            while waiting and (len(waiting) >= _AHEAD * jobs or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        finished = True
    except BrokenProcessPool:
        raise WorkerError(
            "a process that scored lines has ended, for want of memory or because it was killed; "
            "give fewer --jobs, or begin again from the line after the last one printed"
        ) from None
    finally:
        if not finished:  # nobody waits for what they are at
            for process in list((pool._processes or {}).values()):
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _start(data: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that prints
    Thread(target=_end_with_parent, daemon=True).start()
    _model.append(CharGenerator.from_bytes(data, threads=1))


def _end_with_parent() -> None:
    """Leave when the process that prints is gone, as where a reader closed the pipe it wrote to."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _score(some: SomeLines, options: LineOptions) -> Report:
    return score_some(_model[0], some, options)
