"""The models that ship with the repository: whole, good, and used only if they are named."""

import shutil
from pathlib import Path

import pytest

from chargen_ort import CharGenerator, read_artifact
from chargen_ort.models import choose_model
from chargen_ort.verify import verify_artifact

FOLDER = Path(__file__).parent.parent / "artifacts/shipped"
FILES = sorted(FOLDER.glob("*.onnx"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_they_hold_what_their_files_say(path):
    assert all(verdict.passed for verdict in verify_artifact(read_artifact(path)))


def test_they_are_few_and_small():
    assert [path.stem for path in FILES] == ["names", "shakespeare"]
    assert sum(path.stat().st_size for path in FILES) < 3_000_000


def test_they_write_what_they_were_made_for():
    names = CharGenerator.load(FOLDER / "names.onnx")
    for seed in range(20):
        assert names.generate("", 40, seed=seed).isalpha()
    plays = CharGenerator.load(FOLDER / "shakespeare.onnx")
    assert (
        plays.score("To be, or not to be").bits_per_char
        < plays.score("Tb oe, ro otn").bits_per_char
    )


def test_they_are_used_only_if_they_are_named(tmp_path, monkeypatch):
    shutil.copytree(FOLDER, tmp_path / "artifacts/shipped")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHARGEN_MODEL", raising=False)
    assert choose_model().by_default
