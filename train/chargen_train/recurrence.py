"""The recurrence of one GRU layer for training on a CPU: the arithmetic of `torch.nn.GRU`, faster.

Autograd would make a node of every step and add to the recurrent weights' gradient at each. Here
the backward pass is written out: the steps compute only what the next one waits for, all that can
be done for the whole window at once is, the gradient of the weights is one product, and the
memory is used again. State and gates are float32; only the products are in the layer's dtype, so
that under bfloat16 the gradient is nearer to float32's than `nn.GRU`'s under autocast.

With a = W_ih x + b_ih + (b_hr, b_hz, 0) given for all steps:

    r, z = sigmoid(a_rz + W_h_rz h),  g = W_hn h + b_hn,  n = tanh(a_n + r g),  h' = n + z (h - n)

Within a window the batch is the last axis, so that a state is a column for each row of the batch:
then W_hh is the left factor, whose rows two threads share, and the product takes two thirds of the
time that it takes with the batch first (32 rows of 512 units). It also makes each gate one piece
of memory.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Workspace:
    """Memory of one layer, kept from window to window; a copy of a model begins without.

    A shorter window uses the beginning of what the longest has needed.

    Attributes:
        uses: how many forward passes there were; a backward pass must be of the latest.
        shape: time, batch and hidden size of that pass.
        a: what a step adds to its product, the new gate's doubled: ``[time, 3 hidden, batch]``.
        state: before each step and after the last: ``[time + 1, hidden, batch]``.
        narrow: the same in the dtype of the products; the same memory if that is float32.
        after: after each step, where it is not what the next one begins with: ``[time, hidden,
            batch]``.
        rz: the gates r and z: ``[time, 2 hidden, batch]``.
        new: n, ``[time, hidden, batch]``; g: the same shape.
        to_z: what a gradient of h' becomes at z, ``[time, hidden, batch]``; to_n: at n.
        d_output: the gradient of the states, ``[time, hidden, batch]``.
        product: of one step, ``[3 hidden, batch]``.
        transposed: the recurrent weights, whose rows are what threads share backward, ``[hidden,
            3 hidden]``.
        gates: the gradients of one step at n, r, z and g: ``[4 hidden, batch]``. The first three
            are those of `a`, the last three those of the recurrent products.
        narrow_gates: the same in the dtype of the products.
        d_gates: those of all steps, ``[4 hidden, time, batch]``; before the steps, room for the
            input products.
        before: the states before each step for one product, ``[hidden, time, batch]``.
        d_state: ``[hidden, batch]``; d_product: the same shape.
    """

    def __init__(self) -> None:
        self.uses = 0
        self.shape: tuple[int, int, int] = (0, 0, 0)
        self._dtype = torch.float32
        self._memory: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Workspace":
        return Workspace()

    def __reduce__(self) -> tuple[type["Workspace"], tuple[()]]:
        return Workspace, ()

    def begin(self, time: int, batch: int, hidden: int, dtype: torch.dtype) -> None:
        """Make room for a forward pass whose products are in `dtype`."""
        self.uses += 1
        if (time, batch, hidden) == self.shape and dtype == self._dtype:
            return
        self.shape, self._dtype = (time, batch, hidden), dtype
        room, wide = self._room, torch.float32
        self.a = room("a", (time, 3 * hidden, batch), wide)
        self.state = room("state", (time + 1, hidden, batch), wide)
        self.after = room("after", (time, hidden, batch), wide)
        self.rz = room("rz", (time, 2 * hidden, batch), wide)
        self.new = room("new", (time, hidden, batch), wide)
        self.g = room("g", (time, hidden, batch), wide)
        self.to_z = room("to_z", (time, hidden, batch), wide)
        self.to_n = room("to_n", (time, hidden, batch), wide)
        self.d_output = room("d_output", (time, hidden, batch), wide)
        self.gates = room("gates", (4 * hidden, batch), wide)
        self.d_state = room("d_state", (hidden, batch), wide)
        self.product = room("product", (3 * hidden, batch), dtype)
        self.transposed = room("transposed", (hidden, 3 * hidden), dtype)
        self.d_gates = room("d_gates", (4 * hidden, time, batch), dtype)
        self.before = room("before", (hidden, time, batch), dtype)
        self.d_product = room("d_product", (hidden, batch), dtype)
        self.narrow, self.narrow_gates = self.state, self.gates
        if dtype != wide:
            self.narrow = room("narrow", (time + 1, hidden, batch), dtype)
            self.narrow_gates = room("narrow_gates", (4 * hidden, batch), dtype)

    def _room(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        memory, size = self._memory.get(name), math.prod(shape)
        if memory is None or memory.dtype != dtype or memory.numel() < size:
            memory = self._memory[name] = torch.zeros(size, dtype=dtype)
        return memory[:size].view(shape)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        initial: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        bias: Tensor,
        b_new: Tensor,
        space: Workspace,
        keep: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        (time, batch, _), hidden = x.shape, w_hh.shape[1]
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else w_hh.dtype
        space.begin(time, batch, hidden, dtype)
        rows, w_ih, w_hh = x.flatten(0, 1).to(dtype), w_ih.to(dtype), w_hh.to(dtype)
        inputs = space.d_gates.view(4 * hidden, time * batch)[: 3 * hidden]
        torch.mm(w_ih, rows.t(), out=inputs)  # [3 hidden, time * batch]
        inputs = inputs.view(3 * hidden, time, batch).transpose(0, 1)
        torch.add(inputs, bias[:, None], out=space.a)  # [time, 3 hidden, batch]
        space.a[:, 2 * hidden :].mul_(2)
        keeps = None if keep is None else keep.transpose(1, 2)  # [time, 1, batch]
        _run_steps(space, initial.t(), w_hh, b_new[:, None], keeps)
        ctx.save_for_backward(rows, w_ih, w_hh)
        ctx.space, ctx.use, ctx.keeps = space, space.uses, keeps
        after = space.state[1:] if keeps is None else space.after  # [time, hidden, batch]
        output = after.transpose(1, 2).to(dtype, copy=True, memory_format=torch.contiguous_format)
        return output, after[-1].t().clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_output, d_last = grads
        space: Workspace = ctx.space
        if ctx.use != space.uses:
            raise RuntimeError("the layer ran forward again before this backward pass")
        rows, w_ih, w_hh = ctx.saved_tensors
        time, batch, hidden = space.shape
        space.d_output.copy_(d_output.transpose(1, 2))
        space.d_state.copy_(d_last.t())
        _run_back(space, w_hh, ctx.keeps)
        d_gates = space.d_gates.view(4 * hidden, time * batch)
        space.before.copy_(space.narrow[:-1].transpose(0, 1))
        before = space.before.view(hidden, time * batch)
        d_w_hh = d_gates[hidden:] @ before.t()  # [3 hidden, hidden]
        d_inputs = d_gates[: 3 * hidden]  # n, r, z
        d_w_ih = (d_inputs @ rows).roll(-hidden, 0)  # [3 hidden, input], again r, z, n
        d_bias = d_gates.sum(1, dtype=torch.float32)  # [4 hidden]
        d_x = d_inputs.t() @ w_ih.roll(hidden, 0)  # [time * batch, input]
        return (
            d_x.view(time, batch, -1),
            space.d_state.t().clone(memory_format=torch.contiguous_format),
            d_w_ih.float(),
            d_w_hh.float(),
            d_bias[: 3 * hidden].roll(-hidden),
            d_bias[3 * hidden :],
            None,
            None,
        )


def _run_steps(
    space: Workspace, initial: Tensor, w_hh: Tensor, b_new: Tensor, keeps: Tensor | None
) -> None:
    """All steps forward, from ``[hidden, batch]``."""
    time, _, hidden = space.shape
    space.state[0] = initial if keeps is None else initial * keeps[0]
    if space.narrow is not space.state:
        space.narrow[0] = space.state[0]
    a_rz, a_n = space.a[:, : 2 * hidden].unbind(), space.a[:, 2 * hidden :].unbind()
    states, narrows, gs = space.state.unbind(), space.narrow.unbind(), space.g.unbind()
    afters = states[1:] if keeps is None else space.after.unbind()
    rzs, news = space.rz.unbind(), space.new.unbind()
    rs, zs = space.rz[:, :hidden].unbind(), space.rz[:, hidden:].unbind()
    product_rz, product_n = space.product[: 2 * hidden], space.product[2 * hidden :]
    for t in range(time):  # each line: [hidden, batch], or twice or three times as high
        torch.mm(w_hh, narrows[t], out=space.product)
        torch.add(a_rz[t], product_rz, out=rzs[t]).sigmoid_()
        torch.add(product_n, b_new, out=gs[t])
        torch.addcmul(a_n[t], rs[t], gs[t], value=2, out=news[t])
        news[t].sigmoid_().mul_(2).sub_(1)  # tanh(x) = 2 sigmoid(2 x) - 1, in half the time
        torch.lerp(news[t], states[t], zs[t], out=afters[t])
        if keeps is not None and t + 1 < time:
            torch.mul(afters[t], keeps[t + 1], out=states[t + 1])
        if space.narrow is not space.state:
            narrows[t + 1].copy_(states[t + 1])


def _run_back(space: Workspace, w_hh: Tensor, keeps: Tensor | None) -> None:
    """All steps backward; leaves their gradients in `d_gates`, the initial state's in `d_state`."""
    time, _, hidden = space.shape
    r, z = space.rz.chunk(2, dim=1)  # [time, hidden, batch] each
    new, g, before = space.new, space.g, space.state[:-1]
    # what a gradient of h' becomes at the gates, for all steps: [time, hidden, batch] each
    torch.sub(before, new, out=space.to_z)
    space.to_z.mul_(z).addcmul_(space.to_z, z, value=-1)  # (h - n) z (1 - z)
    torch.mul(new, new, out=space.to_n)
    space.to_n.neg_().add_(1).addcmul_(space.to_n, z, value=-1)  # (1 - n^2) (1 - z)
    g.mul_(r).addcmul_(g, r, value=-1)  # from n on to r: g r (1 - r)
    space.transposed.copy_(w_hh.t())
    gates, recurrent, d_state = space.gates, space.narrow_gates[hidden:], space.d_state
    d_n, d_r, d_z, d_g = gates.chunk(4)
    d_outputs, d_gates = space.d_output.unbind(), space.d_gates.unbind(1)
    to_zs, to_ns, to_rs, rs, zs = (x.unbind() for x in (space.to_z, space.to_n, g, r, z))
    for t in reversed(range(time)):
        d_state.add_(d_outputs[t])
        torch.mul(d_state, to_zs[t], out=d_z)
        torch.mul(d_state, to_ns[t], out=d_n)
        torch.mul(d_n, to_rs[t], out=d_r)
        torch.mul(d_n, rs[t], out=d_g)
        if space.narrow_gates is not gates:
            space.narrow_gates.copy_(gates)
        d_gates[t].copy_(space.narrow_gates)
        torch.mm(space.transposed, recurrent, out=space.d_product)
        d_state.mul_(zs[t]).add_(space.d_product)
        if keeps is not None:
            d_state.mul_(keeps[t])


def run_layer(
    x: Tensor,
    initial: Tensor,
    parameters: tuple[Tensor, Tensor, Tensor, Tensor],
    space: Workspace,
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One GRU layer over a window; bfloat16 products where autocast is on.

    Args:
        x: ``[time, batch, input]``.
        initial: float32 ``[batch, hidden]``.
        parameters: input and recurrent weights, input and recurrent biases, as `torch.nn.GRU`'s.
        space: this layer's own; a backward pass must come before the next forward pass.
        keep: float32 ``[time, batch, 1]``, 0 where the state before a step is zero, else 1; None is
            all 1.

    Returns:
        the states after each step ``[time, batch, hidden]``, and the last in float32
        ``[batch, hidden]``.
    """
    w_ih, w_hh, b_ih, b_hh = parameters
    hidden = w_hh.shape[1]
    b_rz, b_new = b_hh[: 2 * hidden], b_hh[2 * hidden :]
    bias = torch.cat([b_ih[: 2 * hidden] + b_rz, b_ih[2 * hidden :]])  # [3 hidden]
    output, last = _Recurrence.apply(x, initial, w_ih, w_hh, bias, b_new, space, keep)  # type: ignore[no-untyped-call]
    return output, last
