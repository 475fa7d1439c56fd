"""What a discovery says: numbers, their uncertainty, and the same equation in every form."""

import json

import numpy as np
import pytest
import sympy
import torch

from ude.discovery import Custom, Polynomial, Search, discover
from ude.discovery.diagnostics import correlated_states, is_worse
from ude.discovery.sparse_term import SparseTerm
from ude.models import UDE, Expression, Parameter, Term
from ude.problems import Trajectories

QUICK = Search(max_terms=2, pool=8, beam=2, neighbours=3)


def straight_lines(noise=0.1, points=21):
    """y' = u, where u = c0 + c1 x and x' = 1 is known: y is linear in c0, c1 and y(0)."""
    ts = torch.linspace(0, 2, points, dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    y = 0.5 + 1.0 * ts - 2.0 * ts**2 / 2 + noise * torch.randn(points, generator=rng, dtype=torch.float64)
    data = Trajectories.from_arrays(ts, torch.stack([ts, y], dim=1), states=("x", "y"))
    library = Polynomial(degree=1)
    learned = SparseTerm(library, torch.tensor([[0.9, -1.9, 0.02]], dtype=torch.float64))
    model = UDE(
        lambda t, y: (1.0 + 0 * y[..., 0], 0 * y[..., 0]), {"u": Term(learned, ("x", "y"), ("y",))}, states=("x", "y")
    )
    return model, data, library


@pytest.fixture(scope="module")
def found():
    model, data, library = straight_lines()
    return discover(model, data, library, learn_y0=("y",), search=QUICK)


def test_covariance_is_that_of_linear_regression(found):
    ts = found.data.ts[0].numpy()
    assert [e.name for e in found.estimates] == ["u.y: 1", "u.y: x", "y(0)"]
    design = np.stack([ts, ts**2 / 2, np.ones_like(ts)], axis=1)
    ys = found.data.ys[0, :, 1].numpy()
    solution, sse, *_ = np.linalg.lstsq(design, ys, rcond=None)
    np.testing.assert_allclose([e.value for e in found.estimates], solution, rtol=1e-6)
    # Three numbers were fitted to 42 measurements; the freedom is shared among the states by their measurements.
    variance = sse[0] / (21 * (1 - 3 / 42))
    np.testing.assert_allclose(found.covariance, variance * np.linalg.inv(design.T @ design), rtol=1e-6)
    unit = design / np.linalg.norm(design, axis=0)
    np.testing.assert_allclose(found.singular_values, np.linalg.svd(unit, compute_uv=False), rtol=1e-6)


def test_intervals_are_those_of_students_distribution(found):
    from scipy.stats import t

    low, high = found.intervals(0.95)["u.y: x"]
    error = next(e for e in found.estimates if e.name == "u.y: x").error
    assert (high - low) / 2 == pytest.approx(t.ppf(0.975, 42 - 3) * error)
    with pytest.raises(ValueError, match="level"):
        found.intervals(95.0)


def test_text_sympy_latex_and_module_are_the_same_function(found):
    x = torch.tensor([[0.3, 0.7], [1.5, -0.2]], dtype=torch.float64)
    module = found.module("u")
    assert isinstance(module, Expression)
    values = module(x)[:, 0].detach().numpy()
    symbols = sympy.symbols("x y")
    exact = sympy.lambdify(symbols, found.sympy["y"])
    np.testing.assert_allclose([exact(*row) for row in x.tolist()], values, rtol=1e-12)
    left, right = found.equations[1].split(" = ")
    assert left == "y'"
    # Text carries five digits, LaTeX four.
    printed = sympy.lambdify(symbols, sympy.sympify(right))
    np.testing.assert_allclose([printed(*row) for row in x.tolist()], values, rtol=2e-4)
    assert found.latex().startswith(r"\begin{aligned}")
    assert "x" in found.latex()
    torch.testing.assert_close(found.model(0.0, x)[:, 1], module(x)[:, 0])


def test_a_recovered_term_drops_back_into_the_model_it_came_from(found):
    model, data, _ = straight_lines()
    again = model.replace("u", found.module())
    x = data.ys[0]
    torch.testing.assert_close(again(0.0, x), found.model(0.0, x))
    assert sum(p.numel() for p in again.parameters() if p.requires_grad) == 2
    with pytest.raises(ValueError, match="no unknown term"):
        found.module("v")


def test_prediction_is_the_closed_form_and_reaches_beyond_the_data(found):
    ts = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    c0, c1, y0 = (e.value for e in found.estimates)
    torch.testing.assert_close(found.predict(ts).ys[0, :, 1], y0 + c0 * ts + c1 * ts**2 / 2, rtol=1e-7, atol=1e-7)


def test_json_holds_everything_and_comes_back(found):
    values = json.loads(found.to_json())
    assert values == json.loads(json.dumps(found.to_dict()))
    assert values["equations"] == list(found.equations)
    assert values["candidates"][values["chosen"]]["terms"] == {
        "u.y": dict(zip(["1", "x"], found.terms[0].coefficients, strict=True))
    }
    assert [e["name"] for e in values["estimates"]] == [e.name for e in found.estimates]
    assert values["covariance"] == found.covariance.tolist()


def test_the_summary_names_equations_intervals_and_rivals(found):
    summary = str(found)
    assert found.equations[0] in summary
    assert "90 % in [" in summary
    assert "Probability" in summary
    assert str(found.terms[0]).count("x") == 1


def test_weights_of_the_candidates_sum_to_one_and_make_the_inclusion_probabilities(found):
    assert sum(c.weight for c in found.candidates) == pytest.approx(1, abs=1e-9)
    share = sum(c.weight for c in found.candidates if "x" in c.terms["u.y"])
    assert found.inclusion["u.y"]["x"] == pytest.approx(share)
    assert found.candidates[0].ebic == min(c.ebic for c in found.candidates)


def test_parameters_have_intervals_in_their_own_unit():
    ts = torch.linspace(0, 2, 41, dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    ys = (3 * torch.exp(-0.7 * ts) + 0.01 * torch.randn(41, generator=rng, dtype=torch.float64))[:, None]
    model = UDE(
        lambda t, y, p: (-p.rate * y[..., 0],),
        SparseTerm(Custom((torch.sin,)), torch.tensor([[0.01]], dtype=torch.float64)),
        states=("y",),
        parameters={"rate": Parameter(0.5, positive=True)},
    )
    result = discover(model, Trajectories.from_arrays(ts, ys, states=("y",)), Custom((torch.sin,)), search=QUICK)
    # Nothing is missing, and nothing is found.
    assert result.terms[0].features == ()
    assert str(result.terms[0]) == "0"
    rate = next(e for e in result.estimates if e.name == "rate")
    t, y = ts.numpy(), 3 * np.exp(-0.7 * ts.numpy())
    design = np.stack([-t * y, y / 3], axis=1) / 0.01
    assert rate.value == pytest.approx(0.7, abs=4 * rate.error)
    # The noise is estimated from 41 values: to about one part in nine; three times that.
    assert rate.error == pytest.approx(np.linalg.inv(design.T @ design)[0, 0] ** 0.5, rel=0.35)


def test_a_library_without_symbols_still_gives_a_model():
    # The function works on tensors only, and comes without a formula.
    library = Custom((lambda x: torch.relu(x),), ("relu({})",))
    ts = torch.linspace(0, 1, 11, dtype=torch.float64)
    data = Trajectories.from_arrays(ts, torch.exp(-ts)[:, None], states=("y",))
    model = UDE(lambda t, y: 0 * y, SparseTerm(library, torch.tensor([[-0.9]], dtype=torch.float64)), states=("y",))
    result = discover(model, data, library, search=QUICK)
    assert result.system is None
    assert result.equations == (f"U.y = {result.terms[0]}",)
    assert isinstance(result.module(), SparseTerm)
    assert result.terms[0].coefficients[0] == pytest.approx(-1, abs=1e-5)


def test_residuals_that_follow_each_other_are_noticed_and_noise_is_not():
    t = torch.linspace(0, 1, 60, dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 60, generator=rng, dtype=torch.float64)
    floor = torch.zeros(1, dtype=torch.float64)
    alarms = sum(bool(correlated_states(row[None, :, None], floor)) for row in noise)
    # One in a hundred is expected: 2 of 200, standard deviation 1.4.
    assert alarms <= 7
    wave = (torch.sin(6 * t) + 0.3 * noise[0])[None, :, None]
    assert correlated_states(wave, floor) == [0]
    assert correlated_states(1e-9 * wave, floor + 1e-6) == []


def test_the_comparison_with_the_network_is_an_f_test():
    counts = torch.tensor([30.0, 0.0], dtype=torch.float64)
    reference = torch.tensor([1.0, 0.0], dtype=torch.float64)
    # The 99 % quantile of F with 27 and 27 degrees of freedom is 2.51.
    assert not is_worse(2.4 * reference, reference, counts, 3)
    assert is_worse(2.6 * reference, reference, counts, 3)
