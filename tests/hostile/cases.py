"""All hostile files."""

from tests.hostile import bodies, files, graphs, texts
from tests.hostile.build import Case

CASES: list[Case] = [
    *files.KINDS,
    *files.SEALS,
    *files.WIRE,
    *graphs.CASES,
    *bodies.CASES,
    *texts.CASES,
]
