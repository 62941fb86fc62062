"""Small vocabularies of each unit."""

from chargen_ort import Vocabulary
from chargen_ort.vocabulary import BYTES

LETTERS = "abcdelorst .,\n"
# "the", " the", "ther", " other" and their like, by merges
PIECES = ("he", "th", "the", " the", "er", "ther", "or", "st", ".\n", "  ")


def bpe(end: bool = False, **others: object) -> Vocabulary:
    characters = LETTERS + "h"
    texts = [*characters, *PIECES]
    at = {text: token for token, text in enumerate(texts)}
    pairs = [("h", "e"), ("t", "h"), ("t", "he"), (" ", "the"), ("e", "r"), ("th", "er"),
             ("o", "r"), ("s", "t"), (".", "\n"), (" ", " ")]  # fmt: skip
    merges = tuple(at[each] for pair in pairs for each in pair)
    return Vocabulary(characters, end=end, unit="bpe", pieces=PIECES, merges=merges, **others)


def word(end: bool = False) -> Vocabulary:
    pieces = ("the", " the", " other", " rest", ".\n", " best")
    return Vocabulary(LETTERS + "h", end=end, unit="word", pieces=pieces)


def byte(end: bool = False) -> Vocabulary:
    return Vocabulary(BYTES, end=end, unit="byte")
