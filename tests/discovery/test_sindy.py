"""The estimator finds pysindy's equations on pysindy's documented examples, and simulates them alike."""

import warnings

import numpy as np
import pysindy
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from sklearn.base import clone
from sklearn.linear_model import Lasso

from ude._checks import UdeWarning
from ude.discovery import SR3, STLSQ, ForwardSelection, Fourier, Polynomial, SavitzkyGolay, SINDy

TIGHT = {"rtol": 1e-12, "atol": 1e-12, "method": "LSODA"}


def trajectory(field, x0, t):
    return solve_ivp(field, (t[0], t[-1]), x0, t_eval=t, **TIGHT).y.T


def lorenz(t, z):
    return [10 * (z[1] - z[0]), z[0] * (28 - z[2]) - z[1], z[0] * z[1] - 8 / 3 * z[2]]


def driven_lorenz(t, z):
    dx, dy, dz = lorenz(t, z)
    return [dx + np.sin(2 * t) ** 2, dy, dz]


def hopf(t, z):
    x, y = z
    r = x**2 + y**2
    return [0.05 * x + y - x * r, -x + 0.05 * y - y * r]


def linear(t, z):
    return [-0.1 * z[0] + 2 * z[1], -2 * z[0] - 0.1 * z[1]]


def linear_3d(t, z):
    return [-0.1 * z[0] - 2 * z[1], 2 * z[0] - 0.1 * z[1], -0.3 * z[2]]


def cubic(t, z):
    return [-0.1 * z[0] ** 3 + 2 * z[1] ** 3, -2 * z[0] ** 3 - 0.1 * z[1] ** 3]


# Name: (field, starts, times, degree, threshold), from pysindy's feature overview and examples of the SINDy paper.
EXAMPLES = {
    "Lorenz": (lorenz, [[-8, 8, 27]], np.arange(0, 4, 0.002), 2, 0.1),
    "linear damped oscillator": (linear, [[2, 0]], np.arange(0, 25, 0.01), 5, 0.05),
    "linear 3D": (linear_3d, [[2, 0, 1]], np.arange(0, 25, 0.01), 5, 0.01),
    "cubic damped oscillator": (cubic, [[2, 0]], np.arange(0, 25, 0.01), 5, 0.05),
    "Hopf normal form": (hopf, [[1, 0.75], [0.1, 0.0], [0.0, -1.5]], np.arange(0, 20, 0.01), 3, 0.02),
}
TERMS = {
    "Lorenz": [["x0", "x1"], ["x0", "x1", "x0 x2"], ["x2", "x0 x1"]],
    "linear damped oscillator": [["x0", "x1"], ["x0", "x1"]],
    "linear 3D": [["x0", "x1"], ["x0", "x1"], ["x2"]],
    "cubic damped oscillator": [["x0^3", "x1^3"], ["x0^3", "x1^3"]],
    "Hopf normal form": [["x0", "x1", "x0^3", "x0 x1^2"], ["x0", "x1", "x0^2 x1", "x1^3"]],
}


def both(x, t, degree=2, threshold=0.1, **data):
    ours = SINDy(STLSQ(threshold=threshold), Polynomial(degree=degree)).fit(x, t, **data)
    theirs = pysindy.SINDy(pysindy.STLSQ(threshold=threshold), pysindy.PolynomialLibrary(degree=degree))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ours, theirs.fit(x, t, **data)


@pytest.fixture(scope="module")
def data():
    t = np.arange(0, 4, 0.002)
    return trajectory(lorenz, [-8, 8, 27], t), t


@pytest.mark.parametrize("name", EXAMPLES)
def test_documented_examples_give_the_equations_of_pysindy(name):
    field, starts, t, degree, threshold = EXAMPLES[name]
    x = [trajectory(field, x0, t) for x0 in starts]
    ours, theirs = both(x, t, degree, threshold)
    names = ours.get_feature_names()
    assert names == theirs.get_feature_names()
    assert [[names[j] for j in row.nonzero()[0]] for row in ours.coefficients()] == TERMS[name]
    assert np.array_equal(ours.coefficients() != 0, theirs.coefficients() != 0)
    # Least squares on few well-scaled columns after equal derivatives.
    np.testing.assert_allclose(ours.coefficients(), theirs.coefficients(), rtol=1e-8)
    assert ours.complexity == theirs.complexity
    assert ours.score(x, t) == pytest.approx(theirs.score(x, t), abs=1e-10)
    np.testing.assert_allclose(np.stack(ours.predict(x)), np.stack(theirs.predict(x)), atol=1e-8 * np.abs(x).max() ** 2)


def test_an_exogenous_input_is_found_and_drives_the_simulation():
    t = np.arange(0, 4, 0.002)
    x, u = trajectory(driven_lorenz, [-8, 8, 27], t), np.sin(2 * t)
    ours, theirs = both(x, t, u=u)
    assert ours.equations(1)[0] == "-10.0 x0 + 10.0 x1 + 1.0 u0^2"
    np.testing.assert_allclose(ours.coefficients(), theirs.coefficients(), rtol=1e-8)
    np.testing.assert_allclose(ours.predict(x, u), theirs.predict(x, u), atol=1e-6)
    short = t[:200]
    # Tolerance 1e-12 over 0.4 time units, in which errors grow by less than 1e3.
    by_function = ours.simulate(x[0], short, u=lambda time: np.sin(2 * time))
    expected = theirs.simulate(x[0], short, u=lambda time: np.array([np.sin(2 * time)]))
    np.testing.assert_allclose(by_function, expected, atol=1e-8)
    # The spline through 200 samples of a sine is good to h^4.
    np.testing.assert_allclose(ours.simulate(x[0], short, u=u[:200]), by_function, atol=1e-8)


def test_simulations_agree_with_pysindy(data):
    x, t = data
    ours, theirs = both(x, t)
    short = t[:500]
    # Two runs of tolerance 1e-12 on values of 40; one time unit of chaos multiplies errors by ten.
    np.testing.assert_allclose(ours.simulate(x[0], short), theirs.simulate(x[0], short), atol=1e-8)


def test_a_pendulum_simulates_with_library_functions_that_are_no_polynomials():
    t = np.arange(0, 10, 0.01)
    x = trajectory(lambda t, z: [z[1], -np.sin(z[0])], [2.0, 0.0], t)
    library = Polynomial(degree=1) + Fourier(1)
    model = SINDy(STLSQ(threshold=0.2), library).fit(x, t, feature_names=["angle", "speed"])
    assert model.equations(2) == ["1.00 speed", "-1.00 sin(angle)"]
    exact = [model.coefficients()[0, 2], model.coefficients()[1, 3]]
    expected = trajectory(lambda t, z: [exact[0] * z[1], exact[1] * np.sin(z[0])], [2.0, 0.0], t)
    np.testing.assert_allclose(model.simulate(x[0], t), expected, atol=1e-8)


def test_arrays_tensors_and_lists_give_the_same_model(data):
    x, t = data
    expected = SINDy().fit(x, t).coefficients()
    tensors = SINDy().fit(torch.from_numpy(x), torch.from_numpy(t))
    assert np.array_equal(tensors.coefficients(), expected)
    assert isinstance(tensors.predict(torch.from_numpy(x)), torch.Tensor)
    assert isinstance(tensors.simulate(torch.from_numpy(x[0]), t[:5]), torch.Tensor)
    np.testing.assert_allclose(SINDy().fit(x, 0.002).coefficients(), expected, rtol=1e-9)
    single = SINDy().fit([x], t)
    assert np.array_equal(single.coefficients(), expected)
    assert isinstance(single.predict([x]), list)


def test_several_trajectories_of_different_length_are_used_together(data):
    x, t = data
    parts, times = [x[:700], x[700:1900]], [t[:700], t[700:1900]]
    ours, theirs = both(parts, times)
    np.testing.assert_allclose(ours.coefficients(), theirs.coefficients(), rtol=1e-8)
    assert ours.score(parts, times) == pytest.approx(theirs.score(parts, times), abs=1e-10)


def test_known_derivatives_are_taken_as_they_are(data):
    x, t = data
    x_dot = np.stack([lorenz(0, row) for row in x])
    model = SINDy().fit(x, t, x_dot=x_dot)
    # Exact data: the coefficients are those of the system.
    np.testing.assert_allclose(model.coefficients()[0, 1:3], [-10, 10], rtol=1e-10)
    assert model.score(x, t, x_dot=x_dot) == pytest.approx(1.0, abs=1e-12)


def test_samples_with_missing_values_are_left_out(data):
    x, t = data
    x_dot = np.stack([lorenz(0, row) for row in x])
    holes = x.copy()
    holes[::7, 1] = np.nan
    known = np.isfinite(holes).all(axis=1)
    expected = SINDy().fit(x[known], t[known], x_dot=x_dot[known]).coefficients()
    np.testing.assert_allclose(SINDy().fit(holes, t, x_dot=x_dot).coefficients(), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="Every sample"):
        SINDy().fit(x * np.nan, t)


def test_parts_of_pysindy_are_accepted(data):
    x, t = data
    expected = both(x, t)[1].coefficients()
    for optimizer in (pysindy.STLSQ(), STLSQ()):
        for library in (pysindy.PolynomialLibrary(), Polynomial()):
            for method in (pysindy.FiniteDifference(), None):
                found = SINDy(optimizer, library, method).fit(x, t).coefficients()
                np.testing.assert_allclose(found, expected, rtol=1e-8)
    theirs = pysindy.SINDy(differentiation_method=pysindy.SmoothedFiniteDifference()).fit(x, t)
    ours = SINDy(differentiation_method=pysindy.SmoothedFiniteDifference()).fit(x, t)
    np.testing.assert_allclose(ours.coefficients(), theirs.coefficients(), rtol=1e-8)


def test_a_library_without_symbols_still_simulates(data):
    x, t = data
    functions = [lambda a: a, lambda a, b: a * b]
    names = [lambda a: a, lambda a, b: f"{a} {b}"]
    model = SINDy(feature_library=pysindy.CustomLibrary(functions, names)).fit(x, t)
    expected = SINDy().fit(x, t)
    assert model.equations() == expected.equations()
    np.testing.assert_allclose(model.simulate(x[0], t[:100]), expected.simulate(x[0], t[:100]), atol=1e-8)


@pytest.mark.parametrize(
    "optimizer",
    [
        SR3(weight=0.1, nu=0.1, max_iter=200),
        ForwardSelection(k_max=3, orthogonal=True),
        STLSQ(threshold=0.3),
        Lasso(alpha=1.0, fit_intercept=False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_optimizer_explains_the_lorenz_system(data, optimizer):
    assert SINDy(optimizer, differentiation_method=SavitzkyGolay()).fit(*data).score(*data) > 0.98


def test_what_leaves_no_term_or_fits_an_intercept_is_reported(data):
    with pytest.warns(UdeWarning, match="no term left"):
        SINDy(STLSQ(threshold=1e3)).fit(*data)
    with pytest.raises(ValueError, match="fit_intercept=False"):
        SINDy(Lasso(alpha=1.0)).fit(*data)


def test_options_are_read_set_and_cloned_as_in_scikit_learn(data):
    model = SINDy(STLSQ(threshold=0.2), Polynomial(degree=3))
    assert model.get_params()["optimizer__threshold"] == 0.2
    assert set(model.get_params(deep=False)) == {"optimizer", "feature_library", "differentiation_method"}
    copy = clone(model).set_params(optimizer__threshold=0.4, feature_library__degree=2)
    assert (copy.optimizer.threshold, copy.feature_library.degree) == (0.4, 2)
    assert model.optimizer.threshold == 0.2
    assert copy.fit(*data).complexity == 7
    with pytest.raises(TypeError):
        copy.set_params(optimizer__treshold=0.4)
    with pytest.raises(ValueError, match="Invalid parameter"):
        copy.set_params(optimiser=None)


def test_symbols_and_module_say_what_predict_says(data):
    x, t = data
    model = SINDy().fit(x, t, feature_names=["x", "y", "z"])
    symbols = sympy.symbols("x y z")
    expected = model.predict(x[:10])
    evaluated = np.stack([sympy.lambdify(symbols, model.sympy())(*row) for row in x[:10]])
    np.testing.assert_allclose(evaluated, expected, rtol=1e-12)
    field = model.to_module()
    rows = torch.from_numpy(x[:10]).requires_grad_()
    found = field(torch.tensor(0.0), rows)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12)
    found.sum().backward()
    assert sum(value.numel() for value in field.parameters()) == 7
    assert all(value.grad is not None for value in field.parameters())


def test_a_module_takes_exogenous_inputs_after_the_state():
    t = np.arange(0, 4, 0.002)
    x, u = trajectory(driven_lorenz, [-8, 8, 27], t), np.sin(2 * t)
    model = SINDy().fit(x, t, u=u)
    found = model.to_module()(torch.tensor(0.0), torch.from_numpy(x), torch.from_numpy(u).unsqueeze(-1))
    np.testing.assert_allclose(found.detach().numpy(), model.predict(x, u), rtol=1e-10, atol=1e-9)


def test_equations_are_printed_with_the_given_names(data, capsys):
    SINDy().fit(*data, feature_names=["x", "y", "z"]).print(precision=1)
    assert capsys.readouterr().out.splitlines()[0] == "x' = -10.0 x + 10.0 y"


@settings(deadline=None, max_examples=15)
@given(st.floats(0.01, 100), st.permutations(range(3)))
def test_units_of_time_and_the_order_of_states_do_not_change_the_model(factor, order):
    t = np.arange(0, 1, 0.002)
    x = trajectory(lorenz, [-8, 8, 27], t)
    plain = SINDy(STLSQ(threshold=0.1, alpha=0.0)).fit(x, t)
    slower = SINDy(STLSQ(threshold=0.1 / factor, alpha=0.0)).fit(x, t * factor)
    np.testing.assert_allclose(slower.coefficients() * factor, plain.coefficients(), rtol=1e-7)
    permuted = SINDy(STLSQ(threshold=0.1, alpha=0.0)).fit(x[:, order], t)
    np.testing.assert_allclose(permuted.predict(x[:, order]), plain.predict(x)[:, order], atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": np.zeros(2000)}, "increasing times"),
        ({"t": np.arange(5.0)}, "2000 increasing times"),
        ({"x_dot": np.zeros((3, 3))}, "as many rows"),
        ({"u": np.zeros(3)}, "as many rows"),
        ({"u": [np.zeros(2000)]}, "list of trajectories"),
        ({"feature_names": ["x"]}, "3 states"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_data_that_do_not_fit_together_are_refused(data, arguments, message):
    x, t = data
    with pytest.raises(ValueError, match=message):
        SINDy().fit(**({"x": x, "t": t} | arguments))


def test_inputs_must_be_given_if_and_only_if_the_model_has_any(data):
    x, t = data
    model = SINDy().fit(x, t)
    with pytest.raises(ValueError, match="0 exogenous"):
        model.predict(x, u=t)
    with pytest.raises(ValueError, match="0 exogenous"):
        model.simulate(x[0], t, u=t)


def test_a_simulation_that_blows_up_says_so():
    t = np.linspace(0, 0.9, 200)
    model = SINDy().fit((1 / (1 - t))[:, None], t, x_dot=((1 / (1 - t)) ** 2)[:, None])
    with pytest.raises(RuntimeError, match="grows without bound"):
        model.simulate([1.0], np.linspace(0, 2, 50))
