"""The written-out recurrence is `torch.nn.GRU`, value by value and gradient by gradient."""

import copy

import pytest
import torch
from torch import nn

from chargen_train.model import CharGRU, gru_parameters, run_texts
from chargen_train.recurrence import Workspace, run_layer


@pytest.mark.parametrize(
    ("time", "batch", "inputs", "hidden"), [(1, 1, 1, 1), (9, 3, 4, 7), (64, 8, 32, 64)]
)
def test_values_and_gradients_are_those_of_the_gru(time, batch, inputs, hidden):
    torch.manual_seed(0)
    layer = nn.GRU(inputs, hidden)
    x = torch.randn(time, batch, inputs, requires_grad=True)
    initial = torch.randn(batch, hidden, requires_grad=True)
    to_output, to_last = torch.randn(time, batch, hidden), torch.randn(batch, hidden)
    wanted = [x, initial, *gru_parameters(layer)]

    def results(output, last):
        loss = (output * to_output).sum() + (last * to_last).sum()
        return [output, last, *torch.autograd.grad(loss, wanted)]

    y, h = layer(x, initial[None])
    expected = results(y, h[0])
    space = Workspace()
    for _ in range(2):  # the second time in memory that was used before
        found = results(*run_layer(x, initial, gru_parameters(layer), space))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_under_bfloat16_its_gradient_is_no_further_from_float32_than_the_gru_s():
    torch.manual_seed(0)
    layer, x, initial = nn.GRU(32, 64), torch.randn(32, 8, 32), torch.randn(8, 64)

    def gradient(run, bf16):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = run()
        loss = output.float().square().sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(layer.parameters()))])

    def plain():
        return layer(x, initial[None])[0]

    def own():
        return run_layer(x, initial, gru_parameters(layer), Workspace())[0]

    exact = gradient(plain, False)
    assert (gradient(own, True) - exact).norm() <= (gradient(plain, True) - exact).norm()


def test_training_and_evaluation_compute_the_same():
    torch.manual_seed(0)
    model = CharGRU(7, 5, 12, 2)
    token, hidden = torch.randint(7, (3, 10)), torch.randn(3, 2, 12)
    trained = model(token, hidden)  # the written-out recurrence
    evaluated = model.eval()(token, hidden)  # nn.GRU
    for a, b in zip(trained, evaluated, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_path_of_a_gpu_has_the_same_values_and_gradients(monkeypatch, dropout):
    """A GPU runs nn.GRU in training too, with the weights that were not dropped."""
    torch.manual_seed(0)
    model = CharGRU(7, 5, 12, 2, dropout, weight_drop=dropout)
    token, hidden = torch.randint(7, (3, 10)), torch.randn(3, 2, 12)

    def results():
        torch.manual_seed(1)  # of what is dropped
        logits, last = model(token, hidden)
        loss = logits.square().sum() + last.square().sum()
        return [logits, last, *torch.autograd.grad(loss, list(model.parameters()))]

    expected = results()
    monkeypatch.setattr("chargen_train.model.run_layer", None)
    monkeypatch.setattr(torch, "is_grad_enabled", lambda: False)  # what `CharGRU` asks
    for a, b in zip(results(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_backward_pass_that_comes_too_late_is_refused():
    model = CharGRU(5, 4, 8, 1)
    token = torch.zeros(2, 3, dtype=torch.int64)
    first, _ = model(token, model.zero_hidden(2))
    model(token, model.zero_hidden(2))
    with pytest.raises(RuntimeError, match="ran forward again"):
        first.sum().backward()


def test_a_copy_of_a_model_has_memory_of_its_own():
    model = CharGRU(5, 4, 8, 1)
    token = torch.zeros(2, 3, dtype=torch.int64)
    logits, _ = model(token, model.zero_hidden(2))
    copied = copy.deepcopy(model)
    copied(token, copied.zero_hidden(2))
    logits.sum().backward()
    assert model.output.weight.grad is not None


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_weight_drop_drops_as_many_and_scales_the_rest(probability, monkeypatch):
    torch.manual_seed(0)
    fed = []
    monkeypatch.setattr(
        "chargen_train.model.run_layer", lambda *given: fed.append(given[2][1]) or run_layer(*given)
    )
    model = CharGRU(2, 1, 183, 1, weight_drop=probability)  # 3 * 183**2 is odd
    with torch.no_grad():
        gru_parameters(model.layers[0])[1].fill_(1)
    model(torch.zeros(1, 1, dtype=torch.int64), model.zero_hidden(1))
    mask = fed[0].detach()  # of the recurrent weights
    assert (mask == 0).float().mean().item() == pytest.approx(probability, abs=0.005)
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - probability)], rel=1e-4)
    assert mask.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_text_that_begins_within_a_window_is_as_if_it_stood_alone(bf16):
    torch.manual_seed(0)
    layer = nn.GRU(5, 8)
    x, initial = torch.randn(12, 3, 5), torch.randn(3, 8, requires_grad=True)
    begins = torch.zeros(12, 3, dtype=torch.bool)
    begins[[0, 4, 5, 11], [1, 0, 0, 2]] = True
    wanted = [initial, *gru_parameters(layer)]

    def gradients(y, last):
        loss = (y.float() * x.sum(2, keepdim=True)).sum() + last.float().square().sum()
        return [y, last, *torch.autograd.grad(loss, wanted)]

    def alone():
        rows, lasts = [], []
        for row in range(3):
            hidden, outputs = initial[row][None, None], []
            for time in range(12):
                hidden = hidden * ~begins[time, row]
                y, hidden = layer(x[time : time + 1, row : row + 1], hidden)
                outputs.append(y)
            rows.append(torch.cat(outputs))
            lasts.append(hidden[0])
        return torch.cat(rows, dim=1), torch.cat(lasts)

    expected = gradients(*alone())
    keep = (~begins).unsqueeze(-1).float()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        own = run_layer(x, initial, gru_parameters(layer), Workspace(), keep)
    packed = run_texts(lambda x, h: layer(x, h), x, initial, begins)
    tolerance = 0.1 if bf16 else 1e-5
    for found, wished in zip(gradients(*own), expected, strict=True):
        torch.testing.assert_close(found.float(), wished, rtol=tolerance, atol=tolerance)
    for found, wished in zip(gradients(*packed), expected, strict=True):
        torch.testing.assert_close(found, wished, rtol=1e-5, atol=1e-5)


def test_a_shorter_window_after_a_longer_one_computes_the_same():
    torch.manual_seed(0)
    layer, space = nn.GRU(4, 8), Workspace()
    for time in (9, 5, 12, 9):
        x, initial = torch.randn(time, 3, 4), torch.randn(3, 8)
        y, last = run_layer(x, initial, gru_parameters(layer), space)
        found = torch.autograd.grad(y.square().sum() + last.sum(), gru_parameters(layer))
        y, last = layer(x, initial[None])
        wished = torch.autograd.grad(y.square().sum() + last.sum(), gru_parameters(layer))
        for a, b in zip(found, wished, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
