"""Layers that solve stochastic equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import ude
from ude.brownian import RecordedPath
from ude.models import MLP, Autonomous, Integrator, NeuralSDE
from ude.regularize import ErrorEstimate, StiffnessEstimate

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=1):
    return torch.randn(shape, dtype=F64, generator=seeded(seed))


def networks(dtype=F64):
    drift = MLP(3, 3, width=8, depth=1, generator=seeded(), dtype=dtype)
    return Autonomous(drift), Autonomous(MLP(3, 3, depth=0, generator=seeded(1), dtype=dtype))


def model_with(**options):
    return NeuralSDE(
        *networks(), integrator=Integrator(**{"method": ude.SOSRI(), "rtol": 1e-2, "atol": 1e-2} | options)
    )


def test_it_solves_the_equation_of_its_networks_along_its_path():
    model, y0 = NeuralSDE(*networks(), t_span=(0.5, 1.0)), randn(4, 3)
    problem = model.problem(y0, generator=seeded(3))
    assert problem.drift is model.drift
    assert problem.diffusion is model.diffusion
    fine = ude.SDEProblem(model.drift, model.diffusion, y0, (0.5, 1.0), path=problem.path)
    direct = ude.solve(fine, ude.SOSRI(), rtol=1e-2, atol=1e-2, save_at=[1.0])
    assert torch.equal(model(y0, generator=seeded(3)), direct.ys[-1])


@pytest.mark.parametrize("batched", [False, True])
def test_trajectories_are_a_first_axis_and_have_the_moments_of_the_equation(batched):
    # Ornstein-Uhlenbeck: dy = (1 - y) dt + 0.5 dW, two samples, many trajectories.
    model = NeuralSDE(
        lambda t, y: 1.0 - y,
        lambda t, y: 0.5 * torch.ones_like(y),
        integrator=Integrator(method=ude.SOSRA(), dt=0.1, controller=ude.FixedStep(), batched=batched),
        noise="additive",
    )
    y0 = torch.tensor([[0.0], [3.0]], dtype=F64)
    ends = model(y0, trajectories=20_000, generator=seeded())
    assert ends.shape == (20_000, 2, 1)
    mean = 1.0 + (y0 - 1.0) * math.exp(-1.0)
    # Five standard deviations of the mean, 0.33 / sqrt(20000), and of the variance.
    torch.testing.assert_close(ends.mean(0), mean, rtol=0.0, atol=0.012)
    variance = 0.125 * (1.0 - math.exp(-2.0))
    torch.testing.assert_close(ends.var(0), torch.full_like(mean, variance), rtol=0.05, atol=0.0)
    assert float(torch.corrcoef(ends[..., 0].T)[0, 1]) == pytest.approx(0.0, abs=0.036)


@pytest.mark.parametrize("options", [{}, {"batched": True}, {"dt": 0.1, "controller": ude.FixedStep()}], ids=str)
def test_the_generator_decides_the_noise(options):
    model, y0 = model_with(**options), randn(4, 3)
    source = seeded(7)
    first, second = model(y0, generator=source), model(y0, generator=source)
    assert not torch.equal(first, second)
    assert torch.equal(model(y0, generator=seeded(7)), first)
    torch.manual_seed(7)
    assert torch.equal(model(y0), first)


def test_shared_steps_draw_their_path_and_others_compute_it():
    assert isinstance(model_with().problem(randn(2, 3)).path, RecordedPath)
    assert type(model_with(batched=True).problem(randn(2, 3)).path) is ude.BrownianTree
    assert type(model_with(engine="compiled").problem(randn(2, 3)).path) is ude.BrownianTree
    fixed = model_with(method=ude.EulerMaruyama(), dt=0.1)
    assert isinstance(fixed.problem(randn(2, 3)).path, ude.BrownianGrid)


def test_the_solution_holds_all_trajectories_at_all_times():
    y0, times = randn(4, 3), [0.0, 0.3, 1.0]
    solution = model_with().solve(y0, trajectories=5, generator=seeded(), save_at=times)
    assert solution.ys.shape == (3, 5, 4, 3)
    assert torch.equal(solution.ys[0], y0.expand(5, 4, 3))
    assert solution.stats.nfe.shape == ()
    own = model_with(batched=True).solve(y0, trajectories=5, generator=seeded(), save_at=times)
    assert own.ys.shape == (3, 20, 3)
    assert own.stats.nfe.shape == (20,)


def test_rejected_steps_stay_on_the_recorded_path():
    # Of dy = a(t) dt + dW the noise of the solution is the path itself, whatever steps are tried on the way.
    model = NeuralSDE(
        lambda t, y: 20.0 * torch.sin(40.0 * t) * torch.ones_like(y),
        lambda t, y: torch.ones_like(y),
        noise="additive",
        integrator=Integrator(method=ude.SRA1(), rtol=0.0, atol=5e-2, dt=0.5),
    )
    ends, rejected = [], 0
    for seed in range(5):
        solution = model.solve(torch.zeros(4_000, dtype=F64), generator=seeded(seed), save_at=[1.0])
        rejected += int(solution.stats.rejected)
        ends.append(solution.ys[-1])
    assert rejected > 5
    ends = torch.cat(ends)
    # Five standard deviations of estimates from 20,000 samples, and the tolerance of the drift.
    assert float(ends.var()) == pytest.approx(1.0, abs=0.05)
    assert float(ends.mean()) == pytest.approx(0.5 * (1.0 - math.cos(40.0)), abs=5e-2 + 0.035)


@pytest.mark.parametrize("options", [{}, {"batched": True}], ids=["shared steps", "own steps"])
def test_gradients_along_the_path_are_those_of_finite_differences(options):
    model = model_with(rtol=0.0, atol=10.0, dt=0.25, max_steps=100, **options)  # no step depends on the values
    names, values = zip(*model.named_parameters(), strict=True)

    def end(y0, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, parameters, (y0,), {"trajectories": 2, "generator": seeded(5)})

    inputs = [0.3 * randn(2, 3), *(v.detach() for v in values)]
    assert torch.autograd.gradcheck(end, [x.requires_grad_() for x in inputs])


def test_checkpoints_see_the_same_recorded_path():
    gradients = []
    for adjoint in (ude.Direct(), ude.Checkpointed()):
        model = model_with(adjoint=adjoint, rtol=1e-3, atol=1e-3)
        model(randn(4, 3), generator=seeded(2)).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_costs_of_the_steps_have_gradients():
    for method, cost in ((ude.SOSRI(), ErrorEstimate()), (ude.SOSRI2(), StiffnessEstimate(reduce="mean"))):
        model = model_with(method=method)
        cost(model.solve(randn(4, 3), generator=seeded())).backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.drift.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_a_layer_among_layers_in_either_precision(dtype):
    layers = (nn.Linear(2, 3, dtype=dtype), NeuralSDE(*networks(dtype)), nn.Linear(3, 1, dtype=dtype))
    out = nn.Sequential(*layers)(torch.zeros(5, 2, dtype=dtype))
    assert out.shape == (5, 1)
    assert out.dtype == dtype


def test_noise_of_other_kinds_belongs_to_samples_with_steps_of_their_own():
    columns = randn(3, 2, seed=4)
    model = NeuralSDE(
        networks()[0],
        lambda t, y: columns.expand(*y.shape, 2),
        noise="general",
        integrator=Integrator(method=ude.EulerMaruyama(), dt=0.1, batched=True),
    )
    ends = model(torch.zeros(4, 3, dtype=F64), trajectories=2, generator=seeded())
    assert ends.shape == (2, 4, 3)
    assert len(ends.flatten(0, 1).unique(dim=0)) == 8


def test_a_pytree_is_a_state_like_any_other():
    model = NeuralSDE(lambda t, y: {"x": -y["x"]}, lambda t, y: {"x": 0.1 * y["x"]})
    assert model({"x": torch.ones(2, dtype=F64)}, trajectories=3)["x"].shape == (3, 2)


def test_wrong_arguments_are_refused():
    drift, diffusion = networks()
    with pytest.raises(ValueError, match=r"`diffusion` must be a module or function called as f\(t, y\)"):
        NeuralSDE(drift, "network")
    with pytest.raises(ValueError, match="must be a pair"):
        NeuralSDE(drift, diffusion, t_span=(0.0, 0.5, 1.0))
    with pytest.raises(ValueError, match="`trajectories` must be an integer of at least 1"):
        NeuralSDE(drift, diffusion)(randn(2, 3), trajectories=0)
    with pytest.raises(ValueError, match="runs forward in time"):
        NeuralSDE(drift, diffusion, t_span=(1.0, 0.0))(randn(2, 3))
    with pytest.raises(ValueError, match="method for stochastic equations"):
        NeuralSDE(drift, diffusion, integrator=Integrator())(randn(2, 3))


def test_drift_and_diffusion_may_be_universal():
    # Lotka-Volterra: a known drift, whose parameters are learned, and an unknown diffusion.
    known = ude.UDE(
        lambda t, y, p: (p.a * y[..., 0] - y[..., 0] * y[..., 1], y[..., 0] * y[..., 1] - p.b * y[..., 1]),
        None,
        states=("prey", "hunters"),
        parameters={"a": ude.Parameter(1.3, positive=True), "b": ude.Parameter(0.8, positive=True)},
    )
    spread = ude.UDE(
        lambda t, y, p, u: 0.1 * y * u(y),
        MLP(2, 2, width=4, depth=1, generator=seeded()),
        states=("prey", "hunters"),
    )
    model, y0 = NeuralSDE(known, spread), torch.tensor([[0.5, 1.0], [1.0, 0.7]], dtype=F64)
    ends = model(y0, trajectories=3, generator=seeded())
    assert ends.shape == (3, 2, 2)
    ends.square().mean().backward()
    learned = [p for p in model.parameters() if p.numel() > 0]
    assert len(learned) >= 5
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learned)
    problem = model.problem(y0, generator=seeded(2))
    plain = ude.SDEProblem(
        lambda t, y: torch.stack(
            [1.3 * y[..., 0] - y[..., 0] * y[..., 1], y[..., 0] * y[..., 1] - 0.8 * y[..., 1]], dim=-1
        ),
        lambda t, y: 0.1 * y * spread.terms["U"](y),
        y0,
        (0.0, 1.0),
        path=problem.path,
    )
    expected = ude.solve(plain, ude.SOSRI(), rtol=1e-2, atol=1e-2, save_at=[1.0]).ys[-1]
    torch.testing.assert_close(model(y0, generator=seeded(2)), expected)


def test_an_equation_is_found_from_the_moments_of_its_trajectories():
    # Ornstein-Uhlenbeck, dy = -k y dt + s dW from 1: mean exp(-k t), variance s^2 (1 - exp(-2 k t)) / (2 k).
    k, s, times = 1.5, 0.4, [0.25, 0.5, 1.0]
    mean = torch.tensor([math.exp(-k * t) for t in times], dtype=F64)
    variance = torch.tensor([s**2 / (2 * k) * (1 - math.exp(-2 * k * t)) for t in times], dtype=F64)
    drift, diffusion = nn.Linear(1, 1, bias=False, dtype=F64), nn.Linear(1, 1, dtype=F64)
    with torch.no_grad():
        drift.weight.fill_(-0.5)
        diffusion.weight.zero_()
        diffusion.bias.fill_(0.8)
    diffusion.weight.requires_grad_(False)
    integrator = Integrator(method=ude.EulerMaruyama(), dt=1 / 32, controller=ude.FixedStep())
    model = NeuralSDE(Autonomous(drift), Autonomous(diffusion), integrator=integrator)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for step in range(80):
        optimizer.zero_grad()
        ys = model.solve(torch.ones(1, dtype=F64), trajectories=2_000, generator=seeded(step), save_at=times).ys
        found = ys[..., 0]
        loss = (found.mean(1) - mean).square().sum() + (found.var(1) - variance).square().sum() / 0.05
        loss.backward()
        optimizer.step()
    # Noise of 2,000 trajectories and the bias of Euler's steps, each about 2 %. No moment tells the sign of the noise.
    assert float(drift.weight.detach()) == pytest.approx(-k, rel=0.1)
    assert abs(float(diffusion(torch.ones(1, dtype=F64)).detach())) == pytest.approx(s, rel=0.15)
