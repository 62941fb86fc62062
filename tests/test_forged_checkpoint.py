"""A checkpoint whose seal is right and whose content no run saved is refused with one line."""

import contextlib
import copy
import hashlib
import io
import itertools
import json
import math
import os
import zipfile

import pytest
import torch

from chargen_export.pipeline import train_and_export
from chargen_ort import ChargenError, OptionError
from chargen_train.checkpoint import load_checkpoint
from chargen_train.corpus import load_corpus
from chargen_train.events import TrainingStoppedError
from chargen_train.model import CharGRU
from chargen_train.resuming import refuse_misfit
from chargen_train.run_folder import RunFolder
from chargen_train.training import train
from tests.conftest import observing, train_export

TEXT = "it was the best of times, it was the worst of times; " * 200
CHARACTERS = "".join(sorted(set(TEXT)))
STRIDE = int(os.environ.get("CHARGEN_FORGED_STRIDE", "5"))  # 1 tries every change there is
ODD = (
    None, True, -1, 0.5, 10**30, math.nan, math.inf, "x", "", [], {}, [1], {"a": 1},
    torch.zeros(0), torch.zeros(3, dtype=torch.int64), torch.tensor(math.nan),
)  # fmt: skip


def read(data):
    """The content of a checkpoint, its facts as an object."""
    content = torch.load(io.BytesIO(data[data.index(b"PK") :]), weights_only=True)
    content["facts"] = json.loads(content["facts"])
    return content


def seal(payload):
    digest = hashlib.sha256(payload).hexdigest()
    return f"chargen checkpoint 5\n{digest}\n".encode() + payload


def forge(content):
    facts = content.get("facts")
    if isinstance(facts, dict):
        content = content | {"facts": json.dumps(facts)}
    archive = io.BytesIO()
    torch.save(content, archive)
    return seal(archive.getvalue())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run with teachers that stopped while it trained the second."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "c.txt").write_text(TEXT)
    asked = iter(range(100))
    observer = observing(should_stop=lambda: next(asked) >= 5)
    sizes = {"hidden_size": 6, "embedding_dim": 5, "num_layers": 2}
    with pytest.raises(TrainingStoppedError):
        train_and_export(
            folder / "c.txt", folder / "m.onnx", None, observer, steps=12, teachers=2, **sizes
        )
    return RunFolder(folder / "m.onnx")


@pytest.fixture(scope="module")
def saved(stopped):
    """The bytes of its checkpoint."""
    return stopped.checkpoint.read_bytes()


@pytest.fixture(scope="module")
def corpus(stopped):
    return load_corpus(stopped.path.parent / "c.txt")


def places(value, path=()):
    """The paths to all that a content holds, outermost first; of lists the first and the last."""
    if path:
        yield path
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = [(i, value[i]) for i in {0, len(value) - 1} if value]
    else:
        return
    tensors = all(isinstance(inner, torch.Tensor) for _, inner in items)
    if len(items) > 4 and (tensors or isinstance(items[0][0], int)):
        items = [items[0], items[-1]]  # weights and moments are all alike
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(content, path, value):
    """A copy with another value at a path; KeyError as a value leaves the entry out."""
    content = holder = copy.copy(content)
    for key in path[:-1]:
        holder[key] = copy.copy(holder[key])
        holder = holder[key]
    if value is KeyError:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return content


def is_json(value):
    return not isinstance(value, torch.Tensor)


def mutations(content):
    """Every place with every odd value and without it; every tensor in other shapes and types.

    Each is a path and a value for `changed`.
    """
    for path in places(content):
        held = content
        for key in path:
            held = held[key]
        for value in (*ODD, KeyError):
            inside = path[0] == "facts"
            if not inside or len(path) == 1 or is_json(value):
                yield path, value
        if isinstance(held, torch.Tensor):
            for value in (held[None], held.double(), held.flatten()[:0], held.to_sparse(),
                          torch.zeros((), dtype=held.dtype).expand(held.shape),
                          torch.full_like(held, 255)):  # fmt: skip
                yield path, value


def test_every_change_is_refused_with_one_line_or_trained_on(saved, corpus, tmp_path):
    path = tmp_path / "checkpoint.pt"
    refused = accepted = 0
    content = read(saved)
    for change in itertools.islice(mutations(content), 0, None, STRIDE):
        path.write_bytes(forge(changed(content, *change)))
        try:
            checkpoint = load_checkpoint(path)
        except OptionError as error:
            refused += 1
            message = str(error)
            assert message.startswith(f"{path} is not a checkpoint of a run: ")
            assert len(message.splitlines()) == 1
            assert len(message) < len(str(path)) + 220
            continue
        accepted += 1  # a run could have saved that; it must lead to no other exception
        with contextlib.suppress(ChargenError):
            refuse_misfit(checkpoint, corpus)
            train(corpus, checkpoint.recipe, resume=checkpoint)
    assert refused > 600 / STRIDE
    assert accepted < refused / 4


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (
            ["state", "learner", "weights", "output.bias"],
            torch.zeros(3),
            r"learner weights output.bias is torch.float32 \[3\]",
        ),
        (["state", "best", "weights", "output.bias"], None, "output.bias is of type NoneType"),
        (["state", "best", "weights"], None, "best has a loss and no weights"),
        (
            ["state", "learner", "hidden"],
            torch.zeros(1),
            r"learner hidden is torch.float32 \[1\], not torch.float32",
        ),
        (["state", "learner"], KeyError, "learner is not what it is in a run"),
        (["state", "learner", "moments", 0], KeyError, "moments has not the entries that it has"),
        (["state", "teachers"], [{}], "teachers 0 has not the entries that it has in a run"),
        (["state", "teachers"], [{}] * 3, "it has more teachers than its recipe"),
        (
            ["state", "random", "torch"],
            torch.zeros(9, dtype=torch.uint8),
            r"random torch is torch.uint8 \[9\]",
        ),
        (
            ["state", "random", "cuda"],
            torch.zeros(16, dtype=torch.uint8),
            "random cuda is of type Tensor",
        ),
        (["facts", "recipe", "hidden_size"], 8192, "learner weights layers.0.*is torch.float32"),
        (["facts", "recipe", "hidden_size"], 6.0, "hidden_size is of type float"),
        (["facts", "recipe", "dropout"], 2, "dropout is 2; give 0 to 0.9"),
        (["facts", "recipe", "colour"], 2, "Recipe has no 'colour'"),
        (["facts", "plan", "threads"], 10**6, "threads is 1e\\+06, not 1 to 1024"),
        (["facts", "plan", "device"], "tpu", "device is neither cpu nor cuda"),
        (["state", "counters", "step"], -1, "counters step is -1"),
        (["facts", "seconds"], math.nan, "seconds is nan"),
        (["state", "windows", "index"], -4, "windows index is -4"),
        (["state", "windows", "index"], 0.5, "windows index is of type float"),
        (["state", "windows", "index"], 2**130, "windows index has more than 128 bits"),
        (["state", "windows", "generator"], {}, "windows generator has not the entries that"),
        (["facts", "sources", 0, "sha256"], "x\n\x1b[2J", "sha256 is no SHA-256"),
        (["facts", "vocabulary", "characters"], "\ud800", "surrogates not allowed"),
    ],
)
def test_the_message_names_what_is_wrong(saved, tmp_path, path, value, reason):
    (tmp_path / "c.pt").write_bytes(forge(changed(read(saved), path, value)))
    with pytest.raises(OptionError, match=reason):
        load_checkpoint(tmp_path / "c.pt")


def test_sizes_that_no_bytes_back_take_no_memory(saved, tmp_path):
    content = read(saved)
    content["facts"]["recipe"] |= {"hidden_size": 8192, "num_layers": 16}
    with torch.device("meta"):
        shapes = CharGRU(len(content["facts"]["vocabulary"]["characters"]), 5, 8192, 16)
    state = content["state"]
    for part, name in (("learner", "weights"), ("learner", "average"), ("best", "weights")):
        state[part][name] = {
            key: torch.zeros(()).expand(tensor.shape) for key, tensor in shapes.state_dict().items()
        }
    (tmp_path / "c.pt").write_bytes(forge(content))
    with pytest.raises(OptionError, match="is larger than its numbers"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_compressed_archive_is_refused(saved, tmp_path):
    packed = io.BytesIO()
    plain = zipfile.ZipFile(io.BytesIO(saved[saved.index(b"PK") :]))
    with plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in plain.infolist():
            archive.writestr(entry.filename, plain.read(entry))
        archive.writestr("archive/data/more", bytes(1 << 20))
    (tmp_path / "c.pt").write_bytes(seal(packed.getvalue()))
    with pytest.raises(OptionError, match="it is compressed"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (["facts", "vocabulary", "characters"], CHARACTERS[::-1], "tokens that are not the"),
        (["state", "windows", "offset"], 10**6, "from 1,000,000 on, which the text of"),
        (["facts", "recipe", "seq_length"], 4096, "windows of 4096 characters at once"),
        (
            ["state", "learner", "hidden"],
            torch.zeros(1),
            "is not a checkpoint of a run: learner hid",
        ),
    ],
)
def test_the_command_refuses_it_to_resume_and_to_export(stopped, saved, path, value, reason):
    folder = stopped.path.parent
    previous = stopped.path / "checkpoint.previous.pt"
    previous.unlink(missing_ok=True)
    stopped.checkpoint.write_bytes(forge(changed(read(saved), path, value)))
    for arguments in (
        [folder / "c.txt", "--out", folder / "m.onnx", "--resume"],
        ["convert", stopped.checkpoint, "--text", folder / "c.txt"],
    ):
        result = train_export(*arguments)
        assert result.exit_code == 2, result.output
        assert reason in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not (folder / "m.onnx").exists()


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe\n", b"[1, 2]\n", b"3\n", b'{"fraction": 0.5}\n', b'{"step": "x"}\n', b"null\n",
     b'{"step": 1}\n', b'{"step": 1, "fraction": "x", "loss": 1}\n', b"[" * 10**5 + b"\n",
     b'{"step": 1, "fraction": 0.1, "seconds": NaN, "loss": 1, "learning_rate": 1, '
     b'"chars_per_second": 1e400}\n', b"9" * 5000 + b"\n"],
)  # fmt: skip
def test_damaged_and_foreign_lines_of_metrics_are_dropped(stopped, saved, damage):
    stopped.checkpoint.write_bytes(saved)
    good = stopped.read_metrics()
    assert good
    stopped.metrics.write_bytes(damage + stopped.metrics.read_bytes() + damage)
    assert stopped.read_metrics() == good
    stopped.go_on(load_corpus(stopped.path.parent / "c.txt"), load_checkpoint(stopped.checkpoint))
    lines = stopped.metrics.read_text().splitlines()
    assert [json.loads(line) for line in lines] == good


@pytest.mark.parametrize("config", [b"\xff", b"[]", b"[" * 10**5, b'{"corpus": 3, "finished": 9}'])
def test_an_odd_configuration_is_written_anew(stopped, saved, config):
    stopped.checkpoint.write_bytes(saved)
    stopped.config.write_bytes(config)
    folder = stopped.path.parent
    train_and_export(folder / "c.txt", folder / "m.onnx", resume=True)
    assert stopped.read_config()["finished"] is True
    (folder / "m.onnx").unlink()
