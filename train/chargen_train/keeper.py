"""When to save a checkpoint, and what to say of it."""

from collections.abc import Callable

from chargen_ort.errors import ChargenError
from chargen_train.checkpoint import Checkpoint, save_checkpoint
from chargen_train.progress import Supervision


class Keeper:
    """Saves a run's checkpoints. One that cannot be written is a warning, not the run's end.

    Args:
        supervision: where and how often.
        take: gives the checkpoint of this moment.
        saved_step: step of the checkpoint that is there already, None if there is none.
    """

    def __init__(
        self, supervision: Supervision, take: Callable[[], Checkpoint], saved_step: int | None
    ) -> None:
        self._supervision = supervision
        self._take = take
        self._saved_step = saved_step
        self._tried_at = supervision.clock()

    def save_if_due(self, step: int, at_best: bool) -> None:
        """Save at a best, or if the last try is long enough ago."""
        age = self._supervision.clock() - self._tried_at
        if at_best or age >= self._supervision.checkpoint_minutes * 60:
            self.save(step)

    def save(self, step: int) -> None:
        """Save now, unless `step` is saved already."""
        path = self._supervision.checkpoint
        if path is None or self._saved_step == step:
            return
        try:
            save_checkpoint(path, self._take())
            self._saved_step = step
        except ChargenError as error:
            if self._supervision.on_warning:
                self._supervision.on_warning(f"no checkpoint at step {step:,}: {error}")
        self._tried_at = self._supervision.clock()

    def describe(self) -> str:
        """Which checkpoint there is to go on from."""
        path = self._supervision.checkpoint
        if path is None or self._saved_step is None:
            return "no checkpoint was saved"
        return f"the last good checkpoint is {path} (step {self._saved_step:,})"
