"""Fits recover what made the data, by every strategy and from incomplete measurements."""

import pytest
import torch

from ude._checks import InputError, UdeWarning
from ude.fit import LBFGS, Adam, Collocation, InitialStates, MultipleShooting, SingleShooting, SolverOptions, fit
from ude.models import UDE, Parameter, Signal
from ude.problems import ODEProblem, Trajectories
from ude.solve import solve

QUICK = (LBFGS(iterations=40),)
TRUE = {"alpha": 1.3, "beta": 0.9, "delta": 1.8}


def physical(result):
    return {name: value.item() for name, value in result.model.physical.values().items()}


@pytest.mark.parametrize(
    "strategy",
    [
        SingleShooting(optimizers=QUICK),
        (MultipleShooting(optimizers=QUICK), SingleShooting(optimizers=QUICK)),
        (Collocation(optimizers=QUICK), SingleShooting(optimizers=QUICK)),
    ],
    ids=["single", "multiple", "collocation"],
)
def test_every_strategy_recovers_the_parameters_of_exact_data(strategy, parametric, exact_data):
    result = fit(parametric, exact_data, strategy=strategy, solver=SolverOptions(dt=0.1))
    # Tsit5 with steps of 0.1 is accurate to about 1e-5 here.
    assert physical(result) == pytest.approx(TRUE, abs=1e-4)
    assert result.sse < 1e-6


@pytest.mark.parametrize("starts", ["learn", "data"])
def test_multiple_shooting_alone_comes_as_close_as_the_noise_allows(starts, parametric, data):
    result = fit(parametric, data, strategy=MultipleShooting(optimizers=QUICK, starts=starts))
    # 0.5 % noise on 62 values determines the parameters to some 1 %; segments that start at noisy data to some 3 %.
    assert physical(result) == pytest.approx(TRUE, rel=0.03)


def test_collocation_alone_comes_as_close_as_the_smoothing_allows(parametric, exact_data):
    result = fit(parametric, exact_data, strategy=Collocation(optimizers=QUICK))
    assert physical(result) == pytest.approx(TRUE, rel=0.04)  # natural ends of the spline bias the slope there


def test_the_model_that_was_passed_in_is_not_changed(parametric, exact_data):
    before = parametric.physical.raw.detach().clone()
    fit(parametric, exact_data, strategy=SingleShooting(optimizers=(LBFGS(iterations=3),)))
    assert torch.equal(parametric.physical.raw, before)


def test_missing_values_and_channels_with_their_own_times_are_left_out(parametric, exact_data):
    ys = exact_data.ys.clone()
    ys[0, 1::2, 0] = torch.nan  # x at every other time
    ys[0, :, 1] = torch.where(torch.arange(31) % 5 == 0, ys[0, :, 1], torch.nan)  # y at every fifth
    sparse = Trajectories(ts=exact_data.ts, ys=ys, states=("x", "y"))
    result = fit(parametric, sparse, strategy=SingleShooting(optimizers=QUICK), solver=SolverOptions(dt=0.1))
    assert physical(result) == pytest.approx(TRUE, abs=1e-4)
    assert torch.equal(result.residuals().isnan(), ys.isnan())


def test_a_state_that_was_never_observed_is_learned_from_a_guess(parametric, exact_data, start):
    ys = exact_data.ys.clone()
    ys[..., 1] = torch.nan
    hidden = Trajectories(ts=exact_data.ts, ys=ys, states=("x", "y"))
    with pytest.raises(InputError, match="never measured"):
        fit(parametric, hidden)
    given = fit(
        parametric,
        hidden,
        strategy=SingleShooting(optimizers=(LBFGS(iterations=100),)),
        y0=InitialStates(values={"y": 4.0}, learn=("y",)),
        solver=SolverOptions(dt=0.1),
    )
    # x alone does not determine the unit of y, but beta * y; alpha and delta are determined.
    values = physical(given)
    assert (values["alpha"], values["delta"]) == pytest.approx((1.3, 1.8), abs=1e-3)
    assert values["beta"] * given.y0[0, 1].item() == pytest.approx(0.9 * start[1].item(), rel=1e-3)
    with pytest.raises(ValueError, match="every state measured"):
        fit(parametric, hidden, strategy=Collocation(), y0=InitialStates(values={"y": 4.0}))


def test_trajectories_of_different_length_share_the_parameters(parametric, exact_data, times, truth, measure):
    other_times = torch.tensor([0.5, 0.6, 0.9, 1.4, 1.5, 2.0], dtype=torch.float64)
    other = measure(truth, torch.tensor([2.0, 1.0], dtype=torch.float64), other_times, ("x", "y"))
    both = Trajectories.from_arrays([times, other_times], [exact_data.ys[0], other.ys[0]], states=("x", "y"))
    for strategy in (SingleShooting(optimizers=QUICK), MultipleShooting(points=4, optimizers=QUICK)):
        result = fit(parametric, both, strategy=strategy, solver=SolverOptions(dt=0.1))
        assert physical(result) == pytest.approx(TRUE, abs=1e-4)
        assert result.residuals()[1, 6:].isnan().all()


def test_learned_initial_states_correct_a_noisy_first_measurement(parametric, exact_data, start):
    ys = exact_data.ys.clone()
    ys[0, 0] += torch.tensor([0.1, -0.5], dtype=torch.float64)
    noisy = Trajectories(ts=exact_data.ts, ys=ys, states=("x", "y"))
    options = {"strategy": SingleShooting(optimizers=QUICK), "solver": SolverOptions(dt=0.1)}
    fixed = fit(parametric, noisy, **options)
    learned = fit(parametric, noisy, y0="learn", **options)
    assert torch.equal(fixed.y0, ys[:, 0])
    # The wrong measurement still counts, as one of 31.
    assert (learned.y0[0] - start).norm() < 0.6 * (ys[0, 0] - start).norm()
    assert learned.sse < fixed.sse


def test_exogenous_inputs_drive_the_model():
    ts = torch.linspace(0, 5, 21, dtype=torch.float64)
    inputs = (2 * ts).sin()[None, :, None]

    def known(t, y, p):
        return -p.k * y[..., 0] + p.gain * p.u

    truth = UDE(
        lambda t, y, p: (known(t, y, p),), None, states=("y",), parameters={"k": 0.5, "gain": 2.0}, inputs=("u",)
    )
    problem = ODEProblem(
        truth, torch.ones(1, 1, dtype=torch.float64), (0.0, 5.0), p=Signal.linear(ts[None], inputs), batched=True
    )
    with torch.no_grad():
        ys = solve(problem, save_at=ts, rtol=1e-9, atol=1e-9).ys
    noise = 1e-3 * torch.randn(ys.shape, generator=torch.Generator().manual_seed(0), dtype=ys.dtype)
    data = Trajectories(ts=ts[None], ys=(ys + noise).transpose(0, 1), states=("y",), inputs=inputs, input_names=("u",))
    guess = UDE(
        lambda t, y, p: (known(t, y, p),), None, states=("y",), parameters={"k": 1.0, "gain": 1.0}, inputs=("u",)
    )
    solver = SolverOptions(dt=0.25, halvings=0)  # from kink to kink of the inputs
    for strategy in (
        SingleShooting(optimizers=QUICK),
        MultipleShooting(optimizers=QUICK),
        Collocation(optimizers=QUICK),
    ):
        values = physical(fit(guess, data, strategy=strategy, solver=solver))
        assert (values["k"], values["gain"]) == pytest.approx((0.5, 2.0), rel=0.02)  # collocation is the coarsest


def test_states_of_very_different_size_are_fitted_alike(measure):
    def known(t, y, p):
        s, i = y[..., 0], y[..., 1]
        new = p.rate * s * i / 1e7
        return -new, new - 0.2 * i

    ts = torch.linspace(0, 40, 41, dtype=torch.float64)
    generator = UDE(known, None, states=("S", "I"), parameters={"rate": 0.5})
    y0 = torch.tensor([1e7, 10.0], dtype=torch.float64)
    with torch.no_grad():
        data = measure(generator, y0, ts, ("S", "I"))
    guess = UDE(known, None, states=("S", "I"), parameters={"rate": Parameter(0.3, positive=True)})
    result = fit(guess, data, strategy=SingleShooting(optimizers=QUICK))
    assert physical(result)["rate"] == pytest.approx(0.5, rel=1e-4)


def test_a_hybrid_model_reaches_the_noise_floor(hybrid, data, exact_data):
    strategy = (
        Collocation(optimizers=(Adam(iterations=200), LBFGS(iterations=100))),
        SingleShooting(optimizers=(LBFGS(iterations=60),)),
    )
    result = fit(hybrid, data, strategy=strategy)
    floor = float((data.ys - exact_data.ys).square().sum())
    assert result.sse < 2 * floor
    assert result.predict(torch.linspace(0, 4, 9)).ys.shape == (1, 9, 2)
    assert result.noise.shape == (2,)


def test_positive_states_stay_positive_and_are_fitted_in_the_logarithm(parametric, exact_data):
    positive = UDE(parametric.known, None, states=("x", "y"), parameters=parametric.physical.specs, positive=("x", "y"))
    result = fit(positive, exact_data, strategy=MultipleShooting(optimizers=QUICK), solver=SolverOptions(dt=0.1))
    assert physical(result) == pytest.approx(TRUE, abs=1e-4)
    assert (result.predict(torch.linspace(0, 50, 101)).ys > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "shooting"}, "must be one of"),
        ({"y0": torch.zeros(3)}, "must have shape"),
        ({"y0": InitialStates(values={"z": 1.0})}, "not among the states"),
        ({"weights": {"z": 1.0}}, "not among the states"),
        ({"resume": True}, "needs the `checkpoint`"),
    ],
)
def test_arguments_that_do_not_fit_say_what_is_expected(arguments, message, parametric, data):
    with pytest.raises(ValueError, match=message):
        fit(parametric, data, **arguments)


def test_single_precision_is_possible_and_says_when_it_stalls(parametric, data):
    strategy = SingleShooting(optimizers=(LBFGS(iterations=100, tolerance=1e-9, gradient_tolerance=1e-12),))
    with pytest.warns(UdeWarning, match="single precision"):
        result = fit(parametric, data, strategy=strategy, dtype=torch.float32)
    assert result.y0.dtype == torch.float32
    assert physical(result) == pytest.approx(TRUE, rel=0.02)  # 0.5 % noise
