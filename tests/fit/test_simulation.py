"""The gradient that takes all steps side by side against reverse mode through the steps one after the other."""

import pytest
import torch

from ude import ad
from ude.fit import LBFGS, SingleShooting, SolverOptions
from ude.fit.assembly import assemble, data_sets
from ude.fit.simulation import Intervals, Simulator, StepGrid, Stepping, solve_intervals
from ude.fit.training import evaluate
from ude.models import MLP, UDE
from ude.problems import Trajectories
from ude.solve import Eager


def make_task(positive=(), groups=2, replicates=3):
    ts = torch.tensor([[0.0, 0.1, 0.35, 0.35, 1.0, 1.3], [0.2, 0.5, 0.6, 0.9, 0.9, 0.9]], dtype=torch.float64)[:groups]
    ys = 1 + torch.rand(groups, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = ts.sin()[..., None]
    names = tuple("ab"[:groups])
    data = Trajectories(ts=ts, ys=ys, states=("x", "y"), groups=names, inputs=inputs, input_names=("u",))
    model = UDE(
        lambda t, y, p: (p.a * y[..., 0] + p.u, -p.b * y[..., 1]),
        MLP(2, 2, width=4),
        states=("x", "y"),
        parameters={"a": 0.3, "b": 0.5},
        positive=positive,
        inputs=("u",),
    )
    sets = data_sets(data, model, torch.float64)
    generator = torch.Generator().manual_seed(1)
    return assemble(model, sets, replicates, "learn", None, 0.0, SolverOptions(), generator, torch.float64)


@pytest.mark.parametrize("positive", [(), ("x",)], ids=["plain", "logarithm"])
@pytest.mark.parametrize("replicates", [3, None])
def test_all_steps_at_once_give_the_values_and_gradients_of_one_after_the_other(positive, replicates):
    task = make_task(positive, replicates=replicates)
    intervals = Intervals(start=task.ts[:, 0], save_at=task.ts, signal=task.signal)
    stepping = Stepping(dt=0.11, engine=Eager())
    weight = torch.randn(task.members, 2, 6, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    leaves = [*task.model.parameters(), task.offset]

    def value_and_gradient(simulate):
        ys = simulate(task.latent_start().expand(task.members, -1, -1))
        return ys.detach(), ad.grad((weight * ys.square()).sum(), leaves)

    parallel = value_and_gradient(Simulator(task, intervals, stepping))
    decode = task.model.coordinates.decode
    sequential = value_and_gradient(lambda z0: decode(solve_intervals(task, intervals, z0, stepping)))
    torch.testing.assert_close(parallel[0], sequential[0], rtol=1e-13, atol=1e-13)  # rounding only
    for ours, theirs in zip(parallel[1], sequential[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)  # rounding, some 100 evaluations


def test_every_saved_time_lies_within_its_step():
    save_at = torch.tensor([[0.0, 0.1, 0.35, 0.35, 1.0], [2.0, 2.5, 3.0, 3.0, 3.0]], dtype=torch.float64)
    grid = StepGrid.of(Intervals(start=save_at[:, 0], save_at=save_at), 0.26)
    assert grid.nodes.shape == (2, 5)
    rows = torch.arange(2)[:, None]
    assert torch.equal(grid.save_at[rows, grid.step, grid.slot], save_at)
    assert (grid.save_at >= grid.nodes[:, :-1, None]).all()
    assert (grid.save_at <= grid.nodes[:, 1:, None]).all()
    assert torch.equal(grid.save_at[..., -1], grid.nodes[:, 1:])
    assert (grid.save_at.diff(dim=2) >= 0).all()


def test_a_member_that_diverges_does_not_touch_the_gradient_of_another():
    task, wild = make_task(), make_task()
    with torch.no_grad():
        for p in wild.model.parameters():
            p[0] *= 1e4

    def gradient(task):
        phase = SingleShooting(optimizers=(LBFGS(),)).phases(task, Stepping(dt=0.2, engine=Eager()))[0]

        return evaluate(phase, phase.variables.read())

    losses, grad = gradient(task)
    wild_losses, wild_grad = gradient(wild)
    torch.testing.assert_close(wild_losses[1:], losses[1:], rtol=1e-12, atol=0)
    torch.testing.assert_close(wild_grad[1:], grad[1:], rtol=1e-10, atol=1e-14)
