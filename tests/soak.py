"""Kill a training run at random moments, resume it, and compare the weights bit for bit.

    python -m tests.soak 30

Each round forks a child that trains and saves after every step, sends it SIGKILL at a random
moment, and goes on from what it left; the weights must be those of a run that was left alone.
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
from chargen_train.checkpoint import load_latest, previous_of
from chargen_train.corpus import load_corpus
from chargen_train.events import Supervision
from chargen_train.recipe import choose_recipe
from chargen_train.training import train

TEXT = "it was the best of times, it was the worst of times; " * 200


def main(rounds: int) -> int:
    """Returns how many of the rounds were killed after the first save and before the last step."""
    torch.set_num_threads(1)  # so that a fork is safe
    run.SAMPLE_LENGTH = 8  # so that a kill falls into a step or a save
    generator = random.Random(0)
    inside = 0
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
        expected = train(corpus, recipe, supervision=saving).model.state_dict()
        seconds = time.monotonic() - begun
        for index in range(rounds):
            path = folder / f"{index}.pt"
            saving = Supervision(checkpoint=path, checkpoint_minutes=0)
            child = os.fork()
            if child == 0:
                train(corpus, recipe, supervision=saving)
                os._exit(0)
            time.sleep(generator.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            checkpoint = None
            if path.exists() or previous_of(path).exists():
                checkpoint, _ = load_latest(path)
                inside += checkpoint.step < recipe.steps
            resumed = train(corpus, recipe, supervision=saving, resume=checkpoint)
            weights = resumed.model.state_dict()
            for key, value in expected.items():
                if not torch.equal(weights[key], value):
                    sys.exit(f"round {index}: {key} differs after step {checkpoint.step}")
            for left in folder.glob(f"*{index}.*"):
                left.unlink()
    return inside


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    inside = main(rounds)
    print(f"{rounds} runs killed, {inside} of them in mid-run; all ended with the same weights")
