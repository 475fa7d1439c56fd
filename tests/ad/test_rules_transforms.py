"""Rules under autograd and vmap."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probe import PROBES, directions, inputs
from test_rules import assert_same, coefficients, polynomial, slots_of
from torch.autograd import gradcheck, gradgradcheck

from ude.ad import Jet, Univariate

every_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)


def arguments(probe, order):
    """Values and slots, one after the other."""
    moves = directions(probe, order)
    tensors = []
    for i, x in enumerate(inputs(probe)):
        tensors += [x, torch.stack([m[i] for m in moves])]
    return tensors


def on_slots(probe, order):
    """A function of values and slots of the arguments that returns those of the result."""
    algebra = Univariate(order)

    def evaluate(*tensors):
        jets = [Jet(algebra, x, slots) for x, slots in zip(tensors[::2], tensors[1::2], strict=True)]
        return torch.stack(slots_of(probe.function(*jets), algebra.dim))

    return evaluate


@every_probe
def test_slots_have_gradients_and_those_have_gradients(probe):
    tensors = [x.requires_grad_() for x in arguments(probe, 2)]
    evaluate = on_slots(probe, 2)
    if not evaluate(*tensors).requires_grad:  # constant where it has a derivative
        return
    assert gradcheck(evaluate, tensors, fast_mode=True, atol=1e-4)
    if probe.name not in ONCE:
        assert gradgradcheck(evaluate, tensors, fast_mode=True, atol=1e-3)


ONCE = set()


# These decide by the numbers how to go on, or how many results there are, which vmap refuses.
LOOKS_AT_NUMBERS = {"masked_select", "index mask", "masked_scatter", "matrix_exp", "pinv"}


@pytest.mark.parametrize("probe", [p for p in PROBES if p.name not in LOOKS_AT_NUMBERS], ids=lambda probe: probe.name)
def test_a_batch_of_jets_is_mapped(probe):
    evaluate, tensors = on_slots(probe, 2), arguments(probe, 2)
    batch = [torch.stack([x, 0.9 * x + 0.01]) for x in tensors]
    expected = torch.stack([evaluate(*(x[i] for x in batch)) for i in range(2)])
    torch.testing.assert_close(torch.func.vmap(evaluate)(*batch), expected)


UNARY = [
    torch.sin, torch.tanh, torch.exp, lambda x: x * x, lambda x: torch.softmax(x, 0), lambda x: x.cumsum(0),
    lambda x: torch.sqrt(x * x + 1.0), lambda x: torch.where(x > 0.1, x.sin(), 2.0 * x), lambda x: x.flip(0),
    lambda x: x / (2.0 + x * x), lambda x: torch.cat([x[1:], x[:1]]) - 0.5, lambda x: torch.outer(x, x).sum(0),
    lambda x: torch.nn.functional.silu(x), lambda x: torch.atan2(x, 1.0 + x * x), lambda x: x.logsumexp(0) * x,
]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, len(UNARY) - 1), min_size=1, max_size=4), st.integers(0, 2**31))
def test_compositions_of_rules_are_those_of_nested_forward_mode(chosen, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, generator=generator, dtype=torch.float64) - 0.5
    slots = torch.rand(3, 3, generator=generator, dtype=torch.float64) - 0.5

    def composed(u):
        for number in chosen:
            u = UNARY[number](u)
        return u

    expected = coefficients(lambda t: composed(polynomial([x, *slots], t)), 3)
    ours = composed(Jet(Univariate(3), x, slots))
    assert_same(slots_of(ours, 4), expected, str(chosen))
