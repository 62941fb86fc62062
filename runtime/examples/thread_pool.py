"""Texts from many threads over one loaded model: the same ones as one after the other."""

from concurrent.futures import ThreadPoolExecutor

import chargen_ort
from chargen_ort.models import DEMO_MODEL


def main() -> list[str]:
    """Write 32 texts with 8 threads; row i is the same text whichever thread writes it."""
    model = chargen_ort.load(DEMO_MODEL)

    def write(row: int) -> str:
        return model.generate("hell", 40, seed=7, row=row)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(write, range(32)))


if __name__ == "__main__":
    print("\n".join(main()))
