"""From learned terms to equations. Slightly wrong functions stand for fitted networks: training is tested elsewhere."""

import pytest
import torch
from torch import nn

import ude
from ude._checks import InputError
from ude.discovery import Custom, Fourier, Polynomial, Search, discover
from ude.discovery.learned import Case
from ude.discovery.selection import minimum_of
from ude.discovery.shooting import Shooting
from ude.discovery.sparse_term import SparseTerm
from ude.fit import History, Scales
from ude.models import UDE, Parameter, Term, parse_equations
from ude.problems import Trajectories

QUICK = Search(max_terms=3, pool=16, beam=2, neighbours=4)


class Learned(nn.Module):
    """The true term, off by some percent in a smooth way."""

    def __init__(self, truth, error=0.1):
        super().__init__()
        self.truth, self.error = truth, error

    def forward(self, x):
        value = self.truth(*x.unbind(-1))
        return value * (1 + self.error * torch.sin(3 * x.sum(-1, keepdim=True)))


def interaction(x, y):
    return torch.stack([-0.9 * x * y, 0.8 * x * y], dim=-1)


def known(t, y):
    return 1.3 * y[..., 0], -1.8 * y[..., 1]


def measured(field, y0, t1, points, noise=0.0, seed=0, groups=1):
    """Noisy measurements of the true system, relative to the mean of every state."""
    generator = torch.Generator().manual_seed(seed)
    ts = torch.linspace(0, t1, points, dtype=torch.float64)
    starts = torch.as_tensor(y0, dtype=torch.float64).reshape(groups, -1)
    paths = [ude.solve(ude.ODEProblem(field, s, (0.0, t1)), save_at=ts, rtol=1e-10, atol=1e-10).ys for s in starts]
    noisy = [y + noise * y.mean(0) * torch.randn(y.shape, generator=generator, dtype=torch.float64) for y in paths]
    return Trajectories.from_arrays([ts] * groups, noisy, states=tuple("xyz"[: starts.shape[1]]))


def lotka_volterra(noise=5e-3, seed=0, **options):
    truth = UDE(known, Learned(interaction, 0.0), states=("x", "y"))
    y0 = options.pop("y0", [0.44249296, 4.6280594])
    return measured(truth, y0, options.pop("t1", 3.0), options.pop("points", 31), noise, seed, **options)


def functions(discovery):
    return {f"{t.term}.{t.output}": set(t.features) for t in discovery.terms}


@pytest.mark.parametrize("noise", [pytest.param(1e-3, marks=pytest.mark.slow), 1e-2])
def test_the_missing_interaction_is_recovered_although_the_network_is_wrong(noise):
    model = UDE(known, Learned(interaction, 0.3), states=("x", "y"))
    found = discover(model, lotka_volterra(noise, seed=3), Polynomial(degree=3) + Fourier(1, cos=False), search=QUICK)
    assert functions(found) == {"U.x": {"x y"}, "U.y": {"x y"}}
    truth = {"U.x: x y": -0.9, "U.y: x y": 0.8, "x(0)": 0.44249296, "y(0)": 4.6280594}
    # One false alarm in a thousand for each of the numbers.
    for name, (low, high) in found.intervals(0.999).items():
        assert low < truth[name] < high
    assert found.sse < found.learned_sse


@pytest.mark.usefixtures("unchecked")
def test_terms_of_several_functions_are_recovered():
    def term(x, y):
        return torch.stack([-0.9 * x * y - 0.1 * x**2, 0.8 * x * y + 0 * x], dim=-1)

    truth = UDE(known, Learned(term, 0.0), states=("x", "y"))
    data = measured(truth, [0.44249296, 4.6280594], 6.0, 61, 2e-3)
    found = discover(UDE(known, Learned(term), states=("x", "y")), data, Polynomial(degree=3), search=QUICK)
    assert functions(found) == {"U.x": {"x y", "x^2"}, "U.y": {"x y"}}


@pytest.mark.usefixtures("unchecked")
def test_physical_parameters_are_fitted_together_with_the_coefficients():
    model = UDE(
        lambda t, y, p: (1.3 * y[..., 0], -p.delta * y[..., 1]),
        Learned(interaction),
        states=("x", "y"),
        parameters={"delta": Parameter(1.5, positive=True)},
    )
    found = discover(model, lotka_volterra(t1=6.0, points=61), Polynomial(degree=3), search=QUICK)
    assert functions(found) == {"U.x": {"x y"}, "U.y": {"x y"}}
    delta = next(e for e in found.estimates if e.name == "delta")
    assert delta.kind == "parameter"
    assert abs(delta.value - 1.8) < 3.3 * delta.error < 0.036
    assert float(found.model.physical.values()["delta"].detach()) == pytest.approx(delta.value)


def test_several_trajectories_missing_values_and_an_unobserved_start_are_used_as_they_are():
    data = lotka_volterra(groups=2, y0=[[0.44249296, 4.6280594], [1.0, 2.0]])
    ys = data.ys.clone()
    ys[:, 1::2, 1] = torch.nan
    ys[1, 0, 1] = torch.nan
    data = Trajectories(ts=data.ts, ys=ys, states=data.states, groups=("a", "b"))
    model = UDE(known, Learned(interaction), states=("x", "y"))
    start = torch.tensor([[0.44249296, 4.6280594], [1.0, 2.0]], dtype=torch.float64)
    found = discover(model, data, Polynomial(degree=2), y0=start, search=QUICK)
    assert functions(found) == {"U.x": {"x y"}, "U.y": {"x y"}}
    assert [e.name for e in found.estimates if e.kind == "initial state"] == ["x(0) [a]", "y(0) [a]", "x(0) [b]"]
    assert float(found.y0[1, 1]) == 2.0
    with pytest.raises(InputError, match="not measured"):
        discover(model, data, Polynomial(degree=2))


@pytest.mark.usefixtures("unchecked")
def test_a_positive_state_and_a_term_with_one_output_of_two_states():
    term = Term(Learned(lambda x, y: (0.8 * x * y)[..., None]), inputs=("x", "y"), outputs=("y",))
    model = UDE(
        lambda t, y: (1.3 * y[..., 0] - 0.9 * y[..., 0] * y[..., 1], -1.8 * y[..., 1]),
        {"growth": term},
        states=("x", "y"),
        positive=("x", "y"),
    )
    found = discover(model, lotka_volterra(), search=QUICK)
    assert functions(found) == {"growth.y": {"x y"}}
    assert found.equations[0] == "x' = -0.9*x*y + 1.3*x"
    assert found.model.coordinates.positive == ("x", "y")


@pytest.mark.usefixtures("unchecked")
def test_equations_read_from_text_are_completed():
    system = parse_equations(["x' = 1.3*x + ?(x, y)", "y' = -d*y + ?(x, y)"])
    model = system.to_ude()
    (name,) = model.terms
    model = model.replace(name, Learned(interaction))
    model.physical.set_values({"d": 1.7})
    found = discover(model, lotka_volterra(t1=4.0, points=31), Polynomial(degree=2), search=QUICK)
    assert all(f == {"x y"} for f in functions(found).values())
    assert found.system is not None
    assert found.system.terms == ()
    assert [line.split(" = ")[0] for line in found.equations] == ["x'", "y'"]
    assert "x*y" in found.equations[0]


@pytest.mark.usefixtures("unchecked")
def test_a_library_without_the_term_is_noticed():
    model = UDE(known, Learned(interaction, 0.02), states=("x", "y"))
    found = discover(model, lotka_volterra(2e-3), Custom((torch.sin,)), search=QUICK)
    assert any("library cannot express" in w for w in found.warnings)
    good = discover(model, lotka_volterra(2e-3), Polynomial(degree=2), search=QUICK)
    assert not any("library cannot express" in w for w in good.warnings)


def test_a_candidate_that_blows_up_from_its_first_coefficients_is_fitted_all_the_same():
    data = lotka_volterra()
    library = Polynomial(degree=3)
    model = UDE(known, SparseTerm(library, torch.zeros(2, 10, dtype=torch.float64)), states=("x", "y"))
    shooting = Shooting(model, data, torch.ones(2, dtype=torch.float64), 0.1)
    theta = torch.zeros(1, shooting.layout.size, dtype=torch.float64)
    theta[0, -2:] = data.ys[0, 0]
    cubic = library.names(["x", "y"]).index("x^3")
    theta[0, cubic] = 500.0
    start = shooting.nodes(theta)
    assert not start.isfinite().all()
    minimum = minimum_of(shooting, [(cubic,)], theta, torch.zeros(shooting.layout.size, dtype=torch.bool))
    assert minimum.cost.isfinite().all()


@pytest.mark.usefixtures("unchecked")
def test_bootstraps_give_inclusion_probabilities_that_repeat_with_the_seed():
    model = UDE(known, Learned(interaction), states=("x", "y"))
    results = [
        discover(
            model,
            lotka_volterra(1e-2, points=16),
            Polynomial(degree=2),
            search=QUICK,
            bootstraps=5,
            generator=torch.Generator().manual_seed(0),
        )
        for _ in range(2)
    ]
    inclusion = results[0].inclusion["U.x"]
    assert inclusion["x y"] > 0.9
    assert all(0 <= p <= 1 for p in inclusion.values())
    assert results[0].inclusion == results[1].inclusion
    assert results[0].stability == results[1].stability
    assert results[0].stability is not None


@pytest.mark.usefixtures("unchecked")
def test_the_good_members_of_a_fit_propose_and_the_others_do_not():
    data = lotka_volterra(points=16)
    wrong = Learned(lambda x, y: torch.stack([-0.9 * y**2, 0.8 * x], dim=-1), 0.0)
    networks = [wrong, Learned(interaction, 0.02), Learned(interaction, 0.05)]
    members = tuple(UDE(known, network, states=("x", "y")) for network in networks)
    two = torch.ones(2, dtype=torch.float64)
    fitted = ude.Fit(
        members=members,
        losses=torch.tensor([torch.nan, 1e-3, 2e-3], dtype=torch.float64),
        y0s=data.ys[:, 0].expand(3, 1, 2),
        data_sets=(data,),
        history=History(phase=(), iteration=two[:0], loss=two[:0], seconds=two[:0]),
        scales=Scales(state=two, rate=two, time=1.0),
    )
    assert [m.terms["U"].network for m in Case.of(fitted, None, None).models] == networks[1:]
    found = discover(fitted, library=Polynomial(degree=2), search=QUICK)
    assert functions(found) == {"U.x": {"x y"}, "U.y": {"x y"}}


@pytest.mark.usefixtures("unchecked")
def test_mistakes_are_answered_with_what_to_do():
    data = lotka_volterra(points=11)
    model = UDE(known, Learned(interaction), states=("x", "y"))
    with pytest.raises(ValueError, match="Pass the measurements"):
        discover(model)
    with pytest.raises(ValueError, match="unknown term"):
        discover(model, data, {"V": Polynomial(degree=2)})
    with pytest.raises(ValueError, match="learn_y0"):
        discover(model, data, learn_y0=("z",))
    with pytest.raises(ValueError, match="no unknown term"):
        discover(UDE(known, None, states=("x", "y")), data)
    explosive = UDE(known, Learned(lambda x, y: torch.stack([x**3 * 9, y**3], dim=-1)), states=("x", "y"))
    with pytest.raises(InputError, match="grows without bound"):
        discover(explosive, data)
