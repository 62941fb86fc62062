"""A run that has ended is given more time: its schedule begins anew, a warm restart.

The learning rate had fallen to zero, and weights that move no more cannot become better. So the
rate warms up to its peak and falls to zero once more, over the time that is added (Loshchilov and
Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts"). Every lower peak that was
tried gained less, see EXPERIMENTS.md. The loss rises at first; the best weights are kept all the
while, so that what is exported is never worse, by the measure they are chosen by.
"""

from dataclasses import replace

from chargen_train.checkpoint import Checkpoint
from chargen_train.earlier import MAX_LENGTHS, Earlier
from chargen_train.recipe import describe_length


def with_more_time(
    checkpoint: Checkpoint,
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
) -> Checkpoint:
    """The checkpoint of an ended run as the beginning of a further part of it.

    The part begins with the best weights so far, in the model and in its average; the optimizer's
    moments, the windows, the state and the teachers stay as they are.

    Args:
        checkpoint: of the last step.
        steps, epochs, minutes: how long the part is, exactly one of them.

    Raises:
        OptionError: not one of them, or out of its range.
    """
    recipe = replace(checkpoint.recipe, steps=steps, epochs=epochs, minutes=minutes)
    state = checkpoint.state
    weights = state["best"]["weights"] or state["learner"]["average"]
    learner = state["learner"] | {"begun": 0.0, "weights": weights, "average": weights}
    return replace(
        checkpoint,
        recipe=recipe,
        seconds=0.0,
        earlier=_earlier(checkpoint),
        state=state | {"counters": state["counters"] | {"evaluations": 0}, "learner": learner},
    )


def _earlier(checkpoint: Checkpoint) -> Earlier:
    before = checkpoint.earlier
    lengths = describe_length(checkpoint.recipe)
    if before.parts:
        lengths = f"{before.lengths}, then {lengths}"
    if len(lengths) > MAX_LENGTHS:
        lengths = f"{before.parts + 1} parts"
    return Earlier(
        parts=before.parts + 1,
        steps=checkpoint.step,
        seconds=before.seconds + checkpoint.seconds,
        lengths=lengths,
    )
