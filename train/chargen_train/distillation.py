"""Learning from teachers: several models of one size, and then one that learns from them all.

Models that began with different weights predict better together than any of them alone. A student
that is trained towards their average prediction, besides the text itself, keeps much of that in a
single model (Hinton et al. 2015, "Distilling the knowledge in a neural network"; Furlanello et al.
2018, "Born-again neural networks"). It is still a plain GRU. What the teachers predict after each
character of the text is computed once.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from chargen_train.choosing import MEASURED_TOKENS
from chargen_train.device import autocast
from chargen_train.evaluate import as_tensor
from chargen_train.model import CharGRU
from chargen_train.recipe import Recipe, parameter_count
from chargen_train.split import Part
from chargen_train.windows import Batch

TEACHING_SHARE = 0.5  # of a run, for all teachers together
SOFT_SHARE = 0.7  # of the student's loss
NARROW_CLIP = 2.5  # times the recipe's: of a student that begins with narrow weights
_WIDE_UP_TO = 4  # teachers of a text; after more, the student reads it some 20 times
# weights for each token, at least: with 2.5 narrow weights gain, with 0.27 they lose
_NARROW_WEIGHTS = 1.0
_KEPT = 32  # likeliest tokens after each character; the rest hardly weighs anything
_ROWS = 64  # columns of the text that the teachers read side by side
_PIECE = 128  # steps a call, at most
_LOGITS_AT_ONCE = 1 << 22  # numbers in one call's logits: 16 MB, whatever the vocabulary


def phase_end(recipe: Recipe, phase: int) -> float:
    """The fraction of a run at which phase 0, 1, … ends: one for each teacher, then the student."""
    if phase >= recipe.teachers:
        return 1.0
    return TEACHING_SHARE * (phase + 1) / recipe.teachers


def student_is_narrow(recipe: Recipe, phase: int, part: Part) -> bool:
    """Whether the model of a phase, on a part of a corpus, is a student with narrow start weights.

    One that reads its text so often has the time that they take, and is better in the end, as it
    learns less of the text by heart; a small one does not learn it by heart in any case. See
    EXPERIMENTS.md. Not measured where there are documents.
    """
    if part.documents or not phase == recipe.teachers > _WIDE_UP_TO:
        return False
    return parameter_count(MEASURED_TOKENS, recipe) >= _NARROW_WEIGHTS * len(part)


def describe_phase(recipe: Recipe, phase: int) -> str:
    """A phase in words; empty if a run has only one."""
    if not recipe.teachers:
        return ""
    if phase < recipe.teachers:
        return f"teacher {phase + 1} of {recipe.teachers}"
    return f"student of {recipe.teachers}"


class SoftTargets:
    """The average prediction of `teachers` at each place of a text.

    `prepare` computes it a piece at a time, so that a run can be stopped in between.

    Args:
        teachers: on one device.
        part: the text; a document is read from a zero state, running text in columns.
        bf16: whether they run under bfloat16 autocast.
    """

    def __init__(self, teachers: Sequence[CharGRU], part: Part, bf16: bool) -> None:
        tokens = np.roll(part[:], 1)  # what is read before each token
        self._end = int(tokens[0]) if part.documents else None
        self._teachers = teachers
        self._bf16 = bf16
        self._device = teachers[0].output.weight.device
        self._length = -(-len(tokens) // _ROWS)
        self._columns = np.resize(tokens, (_ROWS, self._length))  # [rows, length]
        self._hidden = [teacher.zero_hidden(_ROWS) for teacher in teachers]
        kept = min(_KEPT, teachers[0].vocab_size)
        shape = _ROWS, self._length, kept
        self._tokens = np.zeros(shape, dtype=np.uint16)  # a vocabulary has at most 65,536
        self._probabilities = np.zeros(shape, dtype=np.float16)
        self._piece = max(1, min(_PIECE, _LOGITS_AT_ONCE // (_ROWS * teachers[0].vocab_size)))
        self._prepared = 0  # steps of the columns

    @property
    def ready(self) -> bool:
        """Whether the whole text is prepared."""
        return self._prepared == self._length

    @torch.no_grad()
    def prepare(self) -> None:
        """Compute the next piece."""
        piece = slice(self._prepared, min(self._prepared + self._piece, self._length))
        token = as_tensor(self._columns[:, piece], self._device)  # [rows, time]
        begins = None if self._end is None else token == self._end  # [rows, time]
        average: Tensor | None = None  # [rows, time, vocab_size]
        for index, teacher in enumerate(self._teachers):
            with autocast(self._device, self._bf16):
                logits, hidden = teacher.eval()(token, self._hidden[index], begins)
            self._hidden[index] = hidden.float()
            prediction = logits.float().softmax(-1) / len(self._teachers)
            average = prediction if average is None else average.add_(prediction)
        assert average is not None
        likeliest = average.topk(self._tokens.shape[-1])
        mass = likeliest.values.sum(-1, keepdim=True)  # [rows, time, 1]
        self._tokens[:, piece] = likeliest.indices.cpu().numpy()
        self._probabilities[:, piece] = (likeliest.values / mass).cpu().numpy()
        self._prepared = piece.stop

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the average prediction and `logits`, nats, summed where one learns.

        Args:
            logits: float32 ``[batch, time, vocab_size]``.
            batch: whose targets they are for.
        """
        row, step = np.divmod(batch.places, self._length)  # [batch, time]
        tokens = as_tensor(self._tokens[row, step], self._device)  # [batch, time, kept]
        soft = torch.from_numpy(self._probabilities[row, step]).to(self._device, torch.float32)
        expected = (soft * logits.log_softmax(-1).gather(-1, tokens)).sum(-1)  # [batch, time]
        learnt = batch.target >= 0
        return -(expected * learnt).sum()
