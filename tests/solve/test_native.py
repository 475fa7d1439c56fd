"""Generated code for whole solves against the eager engine."""

import contextlib
import itertools
import logging
import sys
import types

import pytest
import torch
from torch import nn

import ude
from ude import ODEProblem, solve

REFUSED = {
    "test_samples_that_depend_on_each_other_are_found_out",
    "test_random_numbers_are_left_to_other_engines",
    "test_a_field_that_counts_its_calls_is_refused",
    "test_what_a_field_keeps_for_itself_is_never_a_placeholder_of_the_tracing",
    "test_a_field_that_writes_into_its_buffers_is_left_to_other_engines",
}
LOOSE = {"rtol": 1e-8, "atol": 1e-8}
# Code of few stages is made in a third of the time; for tests of what the code computes, not of which steps it takes.
FEW_STAGES = {"method": ude.Heun(), "dt": 0.1, "controller": ude.FixedStep()}
THIRD_ORDER = {"method": ude.BS3(), "rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(autouse=True)
def _generated_code_only(request, caplog):
    """Fail where another engine took over unnoticed."""
    with caplog.at_level(logging.INFO, logger="ude"):
        yield
    if request.node.originalname not in REFUSED:
        refused = [record.message for record in caplog.get_records("call") if "No code of its own" in record.message]
        assert not refused, refused


def oscillator(t, y):
    x, v = y.unbind(-1)
    return torch.stack([v, 2.0 * (1.0 - x * x) * v - x], dim=-1)


def pendulum(t, y):
    return torch.stack([y[..., 1], -torch.sin(y[..., 0])], dim=-1)


def starts(batch, dtype=torch.float64):
    return torch.stack([torch.linspace(-2, 2, batch, dtype=dtype), torch.linspace(0, 1, batch, dtype=dtype)], dim=-1)


class Network(nn.Module):
    def __init__(self, width, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Softplus(), nn.Linear(width, 2)]
        self.net = nn.Sequential(*layers).to(dtype)
        self.rate = nn.Parameter(torch.tensor(0.7, dtype=dtype))

    def forward(self, t, y):
        return torch.stack([self.rate * y[..., 1], -y[..., 0]], dim=-1) + 0.3 * self.net(y)


def both(problem, method=None, **options):
    method = method or ude.Tsit5()
    return [solve(problem, method, engine=engine, **{**LOOSE, **options}) for engine in ("loop", "eager")]


def assert_alike(ours, theirs, rtol=1e-7, atol=1e-8):
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=rtol, atol=atol)
    torch.testing.assert_close(ours.ts, theirs.ts, rtol=rtol, atol=atol)
    assert ours.stats.accepted.tolist() == theirs.stats.accepted.tolist()
    assert ours.stats.rejected.tolist() == theirs.stats.rejected.tolist()
    assert ours.stats.nfe.tolist() == theirs.stats.nfe.tolist()
    assert ours.status.tolist() == theirs.status.tolist()


# Values


@pytest.mark.parametrize(
    ("method", "batch"),
    [(ude.Tsit5(), 1), (ude.Tsit5(), 11), (ude.BS3(), 3), (ude.Dopri5(), 2), (ude.Vern7(), 3)],
    ids=str,
)
def test_states_and_steps_are_those_of_the_eager_engine(method, batch):
    problem = ODEProblem(oscillator, starts(batch), (0.0, 4.0), batched=True)
    times = torch.linspace(0, 4, 9, dtype=torch.float64)
    for options in ({"save_at": times, "dense": False}, {"save_at": times}, {}, {"save_at": [4.0]}):
        ours, theirs = both(problem, method, **options)
        assert_alike(ours, theirs, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(ours.steps.error, theirs.steps.error, rtol=1e-3, atol=1e-5)


def test_dense_output_is_that_of_the_eager_engine():
    ours, theirs = both(ODEProblem(oscillator, starts(3), (0.0, 4.0), batched=True))
    at = torch.tensor([0.1, 2.2, 3.9], dtype=torch.float64)
    torch.testing.assert_close(ours(at), theirs(at), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "method",
    [ude.Euler(), ude.RK4()],
    ids=str,
)
def test_constant_steps_agree(method):
    problem = ODEProblem(oscillator, starts(3), (0.0, 1.0), batched=True)
    ours, theirs = both(problem, method, dt=0.01, save_at=[0.255, 1.0])
    assert_alike(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("controller", [ude.PI(), ude.PID()], ids=["PI", "PID"])
def test_controllers_with_a_memory_agree(controller):
    problem = ODEProblem(oscillator, starts(3), (0.0, 4.0), batched=True)
    ours, theirs = both(problem, controller=controller, save_at=[1.0, 4.0], dense=False, **THIRD_ORDER)
    assert_alike(ours, theirs, rtol=1e-6, atol=1e-7)


def test_decreasing_time_own_intervals_own_times_and_stops_agree():
    batch = 5
    ends = torch.linspace(1.0, 3.0, batch, dtype=torch.float64)
    own = torch.linspace(0, 1, 7, dtype=torch.float64).unsqueeze(-1) * ends
    forced = lambda t, y: pendulum(t, y) + torch.sign(t - 0.5)  # noqa: E731
    for field, span, options in (
        (pendulum, (2.0, 0.0), {"save_at": [1.5, 0.5, 0.0], "dense": False}),
        (oscillator, (0.0, ends), {"save_at": own, "dense": False}),
        (forced, (0.0, 1.0), {"save_at": [0.5, 0.75], "stop_at": [0.25, 0.5], "dense": False}),
        (oscillator, (0.0, 2.0), {"max_step": 0.05, "dt": 0.01, "save_at": [2.0]}),
    ):
        ours, theirs = both(ODEProblem(field, starts(batch), span, batched=True), **{**THIRD_ORDER, **options})
        assert_alike(ours, theirs)


def test_times_given_twice_and_both_ends_are_saved():
    times = torch.tensor([0.0, 0.0, 0.3, 0.3, 1.0, 1.0], dtype=torch.float64)
    ours, theirs = both(ODEProblem(oscillator, starts(3), (0.0, 1.0), batched=True), save_at=times, dense=False)
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-8, atol=1e-9)
    assert torch.equal(ours.ys[0], starts(3))


def test_many_attempts_take_several_calls():
    problem = ODEProblem(oscillator, starts(2), (0.0, 30.0), batched=True)
    times = torch.linspace(0, 30, 50, dtype=torch.float64)
    ours, theirs = both(problem, save_at=times, dense=False, **THIRD_ORDER)
    assert len(ours.steps.t) > 64
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-6, atol=1e-6)


def test_a_state_that_is_a_dict_and_one_number_agree():
    def field(t, state):
        return {"a": -state["b"].sum(-1, keepdim=True), "b": state["a"] * torch.ones_like(state["b"])}

    y0 = {"a": torch.ones(4, 1, dtype=torch.float64), "b": torch.linspace(0, 1, 12, dtype=torch.float64).reshape(4, 3)}
    ours, theirs = both(ODEProblem(field, y0, (0.0, 1.0), batched=True), save_at=[0.5, 1.0], **FEW_STAGES)
    for name in ("a", "b"):
        torch.testing.assert_close(ours.ys[name], theirs.ys[name], rtol=1e-9, atol=1e-10)
    problem = ODEProblem(lambda t, y: -y * t, torch.tensor(1.0, dtype=torch.float64), (0.0, 1.0))
    single, other = both(problem, **FEW_STAGES)
    torch.testing.assert_close(single.ys[-1], other.ys[-1], rtol=1e-9, atol=1e-10)


def test_single_precision_agrees():
    problem = ODEProblem(pendulum, starts(21, torch.float32), (0.0, 4.0), batched=True)
    ours, theirs = both(problem, save_at=[1.0, 4.0], dense=False, **THIRD_ORDER)
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-4, atol=1e-5)
    assert ours.ys.dtype == torch.float32


# What a vector field may do


def _fields():
    constant = torch.tensor([0.5, -0.25, 2.0], dtype=torch.float64)
    matrix = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)
    return {
        "elementary": lambda t, y: torch.sin(y) + torch.exp(-(y**2)) * torch.cos(3 * t) - torch.log1p(y * y),
        "more": lambda t, y: torch.tanh(y) * torch.sigmoid(y) - torch.atan(y) + torch.erf(y) / torch.cosh(y),
        "powers": lambda t, y: (1 + y**2) ** 0.3 - (1 + y.abs()) ** -1.5 + y**3 / (1 + y**4),
        "where": lambda t, y: torch.where(y > -3.0, -y, y.clamp(-0.5, 0.5) + 0.1) - torch.minimum(y + 5.0, 0.5 * y),
        "activations": lambda t, y: nn.functional.gelu(y) - nn.functional.silu(y) - nn.functional.elu(y + 9.0),
        "more_activations": lambda t, y: (
            nn.functional.softplus(y) - nn.functional.leaky_relu(y + 9.0) - (y + 9.0).relu()
        ),
        "reductions": lambda t, y: (
            y.mean(-1, keepdim=True) - y * y.norm(dim=-1, keepdim=True) + (y + 9.0 * constant).amax(-1, True)
        ),
        "softmax": lambda t, y: torch.softmax(y, -1) - 0.5 * torch.logsumexp(y, -1, keepdim=True),
        "matrix": lambda t, y: y @ matrix - y,
        "einsum": lambda t, y: torch.einsum("ij,bj->bi", matrix, y) - y,
        "views": lambda t, y: torch.cat([y[:, 1:], -y[:, :1]], -1) + y.flip(-1) * 0.1 - torch.roll(y, 1, -1),
        "constants": lambda t, y: -y * constant + torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64),
        "indexing": lambda t, y: torch.stack([y[:, 2], y[:, 0] * y[:, 1], -y.sum(-1)], -1),
        "assignment": lambda t, y: _assigned(y),
        "outer": lambda t, y: 0.2 * (y.unsqueeze(-1) * y.unsqueeze(-2)).sum(-1) - y,
        "cross": lambda t, y: torch.linalg.cross(y, constant.expand_as(y)),
        "detached": lambda t, y: -y * y.detach().abs(),
    }


def _assigned(y):
    out = torch.zeros_like(y)
    out[:, 0] = -y[:, 1]
    out[:, 1:] = y[:, :2] * 0.5
    return out


@pytest.mark.parametrize("name", list(_fields()))
def test_what_a_vector_field_may_do(name):
    field = _fields()[name]
    y0 = torch.linspace(-1, 1.2, 9, dtype=torch.float64).reshape(3, 3)

    def run(engine):
        y = y0.clone().requires_grad_()
        problem = ODEProblem(field, y, (0.0, 1.0), batched=True)
        ys = solve(problem, engine=engine, save_at=[0.45, 1.0], dense=False, **FEW_STAGES).ys
        return ys, torch.autograd.grad(ys.square().sum(), y)[0]

    (ys, slope), (expected, expected_slope) = run("loop"), run("eager")
    torch.testing.assert_close(ys, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(slope, expected_slope, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("width", "batch"), [pytest.param(3, 4, marks=pytest.mark.slow), (17, 1), (17, 4)])
def test_networks_of_every_width_agree(width, batch):
    field = Network(width)
    problem = ODEProblem(field, starts(batch), (0.0, 1.0), batched=True)
    ours, theirs = both(problem, save_at=[0.5, 1.0], **FEW_STAGES)
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-9, atol=1e-10)
    slopes = [torch.autograd.grad(s.ys.square().sum(), list(field.parameters())) for s in (ours, theirs)]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-10)


# Gradients


def gradients(engine, field, y0, loss, p=None, method=None, **options):
    y, inputs = y0.clone().requires_grad_(), list(field.parameters()) if isinstance(field, nn.Module) else []
    extra = [] if p is None else [p]
    problem = ODEProblem(field, y, (0.0, 2.0), batched=True, p=p)
    solution = solve(problem, method or ude.Tsit5(), engine=engine, **{**LOOSE, **options})
    return torch.autograd.grad(loss(solution), [y, *inputs, *extra])


LOSSES = {
    "states": lambda s: s.ys.square().sum(),
    "end": lambda s: (s.ys[-1] ** 3).sum(),
    "error": lambda s: s.ys.sum() + s.steps.error.square().sum(),
    "stiffness": lambda s: s.steps.stiffness.mean(),
}


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_gradients_are_those_of_the_eager_engine(batch):
    field = Network(6)
    times = torch.linspace(0, 2, 7, dtype=torch.float64)
    for loss, options in itertools.product(LOSSES, _options(times)):
        ours, theirs = (gradients(e, field, starts(batch), LOSSES[loss], **options) for e in ("loop", "eager"))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7 * float(1 + b.abs().max()))


def _options(times):
    return ({"save_at": times, "dense": False}, {"save_at": times}, {"save_at": [2.0]}, {})


def test_gradients_over_several_calls_are_those_of_the_eager_engine():
    field = lambda t, y, p: pendulum(t, y) * p  # noqa: E731
    p = torch.tensor([9.0, 7.0], dtype=torch.float64, requires_grad=True)
    times = torch.linspace(0, 2, 5, dtype=torch.float64)
    for options in ({"save_at": times, "dense": False}, {}):
        tight = {**THIRD_ORDER, "rtol": 1e-7, "atol": 1e-7, **options}
        ours, theirs = (gradients(e, field, starts(3), LOSSES["states"], p=p, **tight) for e in ("loop", "eager"))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_gradients_against_finite_differences():
    rate = torch.tensor([1.1, 0.4], dtype=torch.float64, requires_grad=True)

    def value(rate, y0):
        field = lambda t, y, p: torch.stack([p[0] * y[..., 1], -p[1] * torch.sin(y[..., 0])], -1)  # noqa: E731
        problem = ODEProblem(field, y0, (0.0, 1.5), batched=True, p=rate)
        return solve(problem, engine="loop", save_at=[0.7, 1.5], dense=False, **FEW_STAGES).ys

    assert torch.autograd.gradcheck(value, (rate, starts(3).requires_grad_()), rtol=1e-5, atol=1e-7)


def test_parameters_of_every_sample_have_their_own_gradient():
    p = torch.linspace(0.5, 1.5, 5, dtype=torch.float64).unsqueeze(-1).requires_grad_()
    field = lambda t, y, p: -p * y * torch.cos(t)  # noqa: E731
    ours, theirs = (
        gradients(e, field, starts(5), LOSSES["states"], p=p, save_at=[1.0, 2.0], dense=False, **FEW_STAGES)
        for e in ("loop", "eager")
    )
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-7, atol=1e-9)
    assert ours[1].shape == (5, 1)


def test_as_many_parameters_as_samples_are_not_taken_for_one_each():
    p = torch.linspace(0.5, 1.5, 5, dtype=torch.float64)
    field = lambda t, y, p: -p.sum() * y + p[4] * y.flip(-1)  # noqa: E731
    ours, theirs = both(ODEProblem(field, starts(5), (0.0, 1.0), batched=True, p=p), save_at=[1.0], **FEW_STAGES)
    assert_alike(ours, theirs)


def _agrees(field, y0, p=None):
    with torch.no_grad():
        ours, theirs = both(ODEProblem(field, y0, (0.0, 1.0), batched=True, p=p), save_at=[1.0], **FEW_STAGES)
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-8, atol=1e-9)


def test_which_parameters_belong_to_samples_is_found_out_for_every_combination():
    def field(t, y, p):
        return -p[0].reshape(-1, 1) * y - p[1].reshape(-1, 1)

    one, many = torch.rand(1, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    for p in ((one, many), (many, one), (many, many.flip(0)), (one, one)):
        _agrees(field, starts(5), p)


def test_parameters_by_component_are_not_taken_for_rows_whatever_came_before():
    field = lambda t, y, p: -p * y  # noqa: E731
    states = torch.rand(4, 4, dtype=torch.float64)
    _agrees(field, torch.rand(5, 4, dtype=torch.float64), torch.rand(1, dtype=torch.float64))
    for p in (torch.ones(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64)):  # alike first, as when fresh
        _agrees(field, states, p)


def test_a_global_of_a_module_named_like_a_library_is_noticed(monkeypatch):
    module = types.ModuleType("torch_models")
    monkeypatch.setitem(sys.modules, "torch_models", module)
    exec("RATE = 1.0\ndef field(t, y):\n    return -RATE * y\n", module.__dict__)
    for rate in (1.0, 3.0):
        module.RATE = rate
        _agrees(module.field, starts(3))


def test_checkpointed_gradients_agree():
    field = Network(4)
    options = {"save_at": [0.5, 1.3, 2.0], "adjoint": ude.Checkpointed(), **FEW_STAGES}
    ours, theirs = (gradients(e, field, starts(3), LOSSES["states"], **options) for e in ("loop", "eager"))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_a_second_derivative_raises():
    y = starts(2).requires_grad_()
    ys = solve(ODEProblem(oscillator, y, (0.0, 1.0), batched=True), engine="loop", **FEW_STAGES).ys
    (slope,) = torch.autograd.grad(ys.sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(slope.sum(), y)


def test_tensors_changed_before_the_backward_pass_raise():
    rate, frozen = torch.tensor(1.0, dtype=torch.float64, requires_grad=True), torch.tensor(2.0, dtype=torch.float64)
    field = lambda t, y: -rate * frozen * y  # noqa: E731
    for changed in (rate, frozen):
        ys = solve(ODEProblem(field, starts(2), (0.0, 1.0), batched=True), engine="loop", **FEW_STAGES).ys
        with torch.no_grad():
            changed.mul_(2.0)
        with pytest.raises(RuntimeError, match="changed in place"):
            torch.autograd.grad(ys.sum(), rate)


def test_a_state_that_carries_no_gradient_still_gets_one_from_parameters():
    # torch.while_loop gives no gradient to a carry that starts without one; ours must.
    field = Network(4)
    problem = ODEProblem(field, starts(3), (0.0, 1.0), batched=True)
    for save_at in ([1.0], [0.5, 1.0]):
        ys = solve(problem, engine="loop", save_at=save_at, **FEW_STAGES).ys
        grads = torch.autograd.grad(ys.square().sum(), list(field.parameters()))
        assert all(bool((g != 0).any()) for g in grads)


def test_nothing_is_recorded_where_no_gradient_is_wanted():
    problem = ODEProblem(Network(4), starts(3), (0.0, 1.0), batched=True)
    with torch.no_grad():
        assert not solve(problem, engine="loop", **FEW_STAGES).ys.requires_grad
    plain = ODEProblem(oscillator, starts(3), (0.0, 1.0), batched=True)
    assert not solve(plain, engine="loop", **FEW_STAGES).ys.requires_grad


# What changes between solves


RATE = 1.0


def test_changed_numbers_parameters_and_closures_are_noticed(monkeypatch):
    weight = torch.tensor(1.0, dtype=torch.float64)

    class Field:
        scale = 1.0

        def __call__(self, t, y):
            return -RATE * self.scale * weight * y

    field, y0 = Field(), torch.ones(3, 1, dtype=torch.float64)

    def end():
        problem = ODEProblem(field, y0, (0.0, 1.0), batched=True)
        ours, theirs = both(problem, ude.RK4(), dt=0.02, controller=ude.FixedStep(), save_at=[1.0])
        torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-9, atol=1e-10)
        return float(ours.ys[0, 0, 0])

    values = [end()]
    field.scale = 2.0
    values.append(end())
    weight.mul_(0.5)
    values.append(end())
    monkeypatch.setitem(globals(), "RATE", 3.0)
    values.append(end())
    expected = torch.exp(-torch.tensor([1.0, 2.0, 1.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), expected, rtol=1e-5, atol=1e-7)


# Failures


def test_failures_are_those_of_the_eager_engine():
    explosion = ODEProblem(
        lambda t, y: y * y, torch.tensor([[0.5], [2.0]], dtype=torch.float64), (0.0, 1.0), batched=True
    )
    ours, theirs = both(explosion, save_at=[0.25, 0.9], throw=False, dense=False, **THIRD_ORDER)
    assert ours.status.tolist() == theirs.status.tolist()
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-6, atol=1e-7, equal_nan=True)
    few = both(explosion, max_steps=3, throw=False, **THIRD_ORDER)
    assert few[0].status.tolist() == few[1].status.tolist()
    nothing = ODEProblem(lambda t, y: y / 0.0 * 0.0, torch.ones(2, 1, dtype=torch.float64), (0.0, 1.0), batched=True)
    ours, theirs = both(nothing, save_at=[1.0], throw=False, **THIRD_ORDER)
    assert ours.status.tolist() == theirs.status.tolist()
    assert bool(ours.ys.isnan().all())


def test_a_number_that_is_not_finite_in_a_rejected_step_leaves_the_gradient_alone():
    field = lambda t, y: torch.sqrt(1.0 - y) - 2.0 * (y > 0.999)  # noqa: E731

    def run(engine):
        y = torch.tensor([[0.5], [0.9]], dtype=torch.float64, requires_grad=True)
        problem = ODEProblem(field, y, (0.0, 0.3), batched=True)
        options = {"save_at": [0.1, 0.3], "dt": 2.0, "dense": False, "throw": False}
        ys = solve(problem, engine=engine, **options, **THIRD_ORDER).ys
        return torch.autograd.grad(ys[0].sum(), y)[0]

    ours, theirs = run("loop"), run("eager")
    assert bool(ours.isfinite().all())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


# Where other engines take over


@pytest.mark.slow
def test_samples_that_depend_on_each_other_are_found_out(caplog):
    problem = ODEProblem(lambda t, y: y.mean(0, keepdim=True) - y, starts(4), (0.0, 1.0), batched=True)
    with caplog.at_level(logging.INFO, logger="ude"):
        ours, theirs = both(problem, save_at=[1.0])
    assert any("depend on each other" in record.message for record in caplog.records)
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-7, atol=1e-8)


def test_a_field_that_counts_its_calls_is_refused(caplog):
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, t, y):
            self.calls += 1
            return -y

    problem = ODEProblem(Counting(), torch.ones(3, 2), (0.0, 1.0), batched=True)
    caplog.set_level("INFO", logger="ude")
    with torch.no_grad(), pytest.raises(RuntimeError, match='engine="eager"'):
        solve(problem, ude.Tsit5(), engine="loop")
    assert any("changes something of its own" in record.message for record in caplog.records)


class _Keeps(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = None

    def forward(self, t, y):
        self.last = y * 2.0
        return -y


class _Reassigns(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, t, y):
        self.calls = self.calls + 1.0
        return -y


@pytest.mark.parametrize("kind", [_Keeps, _Reassigns])
def test_what_a_field_keeps_for_itself_is_never_a_placeholder_of_the_tracing(kind):
    field = kind()
    problem = ODEProblem(field, torch.ones(3, 2), (0.0, 1.0), batched=True)
    with torch.no_grad():
        solve(problem, engine="eager", **FEW_STAGES)
        before = {name: value for name, value in vars(field).items() if isinstance(value, torch.Tensor)}
        before |= dict(field.named_buffers())
        with contextlib.suppress(RuntimeError):
            solve(problem, engine="loop", **FEW_STAGES)
    after = vars(field) | dict(field.named_buffers())
    assert before
    for name, value in before.items():
        assert after[name].shape == value.shape
        assert after[name].numel()


def test_a_field_that_writes_into_its_buffers_is_left_to_other_engines(caplog):
    class Writes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, t, y):
            self.calls.add_(1.0)
            return -y

    counts = []
    for engine in ("eager", "loop"):
        field = Writes()
        with caplog.at_level(logging.INFO, logger="ude"), torch.no_grad():
            solve(ODEProblem(field, torch.ones(3, 2), (0.0, 1.0), batched=True), engine=engine, **FEW_STAGES)
        counts.append(float(field.calls))
    assert any("changes a tensor in place" in record.message for record in caplog.records)
    assert counts == [20.0, 20.0]


def test_random_numbers_are_left_to_other_engines():
    field = lambda t, y: -y + 0.0 * torch.rand_like(y)  # noqa: E731
    problem = ODEProblem(field, starts(2), (0.0, 1.0), batched=True)
    with torch.no_grad():
        ours = solve(problem, engine="loop", save_at=[1.0], **{**FEW_STAGES, "dt": 0.002})
    torch.testing.assert_close(ours.ys[0], starts(2) * torch.exp(-torch.tensor(1.0)), rtol=1e-5, atol=1e-6)
