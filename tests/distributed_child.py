"""Processes of one machine that train together, without torchrun: for the tests.

    python -m tests.distributed_child FOLDER

Trains small runs alone and with two processes, which are forked, goes on with one of them with
three, and writes what came of each into FOLDER, by its name: the losses of the steps, and more.
"""

import contextlib
import dataclasses
import json
import os
import socket
import sys
from pathlib import Path

import torch
import torch._dynamo  # DistributedDataParallel loads it, for seconds: here once for all forks

from chargen_train import planning, run
from chargen_train.checkpoint import load_checkpoint
from chargen_train.corpus import load_corpus
from chargen_train.events import Observer, Supervision, TrainingStoppedError
from chargen_train.recipe import Recipe
from chargen_train.team import Team, joined
from chargen_train.training import train

RECIPE = Recipe(
    hidden_size=16, num_layers=2, embedding_dim=8, seq_length=16, batch_size=5, dropout=0.2,
    learning_rate=0.01, steps=8,
)  # fmt: skip


class Watcher(Observer):
    """Notes the losses; stops after a step."""

    def __init__(self, stop):
        self.losses, self._stop = [], stop

    def on_progress(self, progress):
        self.losses.append(progress.loss)

    def should_stop(self):
        return len(self.losses) == self._stop


def train_here(folder, name, recipe, text, team, stop=None, resume=None):
    """One run; the leader writes what came of it."""
    corpus = load_corpus(folder / text)
    # only the leader is asked to stop, and all of them do
    watcher = Watcher(stop if team.leads else None)
    supervision = Supervision(folder / f"{name}.pt", checkpoint_minutes=0.01)
    summary = None  # of a run that is stopped
    checkpoint = None if resume is None else load_checkpoint(folder / f"{resume}.pt")
    with contextlib.suppress(TrainingStoppedError):
        summary = train(corpus, recipe, watcher, supervision, checkpoint, team=team).summary
    if team.leads:
        found = {"losses": watcher.losses, "processes": summary and summary.processes}
        (folder / f"{name}.json").write_text(json.dumps(found))


def with_processes(count, work):
    """Do work(team) in so many forked processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            os.environ |= {
                "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }  # fmt: skip
            with joined("cpu") as team:
                work(team)
            os._exit(0)
        children.append(child)
    for child in children:
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(f"process {child} of {count} failed")


def main(folder: Path) -> None:
    """All runs, one after the other."""
    torch.set_num_threads(1)  # so that a fork is safe
    planning.SAMPLE_LENGTH = run.SAMPLE_LENGTH = 2
    planning._EVALUATIONS = 3, 3
    running, listed, signs = "times.txt", "names.txt", "signs.txt"
    taught = dataclasses.replace(RECIPE, teachers=2)
    timed = dataclasses.replace(RECIPE, steps=None, minutes=0.02)

    def work(team):
        train_here(folder, "listed-2", RECIPE, listed, team)
        train_here(folder, "taught-2", taught, running, team)
        train_here(folder, "narrow-2", RECIPE, signs, team)
        train_here(folder, "timed-2", timed, running, team)
        train_here(folder, "stopped-2", RECIPE, running, team, stop=3)

    with_processes(2, work)
    with_processes(
        3, lambda team: train_here(folder, "on-3", RECIPE, running, team, None, "stopped-2")
    )
    alone = Team()
    train_here(folder, "on-1", RECIPE, running, alone, None, "stopped-2")
    train_here(folder, "running-1", RECIPE, running, alone)
    train_here(folder, "listed-1", RECIPE, listed, alone)
    train_here(folder, "taught-1", taught, running, alone)
    train_here(folder, "narrow-1", RECIPE, signs, alone)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
