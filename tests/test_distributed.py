"""Several processes train as one does, and one that is lost ends the run and not its work."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from chargen_ort import read_artifact
from chargen_ort.reports import describe_training
from chargen_train.candidates import LARGE
from chargen_train.checkpoint import load_checkpoint
from chargen_train.run_folder import RunFolder
from chargen_train.team import Team
from chargen_train.together import main
from tests.conftest import BIN, TIMES, run_here

TOLERANCE = 1e-5  # nats a character, of every step's loss: only sums are rounded otherwise
AT_LENGTH = pytest.mark.skipif(
    "CHARGEN_DISTRIBUTED" not in os.environ, reason="make test-distributed starts torchrun often"
)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["x.txt", "--minuts", "3"], "unrecognized arguments: --minuts 3"),
        (["x.txt", "--minutes", "three"], "argument --minutes: invalid float value: 'three'"),
        (["x.txt", "--unit", "line"], "argument --unit: invalid choice: 'line'"),
        ([], "the following arguments are required: corpus"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(arguments, told, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    written = capsys.readouterr()
    assert written.out == ""
    [line] = written.err.splitlines()
    assert line.startswith(f"chargen_train: {told}")
    assert line.endswith("--help lists what there is")


def test_a_process_ends_without_taking_its_interpreter_down(tmp_path):
    """Threads of gloo that were still at work then aborted one in seven short runs."""
    code = """
import atexit, runpy, sys
atexit.register(print, "taken down")
sys.argv = ["chargen_train", "nowhere.txt"]
runpy.run_module("chargen_train", run_name="__main__")
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "chargen_train: no such file: nowhere.txt\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The losses of runs by one, two and three processes, and how many their records count."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "times.txt").write_text(TIMES)
    names = [f"{a}{b}" for a in ("anna", "eve", "john", "mary", "ruth") for b in "abcdefghijklmno"]
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in names * 4))
    signs = (0x4E00 + i * (i + 1) // 2 % LARGE for i in range(4 * LARGE))  # each of them
    (folder / "signs.txt").write_text("".join(map(chr, signs)))
    subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.distributed_child", folder],
        check=True, timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.parametrize("text", ["listed", "taught", "narrow"])
def test_two_processes_have_the_loss_curve_of_one(runs, text):
    """Of documents, of running text with teachers, and of thousands of signs.

    There are five rows a step, so two and three each.
    """
    alone, together = runs[f"{text}-1"], runs[f"{text}-2"]
    assert together["losses"] == pytest.approx(alone["losses"], abs=TOLERANCE)
    assert len(alone["losses"]) == 8
    assert (alone["processes"], together["processes"]) == (1, 2)


@pytest.mark.parametrize(("count", "recorded"), [(1, 2), (3, 3)])
def test_a_run_goes_on_with_another_number_of_processes(runs, count, recorded):
    assert len(runs["stopped-2"]["losses"]) == 3, "all stop when the leader is asked to"
    rest = runs[f"on-{count}"]
    assert rest["losses"] == pytest.approx(runs["running-1"]["losses"][3:], abs=TOLERANCE)
    assert rest["processes"] == recorded, "the most that took part"


def test_processes_agree_when_minutes_end(runs):
    assert len(runs["timed-2"]["losses"]) > 0


@pytest.mark.parametrize(("batch", "processes"), [(8, 2), (5, 2), (7, 3), (4, 4)])
def test_each_row_of_a_step_belongs_to_one_process(batch, processes):
    parts = [range(batch)[Team(rank, processes).rows(batch)] for rank in range(processes)]
    assert [row for part in parts for row in part] == list(range(batch))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# torchrun


def start(folder, *options, processes=2):
    command = ["torchrun", "--standalone", "--nproc-per-node", processes, "-m", "chargen_train"]
    command += ["times.txt", "--hidden-size", 16, "--device", "cpu", *options]
    return subprocess.Popen(
        [BIN / command[0], *map(str, command[1:])],
        cwd=folder, text=True, stderr=subprocess.PIPE, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def workers(process):
    """The numbers of the processes that torchrun has started, by rank."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        children = map(int, file.read().split())
        found = {}
        for child in children:
            with open(f"/proc/{child}/environ", "rb") as environment:
                settings = dict(e.split(b"=", 1) for e in environment.read().split(b"\0") if e)
            if b"RANK" in settings:
                found[int(settings[b"RANK"])] = child
    return found


def wait_for(path, process):
    for _ in range(2400):
        if path.exists():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    pytest.fail(f"{path} never came")


@pytest.fixture
def endless(tmp_path):
    """A run of two processes that has saved a step and would last for hours."""
    (tmp_path / "times.txt").write_text(TIMES)
    process = start(tmp_path, "--epochs", 100_000, "--checkpoint-minutes", 0.005)
    wait_for(tmp_path / "artifacts/times.run/checkpoint.previous.pt", process)
    yield process, tmp_path
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")
@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=AT_LENGTH)])
def test_a_killed_process_ends_the_run_with_one_line_and_the_run_goes_on(endless, rank):
    process, folder = endless
    os.kill(workers(process)[rank], signal.SIGKILL)
    begun = time.monotonic()
    _, message = process.communicate(timeout=120)
    assert process.returncode == 1
    assert time.monotonic() - begun < 60, "no process waits for one that is gone"
    [line] = [line for line in message.splitlines() if line.startswith("chargen_train: ")]
    assert line.startswith(f"chargen_train: process {1 - rank}: another process of the run is gone")
    assert "the last good checkpoint is artifacts/times.run/checkpoint.pt" in line
    step = load_checkpoint(folder / "artifacts/times.run/checkpoint.pt").step
    assert step > 0
    converted = run_here(
        "train-export", "convert", "artifacts/times.run/checkpoint.pt", "--text", "times.txt",
        cwd=folder,
    )  # fmt: skip
    assert converted.returncode == 0, converted.stderr
    training = read_artifact(folder / "artifacts/times.onnx").training
    assert training.processes == 2
    assert any("2 processes" in text for _, text in describe_training(training))


@AT_LENGTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_once_and_says_how_to_go_on(endless, number):
    process, folder = endless
    os.killpg(process.pid, number)  # as a terminal does: torchrun and its processes get it
    _, message = process.communicate(timeout=120)
    assert process.returncode != 0
    [line] = [line for line in message.splitlines() if line.startswith("chargen_train: ")]
    step = load_checkpoint(folder / "artifacts/times.run/checkpoint.pt").step
    assert line.startswith(f"chargen_train: stopped after step {step:,}; the last good checkpoint")
    assert line.endswith("go on with: torchrun … -m chargen_train times.txt --resume")


@AT_LENGTH
def test_a_finished_run_says_how_to_export_and_takes_more_time(tmp_path):
    (tmp_path / "times.txt").write_text(TIMES)
    for more, steps in (((), 19), (("--resume",), 38)):
        process = start(tmp_path, "--epochs", 1, *more, processes=3 - len(more))
        _, message = process.communicate(timeout=240)
        assert process.returncode == 0, message
        assert f"trained     {steps} steps by 3 processes" in message
        assert message.splitlines()[-1].endswith(
            "train-export convert artifacts/times.run/checkpoint.pt --text times.txt"
        )
    assert RunFolder(tmp_path / "artifacts/times.onnx").trained_steps == 38


@AT_LENGTH
def test_what_is_refused_is_said_once(tmp_path):
    (tmp_path / "times.txt").write_text(TIMES)
    for options, said in (
        (("--resume",), "no such checkpoint"),
        (("--batch-size", 1), "a step has 1 windows, too few for 2 processes"),
        (("--holdout", "nowhere.txt"), "nowhere.txt"),
    ):
        process = start(tmp_path, "--epochs", 1, *options)
        _, message = process.communicate(timeout=240)
        assert process.returncode != 0
        [line] = [line for line in message.splitlines() if line.startswith("chargen_train: ")]
        assert said in line
        assert "together.py" not in message, "the only traceback is torchrun's own"
