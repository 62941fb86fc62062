"""The page of a server: it asks nobody else, and shows what the server writes and scores."""

import base64
import gzip
import re

import chargen_ort
from chargen_ort.models import DEMO_MODEL
from chargen_ort.reports import model_facts
from tests.conftest import ALPHABET, artifact_bytes, random_model
from tests.tools.browser import in_chromium, needs_browser
from tests.tools.serving import eventually, serving

START, SEED = "hell", 7


def test_the_page_may_ask_its_server_and_nobody_else(small_path):
    with serving(small_path) as served:
        answer = served.client.get("/")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', answer.text)[1]
    assert policy.startswith("default-src 'none'; connect-src 'self'; script-src 'sha256-")
    assert "unsafe-inline" not in policy
    assert "http" not in policy
    assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
    code = gzip.decompress(base64.b64decode(re.search(r'id="code">([^<]+)<', answer.text)[1]))
    assert b"v1/completions" in code
    assert not re.search(rb"^(import|export) ", code, re.MULTILINE)  # it is a classic script


def test_the_card_of_a_model_is_what_is_in_its_file(small_path):
    with serving(small_path) as served:
        card = served.client.get("/v1/models/small/card").json()
        assert served.client.get("/v1/models/large/card").status_code == 404
    facts = model_facts(chargen_ort.read_artifact(small_path))
    assert card["sha256"] == facts["sha256"]
    assert card["config"]["tokens"] == list(facts["config"]["tokens"])
    assert {"training", "parity", "bytes", "license"} <= card.keys()


@needs_browser
def test_in_a_browser_it_shows_what_the_server_writes(tmp_path):
    path = tmp_path / "ending.onnx"
    path.write_bytes(artifact_bytes(random_model(len(ALPHABET) + 1), end=True))
    with serving(DEMO_MODEL, path, key="secret") as served:
        found = in_chromium("served.mjs", served.url, "secret", START, SEED)
        eventually(lambda: not served.service.texts)
    model, ending = chargen_ort.load(DEMO_MODEL), chargen_ort.load(path)

    def written(**options):
        return START + model.generate(START, 60, seed=SEED, **options)

    assert found["plain"] == written(temperature=0.8)
    assert found["topP"] == written(temperature=1.7, top_p=0.6)
    assert "60 characters" in found["status"]
    assert f"seed {SEED}" in found["status"]
    assert (found["given"], found["next"]) == (len(START), 8)
    assert (found["bars"], found["actual"]) == ("After “h”", "e")
    assert "stopped" in found["stopped"]
    assert "does not know the character" in found["unknown"]
    score = model.score(f"{found['plain']}Q", unknown="skip")
    assert f"{score.bits_per_char:.3f} bits" in found["figures"]
    assert "1 unknown" in found["figures"]
    assert found["shades"] == [0] + [1] * len(found["plain"])
    assert model.artifact.sha256 in found["facts"]
    texts = "\n\n".join(ending.generate("", 200, seed=SEED, row=row) for row in range(64))
    assert texts.startswith(found["several"])
    assert len(found["several"]) > 150
    assert found["network"] == "forbidden"
    assert found["errors"] == []
    assert all(request.startswith(served.url) for request in found["requests"])
