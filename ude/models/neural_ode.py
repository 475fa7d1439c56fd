"""A layer whose output is the solution of a differential equation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ude._typing import State
from ude.models.integrator import Integrator
from ude.problems import ODEProblem, Solution


class NeuralODE(nn.Module):
    r"""Neural ordinary differential equation: $y(t_0) \mapsto y(t_1)$ with $\dot y = f(t, y)$ and a network $f$.

    `model(y0)` is the state at the end, so that the model is a layer like any other; `model.solve(y0)` is the whole
    solution, whose `steps` a regularizer weighs.

    A mini-batch is one state by default, and all samples share every step; with `Integrator(batched=True)` each has
    steps of its own. See `Integrator`.

    Args:
        field: Called as `f(t, y)`, a module if it has parameters: `DenseField`, `Autonomous`, `SecondOrder`, `UDE` or
            one's own.
        t_span: Start and end of the interval; the end may lie before the start.
        integrator: How the equation is solved.

    Raises:
        ValueError: If `field` cannot be called, or `t_span` is no pair.

    Example:
        >>> import torch
        >>> from ude.models.fields import DenseField
        >>> field = DenseField((3, 16, 3), generator=torch.Generator().manual_seed(0))
        >>> model = nn.Sequential(NeuralODE(field), nn.Linear(3, 1, dtype=torch.float64))
        >>> model(torch.zeros(5, 3, dtype=torch.float64)).shape
        torch.Size([5, 1])

    Reference:
        Chen, Rubanova, Bettencourt & Duvenaud (2018), Neural ordinary differential equations, arXiv:1806.07366.
    """

    def __init__(
        self,
        field: nn.Module,
        *,
        t_span: tuple[float, float] = (0.0, 1.0),
        integrator: Integrator = Integrator(),  # noqa: B008
    ) -> None:
        super().__init__()
        if not callable(field) or isinstance(field, type):
            raise ValueError(f"`field` must be a module or function called as f(t, y), got {field!r}.")
        if len(t_span) != 2:
            raise ValueError(f"`t_span` must be a pair (start, end), got {t_span!r}. Name other times in `save_at`.")
        self.field = field
        self.t_span = (t_span[0], t_span[1])
        self.integrator = integrator

    def forward(self, y0: State) -> State:
        """Return the state at the end of the interval, in the structure and shape of `y0`."""
        solution = self.solve(y0, save_at=[self.t_span[1]], dense=False)
        return pytree.tree_map(lambda y: y[-1], solution.ys)

    def solve(
        self,
        y0: State,
        *,
        save_at: Tensor | Sequence[float] | None = None,
        t_span: tuple[float | Tensor, float | Tensor] | None = None,
        dense: bool = True,
    ) -> Solution:
        """Solve the equation from `y0`.

        Args:
            y0: State at the start: a mini-batch `(*batch, state)` or any other tensor or pytree that the field takes.
            save_at: Times of the states to return, shape `(times,)`; by default the start and the end of every step.
            t_span: Another interval for this call, such as one with a random end.
            dense: Keep the continuous solution, which some regularizers ask for.

        Returns:
            The solution, with states of shape `(times, *y0.shape)`.

        Raises:
            ValueError: If an argument cannot be used.
            SolveError: If the solve fails.
        """
        return self.integrator.solve(self.problem(y0, t_span=t_span), save_at=save_at, dense=dense)

    def problem(self, y0: State, *, t_span: tuple[float | Tensor, float | Tensor] | None = None) -> ODEProblem:
        """Return the problem that `solve` solves, for a regularizer whose `prepare` changes it.

        Solve what `prepare` returns with `model.integrator.solve`.
        """
        return self.integrator.problem(self.field, y0, self.t_span if t_span is None else t_span)

    def extra_repr(self) -> str:
        """Name interval and tolerances."""
        integrator = self.integrator
        return f"t_span={self.t_span}, method={integrator.method}, rtol={integrator.rtol}, atol={integrator.atol}"
