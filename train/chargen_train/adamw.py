"""AdamW by PyTorch's fused kernel."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

_BETAS = (0.9, 0.99)
_EPSILON = 1e-8


class AdamW:
    """The optimizer of one model (Loshchilov and Hutter 2019), with decay on matrices alone.

    Its numbers are those of `torch.optim.AdamW`. That class is not used because making it loads
    PyTorch's compiler, which takes longer than loading PyTorch and does nothing for us.

    Args:
        model: what the steps change.
        weight_decay: of its matrices.
    """

    def __init__(self, model: nn.Module, weight_decay: float) -> None:
        parameters: list[Tensor] = list(model.parameters())
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim == 1]
        self._groups = ((matrices, weight_decay), (vectors, 0.0))
        self._parameters = [*matrices, *vectors]
        self._moments: dict[int, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change every weight by its gradient, at this learning rate."""
        if not self._moments:
            self._moments = {
                index: {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
                for index, parameter in enumerate(self._parameters)
            }
        moments = iter(self._moments.values())
        for parameters, weight_decay in self._groups:
            held = [next(moments) for _ in parameters]
            adamw(
                parameters,
                [p.grad for p in parameters if p.grad is not None],
                [each["exp_avg"] for each in held],
                [each["exp_avg_sq"] for each in held],
                [],
                [each["step"] for each in held],
                fused=True,
                amsgrad=False,
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                lr=rate,
                weight_decay=weight_decay,
                eps=_EPSILON,
                maximize=False,
            )

    def state(self) -> dict[int, dict[str, Tensor]]:
        """The moments of each parameter, matrices first, none before a step; it shares memory."""
        return self._moments

    def later_state(self) -> dict[int, dict[str, Tensor]]:
        """What `state` is after the first step, but for its numbers."""
        step = torch.zeros(())
        return {
            index: {"step": step, "exp_avg": parameter, "exp_avg_sq": parameter}
            for index, parameter in enumerate(self._parameters)
        }

    def load(self, state: dict[int, dict[str, Tensor]]) -> None:
        """Go on where `state` was taken."""
        self._moments = {
            index: {
                name: copy.deepcopy(value).to(parameter.device)  # else shared
                for name, value in state[index].items()
            }
            for index, parameter in enumerate(self._parameters[: len(state)])
        }
