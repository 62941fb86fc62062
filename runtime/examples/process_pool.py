"""Texts from several processes: a model pickles by its bytes, so it travels to each worker once."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import chargen_ort
from chargen_ort.models import DEMO_MODEL

_worker: dict[str, chargen_ort.CharGenerator] = {}


def start_worker(model: chargen_ort.CharGenerator) -> None:
    """Keep the model that came with the worker's start."""
    _worker["model"] = model


def write(row: int) -> str:
    """Text number `row`, the same in any process."""
    return _worker["model"].generate("hell", 40, seed=7, row=row)


def main(method: str = "spawn") -> list[str]:
    """Write 16 texts with 2 processes, which `method` ("spawn" or "fork") starts."""
    model = chargen_ort.load(DEMO_MODEL)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(
        2, mp_context=context, initializer=start_worker, initargs=(model,)
    ) as pool:
        return list(pool.map(write, range(16)))


if __name__ == "__main__":
    print("\n".join(main(*sys.argv[1:])))
