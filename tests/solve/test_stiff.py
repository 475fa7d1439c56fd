"""Stiff problems through the door."""

import pytest
import torch

import ude
from ude.problems import ODEProblem

F64 = torch.float64


@pytest.mark.parametrize("batched", [False, True])
def test_a_jacobian_of_the_wrong_shape_is_refused_at_the_door(batched):
    y0 = torch.ones((3, 2) if batched else (2,), dtype=F64)
    problem = ODEProblem(lambda t, y: -y, y0, (0.0, 1.0), batched=batched, jacobian=lambda t, y: -torch.ones(2, 1))
    with pytest.raises(ValueError, match="`jacobian` must return a tensor of shape"):
        ude.solve(problem)


def test_a_jacobian_of_a_state_in_several_tensors_is_refused():
    y0 = (torch.ones(2, dtype=F64), torch.ones(1, dtype=F64))
    problem = ODEProblem(lambda t, y: (-y[0], -y[1]), y0, (0.0, 1.0), jacobian=lambda t, y: -torch.eye(3))
    with pytest.raises(ValueError, match="one real tensor"):
        ude.solve(problem)
