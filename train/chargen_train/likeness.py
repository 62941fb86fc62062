"""Whether held-out text is like the text that is trained on, by counts of characters alone."""

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import printable
from chargen_ort.vocabulary import Vocabulary
from chargen_train.ids import give_back
from chargen_train.split import Part

_MOST_PAIRS = 1 << 22  # different ones that are counted; with more characters each counts alone
_READ = 1 << 24  # tokens of a part that are counted, evenly spread over it
_PIECE = 1 << 18  # tokens counted at a time
_WEIGHT = 8.0  # of the frequencies of single characters beside those of pairs
_UNSEEN = 0.005  # share of the held-out characters that the trained part lacks: above this, a word
_UNLIKE = 0.3  # nats a character that pairs cost more than they should: above this, a word
_SHOWN = 5


def describe_unlikeness(training: Part, validation: Part, vocabulary: Vocabulary) -> str:
    """What of the held-out part the trained part cannot explain, in a sentence; empty if nothing.

    A model that is judged by such text keeps weights that are good at something else. The
    frequencies of pairs of characters tell it before any training: what the held-out part costs by
    those of the trained part is compared with what the trained part costs by its own, each pair
    left out of the counts that predict it.
    """
    if not len(validation):
        return ""
    size = len(vocabulary)
    pairs = size * size <= _MOST_PAIRS
    known, asked = (_counts(part, size, pairs) for part in (training, validation))
    single = known.sum(axis=0)  # [vocab_size]
    unseen = asked.sum(axis=0) * (single == 0)
    count, total = int(unseen.sum()), int(asked.sum())
    if count > _UNSEEN * total:
        common = np.argsort(-unseen, kind="stable")[:_SHOWN]
        shown = vocabulary.decode(common[unseen[common] > 0])
        return (
            f"{count / total:.1%} of the held-out characters stand nowhere in the text that is "
            f"trained on, for example {printable(shown)!r}"
        )
    expected, found = _cost(known, known, 1), _cost(known, asked, 0)
    if found <= expected + _UNLIKE:
        return ""
    return (
        f"the held-out text is unlike the text that is trained on: by the frequencies of "
        f"{'pairs of ' * pairs}characters it costs {found:.2f} nats a character, where "
        f"{expected:.2f} were to be expected"
    )


def _counts(part: Part, size: int, pairs: bool) -> NDArray[np.int64]:
    """How often each token follows each, ``[vocab_size] * 2``; or any, ``[1, vocab_size]``."""
    rows = size if pairs else 1
    counts = np.zeros(rows * size, dtype=np.int64)
    step = max(_PIECE, len(part) // (_READ // _PIECE))
    for begin in range(0, len(part), step):
        tokens = part[begin : begin + _PIECE].astype(np.int64)
        following = tokens[:-1] * size + tokens[1:] if pairs else tokens
        counts += np.bincount(following, minlength=len(counts))
        give_back(part.tokens)
    return counts.reshape(rows, size)


def _cost(known: NDArray[np.int64], asked: NDArray[np.int64], own: int) -> float:
    """Nats a character of what `asked` counts, by the counts of `known` less `own` of each."""
    before, after = np.nonzero(asked)
    single, total = known.sum(axis=0), known.sum()
    likely = (single[after] - own + 1) / (total - own + known.shape[1])
    alone = known[before, after] - own + _WEIGHT * likely
    cost = -np.log(alone / (known.sum(axis=1)[before] - own + _WEIGHT))
    times = asked[before, after]
    return float((times * cost).sum() / max(1, times.sum()))
