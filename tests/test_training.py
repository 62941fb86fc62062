"""From a corpus to a model."""

import dataclasses
import math
import os
import sys

import numpy as np
import pytest
import torch

from chargen_ort import CorpusError, OptionError, TrainingError
from chargen_ort.options import SamplingOptions
from chargen_train import wait_briefly
from chargen_train.adamw import AdamW
from chargen_train.checkpoint import load_checkpoint
from chargen_train.choosing import choose_recipe
from chargen_train.corpus import load_corpus
from chargen_train.device import ThreadSwitch, choose_threads, threads
from chargen_train.evaluate import mean_loss, sample_text
from chargen_train.events import Supervision
from chargen_train.model import CharGRU, initialise
from chargen_train.planning import evaluation_count
from chargen_train.recipe import LESSON, Overrides, Recipe, parameter_count
from chargen_train.split import Passages
from chargen_train.training import measure_speed, train
from chargen_train.windows import Windows
from tests.conftest import HELLO, observing, random_model

CPU = torch.device("cpu")


@pytest.fixture
def corpus_of(tmp_path):
    def make(text, encoding="utf-8"):
        path = tmp_path / "corpus.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return load_corpus(path)

    return make


# The corpus


def test_a_corpus_keeps_its_text(corpus_of):
    corpus = corpus_of("héllo\nwörld")
    assert corpus.vocabulary.decode(corpus.tokens) == "héllo\nwörld"
    assert corpus.tokens.dtype == np.uint8
    assert len(corpus.training) == len(corpus) == 11
    assert len(corpus.validation) == 0


def test_a_byte_order_mark_and_crlf_are_not_part_of_the_text(corpus_of):
    corpus = corpus_of("a\r\nb".encode("utf-8-sig"))
    assert corpus.vocabulary.decode(corpus.tokens) == "a\nb"


def test_a_long_corpus_holds_out_a_tenth(corpus_of):
    corpus = corpus_of("abcdefghij" * 1_001)
    assert len(corpus.training) == int(0.9 * 10_010)
    assert len(corpus.training) + len(corpus.validation) == 10_010


def test_many_characters_need_wider_tokens(corpus_of):
    corpus = corpus_of("".join(map(chr, range(0x4E00, 0x4E00 + 300))))
    assert corpus.tokens.dtype == np.uint16


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"a", "one character long"),
        (b"\xef\xbb\xbfa", "one character long"),
        (b"abc\xffdef", "not UTF-8: byte 0xff at offset 3"),
    ],
)
def test_unusable_corpora_are_refused(corpus_of, data, message):
    with pytest.raises(CorpusError, match=message):
        corpus_of(data)


# The recipe


def test_every_size_of_corpus_has_a_recipe():
    for characters in [2, 3, 10, 23, 1_000, 10_000, 100_000, 1_000_000, 10**9]:
        recipe = choose_recipe(characters)
        assert recipe.batch_size * recipe.seq_length < characters
        assert recipe.hidden_size >= 32


def test_the_lesson_is_the_lesson():
    recipe = choose_recipe(23, "lesson")
    assert recipe == LESSON
    assert (recipe.embedding_dim, recipe.hidden_size, recipe.num_layers) == (16, 32, 1)
    assert (recipe.seq_length, recipe.learning_rate, recipe.steps) == (5, 0.01, 200)


def test_overrides_win_and_a_length_replaces_another():
    recipe = choose_recipe(1_000_000, hidden_size=64, epochs=2, seed=None)
    assert (recipe.hidden_size, recipe.epochs, recipe.minutes, recipe.steps) == (64, 2, None, None)


def test_every_setting_of_a_recipe_may_be_given():
    assert Overrides.__annotations__.keys() == {field.name for field in dataclasses.fields(Recipe)}


def test_dropout_rises_with_the_times_that_the_corpus_is_read():
    by_epochs = [choose_recipe(400_000, epochs=n).dropout for n in (1, 4, 15, 80, 1000)]
    assert by_epochs == sorted(by_epochs)
    assert by_epochs[0] == 0
    assert 0.2 <= by_epochs[-1] < 0.5
    assert choose_recipe(400_000, epochs=1000, dropout=0.1).dropout == 0.1


def test_dropout_rises_with_the_weights_of_many_characters():
    def dropout(vocab_size, epochs, tokens=800_000):
        given = {"hidden_size": 512, "num_layers": 1, "embedding_dim": 48}
        return choose_recipe(
            800_000, tokens=tokens, vocab_size=vocab_size, epochs=epochs, **given
        ).dropout

    assert dropout(5_387, 4.9) == 0.15, "as measured on Chinese poetry"
    assert [dropout(size, 13) for size in (2, 64)] == [0.1, 0.1], "few are no reason for less"
    assert dropout(64, 6.3) == 0, "as measured on Tiny Shakespeare"
    assert dropout(5_387, 0.5) == 0, "what is not read again cannot be learnt by heart"
    assert dropout(4_096, 13, tokens=300_000) == 0.1, "words gain nothing from more"


def test_a_long_run_has_teachers():
    recipes = [choose_recipe(1_000_000, epochs=n) for n in (1, 10, 20, 30, 60, 90, 1000)]
    assert [recipe.teachers for recipe in recipes] == [0, 0, 3, 4, 8, 8, 8]
    assert len({recipe.dropout for recipe in recipes if recipe.teachers}) == 1
    assert choose_recipe(1_000_000, epochs=90, teachers=0).teachers == 0
    alone = choose_recipe(1_000_000, epochs=90, teachers=0)
    assert alone.dropout > recipes[-1].dropout, "who has no teachers learns more by heart"
    given = choose_recipe(1_000_000, epochs=90, dropout=0.3)
    assert (given.teachers, given.dropout) == (8, 0.3)
    assert (given.ngram_share, alone.ngram_share) == (0, 1), "by an n-gram all are taught alike"
    settled = choose_recipe(1_000_000, epochs=90, dropout=0.3, teachers=4)
    assert (settled.teachers, settled.ngram_share) == (4, 0), "nothing is left to choose but this"
    assert choose_recipe(500_000, epochs=30).teachers == 2, "of less text one reads it more often"
    assert choose_recipe(4_000_000, epochs=30).teachers == 4, "of more not less than four times"
    for characters in (400_000, 10_000_000):  # not measured, or too much memory
        assert choose_recipe(characters, epochs=90).teachers == 0


def test_a_model_of_few_weights_has_no_teachers():
    for documents in (0, 20_000):
        chosen = [
            choose_recipe(700_000, epochs=60, documents=documents, num_layers=1, hidden_size=size)
            for size in (32, 512)
        ]
        assert [recipe.teachers for recipe in chosen] == [0, 4 if documents else 6]
        assert chosen[0].dropout == choose_recipe(700_000, epochs=60, teachers=0).dropout


def test_a_list_that_is_read_often_has_teachers_too():
    recipes = [
        choose_recipe(size, epochs=37, documents=20_000)
        for size in (90_000, 160_000, 2_000_000, 10_000_000)
    ]
    assert [recipe.teachers for recipe in recipes] == [0, 2, 2, 0]
    assert [recipe.dropout for recipe in recipes[1:3]] == [0.1, 0.1]
    assert recipes[1].ngram_share == 1, "as measured on names"
    assert choose_recipe(160_000, epochs=20, documents=20_000).teachers == 0


def test_a_narrow_model_or_a_short_run_learns_at_a_higher_rate():
    def rate(epochs=3, **given):
        return choose_recipe(400_000, epochs=epochs, **given).learning_rate

    assert [rate(hidden_size=n) for n in (128, 256, 512)] == [6e-3, 6e-3, 4.5e-3]
    assert choose_recipe(60_000, epochs=30).learning_rate == 3e-3, "narrow, and read often"
    assert rate(epochs=10) == 3e-3, "wider ones in a run of few steps alone"
    assert rate(documents=20_000) == 3e-3, "and on running text"
    assert rate(num_layers=2) == 4.5e-3
    assert rate(hidden_size=256, learning_rate=0.02) == 0.02
    assert [rate(epochs=n, hidden_size=256) for n in (18, 40)] == [6e-3, 3e-3]
    slow = choose_recipe(400_000, None, lambda recipe: 1e4, minutes=1)
    assert (slow.hidden_size, slow.learning_rate) == (256, 6e-3), "shrunk by the speed"


def test_a_run_of_few_steps_takes_twice_as_many_of_half_the_length():
    def length(characters, **given):
        return choose_recipe(1_000_000, tokens=characters, **given).seq_length

    assert [length(1_000_000, epochs=n) for n in (1, 2, 4, 30)] == [32, 32, 64, 64]
    assert length(100_000_000, epochs=1) == 64, "as many steps of a long text are many"
    assert length(1_000_000, epochs=1, seq_length=64) == 64
    assert length(1_000_000, steps=100) == 64, "so many steps are wanted, of so many characters"
    assert choose_recipe(1_000_000, documents=10_000, epochs=1).seq_length == 64
    slow = choose_recipe(1_000_000, None, lambda recipe: 1e4, minutes=1)
    assert slow.seq_length == 32, "by the measured speed"


def test_dropout_follows_the_speed_of_the_machine_if_minutes_are_given():
    def dropout(speed):
        return choose_recipe(1_000_000, None, lambda recipe: speed, minutes=10).dropout

    epochs = {speed: 600 * speed / 1_000_000 for speed in (1_000, 20_000, 500_000)}
    assert {speed: dropout(speed) for speed in epochs} == {
        speed: choose_recipe(1_000_000, epochs=n).dropout for speed, n in epochs.items()
    }


def test_the_speed_is_measured_only_where_it_matters():
    def never(recipe):
        raise AssertionError

    choose_recipe(23, "lesson", never)
    choose_recipe(1_000, None, never)
    choose_recipe(1_000_000, None, never, epochs=3)
    choose_recipe(1_000_000, None, never, minutes=3, dropout=0.2, teachers=0, hidden_size=512)


def test_a_model_that_would_read_too_little_gives_way_to_a_smaller_one():
    """At one speed of the machine: the less time, the smaller."""

    def sizes(minutes, **given):
        def speed(recipe):
            timed.append((recipe.num_layers, recipe.hidden_size))
            return 4e10 / parameter_count(64, recipe)

        timed = []
        recipe = choose_recipe(1_000_000, None, speed, minutes=minutes, **given)
        return (recipe.num_layers, recipe.hidden_size), timed

    assert sizes(10)[0] == (2, 512)
    assert sizes(2)[0] == (1, 512)
    assert sizes(0.4)[0] == (1, 512), "it reads the corpus once"
    assert sizes(0.3)[0] == (1, 256)
    assert sizes(0.3, documents=50_000)[0] == (1, 512), "of a list less is enough"
    assert sizes(0.03)[0] == (1, 128)
    assert sizes(0.01)[0] == (1, 128), "the smallest, though it reads next to nothing"
    assert sizes(0.3)[1] == [(2, 512), (1, 256)], "what cannot be fast enough is not timed"
    assert sizes(1, hidden_size=300)[0] == (2, 300), "a size that is given is kept"
    assert choose_recipe(1_000_000, None, lambda r: 1.0, epochs=1).hidden_size == 512


@pytest.mark.alone
def test_the_measured_speed_is_about_that_of_training(corpus_of):
    corpus = corpus_of("the quick brown fox jumps over the lazy dog. " * 600)
    recipe = choose_recipe(len(corpus.training), hidden_size=64, steps=60)
    measured = measure_speed(corpus, recipe)
    progress = []
    train(corpus, recipe, observing(on_progress=progress.append))
    assert measured == pytest.approx(progress[-1].chars_per_second, rel=0.8)


def test_the_default_for_a_million_characters_is_a_file_of_ten_megabytes_at_most():
    assert 9.5e6 < 4 * parameter_count(65, choose_recipe(1_000_000)) < 9.95e6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0; give 1 to 8192"),
        ({"dropout": 1.5}, "dropout is 1.5; give 0 to 0.9"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"minutes": -1}, "minutes is -1"),
        ({"minutes": 1, "epochs": 1}, "only one of epochs and minutes"),
        ({"device": "tpu"}, "auto, cpu or cuda"),
        ({"width": 3}, "no such setting: width"),
        ({"preset": "best"}, "choose one of lesson"),
    ],
)
def test_settings_out_of_range_are_refused(overrides, message):
    with pytest.raises(OptionError, match=message):
        choose_recipe(1_000, **overrides)


# Windows


def test_stateful_windows_read_the_text_on():
    recipe = choose_recipe(1_000, batch_size=4, seq_length=10, steps=1)
    tokens = np.arange(1_000, dtype=np.uint16)
    windows = Windows(tokens, recipe, CPU)
    batch = windows.next()
    assert torch.equal(batch.target, batch.token + 1)
    assert batch.keep.sum() == 0
    for _ in range(5):
        following = windows.next()
        assert torch.equal(following.token[:, 0], batch.token[:, -1] + 1)
        assert torch.equal(following.target, following.token + 1)
        assert following.target.tolist() == following.places.tolist()
        batch = following


def test_a_pass_reads_no_character_twice():
    recipe = choose_recipe(1_000, batch_size=4, seq_length=10, steps=1)
    windows = Windows(np.arange(1_000, dtype=np.uint16), recipe, CPU)
    seen = torch.cat([windows.next().token.flatten() for _ in range(23)])
    assert len(seen.unique()) == len(seen)


def test_random_windows_begin_anew_and_reach_both_ends():
    windows = Windows(np.arange(8, dtype=np.uint8), choose_recipe(8, "lesson", seq_length=3), CPU)
    begins, ends = set(), set()
    for _ in range(100):
        batch = windows.next()
        assert batch.keep.item() == 0
        assert batch.target[0].tolist() == batch.places[0].tolist()
        begins.add(batch.token[0, 0].item())
        ends.add(batch.target[0, -1].item())
    assert (min(begins), max(ends)) == (0, 7)


# Training


def test_two_runs_with_one_seed_give_the_same_weights(corpus_of):
    corpus = corpus_of("the quick brown fox jumps over the lazy dog. " * 20)
    recipe = choose_recipe(len(corpus.training), steps=5, dropout=0.2)
    first, second = (train(corpus, recipe).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = train(corpus, dataclasses.replace(recipe, seed=1)).model.state_dict()
    assert not torch.equal(first["output.weight"], other["output.weight"])


def test_an_optimizer_takes_the_steps_of_pytorchs_own_bit_for_bit():
    ours, theirs = (random_model(12, num_layers=2, scale=1.0).train() for _ in range(2))
    optimizer = AdamW(ours, 0.5)
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    expected = torch.optim.AdamW(
        [{"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.5},
         {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.99), fused=True,
    )  # fmt: skip
    for step in range(5):
        rate = 0.01 / (1 + step)
        expected.param_groups[0]["lr"] = expected.param_groups[1]["lr"] = rate
        for model in (ours, theirs):
            model.zero_grad()
            torch.manual_seed(step)
            token = torch.randint(12, (3, 7))  # [batch, time]
            model(token, model.zero_hidden(3))[0].logsumexp(-1).sum().backward()
        optimizer.step(rate)
        expected.step()
        if step == 2:  # as in a run that stops here
            resumed = AdamW(ours, 0.5)
            resumed.load(optimizer.state())
            optimizer = resumed
    for ours_now, theirs_now in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(ours_now, theirs_now)


def test_neither_training_nor_resuming_loads_the_compiler_of_pytorch(
    corpus_of, monkeypatch, tmp_path
):
    # loading it takes longer than loading PyTorch; whoever imports it here fails
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    corpus = corpus_of(HELLO)
    recipe = choose_recipe(len(corpus.training), "lesson", steps=2)
    train(corpus, recipe, supervision=Supervision(tmp_path / "c.pt"))
    train(corpus, recipe, resume=load_checkpoint(tmp_path / "c.pt"))


def test_training_leaves_the_global_generator_and_threads_alone(corpus_of):
    corpus = corpus_of(HELLO)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train(corpus, choose_recipe(23, steps=2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


def test_a_run_on_the_cpu_touches_no_gpu(corpus_of, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", None)  # would start a driver
    corpus = corpus_of(HELLO)
    recipe = choose_recipe(23, steps=2, device="cpu")
    assert measure_speed(corpus, recipe) > 0
    assert train(corpus, recipe).summary.device == "cpu"


@pytest.mark.parametrize(
    ("length", "count"),
    [({"steps": 9}, 10), ({"minutes": 0.5}, 10), ({"minutes": 20}, 20), ({"minutes": 60}, 30)],
)
def test_a_run_is_measured_once_a_minute_within_limits(length, count):
    assert evaluation_count(Recipe(**length)) == count


def test_the_faster_number_of_threads_is_found_again_and_again():
    """The machine is quiet, then another program keeps a core busy, then it is quiet again."""

    def seconds_by_count(switch, seconds, until):
        spent = dict.fromkeys(seconds, 0.0)
        while sum(spent.values()) < until:
            spent[switch.count] += seconds[switch.count]
            switch.after_step(seconds[switch.count])
            assert torch.get_num_threads() == switch.count
        return spent

    with threads(2):
        switch = ThreadSwitch(2, 2)
        quiet = seconds_by_count(switch, {2: 0.1, 1: 0.15}, 300)
        assert 0 < quiet[1] < 0.05 * 300
        busy = seconds_by_count(switch, {2: 0.4, 1: 0.16}, 300)
        assert busy[2] < 0.15 * 300
        quiet = seconds_by_count(switch, {2: 0.1, 1: 0.15}, 300)
        assert quiet[1] < 0.35 * 300, "it may take a while until the other number is tried again"
        # a step that takes seconds: the first trial costs no more than a few of them
        switch = ThreadSwitch(2, 2)
        slow = seconds_by_count(switch, {2: 2.5, 1: 0.2}, 20)
        assert slow[2] <= 2 * 2.5


def test_steps_and_epochs_are_always_computed_with_all_threads():
    """The number of threads decides the last bits, and the same seed gives the same weights."""
    wide, narrow = Recipe(steps=5), Recipe(steps=5, hidden_size=64)
    with threads(2):
        assert choose_threads(wide, CPU) == 2
        assert choose_threads(narrow, CPU) == 1
        assert choose_threads(dataclasses.replace(wide, steps=None, minutes=1), CPU) in (1, 2)


def test_waiting_threads_give_their_core_away_unless_the_user_said_how_to_wait(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    wait_briefly()
    assert int(os.environ["GOMP_SPINCOUNT"]) <= 10_000
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_first_character_moves_the_state_of_an_untrained_model():
    """A model whose gates hardly see their input needs hundreds of steps to find it."""
    torch.manual_seed(0)
    model = CharGRU(65, 48, 512, 2)
    initialise(model)
    token = torch.arange(65)[:, None]  # [batch, time]
    _, hidden = model.eval()(token, model.zero_hidden(65))  # [batch, num_layers, hidden_size]
    assert hidden[:, 0].std(dim=0).mean() > 0.1


def test_an_untrained_model_prefers_some_characters():
    """With a small output the layers below it learn little at first."""
    torch.manual_seed(0)
    model = CharGRU(65, 48, 512, 1)
    initialise(model)
    logits, _ = model.eval()(torch.arange(65)[:, None], model.zero_hidden(65))
    assert 0.3 < logits.std() < 3
    for block in model.grus()[0].weight_hh_l0.detach().chunk(3):
        assert torch.linalg.svdvals(block).numpy() == pytest.approx(np.full(512, 0.7), abs=1e-4)


@pytest.mark.parametrize("preset", ["lesson", None])
def test_hello_world_is_learnt(corpus_of, preset):
    corpus = corpus_of(HELLO)
    trained = train(corpus, choose_recipe(len(corpus), preset))
    cold = SamplingOptions(temperature=0.2, seed=0)
    text = sample_text(trained.model, corpus.vocabulary, "hell", 30, cold)
    assert text.startswith("o world hello world")
    assert trained.summary.validation is None


@pytest.mark.parametrize("text", ["ab", "aa", "abc", "aaaaaaaaab"])
def test_the_smallest_corpora_train(corpus_of, text):
    corpus = corpus_of(text)
    trained = train(corpus, choose_recipe(len(corpus), steps=3))
    assert trained.summary.steps == 3


def test_a_held_out_part_is_measured_and_the_best_weights_are_kept(corpus_of):
    corpus = corpus_of("it was the best of times, it was the worst of times; " * 200)
    reports = []
    recipe = choose_recipe(len(corpus.training), steps=200, hidden_size=32, learning_rate=0.02)
    trained = train(corpus, recipe, observing(on_progress=reports.append))
    validation = trained.summary.validation
    assert validation.characters == len(corpus.validation)
    assert validation.nats_per_char == pytest.approx(
        mean_loss(trained.model, corpus.validation.passages()), rel=1e-6
    )
    assert validation.nats_per_char < math.log(len(corpus.vocabulary)) / 2
    assert reports[-1].fraction == 1
    assert reports[-1].validation == pytest.approx(validation.nats_per_char, abs=0.05)
    assert sum(report.sample is not None for report in reports) == 10


def test_a_clock_bound_run_ends_in_time(corpus_of):
    corpus = corpus_of("it was the best of times, it was the worst of times; " * 50)
    reports = []
    train(
        corpus,
        choose_recipe(len(corpus.training), minutes=0.05, hidden_size=32),
        observing(on_progress=reports.append),
    )
    assert reports[-1].fraction == 1
    assert len(reports) > 10


def test_a_loss_that_is_not_finite_stops_the_run(corpus_of, monkeypatch):
    monkeypatch.setattr("chargen_train.run.initialise", poison)
    with pytest.raises(TrainingError, match="not finite; try a --learning-rate below"):
        train(corpus_of(HELLO), choose_recipe(23, steps=2))


def poison(model, start):
    torch.nn.init.constant_(model.output.weight, float("inf"))


def test_cuda_is_refused_where_there_is_none(corpus_of, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="finds no GPU here; give --device cpu"):
        train(corpus_of(HELLO), choose_recipe(23, device="cuda"))


# The model


def test_regularisers_act_in_training_only():
    model = CharGRU(5, 4, 8, 2, dropout=0.5, weight_drop=0.5)
    token, hidden = torch.zeros(2, 6, dtype=torch.int64), model.zero_hidden(2)
    assert not torch.equal(model(token, hidden)[0], model(token, hidden)[0])
    model.eval()
    assert torch.equal(model(token, hidden)[0], model(token, hidden)[0])


def test_the_loss_of_windows_is_the_mean_over_all_predictions():
    model = random_model(vocab_size=7)
    tokens = np.random.default_rng(0).integers(0, 7, 61).astype(np.uint8)
    total = 0.0
    for begin in range(0, 60, 16):
        x = torch.from_numpy(tokens[begin : begin + 16][: 60 - begin].astype(np.int64))
        y = torch.from_numpy(tokens[begin + 1 : begin + 17].astype(np.int64))
        with torch.no_grad():
            logits, _ = model(x[None], model.zero_hidden(1))
        total -= logits[0].log_softmax(-1)[torch.arange(len(y)), y].sum().item()
    assert mean_loss(model, Passages.of(tokens, 16)) == pytest.approx(total / 60, rel=1e-5)
