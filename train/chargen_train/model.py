"""The model: embedding, GRU, linear."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence
from torch.overrides import TorchFunctionMode

from chargen_ort.artifact import Artifact, read_weights
from chargen_train.recurrence import Workspace, run_layer


@dataclass(frozen=True)
class Start:
    """How large the start weights of a model are.

    Attributes:
        embedding: standard deviation.
        recurrent: gain of the recurrent blocks.
        update: bias of the update gates; above 0 they keep more of the state.
        output: times what PyTorch's own would be.
    """

    embedding: float
    recurrent: float
    update: float
    output: float


WIDE = Start(embedding=2.0, recurrent=0.7, update=0.0, output=2.0)
NARROW = Start(embedding=0.1, recurrent=1.0, update=1.0, output=1.0)


class CharGRU(nn.Module):
    """A character-level GRU language model.

    The gates are those of `torch.nn.GRU` (Cho et al. 2014, with the reset gate applied after the
    recurrent product). The regularisers act in training mode only, so that the exported graph is
    a plain GRU: `weight_drop` drops entries of the recurrent matrices (Merity et al. 2018,
    "Regularizing and Optimizing LSTM Language Models"), `dropout` drops features, the same ones at
    every step of a window (Gal and Ghahramani 2016): half of it at the input, all of it between
    the layers and at the output.

    Args:
        vocab_size: number of tokens.
        embedding_dim: width of the token embedding.
        hidden_size: width of each layer.
        num_layers: number of layers.
        dropout: probability, 0 to below 1.
        weight_drop: probability, 0 to below 1.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.embedding_dim = embedding_dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.weight_drop = weight_drop
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.layers = nn.ModuleList(
            nn.GRU(embedding_dim if layer == 0 else hidden_size, hidden_size)
            for layer in range(num_layers)
        )
        self.output = nn.Linear(hidden_size, vocab_size)
        self._spaces = [Workspace() for _ in range(num_layers)]
        # where several processes share a batch: how many rows it has, and which of them come here
        self.shared: tuple[int, slice] | None = None

    @classmethod
    @torch.no_grad()
    def from_artifact(cls, artifact: Artifact) -> Self:
        """The model that an fp32 artifact was made of, on the CPU in evaluation mode.

        This is the one door for continuing from a file: what train-export wrote comes back bit for
        bit.
        """
        config, weights = artifact.config, read_weights(artifact)
        sizes = config.embedding_dim, config.hidden_size, config.num_layers
        model = cls(len(config.vocabulary), *sizes).eval()
        model.embedding.weight.copy_(torch.from_numpy(weights["embedding"].copy()))
        model.output.weight.copy_(torch.from_numpy(weights["output_weight"].T.copy()))
        model.output.bias.copy_(torch.from_numpy(weights["output_bias"].copy()))
        for index, layer in enumerate(model.grus()):
            w, r, b = (weights[f"layer_{index}_{part}"][0] for part in ("W", "R", "B"))
            arrays = (w, r, *np.split(b, 2))
            for parameter, array in zip(gru_parameters(layer), arrays, strict=True):
                update, reset, new = np.split(array, 3)  # ONNX's order; PyTorch's has reset first
                parameter.copy_(torch.from_numpy(np.concatenate([reset, update, new])))
        return model

    def grus(self) -> list[nn.GRU]:
        """The layers, first to last."""
        return [layer for layer in self.layers if isinstance(layer, nn.GRU)]

    def zero_hidden(self, batch: int) -> Tensor:
        """The state at the start of a text: zeros, ``[batch, num_layers, hidden_size]``."""
        return self.output.weight.new_zeros(batch, self.num_layers, self.hidden_size)

    def forward(
        self,
        token: Tensor,
        hidden: Tensor,
        begins: Tensor | None = None,
        among: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run as many steps as `token` holds.

        Args:
            token: int64 ``[batch, time]``.
            hidden: ``[batch, num_layers, hidden_size]``.
            begins: bool ``[batch, time]``, where a text begins: before that step the state is zero.
                None is nowhere.
            among: int64 ``[candidates]``, the tokens whose logits are wanted; None is all.

        Returns:
            logits ``[batch, time, vocab_size]``, or of the candidates, before temperature; and the
            next hidden, ``[batch, num_layers, hidden_size]``.
        """
        x = self.embedding(token.t())  # [time, batch, embedding_dim]
        x = self._locked_dropout(x, self.dropout / 2)
        begins = None if begins is None else begins.t()
        states = []
        for index, layer in enumerate(self.grus()):
            if index:
                x = self._locked_dropout(x, self.dropout)
            x, state = self._run_layer(
                index, layer, x, hidden[:, index], begins
            )  # [time, batch, hidden_size]
            states.append(state)
        x = self._locked_dropout(x, self.dropout)
        x = x.transpose(0, 1)  # [batch, time, hidden_size]
        if among is None:
            logits = self.output(x)  # [batch, time, vocab_size]
        else:
            # [batch, time, candidates]
            logits = F.linear(x, self.output.weight[among], self.output.bias[among])
        return logits, torch.stack(states, dim=1)  # [batch, num_layers, hidden_size]

    def _run_layer(
        self, index: int, layer: nn.GRU, x: Tensor, hidden: Tensor, begins: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        w_ih, w_hh, b_ih, b_hh = gru_parameters(layer)
        dropping = self.training and self.weight_drop > 0
        if dropping:
            w_hh = w_hh * _drop_mask(w_hh, self.weight_drop)  # [3 hidden, hidden]
        if self.training and torch.is_grad_enabled() and x.device.type == "cpu":
            keep = None if begins is None else (~begins).unsqueeze(-1).float()  # [time, batch, 1]
            return run_layer(x, hidden, (w_ih, w_hh, b_ih, b_hh), self._spaces[index], keep)

        def run(x: Tensor | PackedSequence, initial: Tensor) -> tuple[Any, Tensor]:
            result: tuple[Any, Tensor]
            if dropping:
                result = functional_call(layer, {"weight_hh_l0": w_hh}, (x, initial))
            else:  # the other call cannot be traced, as PyTorch's own exporters do
                result = layer(x, initial)
            return result

        if begins is not None:
            return run_texts(run, x, hidden, begins)
        y, last = run(x, hidden.unsqueeze(0).contiguous())  # [1, batch, hidden_size]
        return y, last[0]

    def _locked_dropout(self, x: Tensor, probability: float) -> Tensor:
        if not self.training or not probability:
            return x
        if self.shared is None:
            return x * F.dropout(torch.ones_like(x[:1]), probability)  # one mask for all steps
        # drawn for all rows, so that every process draws what one alone would
        batch, rows = self.shared
        return x * F.dropout(x.new_ones(1, batch, x.shape[2]), probability)[:, rows]


def model_without_numbers(
    vocab_size: int, embedding_dim: int, hidden_size: int, num_layers: int
) -> CharGRU:
    """A model on the device ``meta``, whose tensors have shapes and take no memory."""
    with torch.device("meta"), _Unfilled():
        return CharGRU(vocab_size, embedding_dim, hidden_size, num_layers)


class _Unfilled(TorchFunctionMode):
    """Leaves out normal start weights: drawing them on ``meta`` loads PyTorch's compiler."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        return None if func is nn.init.normal_ else func(*args, **(kwargs or {}))


def _drop_mask(weight: Tensor, probability: float) -> Tensor:
    """0 with `probability` (to within 2**-16), else 1 / (1 - probability), in `weight`'s shape.

    Four entries from each 64-bit draw: a quarter of the time that `F.dropout` takes on a CPU.
    """
    draws = torch.empty((weight.numel() + 3) // 4, dtype=torch.int64, device=weight.device)
    draws.random_(-(2**63), None)
    bits = draws.view(torch.int16)[: weight.numel()].view_as(weight)
    dropped = round(probability * 2**16)
    return (bits >= dropped - 2**15) * (2**16 / (2**16 - dropped))


def run_texts(
    run: Callable[[PackedSequence, Tensor], tuple[Any, Tensor]],
    x: Tensor,
    hidden: Tensor,
    begins: Tensor,
) -> tuple[Tensor, Tensor]:
    """What a GRU layer makes of rows in which texts begin, each of them as a sequence of its own.

    Args:
        run: the layer; takes sequences and their first states ``[1, sequences, hidden]``.
        x: ``[time, batch, input]``.
        hidden: ``[batch, hidden]``.
        begins: bool ``[time, batch]``.

    Returns:
        the states after each step ``[time, batch, hidden]``, and the last ``[batch, hidden]``.
    """
    time, batch = begins.shape
    is_first = begins.t().clone()  # [batch, time]
    is_first[:, 0] = True
    starts = is_first.flatten().nonzero()[:, 0]  # in the rows one after the other
    sizes = torch.diff(starts, append=starts.new_tensor([batch * time]))
    goes_on = ~begins.t().flatten()[starts]  # from the window before
    initial = hidden[starts // time] * goes_on[:, None]
    pieces = list(torch.split(x.transpose(0, 1).flatten(0, 1), sizes.tolist()))
    y, last = run(pack_sequence(pieces, enforce_sorted=False), initial[None].to(x.dtype))
    y = torch.cat(unpack_sequence(y)).view(batch, time, -1).transpose(0, 1)
    return y, last[0][is_first.sum(1).cumsum(0) - 1]


def gru_parameters(layer: nn.GRU) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input and recurrent weights ``[3 hidden, …]``, input and recurrent biases ``[3 hidden]``.

    The gates are in PyTorch's order: reset, update, new.
    """
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    w_ih, w_hh, b_ih, b_hh = (layer.get_parameter(name) for name in names)
    return w_ih, w_hh, b_ih, b_hh


def initialise(model: CharGRU, start: Start = WIDE) -> None:
    """Start weights for training, with orthogonal recurrent blocks (Saxe et al. 2014).

    With a small embedding the gates hardly see the text at first, with a small output they learn
    little from it, and a run of a thousand steps spends most of them on finding it. A model that
    reads its text very often has the time, and learns less of it by heart; see EXPERIMENTS.md.
    """
    nn.init.normal_(model.embedding.weight, std=start.embedding)
    for layer in model.grus():
        w_ih, w_hh, b_ih, b_hh = gru_parameters(layer)
        for block in w_hh.data.chunk(3):
            nn.init.orthogonal_(block, gain=start.recurrent)
        for block in w_ih.data.chunk(3):
            nn.init.xavier_uniform_(block)
        nn.init.zeros_(b_ih)
        nn.init.constant_(b_ih.data[model.hidden_size : 2 * model.hidden_size], start.update)
        nn.init.zeros_(b_hh)
    bound = start.output / math.sqrt(model.hidden_size)
    nn.init.uniform_(model.output.weight, -bound, bound)
    nn.init.zeros_(model.output.bias)
