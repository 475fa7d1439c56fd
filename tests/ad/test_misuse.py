"""What must raise, or be right, where a derivative could be lost in silence."""

import gc

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ude import ad

DOUBLE = torch.float64


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(4, 3, dtype=DOUBLE)


@pytest.fixture
def layer():
    torch.manual_seed(1)
    return nn.Linear(3, 3).double()


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, bar):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return bar * s * (1 + x * (1 - s))


def without_grad(y):
    with torch.no_grad():
        return y * y


def attached(y):
    return ad.attach(y, [y], lambda bar: [bar])


@pytest.mark.parametrize(
    "hidden", [Swish.apply, without_grad, attached, lambda y: checkpoint(torch.sin, y, use_reentrant=True)],
    ids=["autograd.Function", "no_grad", "attach", "reentrant checkpoint"],
)  # fmt: skip
def test_what_autograd_does_not_record_is_refused_in_a_recorded_operator(hidden, x, layer):
    with pytest.raises((ValueError, RuntimeError), match=r"autograd records|derivatives"):
        ad.laplacian(lambda y: hidden(layer(y)).sum(-1), x)


def test_an_operator_may_be_taken_without_recording_as_a_whole(x, layer):
    with torch.no_grad():
        found = ad.laplacian(lambda y: without_grad(layer(y)).sum(-1), x).operator
    torch.testing.assert_close(found, ad.laplacian(lambda y: layer(y).square().sum(-1), x).operator)


@pytest.mark.parametrize("name", ["exponent", "weight"])
def test_a_tensor_that_changes_in_place_before_the_backward_pass_is_noticed(name, x, layer):
    exponent = torch.full((3,), 2.5, dtype=DOUBLE)
    second = nn.Linear(3, 1).double().requires_grad_(False)
    loss = ad.laplacian(lambda y: second(layer(y).exp() ** exponent), x).operator.sum()
    with torch.no_grad():
        (exponent if name == "exponent" else second.weight).add_(1.0)
    with pytest.raises(RuntimeError, match=r"changed in place|modified by an inplace"):
        loss.backward()


@pytest.mark.parametrize("kind", [ad.Gaussian, ad.Rademacher], ids=lambda k: k.__name__)
def test_estimators_are_unbiased_at_complex_points(kind):
    z = torch.tensor([0.5 + 0.2j, -0.3 - 1.0j, 0.1 + 0.4j])
    generator = torch.Generator().manual_seed(0)

    def f(y):
        return (y**3).sum(-1) + y[..., 0] * y[..., 1]

    found = ad.laplacian(f, z.expand(20_000, 3), estimator=kind(2, generator, per_sample=True)).operator
    error = (found.mean() - 6 * z.sum()).abs()
    assert error <= 3 * found.std() / 20_000**0.5
    exact = ad.laplacian(f, z[None], estimator=ad.Orthogonal(3, generator)).operator
    torch.testing.assert_close(exact, 6 * z.sum()[None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "contraction",
    [
        lambda j: torch.einsum("bi,bj->ij", j, j),
        lambda j: torch.linalg.vecdot(j, j, dim=0),
        lambda j: torch.tensordot(j, j, 2),
        lambda j: torch.matmul(j.mT, j),
        lambda j: torch.kron(j, j),
    ],
    ids=["einsum", "vecdot", "tensordot", "matmul", "kron"],
)
def test_slots_that_do_not_vary_count_once_for_every_entry(contraction, x):
    slots = torch.randn(2, 1, 3, dtype=DOUBLE)
    short = contraction(ad.Jet(ad.Univariate(2), x, slots))
    full = contraction(ad.Jet(ad.Univariate(2), x, slots.expand(2, 4, 3)))
    torch.testing.assert_close(short.dense(), full.dense())


def test_a_coefficient_is_one_number_for_each_point(x):
    c = torch.rand(4, dtype=DOUBLE)

    def f(y):
        return (y**2).sum(-1)

    flat = ad.linear_operator(f, x, {(2, 0, 0): c}).operator
    assert flat.shape == (4,)
    torch.testing.assert_close(ad.linear_operator(f, x, {(2, 0, 0): c[:, None]}).operator, flat)
    torch.testing.assert_close(ad.linear_operator(f, x, {(2, 0, 0): lambda y: c[:, None]}).operator, flat)
    with pytest.raises(ValueError, match="one number for each point"):
        ad.linear_operator(f, x, {(2, 0, 0): torch.rand(5)})


@pytest.mark.parametrize("operator", [ad.laplacian, ad.biharmonic, ad.divergence], ids=lambda f: f.__name__)
def test_a_standard_error_needs_an_estimator_with_two_samples(operator, x):
    with pytest.raises(ValueError, match="an estimator together"):
        operator(torch.sin, x, standard_error=True)
    with pytest.raises(ValueError, match="at least 2 samples"):
        operator(torch.sin, x, estimator=ad.Gaussian(1), standard_error=True)


@pytest.mark.parametrize("size", [0, -1, True, 1.5])
@pytest.mark.parametrize("operator", [ad.laplacian, ad.biharmonic, ad.divergence], ids=lambda f: f.__name__)
def test_a_chunk_holds_at_least_one_direction(operator, size, x):
    with pytest.raises(ValueError, match="chunk_size"):
        operator(torch.sin, x, chunk_size=size)


def test_weights_may_vanish_and_may_not_ask_for_a_gradient(x):
    eye = torch.eye(3, dtype=DOUBLE)

    def f(y):
        return (y**2).sum(-1)

    for weights, chunk in (([0, 0, 0], None), ([1, 0, 0], 1), ([0, 2, 0], None)):
        found = ad.weighted_laplacian(f, x, eye, weights=weights, chunk_size=chunk).operator
        torch.testing.assert_close(found, torch.full((4,), 2.0 * sum(weights), dtype=DOUBLE))
    with pytest.raises(ValueError, match="Scale the columns"):
        ad.weighted_laplacian(f, x, eye, weights=torch.ones(3, requires_grad=True))
    with pytest.raises(ValueError, match="finite"):
        ad.weighted_laplacian(f, x, eye, weights=[1.0, float("nan"), 1.0])
    with pytest.raises(ValueError, match="sigma"):
        ad.weighted_laplacian(f, x, torch.ones(3, 0, dtype=DOUBLE))


def test_coefficients_of_zero_are_left_out(x):
    def f(y):
        return (y**2).sum(-1)

    none, second = ad.linear_operator(f, x, [{(2, 0, 0): 0.0}, {(0, 2, 0): 1}]).operator
    assert none.abs().max() == 0.0
    torch.testing.assert_close(second, torch.full((4,), 2.0, dtype=DOUBLE))
    assert ad.linear_operator(f, x, {(2, 0, 0): 0.0}).operator.abs().max() == 0.0


def test_slots_have_numbers_and_come_in_whole_degrees(x):
    jet = ad.Jet(ad.Univariate(2), x, torch.ones(1, 4, 3, dtype=DOUBLE))
    assert jet.slot(2).abs().max() == 0.0
    for number in (0, 3, -1):
        with pytest.raises(IndexError, match="slot number"):
            jet.slot(number)
    with pytest.raises(ValueError, match="whole degrees"):
        ad.Jet(ad.Directions(3, 2), x, torch.ones(2, 4, 3, dtype=DOUBLE))


def test_a_number_to_the_power_of_a_jet_keeps_the_digits_of_the_jet():
    x = torch.tensor(0.3, dtype=DOUBLE)
    value, slope = ad.jet(lambda y: torch.tensor(2) ** y, (x, torch.ones_like(x)))
    torch.testing.assert_close(value, 2.0**x, rtol=1e-15, atol=0)
    torch.testing.assert_close(slope, 2.0**x * np.log(2.0), rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    "f",
    [lambda y, c: y * c, lambda y, c: y / c, lambda y, c: c / y, lambda y, c: c - y, lambda y, c: 1.0 / (y * c)],
    ids=["times", "over", "under", "minus", "both"],
)
def test_single_numbers_of_two_formats_keep_the_digits_of_the_wider_one(f):
    # A slot has one axis more than its value, so that torch's promotion alone would leave it in single precision.
    c, x = torch.tensor(1 / 3, dtype=DOUBLE), torch.tensor(0.3)
    value, slope = ad.jet(lambda y: f(y, c), (x, torch.tensor(1.0)))
    exact, exact_slope = torch.func.jvp(lambda y: f(y, c), (x.double(),), (torch.tensor(1.0, dtype=DOUBLE),))
    torch.testing.assert_close(value, exact, rtol=1e-15, atol=0)
    torch.testing.assert_close(slope, exact_slope, rtol=1e-14, atol=0)


def test_a_rule_may_refer_to_itself(x):
    def rule(u, turns=2):
        return rule(u, turns - 1) if turns else (u * u, u * 2.0)

    square = ad.elementwise(rule)
    x = x.requires_grad_()
    operator = ad.laplacian(lambda y: square(y).sum(-1), x).operator
    torch.testing.assert_close(operator, torch.full((4,), 6.0, dtype=DOUBLE))


def test_jets_are_trees_of_anything(x):
    jet = ad.Jet(ad.Univariate(1), x, x[None])
    names = torch.utils._pytree.tree_map(lambda leaf: str(leaf.ndim), jet)
    assert (names.value, names.slots) == ("2", "3")


def test_slots_take_the_format_that_a_sum_takes():
    x = torch.tensor([0.3, 0.4])
    _, slope = ad.jet(lambda y: (y + 1j).imag + (y + 1j).real, (x, x))
    torch.testing.assert_close(slope, x)


def test_numpy_numbers_multiply_from_either_side():
    x = torch.tensor([0.3, 0.4], dtype=DOUBLE)
    for f in (lambda y: np.float64(2.0) * y, lambda y: y * np.float64(2.0)):
        assert ad.jet(f, (x, x))[1].tolist() == [0.6, 0.8]


def test_a_complex_biharmonic_has_a_gradient():
    z = torch.randn(2, 3, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda y: ad.biharmonic(lambda w: torch.sin(w).sum(-1) * torch.exp(w[..., 0]), y).operator, (z,)
    )


@pytest.mark.parametrize("operator", [ad.laplacian, ad.biharmonic], ids=["laplacian", "biharmonic"])
def test_cotangents_come_in_batches_too(operator, x, layer):
    net = nn.Sequential(layer, nn.Tanh(), nn.Linear(3, 1).double())
    result = operator(net, x).operator
    bars = torch.eye(4, dtype=DOUBLE).reshape(4, 4, 1)
    together = torch.autograd.grad(result, layer.weight, bars, is_grads_batched=True, retain_graph=True)[0]
    single = torch.stack([torch.autograd.grad(result, layer.weight, bar, retain_graph=True)[0] for bar in bars])
    torch.testing.assert_close(together, single)


@pytest.mark.parametrize("operator", [ad.laplacian, ad.biharmonic], ids=["laplacian", "biharmonic"])
def test_mixed_precision_goes_back_as_well(operator):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = operator(net, x).operator.float().square().mean()
    loss.backward()
    assert net[0].weight.grad.dtype == torch.float32
    assert net[0].weight.grad.isfinite().all()


@pytest.mark.parametrize(
    "result", [lambda y: (y, y), lambda y: {"a": y}, lambda y: None], ids=["tuple", "dict", "None"]
)
def test_a_function_returns_one_tensor(result, x):
    with pytest.raises(TypeError, match="one tensor"):
        ad.laplacian(result, x)


@pytest.mark.parametrize("operator", [ad.laplacian, ad.biharmonic], ids=["laplacian", "biharmonic"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_nothing_is_left_to_the_garbage_collector(operator, create_graph, x, layer):
    head = nn.Linear(3, 1).double()
    net = nn.Sequential(layer, nn.Tanh(), nn.Linear(3, 3).double(), nn.SiLU(), head)

    def tensors():
        return sum(isinstance(o, torch.Tensor) for o in gc.get_objects())

    def run():
        loss = operator(net, x).operator.square().mean()
        torch.autograd.grad(loss, head.weight, create_graph=create_graph)  # leaves the nodes before it alone
        ad.jet(net, (x, x, x, x))

    run()
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        for _ in range(3):
            run()
        assert tensors() == before
    finally:
        gc.enable()
