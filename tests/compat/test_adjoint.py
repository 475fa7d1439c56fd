"""Options of the backward solve, beside torchdiffeq's."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq
from compat_cases import F64, FORWARD, Net, NetPair, as_rows, start, start_pair
from torch import nn

from ude.compat import odeint, odeint_adjoint

BOTH = (odeint_adjoint, torchdiffeq.odeint_adjoint)


class Counted(nn.Module):
    """Counts evaluations of the forward and of the backward pass."""

    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, t, y):
        self.calls += 1
        return self.model(t, y)


def run(solver, model, y0=None, **options):
    """The gradients, and the evaluations of the backward pass."""
    y0 = start(grad=True) if y0 is None else y0
    counted = Counted(model)
    ys = solver(counted, y0, FORWARD, rtol=1e-7, atol=1e-9, **options)
    counted.calls = 0
    parts = (y0,) if isinstance(y0, torch.Tensor) else y0
    gradients = torch.autograd.grad(torch.sin(as_rows(ys)).sum(), [*parts, *model.parameters()])
    return gradients, counted.calls


BACKWARD_OPTIONS = [
    {},
    {"adjoint_rtol": 1e-3, "adjoint_atol": 1e-3},
    {"adjoint_method": "bosh3", "adjoint_rtol": 1e-5, "adjoint_atol": 1e-6},
    {"adjoint_method": "rk4", "adjoint_options": {"step_size": 0.05}},
    {"adjoint_options": {"norm": "seminorm"}},
    {"adjoint_options": {"norm": lambda state: max(part.abs().max() for part in state)}},
    {"options": {"max_step": 0.03}},
    {"options": {"norm": lambda y: max(part.abs().max() for part in y)}},
    {"method": "midpoint", "options": {"step_size": 0.05}, "adjoint_method": "dopri5", "adjoint_options": {}},
    {"method": "scipy_solver", "options": {"solver": "DOP853"}},
]


def sees_parts(options):
    """Whether these options meet the parts of a tuple one by one: norms do. The others are left to the second job."""
    return not options or any("norm" in values for values in options.values() if isinstance(values, dict))


@pytest.mark.parametrize(
    ("options", "state"),
    [
        pytest.param(
            options,
            state,
            marks=() if state == "tensor" or sees_parts(options) else pytest.mark.slow,
            id=f"{state}-{' '.join(options) or 'defaults'}",
        )
        for state in ("tensor", "tuple")
        for options in BACKWARD_OPTIONS
    ],
)
@pytest.mark.filterwarnings(
    "ignore:The following arguments have no effect"
)  # torchdiffeq always gives SciPy `min_step`
def test_the_backward_solve_follows_its_options(options, state):
    results = []
    for solver in BOTH:
        model, y0 = (Net(), start(grad=True)) if state == "tensor" else (NetPair(), start_pair(grad=True))
        results.append(run(solver, model, y0, **options))
    (ours, calls), (theirs, their_calls) = results
    # As accurate as the backward solve itself; torchdiffeq reads the end of a bosh3 step off an interpolant of order 2.
    is_loose = "adjoint_rtol" in options
    torch.testing.assert_close(ours, theirs, rtol=2e-2 if is_loose else 1e-4, atol=3e-3 if is_loose else 1e-5)
    # Four intervals; the last step of each differs, as does the first where the norm is the user's.
    assert abs(calls - their_calls) <= 0.25 * their_calls + 24


def test_a_norm_gets_state_adjoint_and_parameters_one_by_one():
    for solver in BOTH:
        shapes = set()

        def norm(state, shapes=shapes):
            shapes.add(tuple(part.shape for part in state))
            return max(part.abs().max() for part in state)

        run(solver, NetPair(), start_pair(grad=True), adjoint_options={"norm": norm})
        y = [(2, 2), (1,)]
        assert shapes == {((), *y, *y, (8, 3), (8,), (2, 8), (2,))}


def test_the_seminorm_saves_evaluations_and_keeps_the_gradient():
    class Stiff(nn.Module):
        """The gradient of the parameter oscillates quickly; nobody else looks at it."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.3, dtype=F64))

        def forward(self, t, y):
            return -y + 1e-6 * self.weight * torch.sin(100.0 * t)

    full, calls = run(odeint_adjoint, Stiff(), adjoint_atol=1e-12, adjoint_rtol=1e-7)
    semi, fewer = run(
        odeint_adjoint, Stiff(), adjoint_atol=1e-12, adjoint_rtol=1e-7, adjoint_options={"norm": "seminorm"}
    )
    assert fewer < 0.5 * calls
    torch.testing.assert_close(semi[0], full[0], rtol=1e-6, atol=1e-7)


def test_the_gradient_of_times_costs_nothing_where_nobody_asks_for_it():
    class Fast(nn.Module):
        """Constant but for a ripple in time that no tolerance sees; its slope in time is large."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(1.0, dtype=F64))

        def forward(self, t, y):
            return -y + self.weight * 1e-8 * torch.sin(1e4 * t)

    calls = [run(solver, Fast(), adjoint_rtol=1e-5, adjoint_atol=1e-6)[1] for solver in BOTH]
    assert calls[0] < 0.5 * calls[1]


def test_only_the_parameters_that_are_asked_for_get_a_gradient():
    for solver in BOTH:
        model = Net()
        weight = model.layers[0].weight
        ys = solver(model, start(), FORWARD, adjoint_params=(p for p in [weight]))
        ys.sum().backward()
        assert weight.grad is not None
        assert model.layers[2].weight.grad is None


def test_parameters_without_gradient_are_left_out_and_named_to_those_who_measure_them():
    for solver in BOTH:
        model = Net()
        model.layers[0].bias.requires_grad_(False)
        with pytest.warns(UserWarning, match="without requiring gradient"):
            ys = solver(model, start(), FORWARD, adjoint_options={"norm": lambda s: max(p.abs().max() for p in s)})
        ys.sum().backward()
        assert model.layers[0].bias.grad is None
        assert model.layers[0].weight.grad is not None


def test_a_graph_outside_of_the_field_is_kept_for_every_evaluation():
    base = torch.tensor(0.7, dtype=F64, requires_grad=True)
    results = []
    for solver in BOTH:
        rate = torch.exp(base)
        ys = solver(lambda t, y, rate=rate: -rate.sin() * y, start(), FORWARD, adjoint_params=(base,))
        results.append(torch.autograd.grad(ys.sum(), base)[0])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-8)


def test_a_backward_pass_may_be_repeated():
    model = Net()
    ys = odeint_adjoint(model, start(grad=True), FORWARD)
    first = torch.autograd.grad(ys.sum(), list(model.parameters()), retain_graph=True)
    second = torch.autograd.grad(ys.sum(), list(model.parameters()))
    torch.testing.assert_close(first, second, rtol=0.0, atol=0.0)


def test_a_field_that_depends_on_nothing_has_gradients_of_zero():
    y0 = start(grad=True)
    ys = odeint_adjoint(lambda t, y: torch.ones(2, 2, dtype=F64), y0, FORWARD, adjoint_params=())
    torch.testing.assert_close(torch.autograd.grad(ys[-1].sum(), y0)[0], torch.ones(2, 2, dtype=F64))


def test_a_tolerance_per_tensor_reaches_the_backward_solve():
    tolerance = {"rtol": (1e-8, 1e-6), "atol": (1e-10, 1e-8)}
    model = NetPair()
    y0 = start_pair(grad=True)
    # torchdiffeq stops here: the tuple of the backward solve has more tensors.
    with pytest.raises(AssertionError, match="same length"):
        as_rows(torchdiffeq.odeint_adjoint(model, y0, FORWARD, **tolerance)).sum().backward()
    ours = torch.autograd.grad(
        as_rows(odeint_adjoint(model, y0, FORWARD, **tolerance)).sum(), [*y0, *model.parameters()]
    )
    exact = torch.autograd.grad(as_rows(odeint(model, y0, FORWARD, rtol=1e-10)).sum(), [*y0, *model.parameters()])
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-6)
    tensor = torch.tensor([1e-8, 1e-6], dtype=F64)
    net = Net()
    ours = torch.autograd.grad(odeint_adjoint(net, start(), FORWARD, rtol=tensor).sum(), list(net.parameters()))
    exact = torch.autograd.grad(odeint(net, start(), FORWARD, rtol=1e-10).sum(), list(net.parameters()))
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-6)


def test_a_replica_finds_its_parameters_among_its_attributes():
    model = Net()
    for part in model.modules():
        replica = dict(part._parameters)
        part._parameters = {}
        for name, value in replica.items():
            setattr(part, name, value.detach().clone().requires_grad_() * 1.0)
    model._is_replica = True
    assert not list(model.parameters())
    weight = model.layers[0].weight
    ys = odeint_adjoint(model, start(), FORWARD)
    assert torch.autograd.grad(ys.sum(), weight)[0].abs().sum() > 0


def test_memory_does_not_grow_with_the_steps():
    def saved(solver, step_size):
        count = 0

        def pack(x):
            nonlocal count
            count += x.numel()
            return x

        model = Net()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            solver(model, start(grad=True), FORWARD, method="rk4", options={"step_size": step_size})
        return count

    assert saved(odeint, 0.01) > 8 * saved(odeint, 0.1)
    assert saved(odeint_adjoint, 0.01) == saved(odeint_adjoint, 0.1)
