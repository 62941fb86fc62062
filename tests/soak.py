"""Kill a training run at random moments, resume it, and compare the weights bit for bit.

    python -m tests.soak 30

Each round forks a child that trains and saves after every step, sends it SIGKILL at a random
moment, and goes on from what it left; the weights must be those of a run that was left alone. A run
has a teacher, then the model that learns from it, and when it has ended it is given more steps.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from chargen_train import run
from chargen_train.checkpoint import load_checkpoint, load_latest, previous_of, save_checkpoint
from chargen_train.choosing import choose_recipe
from chargen_train.continuation import with_more_time
from chargen_train.corpus import load_corpus
from chargen_train.events import Observer, Supervision
from chargen_train.training import train

ADDED = 15  # steps, after those of the recipe
TEXT = "it was the best of times, it was the worst of times; " * 200


def train_on(corpus, recipe, saving, checkpoint=None):
    """The weights of the whole run, from a checkpoint on if there is one: its steps, then more."""
    path = saving.checkpoint
    if checkpoint is None or not checkpoint.earlier.parts:
        train(corpus, recipe, supervision=saving, resume=checkpoint)
        save_checkpoint(path, with_more_time(load_checkpoint(path), steps=ADDED))
        checkpoint = load_checkpoint(path)
    return train(corpus, checkpoint.recipe, Observer(), saving, checkpoint).model.state_dict()


def phase_of(checkpoint):
    """0 while the teacher is trained, 1 after that, 2 in the added steps."""
    if checkpoint.earlier.parts:
        return 2
    return min(1, len(checkpoint.state["teachers"]))


def main(rounds: int) -> list[int]:
    """Returns how many rounds were killed in mid-run: with a teacher, after it, in the added steps.

    That is after the first save and before the last step.
    """
    torch.set_num_threads(1)  # so that a fork is safe
    run.SAMPLE_LENGTH = 8  # so that a kill falls into a step or a save
    generator = random.Random(0)
    inside = [0, 0, 0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus.txt").write_text(TEXT)
        corpus = load_corpus(folder / "corpus.txt")
        recipe = choose_recipe(
            len(corpus.training),
            steps=30,
            hidden_size=16,
            num_layers=2,
            batch_size=4,
            seq_length=16,
            dropout=0.2,
            teachers=1,
        )
        saving = Supervision(checkpoint=folder / "alone.pt", checkpoint_minutes=0)
        train(corpus, recipe)  # what is loaded once is not part of the time below
        begun = time.monotonic()
        expected = train_on(corpus, recipe, saving)
        seconds = time.monotonic() - begun
        for index in range(rounds):
            path = folder / f"{index}.pt"
            saving = Supervision(checkpoint=path, checkpoint_minutes=0)
            child = os.fork()
            if child == 0:
                train_on(corpus, recipe, saving)
                os._exit(0)
            time.sleep(generator.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            checkpoint = None
            if path.exists() or previous_of(path).exists():
                checkpoint, _ = load_latest(path)
                if checkpoint.step < recipe.steps + ADDED:
                    inside[phase_of(checkpoint)] += 1
            weights = train_on(corpus, recipe, saving, checkpoint)
            for key, value in expected.items():
                if not torch.equal(weights[key], value):
                    step = checkpoint.step if checkpoint else 0
                    sys.exit(f"round {index}: {key} differs after step {step}")
            for left in folder.glob(f"*{index}.*"):
                left.unlink()
    return inside


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    inside = main(rounds)
    print(
        f"{rounds} runs killed, {sum(inside)} of them in mid-run ({inside[0]} with a teacher, "
        f"{inside[1]} after it, {inside[2]} in the added steps); all ended with the same weights"
    )
