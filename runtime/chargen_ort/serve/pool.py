"""The models of a server: opened when they are asked for, closed when their memory is needed."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from chargen_ort.checks import printable
from chargen_ort.errors import ChargenError, OptionError
from chargen_ort.generator import CharGenerator
from chargen_ort.serve.batcher import Batcher, Deliveries
from chargen_ort.serve.requests import Refusal, TextOrTokens
from chargen_ort.serve.texts import Prompt
from chargen_ort.vocabulary import UnknownPolicy

PromptKey = tuple[TextOrTokens, UnknownPolicy | None]

_MOST_PROMPTS = 128
_TIMES_ITS_FILE = 6  # what an open model takes: its bytes, its session and the one that writes


@dataclass
class OpenModel:
    """A model that is open, and its thread.

    Attributes:
        name: by which it is asked for.
        generator, batcher: that write.
        users: requests that it answers now.
        used: when it was last asked for.
    """

    name: str
    generator: CharGenerator
    batcher: Batcher
    users: int = 0
    used: float = 0
    _prompts: OrderedDict[PromptKey, Prompt] = field(default_factory=OrderedDict)

    @property
    def memory(self) -> int:
        """About how many bytes it takes."""
        return _TIMES_ITS_FILE * len(self.generator.artifact.data)

    def shared_prompt(self, key: PromptKey, read: Callable[[], Prompt]) -> Prompt:
        """The prompt that went by this key lately, or else what `read` gives.

        Many requests begin in the same way, and what they begin with is read once.
        """
        prompt = self._prompts.pop(key, None) or read()
        self._prompts[key] = prompt
        if len(self._prompts) > _MOST_PROMPTS:
            self._prompts.popitem(last=False)
        return prompt


class Pool:
    """Models by name.

    Args:
        paths: their files; the name is the file's, without ``.onnx``.
        memory: bytes that all open models may take; one alone may take more.
        most: texts that a model writes side by side.
        observe: hears of the number of rows of each run.

    Raises:
        OptionError: no files, or two of one name.
    """

    def __init__(
        self, paths: Iterable[Path], memory: int, most: int, observe: Callable[[int], None]
    ) -> None:
        self.paths: dict[str, Path] = {}
        for path in paths:
            if path.stem in self.paths:
                raise OptionError(f"two models have the name {printable(path.stem)}; rename one")
            self.paths[path.stem] = path
        if not self.paths:
            raise OptionError("there is no model to serve; name an .onnx file of train-export")
        self._memory, self._most, self._observe = memory, most, observe
        self._open: dict[str, OpenModel] = {}
        self._opening = asyncio.Lock()
        self._deadline: float | None = None

    @property
    def is_open(self) -> dict[str, OpenModel]:
        """The models that are open, by name."""
        return self._open

    def known(self, name: str | None) -> str:
        """The name of a model that there is; None is the first.

        Raises:
            Refusal: there is none of this name.
        """
        name = next(iter(self.paths)) if name is None else name
        if name not in self.paths:
            known = ", ".join(self.paths)
            message = f"there is no model {printable(name)}; there are {printable(known)}"
            raise Refusal(404, message, "model_not_found", "model")
        return name

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[OpenModel]:
        """The model of this name, or the first; it stays open meanwhile.

        Raises:
            Refusal: there is none, it cannot be opened, or the memory is taken.
        """
        name = self.known(name)
        if name not in self._open:
            async with self._opening:
                if name not in self._open:
                    await self._load(name)
        model = self._open[name]
        model.users += 1
        model.used = time.monotonic()
        try:
            yield model
        finally:
            model.users -= 1

    async def _load(self, name: str) -> None:
        try:
            generator = await asyncio.to_thread(CharGenerator.load, self.paths[name])
        except ChargenError as error:
            raise Refusal(503, str(error), "model_not_loaded", "model") from None
        loop = asyncio.get_running_loop()

        def deliver(deliveries: Deliveries) -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody listens
                loop.call_soon_threadsafe(_deliver, deliveries)

        model = OpenModel(
            name, generator, Batcher(generator.engine, self._most, deliver, self._observe)
        )
        idle = sorted((m for m in self._open.values() if not m.users), key=lambda m: m.used)
        while self._open and model.memory + self._taken() > self._memory:
            if not idle:
                await asyncio.to_thread(model.batcher.close)
                message = "the memory is taken by models that are writing; try again"
                raise Refusal(503, message, "models_busy", "model", {"Retry-After": "1"})
            least = idle.pop(0)
            if not least.users:
                del self._open[least.name]
                await asyncio.to_thread(least.batcher.close)
        if self._deadline is not None:
            model.batcher.end_by(self._deadline)
        self._open[name] = model

    def _taken(self) -> int:
        return sum(model.memory for model in self._open.values())

    def end_by(self, deadline: float) -> None:
        """End all texts of all models at this moment of the monotonic clock."""
        self._deadline = deadline
        for model in self._open.values():
            model.batcher.end_by(deadline)

    async def close(self) -> None:
        """End all texts and threads."""
        for model in self._open.values():
            await asyncio.to_thread(model.batcher.close)


def _deliver(deliveries: Deliveries) -> None:
    for text, piece in deliveries:
        text.deliver(piece)
