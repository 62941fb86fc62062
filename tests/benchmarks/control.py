"""`make bench-control`: that confined texts are as was asked for, and what they cost.

    python -m tests.benchmarks.control [--count N] [--model FILE] [--corpus FILE] [--rounds N]

Without a model the weights are random: 27 characters and an end token, hidden 256. With a model and
its corpus it writes 10,000 texts with --new --unique and looks each of them up.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import chargen_ort
from chargen_ort import CharGenerator
from tests.conftest import artifact_bytes, random_model

CHARACTERS = "".join(map(chr, range(97, 123))) + " "
PATTERNS = [
    "[a-z]{3,8}",
    "([^aeiou ][aeiou]){2,5}",
    "(an|ba|c)[a-z]+a",
    "[a-m]+ [n-z]+",
    "(?:[a-z]{2,5} ){1,2}[a-z]*ing",
]
LONG = [  # of running text
    {"ban": ["xq"]},
    {"ban": ["th", "  ", "e "]},
    {"pattern": "[a-z \n]*"},
    {"pattern": "[a-z \n]{300,}"},
    {"pattern": "([a-z]{1,9}[ \n]+)*"},
]
LENGTH, LONG_LENGTH, AT_ONCE = 24, 400, 10_000
NEW = 10_000


def main() -> None:
    """Print each figure as it is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--corpus", type=Path)
    given = parser.parse_args()
    if given.model:
        model = chargen_ort.load(given.model, threads=1)
    else:
        weights = random_model(len(CHARACTERS) + 1, 64, 256, 1, scale=1.0)
        model = CharGenerator.from_bytes(artifact_bytes(weights, CHARACTERS, end=True), threads=1)
    running = given.model is None or model.vocabulary.end_token is None
    if given.model is None:
        weights = random_model(len(CHARACTERS) + 1, 64, 256, 1, scale=1.0)
        free = CharGenerator.from_bytes(artifact_bytes(weights, CHARACTERS + "\n"), threads=1)
    else:
        free = model
    for options in LONG if running else ():
        for first in (True, False):
            ratio = long_cost(free, options, given.rounds, first)
            which = "the first text of a language" if first else "a later text"
            print(f"{options}, {which}: {ratio:.2f} times the processor time of a free one")
    known = set(model.vocabulary.characters)
    patterns = [each for each in PATTERNS if " " not in each or " " in known]
    print(f"model: {model.config.sizes}")
    for pattern in patterns:
        check(model, pattern, given.count // len(patterns))
    for name, work in (("64 texts at once", batch(model)), ("one text at a time", alone(model))):
        for pattern in patterns:
            ratio = cost(work, pattern, given.rounds)
            print(f"{name}, {pattern}: {ratio:.2f} times the processor time of free texts")
    faker_rate(model)
    if given.model and given.corpus:
        check_new(given.model, given.corpus)


def check(model: CharGenerator, pattern: str, count: int) -> None:
    """Write so many texts and look whether Python's own `re` finds each of them matching."""
    wanted, outside, done, begun = re.compile(pattern), 0, 0, time.perf_counter()
    while done < count:
        size = min(AT_ONCE, count - done)
        texts = model.iterate_batch([""] * size, LENGTH, pattern=pattern, seed=done)
        outside += sum(wanted.fullmatch(text) is None or len(text) > LENGTH for _, text in texts)
        done += size
    rate = done / (time.perf_counter() - begun)
    print(f"{pattern}: {done:,} texts, {outside} outside, {rate:,.0f} a second", flush=True)


Work = Callable[[dict[str, str]], int]  # writes with options, returns the characters


def batch(model: CharGenerator) -> Work:
    def write(options: dict[str, str]) -> int:
        texts = model.iterate_batch([""] * 1000, LENGTH, seed=1, **options)
        return sum(len(text) + 1 for _, text in texts)

    return write


def alone(model: CharGenerator) -> Work:
    def write(options: dict[str, str]) -> int:
        texts = (model.generate("", LENGTH, seed=1, row=row, **options) for row in range(100))
        return sum(len(text) + 1 for text in texts)

    return write


def cost(work: Work, pattern: str, rounds: int) -> float:
    """Processor time a character of confined texts, divided by that of free ones."""
    ratios = []
    work({}), work({"pattern": pattern})
    for _ in range(rounds):
        times = []
        for options in ({"pattern": pattern}, {}):
            begun = time.process_time()
            characters = work(options)
            times.append((time.process_time() - begun) / characters)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def long_cost(model: CharGenerator, options: dict, rounds: int, first: bool) -> float:
    """Processor time of long confined texts, divided by that of free ones of their lengths."""
    ratios = []
    for each in range(-8, 4 * rounds):  # those below 0 are to warm up
        if first:
            model.engine._controls.clear()
        begun = time.process_time()
        text = model.generate("", LONG_LENGTH, seed=1, row=each + 8, **options)
        middle = time.process_time()
        model.generate("", max(1, len(text)), seed=1, row=each + 8)
        ratios += [(middle - begun) / (time.process_time() - middle)] if each >= 0 else []
    return statistics.median(ratios)


def faker_rate(model: CharGenerator) -> None:
    from faker import Faker

    import chargen_ort.faker

    fake = Faker()
    fake.add_provider(chargen_ort.faker.provider(model, LENGTH))
    for _ in range(2000):
        fake.chargen()
    wall, begun = time.perf_counter(), time.process_time()
    for _ in range(10_000):
        fake.chargen()
    wall, spent = time.perf_counter() - wall, time.process_time() - begun
    print(f"fake.chargen(): {1e4 / wall:,.0f} values a second, {1e4 / spent:,.0f} a CPU second")


def check_new(model: Path, corpus: Path) -> None:
    """10,000 texts by the command, and whether one is in the corpus or is there twice."""
    command = [Path(sys.executable).parent / "chargen-ort", "--model", model, "--seed", 1]
    command += ["--num", NEW, "--new", "--unique"]
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True
    ).stdout.split("\n")[:-1]
    known = set(corpus.read_text().split("\n"))
    print(
        f"--new --unique: {len(result):,} texts, {sum(text in known for text in result)} in the "
        f"corpus, {len(result) - len(set(result))} doubles"
    )


if __name__ == "__main__":
    main()
