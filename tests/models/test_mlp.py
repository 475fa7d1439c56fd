from __future__ import annotations

import pytest
import torch
from torch import nn

from ude.models import MLP, Replicated, member, replicate
from ude.models.mlp import ACTIVATIONS


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_computes_the_written_formula(activation):
    net = MLP(2, 3, width=4, depth=1, activation=activation, generator=seeded())
    x = torch.randn(5, 2, dtype=torch.float64, generator=seeded(1))
    hidden = ACTIVATIONS[activation](x @ net.weights[0].mT + net.biases[0])
    # Same operations in another order of summation: rounding only.
    torch.testing.assert_close(net(x), hidden @ net.weights[1].mT + net.biases[1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("batch", [(), (5,), (4, 3)])
def test_every_member_equals_its_single_network(batch):
    many = MLP(2, 3, width=8).replicate(4, seeded())
    x = torch.randn(4, *batch, 2, dtype=torch.float64, generator=seeded(1))
    together = many(x)
    assert together.shape == (4, *batch, 3)
    for k in range(4):
        # One matrix product against a batched one: rounding only.
        torch.testing.assert_close(many.member(k)(x[k]), together[k], rtol=0, atol=1e-12)


def test_members_differ_and_a_seed_repeats_them():
    first, again = MLP(2, 1).replicate(2, seeded()), MLP(2, 1).replicate(2, seeded())
    assert not torch.equal(first.weights[0][0], first.weights[0][1])
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_glorot_bounds_and_final_scale():
    net = MLP(3, 2, width=50, final_scale=0.01, generator=seeded())
    assert net.weights[1].abs().max() <= (6 / 100) ** 0.5
    assert net.weights[-1].abs().max() <= 0.01 * (6 / 52) ** 0.5
    assert MLP(3, 2, final_scale=0.0)(torch.ones(3, dtype=torch.float64)).abs().max() == 0


def test_drawing_leaves_the_global_generator_alone():
    layers = nn.Sequential(nn.Linear(2, 1))
    before = torch.get_rng_state()
    MLP(2, 1, generator=seeded())
    replicate(layers, 3, seeded())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": -1}, {"activation": "tanhh"}, {"replicates": 0}])
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        MLP(2, 1, **wrong)


class WithBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1, dtype=torch.float64)
        self.register_buffer("offset", torch.ones(1, dtype=torch.float64))

    def forward(self, x):
        return torch.tanh(self.linear(x)) + self.offset


@pytest.mark.parametrize("batch", [(), (5,), (4, 3)])
def test_any_module_of_layers_can_be_replicated(batch):
    many = replicate(WithBuffer(), 3, seeded())
    assert isinstance(many, Replicated)
    assert {tuple(p.shape) for p in many.parameters()} == {(3, 1, 2), (3, 1)}
    x = torch.randn(3, *batch, 2, dtype=torch.float64, generator=seeded(1))
    for k in range(3):
        torch.testing.assert_close(member(many, k)(x[k]), many(x)[k], rtol=0, atol=1e-12)


def test_gradients_reach_every_member():
    many = replicate(WithBuffer(), 3, seeded())
    many(torch.ones(3, 5, 2, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None and (p.grad.reshape(3, -1).abs().amax(1) > 0).all() for p in many.parameters())


def test_a_module_that_cannot_be_drawn_again_is_refused():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

    with pytest.raises(ValueError, match="reset_parameters"):
        replicate(Bare(), 2)
