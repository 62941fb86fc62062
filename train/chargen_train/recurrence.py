"""The recurrence of one GRU layer for training on a CPU: the arithmetic of `torch.nn.GRU`, faster.

Autograd would make a node of every step and add to the recurrent weights' gradient at each. Here
the backward pass is written out: the steps compute only what the next one waits for, all that can
be done for the whole window at once is, the gradient of the weights is one product, and the
memory is used again. State and gates are float32; only the products are in the layer's dtype, so
that under bfloat16 the gradient is nearer to float32's than `nn.GRU`'s under autocast.

With a = W_ih x + b_ih + (b_hr, b_hz, 0) given for all steps:

    r, z = sigmoid(a_rz + W_h_rz h),  g = W_hn h + b_hn,  n = tanh(a_n + r g),  h' = n + z (h - n)
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class Workspace:
    """Memory of one layer, kept from window to window; a copy of a model begins without.

    A shorter window uses the beginning of what the longest has needed.
    """

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.longest = 0
        self.dtype = torch.float32
        self.uses = 0  # a backward pass must be of the latest forward pass

    def __deepcopy__(self, memo: dict[int, Any]) -> "Workspace":
        return Workspace()

    def __reduce__(self) -> tuple[type["Workspace"], tuple[()]]:
        return Workspace, ()

    def begin(self, time: int, batch: int, hidden: int, dtype: torch.dtype) -> None:
        """Make room for a forward pass."""
        self.uses += 1
        if (time, batch, hidden) == self.shape and dtype == self.dtype:
            return
        if (batch, hidden) != self.shape[1:] or dtype != self.dtype or time > self.longest:
            self._make(time, batch, hidden, dtype)
        self.shape = time, batch, hidden
        self.state, self.narrow = (whole[: time + 1] for whole in self._states)
        if self.dtype == torch.float32:
            self.narrow = self.state
        parts = (whole[:time] for whole in self._steps)
        self.rz, self.new, self.g, self.to_z, self.to_n, self.d_input, self.d_recurrent = parts

    def _make(self, time: int, batch: int, hidden: int, dtype: torch.dtype) -> None:
        self.longest, self.dtype = time, dtype
        state = torch.zeros(time + 1, batch, hidden)  # before each step and after the last
        self._states = state, state if dtype == torch.float32 else state.to(dtype)
        self._steps = [torch.zeros(time, batch, width * hidden) for width in (2, 1, 1, 1, 1)]
        self._steps += [torch.zeros(time, batch, 3 * hidden, dtype=dtype) for _ in range(2)]
        self.product = torch.zeros(batch, 3 * hidden, dtype=dtype)
        self.gates = torch.zeros(batch, 3 * hidden)
        self.d_state = torch.zeros(batch, hidden)
        self.d_product = torch.zeros(batch, hidden, dtype=dtype)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        initial: Tensor,
        weight: Tensor,
        b_new: Tensor,
        space: Workspace,
        keep: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        time, batch, hidden = a.shape[0], a.shape[1], a.shape[2] // 3
        space.begin(time, batch, hidden, a.dtype)
        wide = a.to(torch.float32, copy=True)  # [time, batch, 3 hidden]
        wide[..., 2 * hidden :].mul_(2)
        transposed = weight.to(a.dtype).t()  # [hidden, 3 hidden]
        keeps = None if keep is None else keep.unbind()
        after = space.state[1:] if keep is None else torch.empty(time, batch, hidden)
        space.state[0] = initial if keeps is None else initial * keeps[0]
        space.narrow[0] = space.state[0]
        a_rz, a_n = wide[..., : 2 * hidden].unbind(), wide[..., 2 * hidden :].unbind()
        states, narrows, gs = space.state.unbind(), space.narrow.unbind(), space.g.unbind()
        afters = after.unbind()
        rzs, news = space.rz.unbind(), space.new.unbind()
        rs, zs = space.rz[..., :hidden].unbind(), space.rz[..., hidden:].unbind()
        product_rz, product_n = space.product[:, : 2 * hidden], space.product[:, 2 * hidden :]
        for t in range(time):  # each line: [batch, hidden], or twice or three times as wide
            torch.mm(narrows[t], transposed, out=space.product)
            torch.add(a_rz[t], product_rz, out=rzs[t]).sigmoid_()
            torch.add(product_n, b_new, out=gs[t])
            torch.addcmul(a_n[t], rs[t], gs[t], value=2, out=news[t])
            news[t].sigmoid_().mul_(2).sub_(1)  # tanh(x) = 2 sigmoid(2 x) - 1, in half the time
            torch.lerp(news[t], states[t], zs[t], out=afters[t])
            if keeps is not None and t + 1 < time:
                torch.mul(afters[t], keeps[t + 1], out=states[t + 1])
            if space.narrow is not space.state:
                narrows[t + 1].copy_(states[t + 1])
        ctx.save_for_backward(weight)
        ctx.space, ctx.use, ctx.keeps = space, space.uses, keeps
        if keeps is None:
            return space.narrow[1:].clone(), space.state[time].clone()
        return after.to(a.dtype), after[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_output, d_last = grads
        space: Workspace = ctx.space
        if ctx.use != space.uses:
            raise RuntimeError("the layer ran forward again before this backward pass")
        (weight,) = ctx.saved_tensors
        weight = weight.to(space.dtype)  # [3 hidden, hidden]
        time, batch, hidden = space.shape
        r, z = space.rz.chunk(2, dim=2)  # [time, batch, hidden] each
        new, g, before = space.new, space.g, space.state[:-1]
        # what a gradient of h' becomes at the gates, for all steps: [time, batch, hidden] each
        torch.sub(before, new, out=space.to_z)
        space.to_z.mul_(z).addcmul_(space.to_z, z, value=-1)  # (h - n) z (1 - z)
        torch.mul(new, new, out=space.to_n)
        space.to_n.neg_().add_(1).addcmul_(space.to_n, z, value=-1)  # (1 - n^2) (1 - z)
        g.mul_(r).addcmul_(g, r, value=-1)  # from n on to r: g r (1 - r)
        d_r, d_z, d_n = space.gates.chunk(3, dim=1)
        d_outputs, to_zs, to_ns, to_rs = (x.unbind() for x in (d_output, space.to_z, space.to_n, g))
        rs, zs = r.unbind(), z.unbind()
        d_inputs, d_recurrents = space.d_input.unbind(), space.d_recurrent.unbind()
        d_state = space.d_state.copy_(d_last)
        for t in reversed(range(time)):
            d_state.add_(d_outputs[t])
            torch.mul(d_state, to_zs[t], out=d_z)
            torch.mul(d_state, to_ns[t], out=d_n)
            torch.mul(d_n, to_rs[t], out=d_r)
            d_inputs[t].copy_(space.gates)
            d_n.mul_(rs[t])
            d_recurrents[t].copy_(space.gates)
            torch.mm(d_recurrents[t], weight, out=space.d_product)
            d_state.mul_(zs[t]).add_(space.d_product)
            if ctx.keeps is not None:
                d_state.mul_(ctx.keeps[t])
        rows = space.d_recurrent.view(time * batch, 3 * hidden)
        d_weight = rows.t() @ space.narrow[:-1].view(time * batch, hidden)  # [3 hidden, hidden]
        d_b_new = rows[:, 2 * hidden :].sum(0, dtype=torch.float32)
        return space.d_input, d_state.clone(), d_weight.float(), d_b_new, None, None


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
    bias = b_ih + F.pad(b_rz, (0, hidden))  # [3 hidden]
    a = F.linear(x, w_ih, bias)  # [time, batch, 3 hidden]
    output, last = _Recurrence.apply(a, initial, w_hh, b_new, space, keep)  # type: ignore[no-untyped-call]
    return output, last
