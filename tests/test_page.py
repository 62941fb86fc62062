"""`chargen-ort web`: one file that works from disk, asks for nothing, and writes as Python does.

The browser's part runs where Chromium and playwright-core are: `make test-web` brings both.
"""

import base64
import os
import re

import pytest

import chargen_ort
from chargen_ort.models import DEMO_MODEL
from chargen_ort.page import page_bytes
from tests.conftest import artifact_bytes, assert_refused, random_model, run_here
from tests.tools.browser import in_chromium, needs_browser
from tests.tools.units import bpe, word

START, SEED = "hell", 7


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "demo.html"
    result = run_here("chargen-ort", "web", DEMO_MODEL, path)
    assert result.returncode == 0, result.stderr
    assert str(path) in result.stderr
    return path


def test_it_is_one_small_file_with_the_model_in_it(page):
    text = page.read_text()
    assert base64.b64encode(DEMO_MODEL.read_bytes()).decode() in text
    assert len(text) - 4 * DEMO_MODEL.stat().st_size / 3 < 60_000
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)


def test_it_forbids_all_requests_and_other_scripts(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page.read_text())[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy
    assert "http" not in policy


def test_the_same_model_gives_the_same_page(page):
    artifact = chargen_ort.read_artifact(DEMO_MODEL)
    assert page_bytes(artifact, "demo") == page.read_bytes()
    assert b'<h1 id="title">&lt;b&gt;</h1>' in page_bytes(artifact, "<b>")


def test_a_page_is_replaced_but_no_other_file(page, tmp_path):
    assert run_here("chargen-ort", "web", DEMO_MODEL, page).returncode == 0
    other = tmp_path / "notes.html"
    other.write_text("mine")
    assert_refused(run_here("chargen-ort", "web", DEMO_MODEL, other), "notes.html", "--overwrite")
    assert other.read_text() == "mine"
    assert run_here("chargen-ort", "web", DEMO_MODEL, other, "--overwrite").returncode == 0
    assert other.read_bytes() == page.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.html"]


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "nowhere"])
def test_nothing_but_a_file_is_written(kind, tmp_path):
    path = tmp_path / "out.html"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "else.html")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = tmp_path / "no" / "out.html"
    assert_refused(run_here("chargen-ort", "web", DEMO_MODEL, path, "--overwrite"), str(path))
    assert not (tmp_path / "else.html").exists()


def test_the_model_itself_is_not_overwritten(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(DEMO_MODEL.read_bytes())
    assert_refused(run_here("chargen-ort", "web", model, model, "--overwrite"), "the model itself")
    assert model.read_bytes() == DEMO_MODEL.read_bytes()


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_text("no model")
    assert_refused(
        run_here("chargen-ort", "web", tmp_path / "x.onnx", tmp_path / "x.html"), "x.onnx"
    )
    assert not (tmp_path / "x.html").exists()


@needs_browser
def test_in_a_browser_it_writes_what_python_writes(page, tmp_path):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(DEMO_MODEL.read_bytes()[:-3] + b"???")
    found = in_chromium("page.mjs", page, damaged, START, SEED)
    model = chargen_ort.load(DEMO_MODEL)

    def written(**options):
        return model.generate(START, 60, seed=SEED, **options)

    assert found["plain"] == written(temperature=0.8)
    assert found["hot"] == written(temperature=1.7)
    assert found["topP"] == written(temperature=1.7, top_p=0.6)
    assert f"seed {SEED}" in found["status"]
    assert (found["bars"], found["actual"], found["shares"]) == ("After “h”", "e", 8)
    assert "stopped" in found["stopped"]
    assert "does not know the character" in found["unknown"]
    assert "the seal" in found["damaged"]
    score = model.score(START + found["plain"])
    assert f"{score.bits_per_char:.3f} bits" in found["figures"]
    assert model.artifact.sha256 in found["facts"]
    assert found["network"] == "forbidden"
    assert found["errors"] == []
    assert set(found["requests"]) == {f"file://{page}"}
    assert not found["overflow"]
    for contrast, whose in found["contrast"]:  # WCAG 2.2 AA
        assert contrast >= 4.5, whose


@needs_browser
@pytest.mark.parametrize("unit", [bpe, word])
def test_in_a_browser_words_and_pieces_are_written_as_python_writes_them(unit, tmp_path):
    vocabulary = unit()
    data = artifact_bytes(random_model(len(vocabulary), seed=3), vocabulary=vocabulary)
    model = chargen_ort.CharGenerator.from_bytes(data)
    path, damaged = tmp_path / "units.html", tmp_path / "damaged.onnx"
    path.write_bytes(page_bytes(model.artifact, "units"))
    damaged.write_bytes(data[:-3] + b"???")
    found = in_chromium("page.mjs", path, damaged, START, SEED)
    assert found["plain"] == model.generate(START, 60, seed=SEED, temperature=0.8)
    assert found["hot"] == model.generate(START, 60, seed=SEED, temperature=1.7)
    assert f"{model.score(START + found['plain']).bits_per_char:.3f} bits" in found["figures"]
    assert found["errors"] == []
