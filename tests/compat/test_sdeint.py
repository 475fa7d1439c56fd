"""`sdeint` and `sdeint_adjoint` against torchsde along its own Brownian motions."""

from __future__ import annotations

import math

import pytest
import torch
import torchsde
from sde_cases import COMPONENTS, DT, F64, TS, Both, BothProduct, Equation, Product, motion, start

import ude
from ude.brownian import BrownianGrid, BrownianTree
from ude.compat import sdeint, sdeint_adjoint

LIBRARIES = (sdeint, torchsde.sdeint)
SAME = [
    *[("euler", "ito", noise) for noise in COMPONENTS],
    *[("milstein", "ito", noise) for noise in ("diagonal", "additive", "scalar")],
    ("srk", "ito", "additive"),  # SRA1 here and there
    *[("milstein", "stratonovich", noise) for noise in ("diagonal", "additive", "scalar")],
    *[
        (name, "stratonovich", noise)
        for name in ("midpoint", "heun", "euler_heun", "reversible_heun")
        for noise in COMPONENTS
    ],
]
"""Methods whose steps are those of torchsde, number by number."""


def gradients(ys, y0, equation):
    weights = torch.linspace(0.5, 1.5, ys.numel(), dtype=ys.dtype).reshape(ys.shape)
    return torch.autograd.grad((weights * ys**2).sum(), [y0, *equation.parameters()], allow_unused=True)


def assert_same(ours, theirs, *, tolerance=1e-11):
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("method", "integral", "noise"), SAME)
@pytest.mark.parametrize("solve", [sdeint, sdeint_adjoint])
def test_steps_that_end_at_the_times_give_torchsde_s_numbers_and_gradients(solve, method, integral, noise):
    equation, bm = Equation(noise, integral), motion(noise)
    results = []
    for library in (solve, torchsde.sdeint):
        y0 = start(grad=True)
        ys = library(equation, y0, TS, bm=bm, method=method, dt=DT)
        results.append((ys.detach(), *gradients(ys, y0, equation)))
    assert results[0][0].shape == (5, 4, 3)
    assert_same(*results)


def test_milstein_without_derivatives_gives_torchsde_s_numbers_with_integrals_of_stratonovich():
    equation, bm = Equation("diagonal", "stratonovich"), motion("diagonal")
    options = {"grad_free": True}
    ys = [f(equation, start(), TS, bm=bm, method="milstein", dt=DT, options=options) for f in LIBRARIES]
    with_derivatives = sdeint(equation, start(), TS, bm=bm, method="milstein", dt=DT)
    torch.testing.assert_close(ys[0], ys[1], rtol=1e-12, atol=1e-12)
    assert float((ys[0] - with_derivatives).abs().max()) > 1e-6


@pytest.mark.parametrize(("method", "options"), [("srk", {}), ("milstein", {"grad_free": True})])
@pytest.mark.parametrize("noise", ["diagonal", "scalar"])
def test_methods_with_other_numbers_than_torchsde_s_converge_to_the_same_path(method, options, noise):
    equation, bm, y0 = Equation(noise, "ito"), motion(noise, rows=200), start().repeat(50, 1)

    def apart(dt):
        ys = [f(equation, y0, [0.0, 1.0], bm=bm, method=method, dt=dt, options=options) for f in LIBRARIES]
        return float((ys[0] - ys[1])[-1].square().mean().sqrt())

    with torch.no_grad():
        order = math.log2(apart(2.0**-3) / apart(2.0**-6)) / 3
    # Of strong order 1.5 and 1 each; the difference may be smaller than either error.
    assert order > (1.3 if method == "srk" else 0.8)


@pytest.mark.parametrize("noise", COMPONENTS)
@pytest.mark.parametrize("solve", [sdeint, sdeint_adjoint])
def test_log_ratios_are_those_of_torchsde(solve, noise):
    equation, bm = Equation(noise, "ito"), motion(noise, extra=int(noise == "diagonal"))
    results = []
    for library in (solve, torchsde.sdeint):
        y0 = start(grad=True)
        ys, ratios = library(equation, y0, TS, bm=bm, method="euler", dt=DT, logqp=True)
        assert ys.shape == (5, 4, 3)
        assert ratios.shape == (4, 4)
        total = ys.square().sum() + ratios.sum()
        leaves = [y0, *equation.parameters()]
        results.append((ys.detach(), ratios.detach(), *torch.autograd.grad(total, leaves, allow_unused=True)))
    assert_same(*results, tolerance=1e-10)


def test_the_log_ratio_is_the_divergence_of_two_constant_drifts():
    class Constant:
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, y):
            return torch.full_like(y, 0.7)

        def g(self, t, y):
            return torch.full_like(y, 0.5)

        def h(self, t, y):
            return torch.full_like(y, -0.3)

    _, ratios = sdeint(Constant(), torch.zeros(6, 2, dtype=F64), [0.0, 0.4, 1.0], dt=0.1, logqp=True)
    expected = 0.5 * 2 * (1.0 / 0.5) ** 2 * torch.tensor([0.4, 0.6], dtype=F64)
    torch.testing.assert_close(ratios, expected.unsqueeze(-1).expand(2, 6), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", [Product, Both, BothProduct])
@pytest.mark.parametrize("noise", COMPONENTS)
def test_drift_and_diffusion_may_come_in_other_forms(form, noise):
    equation, bm = Equation(noise, "stratonovich"), motion(noise)
    given = [f(form(equation), start(), TS, bm=bm, method="heun", dt=DT) for f in LIBRARIES]
    torch.testing.assert_close(given[0], given[1], rtol=1e-12, atol=1e-12)


def test_methods_of_the_object_may_have_other_names():
    class Renamed(Equation):
        mu, sigma, prior = Equation.f, Equation.g, Equation.h

    renamed = Renamed("diagonal", "ito")
    renamed.f = renamed.g = renamed.h = None
    names = {"drift": "mu", "diffusion": "sigma", "prior_drift": "prior"}
    bm = motion("diagonal", extra=1)
    ours = sdeint(renamed, start(), TS, bm=bm, method="euler", dt=DT, names=names, logqp=True)
    expected = torchsde.sdeint(Equation("diagonal", "ito"), start(), TS, bm=bm, method="euler", dt=DT, logqp=True)
    assert_same(ours, expected)


def test_milstein_with_scalar_noise_converges_where_the_derivative_of_the_diffusion_is_not_symmetric():
    # torchsde takes the transpose of the derivative, and its error stays at 0.5.
    matrix = torch.tensor([[0.3, -0.6], [0.6, 0.3]], dtype=F64)

    class Rotation:
        noise_type, sde_type = "scalar", "stratonovich"

        def f(self, t, y):
            return torch.zeros_like(y)

        def g(self, t, y):
            return (y @ matrix.T).unsqueeze(-1)

    bm, y0 = motion("scalar", rows=200), torch.ones(200, 2, dtype=F64)
    exact = torch.linalg.matrix_exp(matrix * bm(0.0, 1.0).unsqueeze(-1)) @ torch.ones(2, dtype=F64)
    errors = [
        float((sdeint(Rotation(), y0, [0.0, 1.0], bm=bm, method="milstein", dt=dt)[-1] - exact).square().mean().sqrt())
        for dt in (2.0**-4, 2.0**-7)
    ]
    assert math.log2(errors[0] / errors[1]) / 3 == pytest.approx(1.0, abs=0.2)


def test_torchsde_makes_the_steps_that_are_not_in_this_library():
    equation, bm = Equation("general", "stratonovich"), motion("general", area="foster")
    ours, theirs = [f(equation, start(), TS, bm=bm, method="log_ode", dt=DT) for f in LIBRARIES]
    assert torch.equal(ours, theirs)
    call = {"method": "reversible_heun", "dt": DT, "extra": True}
    (ours, state), (theirs, expected) = [f(equation, start(), TS, bm=bm, **call) for f in LIBRARIES]
    assert torch.equal(ours, theirs)
    assert_same(state, expected, tolerance=0.0)
    again = sdeint(equation, ours[-1], TS, bm=bm, extra_solver_state=state, **call)[0]
    assert torch.equal(again, torchsde.sdeint(equation, ours[-1], TS, bm=bm, extra_solver_state=state, **call)[0])


def test_torchsde_follows_a_tree_of_this_library():
    equation, tree = Equation("general", "stratonovich"), BrownianTree(4)
    # With `extra` torchsde makes the steps, without it this library.
    theirs, _ = sdeint(equation, start(), TS, bm=tree, method="reversible_heun", dt=DT, extra=True)
    ours = sdeint(equation, start(), TS, bm=tree, method="reversible_heun", dt=DT)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    theirs, _ = sdeint_adjoint(equation, start(), TS, bm=tree, method="reversible_heun", dt=DT, extra=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_extra_of_a_method_without_a_state_of_its_own_is_empty():
    ys, state = sdeint(Equation("diagonal", "ito"), start(), TS, dt=DT, extra=True)
    assert ys.shape == (5, 4, 3)
    assert state == ()
    ys, ratios, state = sdeint(Equation("diagonal", "ito"), start(), TS, dt=DT, extra=True, logqp=True)
    assert (ys.shape, ratios.shape, state) == ((5, 4, 3), (4, 4), ())


def test_rows_have_brownian_motions_of_their_own():
    class Noise:
        noise_type, sde_type = "general", "ito"

        def f(self, t, y):
            return torch.zeros_like(y)

        def g(self, t, y):
            return torch.ones(len(y), 1, 2, dtype=y.dtype)

    torch.manual_seed(1)
    ys = sdeint(Noise(), torch.zeros(4_000, 1, dtype=F64), [0.0, 1.0], dt=0.25)[-1]
    # Variance 2 with a standard error of 0.045.
    assert float(ys.var()) == pytest.approx(2.0, abs=0.2)
    torch.manual_seed(1)
    assert torch.equal(sdeint(Noise(), torch.zeros(4_000, 1, dtype=F64), [0.0, 1.0], dt=0.25)[-1], ys)


@pytest.mark.parametrize("path", [BrownianTree(3), BrownianGrid(3)], ids=repr)
def test_a_path_of_this_library_is_a_brownian_motion(path):
    equation = Equation("diagonal", "ito")
    ys = sdeint(equation, start(), TS, bm=path, method=ude.SOSRI(), dt=DT)
    problem = ude.SDEProblem(
        lambda t, y: equation.f(t.max(), y), lambda t, y: equation.g(t.max(), y), start(), (0.0, 1.0), batched=True,
        path=path,
    )  # fmt: skip
    expected = ude.solve(problem, ude.SOSRI(), save_at=TS, dt=DT, controller=ude.FixedStep()).ys
    assert torch.equal(ys, expected)


@pytest.mark.parametrize(
    ("method", "integral", "noise"),
    [
        ("euler", "ito", "general"),
        ("srk", "ito", "diagonal"),
        ("srk", "ito", "additive"),
        (None, "stratonovich", "general"),
        ("heun", "stratonovich", "scalar"),
        ("reversible_heun", "stratonovich", "diagonal"),
    ],
)
@pytest.mark.parametrize("own", [True, False], ids=["tree", "interval"])
def test_steps_that_are_chosen_come_nearer_to_the_path_with_the_tolerance(method, integral, noise, own):
    equation = Equation(noise, integral)
    bm, y0 = BrownianTree(8) if own else motion(noise, rows=100), start().repeat(25, 1)
    with torch.no_grad():
        name = {"srk": "srk", "euler": "euler"}.get(method, "heun")
        exact = sdeint(equation, y0, TS, bm=bm, method=name, dt=2.0**-10)
        errors = []
        for tolerance in (3e-1, 1e-3):
            options = {"rtol": tolerance, "atol": tolerance, "adaptive": True, "dt": 0.2, "dt_min": 1e-4}
            ys = sdeint(equation, y0, TS, bm=bm, method=method, **options)
            errors.append(float((ys - exact).square().mean().sqrt()))
    assert errors[1] < 0.4 * errors[0]
    assert errors[1] < 1e-2


def test_rows_share_the_steps_that_are_chosen():
    times = []

    class Decay:
        noise_type, sde_type = "diagonal", "ito"

        def __init__(self, *rates):
            self.rates = torch.tensor(rates, dtype=F64).unsqueeze(-1)

        def f(self, t, y):
            times.append(float(t))
            return -self.rates * y

        def g(self, t, y):
            return 0.1 * y

    def calls(*rates):
        times.clear()
        y0 = torch.ones(len(rates), 1, dtype=F64)
        ys = sdeint(Decay(*rates), y0, [0.0, 1.0], bm=BrownianTree(0), adaptive=True, rtol=1e-3, atol=1e-3, dt=0.1)
        assert ys.isfinite().all()
        return len(times)

    assert calls(1.0, 400.0, 3.0) > 2 * calls(1.0)


def test_the_least_step_is_taken_whatever_its_error():
    equation = Equation("diagonal", "ito")
    options = {"adaptive": True, "rtol": 1e-9, "atol": 1e-9, "dt": 0.1}
    ys = sdeint(equation, start(), [0.0, 1.0], bm=motion("diagonal"), dt_min=0.02, **options)
    assert ys.isfinite().all()
    assert sdeint(equation, start(), [0.0, 10.0], dt_min=0.13, **options).isfinite().all()


class Explosive:
    noise_type, sde_type = "diagonal", "ito"

    def f(self, t, y):
        return y**3

    def g(self, t, y):
        return 0.1 * y


def test_a_row_that_overflows_is_nan_and_the_others_go_on():
    y0 = torch.tensor([[0.01], [5.0], [0.02]])
    ys = sdeint(Explosive(), y0, [0.0, 0.01, 1.0, 2.0], method="euler", dt=0.01)
    assert ys.isfinite().all(-1).tolist() == [[True] * 3, [True] * 3, [True, False, True], [True, False, True]]
    theirs = torchsde.sdeint(Explosive(), y0, [0.0, 0.01, 1.0, 2.0], method="euler", dt=0.01)
    assert torch.equal(theirs.isfinite(), ys.isfinite())


def test_steps_that_are_chosen_and_find_no_end_raise_what_torchsde_s_programs_catch():
    with pytest.raises(AssertionError) as caught:
        sdeint(Explosive(), torch.full((2, 1), 5.0), [0.0, 1.0], method="srk", adaptive=True, dt=0.01)
    assert isinstance(caught.value, ude.compat.SdeintError)
    assert caught.value.solution.ys.shape == (2, 2, 1)


def test_the_program_of_torchsde_s_introduction_runs_with_one_import_changed():
    batch_size, state_size, brownian_size = 32, 3, 2

    class SDE(torch.nn.Module):
        noise_type, sde_type = "general", "ito"

        def __init__(self):
            super().__init__()
            self.mu = torch.nn.Linear(state_size, state_size)
            self.sigma = torch.nn.Linear(state_size, state_size * brownian_size)

        def f(self, t, y):
            return self.mu(y)

        def g(self, t, y):
            return self.sigma(y).view(batch_size, state_size, brownian_size)

    torch.manual_seed(0)
    sde = SDE()
    ys = sdeint(sde, torch.full((batch_size, state_size), 0.1), torch.linspace(0, 1, 20))
    assert ys.shape == (20, batch_size, state_size)
    ys[-1].square().mean().backward()
    assert sde.mu.weight.grad.abs().max() > 0
    assert sde.sigma.weight.grad.abs().max() > 0


def test_a_latent_sde_in_single_precision_trains_by_the_adjoint():
    class Latent(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

        def f(self, t, y):
            return self.net(torch.cat([t.expand_as(y), y], 1))

        def h(self, t, y):
            return -y

        def g(self, t, y):
            return torch.full_like(y, 0.3)

    torch.manual_seed(0)
    sde, ts = Latent(), torch.linspace(0.0, 1.0, 6)
    optimizer = torch.optim.Adam(sde.parameters(), lr=2e-2)
    losses = []
    for _ in range(40):
        ys, ratios = sdeint_adjoint(
            sde, torch.zeros(64, 1), ts, method="srk", dt=0.05, logqp=True, adjoint_method="euler", adjoint_params=()
        )
        loss = (ys - torch.sin(3.0 * ts).reshape(-1, 1, 1)).square().mean() + 1e-3 * ratios.sum(0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_one_time_is_the_initial_state():
    ys, ratios = sdeint(Equation("diagonal", "ito"), start(), [0.5], logqp=True)
    assert torch.equal(ys, start().unsqueeze(0))
    assert ratios.shape == (0, 4)


def test_the_memory_of_the_adjoint_grows_with_the_root_of_the_number_of_steps():
    equation = Equation("diagonal", "ito")

    def saved(solve, dt):
        sizes = []

        def pack(x):
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            solve(equation, start(grad=True), [0.0, 1.0], bm=BrownianGrid(0), method="euler", dt=dt)
        return sum(sizes)

    few, many = 2.0**-5, 2.0**-9  # 16 times the steps
    assert saved(sdeint, many) > 12 * saved(sdeint, few)
    assert saved(sdeint_adjoint, many) < 6 * saved(sdeint_adjoint, few)
    assert saved(sdeint_adjoint, many) < saved(sdeint, many) / 8
