"""Many solves of one equation as one batched problem."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ude import ad
from ude.problems import EnsembleProblem, ODEProblem


def as_batch(problem: EnsembleProblem) -> ODEProblem:
    """Return an ensemble as one batched problem.

    Raises:
        ValueError: If a tensor has not one row for each sample.
    """
    leaves = pytree.tree_leaves(problem.y0)
    if not leaves or not all(isinstance(x, Tensor) and x.ndim for x in leaves):
        raise ValueError("`y0` of an ensemble must hold tensors of shape (samples, ...). Stack the initial states.")
    samples = len(leaves[0])
    for name, tree in (("y0", problem.y0), ("p", () if problem.p is None else problem.p)):
        for leaf in pytree.tree_leaves(tree):
            if not isinstance(leaf, Tensor) or leaf.ndim == 0 or len(leaf) != samples:
                got = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
                raise ValueError(
                    f"Every tensor in `{name}` needs one row for each of the {samples} samples, got {got}. What all "
                    "samples share belongs into the vector field: `lambda t, y, p: f(t, y, p, shared)`."
                )
    of_all = ad.over_rows(problem.vector_field)

    def vector_field(t: Any, y: Any, *p: Any) -> Any:
        return of_all(t.reshape(-1), y, *p)

    return ODEProblem(vector_field, problem.y0, problem.t_span, p=problem.p, batched=True)
