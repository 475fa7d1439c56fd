"""Differential operators against closed forms and nested differentiation in float64."""

import math

import pytest
import torch
from torch.func import functional_call, hessian, jacfwd, jacrev, vmap

from ude import ad

DOUBLE = torch.float64
CLOSE = {"rtol": 1e-11, "atol": 1e-11}  # rounding of a few hundred operations


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def network(inputs, outputs=1, width=6, activation=torch.nn.Tanh):
    layers = [torch.nn.Linear(inputs, width), activation(), torch.nn.Linear(width, width), torch.nn.SiLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, outputs)).double()


def points(*shape):
    return torch.randn(*shape, dtype=DOUBLE)


def traced(f):
    return lambda x: hessian(f)(x).diagonal(dim1=-1, dim2=-2).sum(-1)


# Closed forms


def test_a_plane_wave_is_an_eigenfunction():
    x, k = points(5, 3), torch.tensor([1.0, -2.0, 0.5], dtype=DOUBLE)
    wave, square = (x @ k).sin(), (k @ k).item()

    def f(y):
        return (y @ k).sin()

    torch.testing.assert_close(ad.laplacian(f, x).operator, -square * wave, **CLOSE)
    torch.testing.assert_close(ad.biharmonic(f, x).operator, square**2 * wave, **CLOSE)
    torch.testing.assert_close(ad.laplacian(f, x).gradient, (x @ k).cos()[:, None] * k, **CLOSE)
    third = ad.linear_operator(f, x, {(2, 1, 0): 1}).operator
    torch.testing.assert_close(third, -(k[0] ** 2) * k[1] * (x @ k).cos(), **CLOSE)


def test_a_gaussian_has_its_known_laplacian_and_biharmonic():
    x = points(5, 4)
    s, d = x.square().sum(-1), 4

    def f(y):
        return torch.exp(-0.5 * y.square().sum(-1))

    torch.testing.assert_close(ad.laplacian(f, x).operator, (s - d) * f(x), **CLOSE)
    exact = (s**2 - 2 * (d + 2) * s + d * (d + 2)) * f(x)
    torch.testing.assert_close(ad.biharmonic(f, x).operator, exact, **CLOSE)


def test_polynomials_up_to_the_order_are_exact():
    x = torch.tensor([[2.0, -3.0]], dtype=DOUBLE)

    def f(y):
        return y[..., 0] ** 4 * y[..., 1] ** 2 + 3 * y[..., 0] * y[..., 1]

    assert ad.laplacian(f, x).operator.item() == 12 * 4 * 9 + 2 * 16
    assert ad.biharmonic(f, x).operator.item() == 24 * 9 + 2 * 12 * 4 * 2
    assert ad.linear_operator(f, x, {(1, 1): 2, (0, 0): -1}).operator.item() == 2 * (8 * 8 * -3 + 3) - f(x).item()


def test_the_heat_kernel_solves_the_heat_equation():
    x, t = points(6, 3), torch.rand(6, 1, dtype=DOUBLE) + 0.5

    def kernel(time, y):
        return (4 * math.pi * time.squeeze(-1)) ** -1.5 * torch.exp(-y.square().sum(-1) / (4 * time.squeeze(-1)))

    # u_t - Laplacian u: the generator of diffusion sqrt(2), with time running backwards.
    result = ad.generator(lambda time, y: kernel(-time, y), x, diffusion=math.sqrt(2.0), t=-t)
    torch.testing.assert_close(result.operator, torch.zeros(6, dtype=DOUBLE), rtol=0, atol=1e-13)


# Nested differentiation


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_the_laplacian_and_the_gradient_agree_with_nested_differentiation(batch, chunk_size):
    f, x = network(3, 2), points(*batch, 3)
    rows = x.reshape(-1, 3)
    result = ad.laplacian(f, x, chunk_size=chunk_size)
    exact = torch.stack([traced(f)(row) for row in rows]) if len(rows) else torch.zeros(0, 2, dtype=DOUBLE)
    torch.testing.assert_close(result.operator, exact.reshape(*batch, 2), **CLOSE)
    torch.testing.assert_close(result.value, f(x), **CLOSE)
    gradient = torch.stack([jacrev(f)(row) for row in rows]) if len(rows) else torch.zeros(0, 2, 3, dtype=DOUBLE)
    torch.testing.assert_close(result.gradient, gradient.reshape(*batch, 2, 3), **CLOSE)


@pytest.mark.parametrize("per_row", [False, True])
def test_weights_of_both_signs_share_one_pass(per_row):
    f, x = network(3), points(4, 3)
    sigma = points(4, 3, 2) if per_row else points(3, 2)
    weights = torch.tensor([1.5, -2.0], dtype=DOUBLE)
    result = ad.weighted_laplacian(f, x, sigma, weights=weights.tolist())
    second, first = vmap(hessian(f))(x), vmap(jacfwd(f))(x)
    columns = sigma.expand(4, 3, 2)
    exact = torch.einsum("bir,r,bjr,bcij->bc", columns, weights, columns, second)
    torch.testing.assert_close(result.operator, exact, **CLOSE)
    torch.testing.assert_close(result.directional, torch.einsum("bir,bci->bcr", columns, first), **CLOSE)


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_the_generator_takes_drift_time_and_diffusion_in_one_pass(chunk_size):
    f, x, t = network(4), points(5, 3), torch.rand(5, 1, dtype=DOUBLE)

    def u(time, y):
        return f(torch.cat([time, y], -1))

    def drift(time, y):
        return torch.sin(y) * time

    def diffusion(time, y):
        return torch.stack([y, y.cos()], -1)

    result = ad.generator(u, x, drift=drift, diffusion=diffusion, t=t, chunk_size=chunk_size)
    z = torch.cat([t, x], -1)
    first, second = vmap(jacfwd(f))(z), vmap(hessian(f))(z)[:, :, 1:, 1:]
    sigma = diffusion(t, x)
    exact = first[..., 0] + torch.einsum("bci,bi->bc", first[..., 1:], drift(t, x))
    exact = exact + 0.5 * torch.einsum("bir,bjr,bcij->bc", sigma, sigma, second)
    torch.testing.assert_close(result.operator, exact, **CLOSE)
    torch.testing.assert_close(result.directional, torch.einsum("bir,bci->bcr", sigma, first[..., 1:]), **CLOSE)


@pytest.mark.parametrize("chunk_size", [None, 14])
def test_the_biharmonic_agrees_with_the_laplacian_of_the_laplacian(chunk_size):
    f, x = network(4), points(3, 4)
    result = ad.biharmonic(f, x, chunk_size=chunk_size)
    torch.testing.assert_close(result.operator, vmap(traced(traced(f)))(x), **CLOSE)
    if chunk_size is None:
        torch.testing.assert_close(result.gradient, vmap(jacfwd(f))(x), **CLOSE)


def test_several_operators_share_slots_and_coefficients_may_vary_in_space():
    f, x = network(2, 3), points(4, 2)
    first, second = vmap(jacfwd(f))(x), vmap(hessian(f))(x)
    result = ad.linear_operator(
        f, x, [{(1, 0): lambda y: y[:, 0], (0, 2): 1, (0, 0): x[:, 1]}, {(1, 1): 2.5}, {(0, 0): 2}, {}]
    )
    exact = x[:, :1] * first[..., 0] + second[..., 1, 1] + x[:, 1:] * f(x)
    for found, wanted in zip(result.operator, (exact, 2.5 * second[..., 0, 1], 2 * f(x), 0 * f(x)), strict=True):
        torch.testing.assert_close(found, wanted, **CLOSE)
    torch.testing.assert_close(result.gradient, first, **CLOSE)


def test_an_operator_without_derivatives_is_a_multiple_of_the_function():
    f, x = network(2), points(4, 2)
    torch.testing.assert_close(ad.linear_operator(f, x, {(0, 0): 3}).operator, 3 * f(x), **CLOSE)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_the_divergence_is_the_trace_of_the_jacobian(chunk_size):
    f, x = network(3, 3), points(4, 3)
    result = ad.divergence(f, x, chunk_size=chunk_size)
    exact = vmap(jacfwd(f))(x)
    torch.testing.assert_close(result.operator, exact.diagonal(dim1=-1, dim2=-2).sum(-1), **CLOSE)
    torch.testing.assert_close(result.gradient, exact, **CLOSE)


@pytest.mark.parametrize("operator", [ad.laplacian, ad.biharmonic, lambda f, x: ad.generator(f, x, diffusion=1.0)])
def test_operators_of_a_constant_vanish(operator):
    x = points(3, 2)
    assert operator(lambda y: torch.ones(3, dtype=DOUBLE), x).operator.abs().max() == 0.0


# Derivatives of operators


@pytest.mark.parametrize("operator", [ad.laplacian, ad.biharmonic], ids=["laplacian", "biharmonic"])
@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.GELU], ids=["tanh", "gelu"])
def test_first_and_second_derivatives_of_operators_are_right(operator, activation):
    f, x = network(2, width=3, activation=activation), points(2, 2).requires_grad_()
    names = [name for name, _ in f.named_parameters()]
    parameters = [p.detach().clone().requires_grad_() for p in f.parameters()]

    def of(y, *values):
        result = operator(lambda z: functional_call(f, dict(zip(names, values, strict=True)), (z,)), y)
        return result.operator, result.gradient

    assert torch.autograd.gradcheck(of, (x, *parameters))
    assert torch.autograd.gradgradcheck(of, (x, *parameters))


def test_the_fused_backward_agrees_with_the_one_that_a_transform_sees():
    f, x = network(3), points(5, 3)
    parameters = dict(f.named_parameters())

    def loss(values):
        return ad.laplacian(lambda y: functional_call(f, values, (y,)), x).operator.square().mean()

    plain = torch.func.grad(loss)({name: p.detach() for name, p in parameters.items()})
    fused = torch.autograd.grad(loss(parameters), list(parameters.values()), materialize_grads=True)
    for name, gradient in zip(parameters, fused, strict=True):
        torch.testing.assert_close(gradient, plain[name], **CLOSE)


def test_a_jet_that_two_layers_use_gets_both_gradients_and_a_graph_may_run_twice():
    torch.manual_seed(1)
    first, left, right = (torch.nn.Linear(3, 3).double() for _ in range(3))
    x = points(4, 3)
    parameters = [*first.parameters(), *left.parameters(), *right.parameters()]

    def f(y):
        hidden = torch.tanh(first(y))
        return (left(hidden) * torch.sin(right(hidden)) + hidden).sum(-1)

    loss = ad.laplacian(f, x).operator.square().mean()
    once = torch.autograd.grad(loss, parameters, retain_graph=True)
    again = torch.autograd.grad(loss, parameters, retain_graph=True)
    exact = torch.autograd.grad(vmap(traced(f))(x).square().mean(), parameters)
    only = torch.autograd.grad(loss, right.weight)[0]
    for a, b, c in zip(once, again, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        torch.testing.assert_close(a, c, **CLOSE)
    torch.testing.assert_close(only, once[4], rtol=0, atol=0)


def test_a_layer_keeps_what_its_function_was_applied_to_and_nothing_else():
    f, x = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh()), None
    f, x = torch.nn.Sequential(*f, torch.nn.Linear(64, 1)), torch.randn(32, 4)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ad.laplacian(f, x).operator.sum()
    weights = sum(p.numel() for p in f.parameters()) * 4
    # The argument of the second function with its 5 slots, and of the first, whose slots do not vary with the batch.
    arguments = 4 * 64 * (32 * (1 + 5) + 32 + 5)
    assert sum(kept.values()) <= 1.1 * (weights + arguments)


def test_the_first_layer_of_constant_seeds_is_its_weight():
    layer, x = torch.nn.Linear(4, 64), torch.randn(32, 4)
    result = layer(ad.Jet(ad.Directions(4, 2), x, torch.eye(4).unsqueeze(1)))
    assert result.slots.shape == (4, 1, 64)  # no batch, and no slot of order two
    torch.testing.assert_close(result.slots.squeeze(1), layer.weight.T)


def test_operators_go_through_vmap_and_jvp():
    f, x = network(3), points(4, 3)
    rows = vmap(lambda row: ad.laplacian(f, row).operator)(x)
    torch.testing.assert_close(rows, ad.laplacian(f, x).operator, **CLOSE)
    direction = points(4, 3)
    _, tangent = torch.func.jvp(lambda y: ad.biharmonic(f, y).operator, (x,), (direction,))
    exact = torch.func.jvp(lambda y: vmap(traced(traced(f)))(y), (x,), (direction,))[1]
    torch.testing.assert_close(tangent, exact, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["laplacian", "generator", "biharmonic", "third"])
def test_compiled_operators_and_their_gradients_equal_the_eager_ones(name):
    f, x = network(3), points(5, 3)
    sigma = points(3, 2)
    operator = {
        "laplacian": lambda y: ad.laplacian(f, y).operator,
        "generator": lambda y: ad.generator(f, y, drift=-y, diffusion=sigma).operator,
        "biharmonic": lambda y: ad.biharmonic(f, y).operator,
        "third": lambda y: ad.linear_operator(f, y, [{(2, 1, 0): 1.0}, {(0, 0, 3): lambda z: z[:, 0]}]).operator[1],
    }[name]
    torch._dynamo.reset()
    compiled = torch.compile(operator, fullgraph=True)
    parameters = list(f.parameters())
    values, gradients = [], []
    for run in (operator, compiled):
        value = run(x)
        values.append(value)
        gradients.append(torch.autograd.grad(value.square().mean(), parameters, materialize_grads=True))
    torch.testing.assert_close(values[0], values[1], **CLOSE)
    for eager, fused in zip(*gradients, strict=True):
        torch.testing.assert_close(eager, fused, **CLOSE)


@pytest.mark.slow
def test_a_compiled_operator_takes_batches_of_other_sizes():
    f = network(3)
    torch._dynamo.reset()
    compiled = torch.compile(lambda y: ad.laplacian(f, y).operator, fullgraph=True)
    for rows in (5, 7, 4):
        x = points(rows, 3)
        torch.testing.assert_close(compiled(x), ad.laplacian(f, x).operator, **CLOSE)


@pytest.mark.parametrize("transform", [torch.func.grad, lambda g: torch.func.vmap(torch.func.grad(g), (None, 0))])
def test_function_transforms_inside_of_compiled_code_see_operators(transform):
    f, x = network(3), points(2, 1, 3)
    parameters = {name: p.detach() for name, p in f.named_parameters()}

    def loss(values, y):
        return ad.laplacian(lambda z: torch.func.functional_call(f, values, (z,)), y).operator.square().mean()

    torch._dynamo.reset()
    gradient = transform(loss)
    compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
    for name, expected in gradient(parameters, x).items():
        torch.testing.assert_close(compiled(parameters, x)[name], expected, **CLOSE)


def test_single_precision_stays_single_precision():
    f, x = network(3).float(), torch.randn(4, 3)
    result = ad.biharmonic(f, x)
    assert {result.value.dtype, result.operator.dtype, result.gradient.dtype} == {torch.float32}


# Errors


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.ones(3, 2, dtype=torch.int64), TypeError, "floats for x"),
        ([1.0, 2.0], TypeError, "a tensor for x"),
        (torch.tensor(1.0), ValueError, "shape"),
        (torch.ones(3, 0), ValueError, "D >= 1"),
        (torch.tensor([[1.0, math.nan]]), ValueError, "finite"),
    ],
    ids=["integers", "list", "scalar", "no-axes", "nan"],
)
@pytest.mark.parametrize("operator", [ad.laplacian, ad.biharmonic, ad.divergence], ids=lambda f: f.__name__)
def test_points_that_have_no_derivatives_are_refused(operator, x, error, message):
    with pytest.raises(error, match=message):
        operator(lambda y: y.sum(-1), x)


def test_a_function_that_mixes_rows_is_found_on_request():
    x = points(4, 2)
    with pytest.raises(ValueError, match="row by row"):
        ad.laplacian(lambda y: (y - y.mean(0)).square().sum(-1), x, check_rows=True)
    ad.laplacian(lambda y: y.square().sum(-1), x, check_rows=True)


def test_a_function_that_loses_the_batch_is_refused():
    with pytest.raises(ValueError, match="row by row"):
        ad.laplacian(lambda y: y.sum(), points(4, 2))
    with pytest.raises(ValueError, match="vector field"):
        ad.divergence(lambda y: y.sum(-1), points(4, 2))


@pytest.mark.parametrize(
    "call",
    [
        lambda f, x: ad.linear_operator(f, x, {(1, 0, 0): 1}),
        lambda f, x: ad.weighted_laplacian(f, x, torch.ones(3, 3, dtype=DOUBLE)),
        lambda f, x: ad.weighted_laplacian(f, x, 1.0, weights=[1.0]),
        lambda f, x: ad.generator(f, x, drift=torch.ones(3, dtype=DOUBLE)),
        lambda f, x: ad.generator(lambda t, y: f(y), x, t=torch.ones(3, 1)),
        lambda f, x: ad.laplacian(f, x, chunk_size=0),
        lambda f, x: ad.laplacian(f, x, standard_error=True),
    ],
    ids=["multi-index", "sigma", "weights", "drift", "time", "chunk", "no-estimator"],
)
def test_arguments_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match="Expected"):
        call(lambda y: y.square().sum(-1), points(4, 2))
