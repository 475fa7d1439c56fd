"""Costs of single steps that are made again."""

import pytest
import torch

import ude
from ude.regularize import ErrorEstimate, Local, StiffnessEstimate, TaylorEnergy

F64 = torch.float64
TOLERANCES = {"rtol": 1e-6, "atol": 1e-8}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = ude.MLP(2, 2, width=8, depth=1, generator=torch.Generator().manual_seed(1))

    def forward(self, t, y):
        return 3.0 * self.net(y) * torch.cos(t)


def starts(batch):
    return torch.linspace(0.2, 1.5, 2 * batch, dtype=F64).reshape(batch, 2)


def solved(net, *, batched=False, **options):
    return ude.solve(ude.ODEProblem(net, starts(3), (0.0, 2.0), batched=batched), ude.Tsit5(), **TOLERANCES, **options)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("cost", [ErrorEstimate(), ErrorEstimate("raw"), StiffnessEstimate("mean")], ids=str)
def test_steps_made_again_have_the_estimates_of_the_solve(cost, batched):
    solution = solved(Net(), batched=batched)
    generator = torch.Generator().manual_seed(0)
    draws = [Local(cost, samples=200, generator=generator)(solution) for _ in range(4)]
    if batched and isinstance(cost, StiffnessEstimate):
        assert len({int(n) for n in solution.stats.accepted}) > 1  # samples have steps of their own
    # 800 draws of steps whose costs differ by a factor of some ten.
    assert torch.stack(draws).mean().item() == pytest.approx(cost(solution).item(), rel=0.15)


def test_all_steps_made_again_are_those_of_the_solve():
    solution = solved(Net())
    seen = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        seen.add(round(Local(ErrorEstimate(), samples=1, generator=generator)(solution).item(), 9))
    steps = solution.steps
    expected = {round(x, 9) for x in (steps.error * steps.dt)[steps.accepted].tolist()}
    assert seen == expected


@pytest.mark.parametrize("where", ["accepted", "random"])
def test_gradients_are_those_of_finite_differences_with_states_and_steps_held(where):
    net = Net()
    solution = solved(net)
    weight = net.net.weights[0]

    def value():
        cost = Local(ErrorEstimate(), where=where, generator=torch.Generator().manual_seed(4))
        return cost(solution) + Local(StiffnessEstimate(), where=where, generator=torch.Generator().manual_seed(4))(
            solution
        )

    (gradient,) = torch.autograd.grad(value(), weight)
    slope, step = 0.0, 1e-3
    for move, factor in {-2: 1.0, -1: -8.0, 1: 8.0, 2: -1.0}.items():
        with torch.no_grad():
            weight[0, 0] += move * step
            slope += factor * value().item() / (12.0 * step)
            weight[0, 0] -= move * step
    assert gradient[0, 0].item() == pytest.approx(slope, rel=1e-6)


def test_no_gradient_passes_through_the_solve_and_the_cost_does_not_grow_with_the_steps():
    net, calls = Net(), []
    net.register_forward_hook(lambda *_: calls.append(1))
    y0 = starts(2).requires_grad_()
    for tolerance in (1e-4, 1e-10):
        solution = ude.solve(ude.ODEProblem(net, y0, (0.0, 2.0)), ude.Tsit5(), rtol=tolerance, atol=tolerance)
        calls.clear()
        cost = Local(ErrorEstimate(), samples=3)(solution)
        assert len(calls) == 3 * 7
        assert torch.autograd.grad(cost, y0, allow_unused=True)[0] is None


def test_a_step_that_was_rejected_is_never_drawn():
    problem = ude.ODEProblem(lambda t, y: -50.0 * (y - torch.cos(t)), torch.zeros(1, dtype=F64), (0.0, 2.0))
    solution = ude.solve(problem, ude.Tsit5(), dt=0.5, **TOLERANCES)
    assert int(solution.stats.rejected) > 0
    assert Local(ErrorEstimate(reduce="max"), samples=500)(solution) <= solution.steps.dt.max()


def test_methods_that_iterate_and_stiff_ones_are_made_again_too():
    problem = ude.ODEProblem(lambda t, y: -50.0 * (y - torch.cos(t)), torch.zeros(1, dtype=F64), (0.0, 1.0))
    for method in (ude.Rodas5P(), ude.Kvaerno5(), ude.RadauIIA5()):
        solution = ude.solve(problem, method, **TOLERANCES)
        steps = solution.steps
        theirs = (steps.error * steps.dt)[steps.accepted]
        for seed in range(20):
            ours = Local(ErrorEstimate(), samples=1, generator=torch.Generator().manual_seed(seed))(solution)
            assert ((theirs - ours) / ours).abs().min() < 1e-7


class TestErrors:
    def test_methods_with_a_memory_are_refused(self):
        problem = ude.ODEProblem(Net(), starts(2), (0.0, 1.0))
        for method in (ude.BDF(), ude.AutoSwitch(ude.Tsit5(), ude.Rodas5P())):
            with pytest.raises(ValueError, match="depends on the steps before"):
                Local()(ude.solve(problem, method))

    def test_other_costs_and_bad_numbers_are_refused(self):
        with pytest.raises(ValueError, match="detach=True"):
            Local(TaylorEnergy(3))
        with pytest.raises(ValueError, match="samples"):
            Local(samples=0)
        with pytest.raises(ValueError, match="where"):
            Local(where="start")

    def test_solutions_without_estimates_or_states_are_refused(self):
        net = Net()
        with pytest.raises(ValueError, match="error estimate"):
            Local()(ude.solve(ude.ODEProblem(net, starts(2), (0.0, 1.0)), ude.RK4(), dt=0.1))
        with pytest.raises(ValueError, match="dense=True"):
            Local()(solved(net, dense=False))
