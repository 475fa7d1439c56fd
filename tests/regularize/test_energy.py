"""Costs that are integrals along the trajectory."""

import math

import pytest
import torch

import ude
from ude.ad import ode_series
from ude.regularize import ErrorEstimate, JacobianFrobenius, KineticEnergy, StiffnessEstimate, TaylorEnergy

F64 = torch.float64
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
ORDERS = [1, 2, 3, 4, 5, 6]


class Net(torch.nn.Module):
    def __init__(self, features=2, dtype=F64):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.net = ude.MLP(features, features, width=8, depth=1, generator=generator, dtype=dtype)

    def forward(self, t, y):
        return 2.0 * self.net(y) * torch.cos(t)


def starts(batch, features=2):
    return torch.linspace(-1.0, 1.5, features * batch, dtype=F64).reshape(batch, features)


def nested(f, t, y, order):
    """Return the derivative of the solution by differentiating again and again."""
    derivative = f
    for _ in range(order - 1):

        def derivative(t, y, before=derivative):
            return torch.func.jvp(before, (t, y), (torch.ones_like(t), f(t, y)))[1]

    return derivative(t, y)


def simpson(values, length):
    weights = torch.ones(len(values), dtype=F64)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    return (weights * values).sum() * length / (3 * (len(values) - 1))


@pytest.mark.parametrize("order", ORDERS)
def test_the_derivative_is_that_of_nested_differentiation(order):
    net, y0 = Net(), starts(3)
    at = torch.tensor([0.0, 0.4, 1.1], dtype=F64)
    solution = ude.solve(ude.ODEProblem(net, y0, (0.0, 1.1)), ude.Tsit5(), **TIGHT)
    expected = torch.stack([nested(net, t, solution(t), order).square().mean() for t in at]).mean() * 1.1
    ours = TaylorEnergy(order, nodes=at)(solution)
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=0.0)
    gradients = [torch.autograd.grad(x, net.net.weights[0], retain_graph=True)[0] for x in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("nodes", "tolerance"), [("quadrature", 2e-7), ("accepted", 2e-2), ("saved", 1e-3), ("state", 1e-7)]
)
@pytest.mark.parametrize("batched", [False, True])
def test_every_rule_gives_the_integral(nodes, tolerance, batched):
    net, ts = Net(), torch.linspace(0.0, 2.0, 101, dtype=F64)
    problem = ude.ODEProblem(net, starts(3), (0.0, 2.0), batched=batched)
    reference = ude.solve(problem, ude.Tsit5(), save_at=ts, **TIGHT)
    values = torch.stack([nested(net, t, y, 3).square().mean() for t, y in zip(ts, reference.ys, strict=True)]).detach()
    cost = TaylorEnergy(3, nodes=nodes, samples=24 if nodes == "quadrature" else None)
    changed, save_at = cost.prepare(problem, ts)
    with torch.no_grad():
        value = cost(ude.solve(changed, ude.Tsit5(), save_at=save_at, **TIGHT))
    assert value.item() == pytest.approx(simpson(values, 2.0).item(), rel=tolerance)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("nodes", "samples"), [("random", 4), ("accepted", 3), ("saved", 3)])
def test_drawn_nodes_are_unbiased(batched, nodes, samples):
    net, ts = Net(), torch.linspace(0.0, 2.0, 41, dtype=F64)
    with torch.no_grad():
        solution = ude.solve(
            ude.ODEProblem(net, starts(2), (0.0, 2.0), batched=batched), ude.Tsit5(), save_at=ts, rtol=1e-5, atol=1e-7
        )
        whole = {"random": TaylorEnergy(2, nodes="quadrature", samples=30)}.get(nodes, TaylorEnergy(2, nodes=nodes))
        cost = TaylorEnergy(2, nodes=nodes, samples=samples, generator=torch.Generator().manual_seed(0))
        draws = torch.stack([cost(solution) for _ in range(500)])
    error = draws.std() / math.sqrt(len(draws))
    assert error > 0
    assert abs(draws.mean() - whole(solution)) < 4.0 * error
    # Nor is the estimate merely close: the spread of one draw is far larger than what is tested here.
    assert 4.0 * error < 0.4 * whole(solution)


def test_samples_with_intervals_and_steps_of_their_own_have_integrals_of_their_own():
    net = Net()
    ends = torch.tensor([0.5, 1.0, 2.0], dtype=F64)
    cost = TaylorEnergy(2, nodes="quadrature", samples=20)
    together = ude.solve(ude.ODEProblem(net, starts(3), (0.0, ends), batched=True), ude.Tsit5(), **TIGHT)
    alone = [
        cost(ude.solve(ude.ODEProblem(net, y0, (0.0, float(end))), ude.Tsit5(), **TIGHT))
        for y0, end in zip(starts(3), ends, strict=True)
    ]
    torch.testing.assert_close(cost(together), torch.stack(alone).mean(), rtol=1e-8, atol=0.0)
    accepted = TaylorEnergy(2, nodes="accepted")(together)
    assert accepted.item() == pytest.approx(cost(together).item(), rel=0.05)


def test_time_may_run_backward():
    net, cost = Net(), TaylorEnergy(3, nodes="quadrature")
    forward = ude.solve(ude.ODEProblem(net, starts(2), (0.0, 1.0)), ude.Tsit5(), **TIGHT)
    backward = ude.solve(ude.ODEProblem(net, forward.ys[-1].detach(), (1.0, 0.0)), ude.Tsit5(), **TIGHT)
    assert cost(backward).item() == pytest.approx(cost(forward).item(), rel=1e-7)
    for nodes in ("accepted", "saved", "random"):
        assert TaylorEnergy(3, nodes=nodes)(backward) > 0


def test_kinetic_energy_and_jacobian_have_their_closed_forms():
    rates = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    problem = ude.ODEProblem(lambda t, y: -rates * y, torch.ones(3, dtype=F64), (0.0, 1.0))
    solution = ude.solve(problem, ude.Tsit5(), **TIGHT)
    kinetic = (rates**2 * (1.0 - torch.exp(-2.0 * rates)) / (2.0 * rates)).mean()
    torch.testing.assert_close(KineticEnergy(nodes="quadrature")(solution), kinetic, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(TaylorEnergy(1, nodes="quadrature")(solution), kinetic, rtol=1e-9, atol=0.0)
    # The Jacobian is diagonal: random signs give its squared norm without error.
    for nodes in ("random", "quadrature", "accepted"):
        value = JacobianFrobenius(nodes=nodes)(solution)
        torch.testing.assert_close(value, rates.square().mean(), rtol=1e-9, atol=0.0)


def test_the_jacobian_is_estimated_without_bias():
    matrix = torch.tensor([[0.5, 1.0, -0.3], [0.2, -0.4, 0.9], [1.1, 0.0, 0.3]], dtype=F64)
    problem = ude.ODEProblem(lambda t, y: y @ matrix.T, torch.ones(3, dtype=F64), (0.0, 1.0))
    solution = ude.solve(problem, ude.Tsit5())
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([JacobianFrobenius(generator=generator, directions=2)(solution) for _ in range(800)])
    error = float(draws.std()) / math.sqrt(len(draws))
    assert error > 0.0
    assert abs(draws.mean() - matrix.square().sum() / 3) < 4.0 * error


COSTS = [
    TaylorEnergy(3, nodes="quadrature", samples=3),
    TaylorEnergy(2, nodes="accepted"),
    TaylorEnergy(2, nodes="saved", detach=True),
    TaylorEnergy(2, nodes="state"),
    KineticEnergy(nodes="saved"),
    KineticEnergy(nodes="state"),
    JacobianFrobenius(nodes="saved", directions=3),
    JacobianFrobenius(nodes="quadrature", samples=3),
]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("cost", COSTS, ids=str)
def test_gradients_are_those_of_finite_differences_with_the_steps_held(cost, batched):
    net, ts = Net(), torch.linspace(0.0, 1.0, 6, dtype=F64)
    weight = net.net.weights[0]
    held = ude.solve(ude.ODEProblem(net, starts(2), (0.0, 1.0)), ude.Tsit5(), save_at=ts, **TIGHT)

    def value():
        torch.manual_seed(3)  # the same directions each time
        problem, save_at = cost.prepare(ude.ODEProblem(net, starts(2), (0.0, 1.0), batched=batched), ts)
        return cost(ude.solve(problem, ude.Tsit5(), dt=0.1, controller=ude.FixedStep(), save_at=save_at))

    if cost.detach:  # the states do not move with the weights

        def value():
            return cost.along(net, ts, held.ys.detach())

        torch.testing.assert_close(cost(held), value(), rtol=1e-12, atol=0.0)
        through = cost(held)
        ours = torch.autograd.grad(through, weight)[0]
    else:
        ours = torch.autograd.grad(value(), weight)[0]
    step, slope = 1e-4, 0.0
    for move, factor in {-2: 1.0, -1: -8.0, 1: 8.0, 2: -1.0}.items():
        with torch.no_grad():
            weight[1, 0] += move * step
        slope += factor * value().item() / (12.0 * step)
        with torch.no_grad():
            weight[1, 0] -= move * step
    assert ours[1, 0].item() == pytest.approx(slope, rel=1e-6)


def test_a_cost_leaves_the_solve_as_it_is_where_the_state_does_not():
    net, calls = Net(), []
    net.register_forward_hook(lambda *_: calls.append(1))
    problem = ude.ODEProblem(net, starts(2), (0.0, 2.0))
    plain = ude.solve(problem, ude.Tsit5(), **TIGHT)
    for cost in (TaylorEnergy(3), TaylorEnergy(3, nodes="accepted"), KineticEnergy(), JacobianFrobenius()):
        calls.clear()
        changed, _ = cost.prepare(problem)
        solution = ude.solve(changed, ude.Tsit5(), **TIGHT)
        assert int(solution.stats.nfe) == int(plain.stats.nfe) == len(calls)
        cost(solution).backward()
        assert torch.equal(solution.steps.dt, plain.steps.dt)
    cost = TaylorEnergy(3, nodes="state")
    solution = ude.solve(cost.prepare(problem)[0], ude.Tsit5(), **TIGHT)
    assert int(solution.stats.nfe) > int(plain.stats.nfe)
    restored = cost.restore(solution)
    torch.testing.assert_close(restored.ys[-1], plain.ys[-1], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(restored(0.7), plain(0.7), rtol=1e-8, atol=1e-8)
    assert restored.problem is problem


def test_sums_hold_costs_of_every_kind():
    net = Net()
    problem = ude.ODEProblem(net, starts(2), (0.0, 1.0))
    quadrature = TaylorEnergy(2, nodes="quadrature", samples=20)
    both = quadrature + 2.0 * TaylorEnergy(3, nodes="state") + ErrorEstimate() + StiffnessEstimate() + quadrature
    changed, _ = both.prepare(problem)
    solution = ude.solve(changed, ude.Tsit5(), **TIGHT)
    plain = ude.solve(problem, ude.Tsit5(), **TIGHT)
    expected = 2.0 * TaylorEnergy(3, nodes="quadrature", samples=20)(plain) + 2.0 * quadrature(plain)
    expected = expected + StiffnessEstimate()(solution) + ErrorEstimate()(solution)
    assert both(solution).item() == pytest.approx(expected.item(), rel=1e-6)
    assert isinstance(both.restore(solution).ys, torch.Tensor)


def test_saved_nodes_serve_every_adjoint_and_backend():
    net, ts = Net(), torch.linspace(0.0, 1.0, 11, dtype=F64)
    problem = ude.ODEProblem(net, starts(2), (0.0, 1.0))
    cost = TaylorEnergy(2, nodes="saved")
    gradients = []
    for options in (
        {"method": ude.Tsit5()},
        {"method": ude.Tsit5(), "adjoint": ude.Checkpointed()},
        {"method": ude.Tsit5(), "adjoint": ude.Gauss()},
        {"method": ude.TorchDiffEq("dopri5")},
    ):
        value = cost(ude.solve(problem, save_at=ts, **options, **TIGHT))
        gradients.append(torch.autograd.grad(value, net.net.weights[0])[0])
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-6, atol=1e-9)


def test_a_trajectory_from_elsewhere_has_the_same_cost():
    net, ts = Net(), torch.linspace(0.0, 1.0, 11, dtype=F64)
    solution = ude.solve(ude.ODEProblem(net, starts(2), (0.0, 1.0)), ude.Tsit5(), save_at=ts, **TIGHT)
    for cost in (TaylorEnergy(3, nodes="saved"), KineticEnergy(nodes="saved")):
        torch.testing.assert_close(cost.along(net, ts, solution.ys), cost(solution), rtol=1e-12, atol=0.0)


def test_states_of_several_tensors_and_parameters_have_a_cost():
    def field(t, state, p):
        return {"x": state["v"], "v": -p * state["x"]}

    y0 = {"x": torch.ones(2, 1, dtype=F64), "v": torch.zeros(2, 1, dtype=F64)}
    p = torch.tensor(4.0, dtype=F64, requires_grad=True)
    for batched in (False, True):
        problem = ude.ODEProblem(field, y0, (0.0, 1.0), p=p, batched=batched)
        solution = ude.solve(problem, ude.Tsit5(), **TIGHT)
        # x = cos 2t, v = -2 sin 2t: x'' = -4 x, v'' = -4 v.
        ts = torch.linspace(0.0, 1.0, 2001, dtype=F64)
        expected = simpson(16.0 * (torch.cos(2 * ts) ** 2 + 4.0 * torch.sin(2 * ts) ** 2) / 2.0, 1.0)
        value = TaylorEnergy(2, nodes="quadrature")(solution)
        assert value.item() == pytest.approx(expected.item(), rel=1e-8)
        assert torch.autograd.grad(value, p)[0] != 0


@pytest.mark.parametrize("batched", [False, True])
def test_independent_rows_are_evaluated_together_with_the_same_result(batched):
    net, ts = Net(), torch.linspace(0.0, 1.0, 11, dtype=F64)
    problem = ude.ODEProblem(net, starts(300), (0.0, 1.0), batched=batched)
    solution = ude.solve(problem, ude.Tsit5(), save_at=ts)
    values, calls = [], []
    net.register_forward_hook(lambda *_: calls.append(1))
    for independent_rows in (False, True):
        calls.clear()
        cost = TaylorEnergy(3, nodes="saved", independent_rows=independent_rows)(solution)
        values.append((cost, torch.autograd.grad(cost, net.net.weights[0], retain_graph=True)[0]))
    assert len(calls) == 2 + 4  # the check of the first two nodes, and four times three of 300 rows
    torch.testing.assert_close(values[1], values[0], rtol=1e-11, atol=1e-14)


def test_rows_that_depend_on_each_other_are_refused_where_they_are_said_not_to():
    generator = torch.Generator().manual_seed(0)
    own = torch.rand(4, 2, dtype=F64, generator=generator)
    cost = TaylorEnergy(2, nodes="quadrature", independent_rows=True)
    for field, words in (
        (lambda t, y: 0.01 * y.square().sum(0) - y, "by itself"),
        (lambda t, y: own * y, "any number of rows"),
    ):
        solution = ude.solve(ude.ODEProblem(field, starts(4), (0.0, 1.0)), ude.Tsit5())
        with pytest.raises(ValueError, match=words):
            cost(solution)


class TestErrors:
    def solution(self, **options):
        return ude.solve(ude.ODEProblem(Net(), starts(2), (0.0, 1.0)), ude.Tsit5(), **options)

    def test_orders_out_of_range_are_refused(self):
        for order in (0, 11, 2.0, True):
            with pytest.raises(ValueError, match=r"`order` must be an integer from 1 to 10.*ErrorEstimate"):
                TaylorEnergy(order)

    def test_nodes_outside_of_the_interval_are_refused(self):
        with pytest.raises(ValueError, match=r"must lie in the interval of the solution, \[0, 1\], got 1.5"):
            TaylorEnergy(2, nodes=torch.tensor([0.5, 1.5]))(self.solution())

    def test_bad_arguments_are_refused(self):
        for nodes in ("gauss", 3, ["start"]):
            with pytest.raises(ValueError, match="nodes"):
                TaylorEnergy(2, nodes=nodes)
        for samples in (0, 1.5):
            with pytest.raises(ValueError, match="samples"):
                KineticEnergy(samples=samples)
        with pytest.raises(ValueError, match="no meaning"):
            KineticEnergy(nodes="state", samples=3)
        with pytest.raises(ValueError, match="directions"):
            JacobianFrobenius(directions=0)

    def test_solutions_that_kept_too_little_are_refused(self):
        for options in ({"dense": False}, {"adjoint": ude.Gauss(), "save_at": [1.0]}):
            with pytest.raises(ValueError, match="nodes='saved'"):
                TaylorEnergy(2)(self.solution(**options))
        cost = TaylorEnergy(2, nodes="state")
        with pytest.raises(ValueError, match="prepare"):
            cost(self.solution())
        with pytest.raises(ValueError, match="One cost at a time"):
            (cost + KineticEnergy(nodes="state")).prepare(ude.ODEProblem(Net(), starts(2), (0.0, 1.0)))

    def test_costs_that_are_not_finite_are_refused(self):
        solution = ude.solve(
            ude.ODEProblem(lambda t, y: torch.sqrt(y), torch.zeros(1, dtype=F64), (0.0, 1.0)), ude.Tsit5()
        )
        with pytest.raises(ValueError, match="of this solution is"):
            TaylorEnergy(3)(solution)

    def test_trajectories_of_other_shapes_are_refused(self):
        with pytest.raises(ValueError, match=r"`ts` must have shape"):
            KineticEnergy().along(lambda t, y: y, torch.zeros(3), torch.zeros(4, 2))


def test_series_of_the_kernel_are_what_is_taken():
    net = Net()
    y = starts(1)
    series = ode_series(net, torch.zeros((), dtype=F64), y, 3)
    solution = ude.solve(ude.ODEProblem(net, y, (0.0, 1.0)), ude.Tsit5())
    for nodes in (torch.zeros(1), [0.0]):
        value = TaylorEnergy(3, nodes=nodes)(solution)
        torch.testing.assert_close(value, (6.0 * series[3]).square().mean(), rtol=1e-12, atol=0.0)
