"""torchsde behind the door of `solve`."""

from __future__ import annotations

import pytest
import torch
import torchsde

import ude
from ude.brownian import BrownianGrid, BrownianTree

F64 = torch.float64
TS = torch.linspace(0.0, 1.0, 5, dtype=F64)
COLUMNS = {"diagonal": 3, "additive": 2, "scalar": 1, "commutative": 2, "general": 2}


def drift(t, y, p):
    return torch.sin(y) * p + torch.cos(t)


def diffusions(noise, p):
    """Return diffusions as this library and as torchsde want them."""
    mix = torch.tensor([[0.3, 0.1], [-0.2, 0.4], [0.1, 0.2]], dtype=F64)
    if noise == "diagonal":
        return [lambda t, y: 0.3 * p * y] * 2
    if noise == "scalar":
        return lambda t, y: 0.3 * p * y, lambda t, y: (0.3 * p * y).unsqueeze(-1)
    if noise == "additive":
        return [lambda t, y: (mix * p).expand(len(y), 3, 2)] * 2
    return [lambda t, y: mix * p * y.unsqueeze(-1)] * 2


class Equation:
    def __init__(self, noise, interpretation, p):
        self.noise_type = "general" if noise == "commutative" else noise
        self.sde_type, self.p = interpretation, p
        self.g = diffusions(noise, p)[1]

    def f(self, t, y):
        return drift(t, y, self.p)


def recorded(noise, seed):
    """Return a path of this library, and a Brownian motion of torchsde that has its increments."""
    tree = BrownianTree(seed)
    rows = torch.zeros(4, dtype=F64)
    bound = tree.bind(rows, rows + 1.0, COLUMNS[noise])

    class Motion:
        shape, levy_area_approximation = (4, COLUMNS[noise]), "space-time"

        def __call__(self, ta, tb, return_U=False):
            w, h = bound.increment(rows + ta, rows + (tb - ta))
            return (w, (tb - ta) * (0.5 * w + h)) if return_U else w

    return tree, Motion()


@pytest.mark.parametrize(
    ("name", "noise", "interpretation"),
    [
        *[("euler", noise, "ito") for noise in COLUMNS],
        *[("milstein", noise, "ito") for noise in ("diagonal", "additive", "scalar")],
        *[("srk", noise, "ito") for noise in ("diagonal", "additive", "scalar")],
        *[(name, "general", "stratonovich") for name in ("midpoint", "heun", "euler_heun", "reversible_heun")],
    ],
)
def test_it_gives_torchsde_s_own_numbers_and_gradients(name, noise, interpretation):
    tree, motion = recorded(noise, 7)
    results = []
    for backend in (True, False):
        y0 = torch.linspace(0.2, 1.0, 12, dtype=F64).reshape(4, 3).requires_grad_()
        p = torch.tensor(0.8, dtype=F64, requires_grad=True)
        if backend:
            problem = ude.SDEProblem(
                lambda t, y, p: drift(t, y, p),
                lambda t, y, p: diffusions(noise, p)[0](t, y),
                y0,
                (0.0, 1.0),
                noise=noise,
                interpretation=interpretation,
                p=p,
                batched=True,
                path=tree,
            )
            # 0.03 does not divide the times: states at these are on lines between the steps.
            solution = ude.solve(problem, ude.TorchSDE(name), save_at=TS, dt=0.03)
            assert bool(solution.success.all())
            assert int(solution.stats.nfe[0]) >= 34
            ys = solution.ys
        else:
            ys = torchsde.sdeint(Equation(noise, interpretation, p), y0, TS, bm=motion, method=name, dt=0.03)
        results.append((ys.detach(), *torch.autograd.grad(ys.square().sum(), [y0, p])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_additive_noise_in_the_shape_of_the_state_has_one_motion_per_component():
    y0 = torch.linspace(0.2, 1.0, 12, dtype=F64).reshape(4, 3)
    size = torch.tensor([0.1, 0.5, -0.3], dtype=F64)
    problem = ude.SDEProblem(
        lambda t, y: torch.zeros_like(y),
        lambda t, y: size.expand(y.shape),
        y0,
        (0.0, 1.0),
        noise="additive",
        batched=True,
        path=BrownianTree(3),
    )
    got = ude.solve(problem, ude.TorchSDE("srk"), save_at=[1.0], dt=0.25).ys[0]
    rows = torch.zeros(4, dtype=F64)
    w = BrownianTree(3).bind(rows, rows + 1.0, 3).wiener(rows, rows + 1.0)
    torch.testing.assert_close(got, y0 + size * w, rtol=1e-12, atol=1e-12)


def test_without_a_path_torchsde_draws_its_own():
    torch.manual_seed(0)
    problem = ude.SDEProblem(lambda t, y: 0.5 * y, lambda t, y: 0.2 * y, torch.ones(2_000, 1), (0.0, 1.0), batched=True)
    ys = ude.solve(problem, ude.TorchSDE("euler"), save_at=[1.0], dt=0.1).ys[0]
    # (1 + 0.05)^10 is the mean of Euler's method; four standard errors of 0.008.
    assert float(ys.mean()) == pytest.approx(1.05**10, abs=0.03)
    assert float(ys.std()) == pytest.approx(0.34, abs=0.05)


def test_steps_that_torchsde_chooses_come_near_its_small_constant_ones():
    problem = ude.SDEProblem(
        lambda t, y: -y,
        lambda t, y: 0.3 * y,
        torch.ones(3, 2, dtype=F64),
        (0.0, 1.0),
        interpretation="stratonovich",
        batched=True,
        path=BrownianTree(1),
    )
    backend = ude.TorchSDE("midpoint", adaptive=True)
    adaptive = ude.solve(problem, backend, save_at=[1.0], dt=0.1, rtol=1e-4, atol=1e-4)
    constant = ude.solve(problem, ude.TorchSDE("midpoint"), save_at=[1.0], dt=2.0**-9)
    torch.testing.assert_close(adaptive.ys, constant.ys, rtol=0.0, atol=2e-3)
    assert 10 < int(adaptive.stats.nfe[0]) < int(constant.stats.nfe[0])


def test_an_overflow_is_a_failure_with_the_states_before_it():
    problem = ude.SDEProblem(lambda t, y: y**3, lambda t, y: 0.1 * y, 3 * torch.ones(1, 1), (0.0, 4.0), batched=True)
    with pytest.raises(ude.SolveError, match="torchsde: a state is infinite or NaN"):
        ude.solve(problem, ude.TorchSDE("euler"), save_at=[0.1, 4.0], dt=0.1)
    solution = ude.solve(problem, ude.TorchSDE("euler"), save_at=[0.1, 4.0], dt=0.1, throw=False)
    assert solution.ys.isnan().flatten().tolist() == [False, True]


def test_what_it_cannot_do_is_refused():
    y0 = torch.ones(2, 1)
    problem = ude.SDEProblem(lambda t, y: -y, lambda t, y: 0.1 * y, y0, (0.0, 1.0), batched=True)
    with pytest.raises(ValueError, match="give `dt`"):
        ude.solve(problem, ude.TorchSDE("euler"), save_at=[1.0])
    with pytest.raises(ValueError, match=r"does not follow the option.*engine"):
        ude.solve(problem, ude.TorchSDE("euler"), save_at=[1.0], dt=0.1, engine="loop")
    gridded = ude.SDEProblem(problem.drift, problem.diffusion, y0, (0.0, 1.0), path=BrownianGrid(0))
    with pytest.raises(ValueError, match="BrownianTree"):
        ude.solve(gridded, ude.TorchSDE("euler"), save_at=[1.0], dt=0.1)


@pytest.mark.parametrize("backend", [ude.TorchDiffEq("rk4"), ude.SciPy()], ids=repr)
def test_backends_for_ordinary_equations_do_not_leave_out_the_noise(backend):
    problem = ude.SDEProblem(lambda t, y: -y, lambda t, y: 0.1 * y, torch.ones(2), (0.0, 1.0))
    with pytest.raises(ValueError, match="`TorchSDE"):
        ude.solve(problem, backend, save_at=[1.0])


def test_it_is_not_for_ordinary_equations():
    with pytest.raises(ValueError, match="for an `SDEProblem`"):
        ude.solve(ude.ODEProblem(lambda t, y: -y, torch.ones(2), (0.0, 1.0)), ude.TorchSDE(), save_at=[1.0])
