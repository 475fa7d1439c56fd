"""Choosing between candidates: criteria, the noise model, the pool and the neighbours."""

import math

import pytest
import torch

from ude._checks import InputError
from ude.discovery import Custom, Polynomial, Search
from ude.discovery.candidates import Column, Learned, default_library, finite_part, starting_structures
from ude.discovery.selection import Linearised, NoiseModel, Refitted, criteria


def learned_from(target, library, x):
    """Every output is the rate of a state of its own."""
    names, outputs = library.names(("x", "y")[: x.shape[1]]), target.shape[1]
    columns = [
        Column(term="U", output=f"u{slot}", feature=name, slot=slot) for slot in range(outputs) for name in names
    ]
    theta, eye = library(x), torch.eye(outputs, dtype=x.dtype)
    derivative = torch.einsum("sj,op->sopj", theta, eye).reshape(1, len(x) * outputs, -1)
    contributions = torch.einsum("so,op->sop", target, eye).reshape(1, len(x) * outputs, outputs)
    return Learned.of(columns, derivative, contributions)


def plane(samples=200):
    return torch.rand(samples, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5


def noise_of(counts=(30.0, 30.0), **options):
    counts = torch.tensor(counts, dtype=torch.float64)
    return NoiseModel(counts=counts, scale=0.1 * torch.ones_like(counts), floor=torch.zeros_like(counts), **options)


def candidate(structure, *sse, size=12):
    theta = torch.zeros(size, dtype=torch.float64)
    theta[list(structure)] = 1.0
    return Refitted(structure=structure, theta=theta, sse=torch.tensor(sse, dtype=torch.float64), converged=True)


def test_the_pool_holds_the_best_single_functions_of_every_output_and_the_forward_paths():
    x = plane()
    wobble = 0.05 * torch.sin(7 * x[:, :1])
    target = torch.cat([-0.9 * x[:, :1] * x[:, 1:] + wobble, 0.8 * x[:, :1] * x[:, 1:] + 0.3 * x[:, :1] ** 2], dim=1)
    learned = learned_from(target, Polynomial(degree=3), x)
    names = [c.feature for c in learned.columns]
    pool = starting_structures(learned, max_terms=2, pool=16)
    readable = [tuple(names[c] for c in s) for s in pool]
    assert readable[0][0] == "x y"
    assert ("x y", "x y") in readable
    assert len(set(pool)) == len(pool)
    assert any(set(r[-2:]) == {"x y", "x^2"} for r in readable if len(r) == 4)


def test_regression_on_the_learned_term_gives_the_coefficients_to_start_from():
    x = plane()
    target = torch.stack([2 * x[:, 0] - 3 * x[:, 1] ** 2, 0.5 * x[:, 1]], dim=1)
    learned = learned_from(target, Polynomial(degree=2), x)
    start = learned.regress((1, 5, 6 + 2))
    torch.testing.assert_close(start[[1, 5, 8]], torch.tensor([2.0, -3.0, 0.5], dtype=torch.float64))
    assert int((start != 0).sum()) == 3


def test_functions_that_are_not_finite_are_never_used_and_a_library_of_such_is_refused():
    x = plane() - 1.0
    library = Polynomial(degree=1) + Custom((torch.log,))
    learned = learned_from(x[:, :1], library, x)
    assert learned.usable.tolist() == [True, True, True, False, False]
    assert all(c < 3 for s in starting_structures(learned, 2, 8) for c in s)
    with pytest.raises(InputError, match="finite"):
        learned_from(x[:, :1], Custom((torch.log,)), x)
    part = finite_part(Polynomial(degree=1) + Custom((torch.sin, torch.log)), x)
    assert part.names(["x", "y"]) == ["1", "x", "y", "sin(x)", "sin(y)"]
    with pytest.raises(InputError, match="finite"):
        finite_part(Custom((torch.log,)), x)


def test_what_a_physical_parameter_can_do_is_left_to_it():
    x = plane()
    target = 2 * x[:, :1] * x[:, 1:] - 0.7 * x[:, :1]
    library = Polynomial(degree=2)
    bare = learned_from(target, library, x)
    # The rate has a parameter whose effect is x.
    derivative = torch.cat([bare.derivative, x[:, :1]], dim=1).unsqueeze(0)
    learned = Learned.of(bare.columns, derivative, target.reshape(1, -1, 1))
    pool = starting_structures(learned, max_terms=1, pool=1)
    assert [learned.columns[c].feature for c in pool[0]] == ["x y"]
    start = learned.regress(pool[0])
    torch.testing.assert_close(start[[4, 6]], torch.tensor([2.0, -0.7], dtype=torch.float64))


def test_the_default_library_shrinks_with_the_number_of_inputs():
    assert [default_library(n).size(n) for n in (1, 2, 3, 4, 7)] == [6, 21, 56, 35, 36]


def test_extended_bic_adds_the_number_of_equations_of_the_same_length():
    x = plane()
    learned = learned_from(x, Polynomial(degree=2), x)
    values = criteria(candidate((1, 2, 6), 1.0, 2.0), noise_of(others=2), learned)
    # Three coefficients and two other numbers, 60 measurements; two of six functions in one output, one in the other.
    assert values["bic"] - values["aic"] == pytest.approx(5 * 60 * (math.log(60) / 53 - 2 / 54))
    assert values["ebic"] - values["bic"] == pytest.approx(2 * math.log(15 * 6))


def test_an_equation_with_as_many_numbers_as_measurements_is_never_chosen():
    x = plane()
    learned = learned_from(x, Polynomial(degree=2), x)
    perfect = criteria(candidate((0, 1, 2, 6), 0.0, 0.0), noise_of((3.0, 3.0)), learned)
    assert perfect["bic"] == perfect["ebic"] == math.inf


def test_deviance_is_the_one_of_normal_noise_with_unknown_variance():
    noise = noise_of((1e6, 1e6))
    sse = torch.tensor([2e6, 5e6], dtype=torch.float64)
    # The prior of three measurements does not count against a million.
    assert float(noise.deviance(sse)) == pytest.approx(1e6 * (math.log(2) + math.log(5)), rel=1e-4)
    common = noise_of((1e6, 1e6), is_common=True)
    assert float(common.deviance(sse)) == pytest.approx(2e6 * math.log(3.5), rel=1e-9)


def test_a_state_with_few_measurements_cannot_claim_to_be_known_exactly():
    noise = noise_of((60.0, 4.0))
    perfect, good = (float(noise.deviance(torch.tensor([0.6, sse]).double())) for sse in (0.0, 0.04))
    # Without the prior, four measurements met exactly would outweigh everything else.
    assert good - perfect < 10
    assert torch.isfinite(torch.tensor(perfect))


def test_the_shortest_of_the_candidates_that_cannot_be_told_apart_is_chosen():
    x = plane()
    learned = learned_from(x, Polynomial(degree=2), x)
    search, noise = Search(criterion="bic"), noise_of()
    short, long = candidate((1, 8), 1.0, 1.0), candidate((1, 2, 8), 0.86, 1.0)
    gain = search.score(short, noise, learned) - search.score(long, noise, learned)
    assert 0 < gain < 2
    assert search.choose([long, short], noise, learned) is short
    clear = candidate((1, 2, 8), 0.5, 1.0)
    assert search.choose([clear, short], noise, learned) is clear
    # Of equally long ones the one that the networks learned, which is x and y: columns 1 and 6 + 2.
    near, far = candidate((1, 8), 1.02, 1.0), candidate((3, 8), 1.0, 1.0)
    assert search.choose([far, near], noise, learned) is near
    assert learned.mismatch(near.theta) == pytest.approx([0.0, 0.0], abs=1e-12)


def test_neighbours_add_drop_and_exchange_by_the_linear_model():
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    x = plane()
    learned = learned_from(x[:, :1], Polynomial(degree=2), x)
    fitted = Refitted(
        structure=(1, 2),
        theta=torch.tensor([0, 1.0, 1.0, 0, 0, 0]).double(),
        sse=torch.ones(1).double(),
        converged=True,
    )
    # Column 2 is wrong and column 4 is missing: the data are columns 1 and 4.
    target = 2.0 * jacobian[:, 4] - jacobian[:, 2]
    found = dict(Linearised(learned, fitted, target, jacobian, torch.zeros(6, dtype=torch.bool)).neighbours(2, 3))
    assert (1, 2, 4) in found
    assert (1,) in found
    assert (2,) in found
    exchanged = found[1, 4]
    torch.testing.assert_close(
        exchanged[[1, 2, 4]], torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64), rtol=0, atol=0.5
    )
    assert all(len(s) <= 3 for s in found)


def test_a_function_that_the_equation_already_holds_is_no_neighbour():
    jacobian = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    jacobian[:, 3] = jacobian[:, 5] * 2  # what a physical parameter (column 5) already does
    x = plane()
    learned = learned_from(x[:, :1], Polynomial(degree=1), x)
    fitted = Refitted(structure=(), theta=torch.zeros(6).double(), sse=torch.ones(1).double(), converged=True)
    jacobian[:, 2] = jacobian[:, 5] * 2
    free = torch.tensor([False, False, False, False, False, True])
    target = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = dict(Linearised(learned, fitted, target, jacobian, free).neighbours(6, 2))
    assert set(found) == {(0,), (1,)}
