"""A provider for Faker (https://faker.readthedocs.io): values that a model writes.

    from faker import Faker
    import chargen_ort.faker

    fake = Faker()
    fake.add_provider(chargen_ort.faker.provider("names.onnx", pattern="[a-z]{3,8}"))
    fake.chargen()

A value follows from 64 bits of Faker's own random numbers, so that it follows Faker's seed whatever
other providers draw in between. Values are written in batches: the numbers that come next are
foreseen, and where others come instead, those values were written in vain.
"""

import os
from collections.abc import Iterator
from itertools import repeat
from random import Random
from typing import Any, Unpack

from faker.providers import BaseProvider

from chargen_ort.batch import write_texts
from chargen_ort.checks import whole_number
from chargen_ort.generator import DEFAULT_LENGTH, CharGenerator
from chargen_ort.models import choose_model
from chargen_ort.options import MAX_LENGTH, SamplingOptions, SamplingOverrides

_SEED = 0  # of all values: which one it is says the row, 64 bits of Faker's
_ROW_BITS = 64
_MOST_AHEAD = 1024
_BATCH = 256


class Provider(BaseProvider):
    """Writes with the model that chargen-ort would take; `provider` names another.

    Args:
        generator: of Faker.
    """

    model: CharGenerator | None = None
    length: int = DEFAULT_LENGTH
    sampling: SamplingOverrides = {}  # noqa: RUF012 - never changed

    def __init__(self, generator: Any) -> None:
        super().__init__(generator)
        self._model = self.model or CharGenerator.load(choose_model().path)
        self._options = self._model.options(**(self.sampling | {"seed": _SEED}))
        self._wanted: tuple[str, SamplingOptions] | None = None
        self._ready: dict[int, str] = {}  # values by their rows
        self._ahead = 8  # values that are written at once

    def chargen(self, start: str = "", **overrides: Unpack[SamplingOverrides]) -> str:
        """A text of the model's, `start` included.

        Args:
            start: what it begins with.
            overrides: sampling options on top of the provider's; a seed is Faker's and no option.

        Raises:
            OptionError: an option out of its range.
            UnknownCharacterError: `start` has a character that the model does not know.
        """
        random = self.generator.random
        row = random.getrandbits(_ROW_BITS)
        options = self._options
        if overrides:
            options = self._model.options(**(self.sampling | overrides | {"seed": _SEED}))
        wanted = start, options
        if wanted != self._wanted:
            self._wanted, self._ready = wanted, {}
        if row not in self._ready:
            in_vain = len(self._ready)
            self._ahead = max(1, self._ahead // 4) if in_vain else min(_MOST_AHEAD, 2 * self._ahead)
            rows = [row, *_foreseen(random, self._ahead - 1)]
            texts = write_texts(
                self._model.engine, repeat(start, len(rows)), self.length, wanted[1], _BATCH, None,
                iter(rows),
            )  # fmt: skip
            self._ready = {each.index: start + each.text for each in texts}
        return self._ready.pop(row)


def provider(
    model: CharGenerator | str | os.PathLike[str],
    length: int = DEFAULT_LENGTH,
    **sampling: Unpack[SamplingOverrides],
) -> type[Provider]:
    """A provider for ``fake.add_provider``.

    Args:
        model: that writes, or the path of its file.
        length: new characters of a value at most.
        sampling: options, such as ``temperature=0.7``, ``top_k=20`` or a pattern.

    Raises:
        ArtifactError: the file is no model.
        OptionError: an option out of its range.
    """
    opened = model if isinstance(model, CharGenerator) else CharGenerator.load(model)
    opened.options(**sampling)
    size = whole_number("length", length, 1, MAX_LENGTH)
    return type("Provider", (Provider,), {"model": opened, "length": size, "sampling": sampling})


def _foreseen(random: Any, count: int) -> Iterator[int]:
    """The rows that come next, if nothing else is drawn."""
    twin = Random()
    twin.setstate(random.getstate())
    return (twin.getrandbits(_ROW_BITS) for _ in range(count))
