"""Taylor coefficients of solutions: against nested differentiation, closed forms and plain autograd."""

import gc
import math

import pytest
import torch
import torch._functorch.config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ude import ad

F64 = torch.float64


def tensor(*values):
    return torch.tensor(values, dtype=F64)


def mlp(inputs=3, outputs=3, width=8, activation=nn.Tanh):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(inputs, width), activation(), nn.Linear(width, width), activation(), nn.Linear(width, outputs)
    ).double()


def nested(f, t, y, order, g=lambda t, y: y):
    """Coefficients of g along the solution by d/dt g = g_t + g_y f, each derivative a forward mode over all before."""

    def following(g):
        return lambda t, y: torch.func.jvp(g, (t, y), (torch.ones_like(t), f(t, y)))[1]

    rows = []
    for k in range(order + 1):
        rows.append(g(t, y) / math.factorial(k))
        g = following(g)
    return torch.stack(rows)


W = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
V = tensor(0.3, -0.7, 1.1)


def many_functions(t, y):
    mixed = torch.cat([torch.sin(t * y), y.exp() / (1 + y * y), t.expand(*y.shape[:-1], 1)], -1)
    weights = torch.softmax(y @ W, -1)
    outer = torch.einsum("...i,...j->...ij", y, torch.tanh(y))
    turned = torch.matmul(outer, torch.matmul(outer, y.unsqueeze(-1))).squeeze(-1)
    branch = torch.where(y > 0, y * V, torch.cos(t) * y)
    return mixed[..., 1:4] * weights + 0.1 * turned + branch - mixed[..., 4:5] * mixed[..., 6:7]


def layer_norm(t, y):
    centred = y - y.mean(-1, keepdim=True)
    return V * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() + V * t


NETWORK = mlp()
FIELDS = {
    "network": (lambda t, y: NETWORK(y),) * 2,
    "many functions": (many_functions,) * 2,
    # Nested forward modes of torch's own layer_norm are wrong from the third derivative on (torch 2.13).
    "layer_norm": (lambda t, y: nn.functional.layer_norm(y, (3,), V, V * t), layer_norm),
    "time only": (lambda t, y: (torch.sin(t) * V).expand_as(y),) * 2,
    "constant": (lambda t, y: V.expand_as(y),) * 2,
}


def point(batch=5, seed=0):
    return tensor(0.3)[0], torch.randn(batch, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FIELDS)
def test_agrees_with_nested_forward_mode(name):
    f, reference = FIELDS[name]
    t, y = point()
    order = 6 if name == "many functions" else 8
    # The terms of order 8 grow by 1e3 and more.
    torch.testing.assert_close(ad.ode_series(f, t, y, order), nested(reference, t, y, order), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", range(1, 9))
def test_every_order_is_the_beginning_of_the_highest(order):
    t, y = point()
    series = ad.ode_series(many_functions, t, y, order)
    assert series.shape == (order + 1, *y.shape)
    torch.testing.assert_close(series, ad.ode_series(many_functions, t, y, 8)[: order + 1], rtol=1e-13, atol=1e-13)


# Closed forms


def test_exponential_growth():
    series = ad.ode_series(lambda t, y: y, 0.0, tensor(2.0), 12)
    torch.testing.assert_close(
        series[:, 0], tensor(*(2.0 / math.factorial(k) for k in range(13))), rtol=1e-15, atol=0.0
    )


def test_blow_up():
    # y = y0 / (1 - y0 h)
    series = ad.ode_series(lambda t, y: y * y, 0.0, tensor(0.5), 12)
    torch.testing.assert_close(series[:, 0], 0.5 ** torch.arange(1.0, 14.0, dtype=F64), rtol=1e-14, atol=0.0)


def test_harmonic_oscillator():
    series = ad.ode_series(lambda t, y: torch.stack([y[1], -y[0]]), 0.0, tensor(0.0, 1.0), 9)
    sine = [0.0 if k % 2 == 0 else (-1.0) ** (k // 2) / math.factorial(k) for k in range(10)]
    torch.testing.assert_close(series[:, 0], tensor(*sine), rtol=1e-14, atol=0.0)


def test_time_alone():
    # y' = t^3, y(t + h) = y + ((t + h)^4 - t^4) / 4
    series = ad.ode_series(lambda t, y: t**3 + 0 * y, 2.0, tensor(1.0), 6)
    torch.testing.assert_close(series[:, 0], tensor(1.0, 8.0, 6.0, 2.0, 0.25, 0.0, 0.0), rtol=1e-15, atol=0.0)


def test_lotka_volterra_by_the_recurrence_on_paper():
    a, b, c, d = 1.3, 0.9, 0.8, 1.8
    x, y = [0.44], [4.6]
    for k in range(10):
        product = sum(x[j] * y[k - j] for j in range(k + 1))
        x.append((a * x[k] - b * product) / (k + 1))
        y.append((c * product - d * y[k]) / (k + 1))

    def f(t, state):
        prey, predator = state.unbind(-1)
        return torch.stack([a * prey - b * prey * predator, c * prey * predator - d * predator], -1)

    series = ad.ode_series(f, 0.0, tensor(0.44, 4.6), 10)
    torch.testing.assert_close(series, torch.tensor([x, y], dtype=F64).T, rtol=1e-12, atol=1e-12)


def test_complex_rotation():
    series = ad.ode_series(lambda t, z: 1j * z, 0.0, torch.tensor([1.0 + 0j], dtype=torch.complex128), 6)
    exact = torch.tensor([1j**k / math.factorial(k) for k in range(7)], dtype=torch.complex128)
    torch.testing.assert_close(series[:, 0], exact, rtol=1e-15, atol=0.0)


# Cost


class Products(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        self.count += func.overloadpacket in (aten.mm, aten.addmm, aten.addmm_)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("order", [1, 2, 5, 8])
@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
def test_takes_one_product_per_layer_and_order(order, grad):
    net, y = mlp(), point()[1]
    with torch.set_grad_enabled(grad), Products() as products:
        series = ad.ode_series(lambda t, y: net(y), 0.0, y, order)
    assert products.count == 3 * order
    if grad:
        with Products() as products:
            series.square().sum().backward()
        assert products.count == 2 * 3 * order  # one for the state and one for the weights


def test_calls_the_field_once():
    calls = []

    def f(t, y):
        calls.append(t)
        return y * y

    ad.ode_series(f, 0.0, tensor(1.0), 6)
    assert len(calls) == 1


def survivors(once):
    """Tensors that a call leaves to the garbage collector."""

    def tensors():
        return sum(type(x) is torch.Tensor for x in gc.get_objects())

    once()
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        once()
        return tensors() - before
    finally:
        gc.enable()


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid, nn.GELU, nn.Softplus, nn.SiLU], ids=lambda a: a.__name__)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_leaves_no_tensors_to_the_garbage_collector(activation):
    net, y = mlp(activation=activation), point()[1]

    def once():
        ad.ode_series(lambda t, y: net(y) / (1 + y * y), 0.0, y, 4).square().mean().backward()

    assert survivors(once) == 0


LEFT = {
    "a second call": lambda t, y: torch.atan2(y, 1 + y * y),
    "a list of powers": lambda t, y: torch.lgamma(1 + y * y),
    "scaled products": lambda t, y: torch.special.i0e(y),
    "several results": lambda t, y: torch.stack([c * c for c in y.unbind(-1)], -1),
    "split": lambda t, y: torch.cat([torch.sin(c) for c in y.split([1, 2], -1)], -1),
}


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_leaves_no_tensors_of_any_kind_of_field(name):
    y = point()[1].requires_grad_()

    def backward():
        y.grad = None
        ad.ode_series(LEFT[name], 0.0, y, 4).square().mean().backward()

    assert survivors(lambda: ad.ode_series(LEFT[name], 0.0, y.detach(), 4)) == 0
    assert survivors(backward) == 0


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_leaves_no_tensors_of_second_derivatives():
    net, y = mlp(), point()[1]
    weight = net[0].weight

    def once():
        series = ad.ode_series(lambda t, y: net(y), 0.0, y, 4)
        (gradient,) = torch.autograd.grad(series.square().sum(), weight, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), weight)

    assert survivors(once) == 0


@pytest.mark.parametrize("wrong", ["value", "error"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_leaves_no_tensors_of_a_field_that_fails(wrong):
    net, y = mlp(), point()[1]

    def f(t, y):
        result = net(torch.sin(y))
        return result[..., :2] if wrong == "value" else result @ torch.ones(7, dtype=F64)

    def once():
        with pytest.raises((ValueError, RuntimeError)):
            ad.ode_series(f, 0.0, y, 4)

    assert survivors(once) == 0


@pytest.mark.parametrize("name", ["lgamma", "digamma", "i0e"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_series_of_functions_leave_no_tensors(name):
    u = tensor(0.4, 2.5, 3.0)
    function = getattr(torch.special, name, None) or getattr(torch, name)
    assert survivors(lambda: ad.jet(function, (u, u, u, u))) == 0


# Gradients


class Own(nn.Module):
    """Parameters that enter in every way: twice, by product, sum, closure, transformed, with time, as a matrix."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.layer = nn.Linear(3, 3).double()
        self.scale, self.shift = (nn.Parameter(torch.randn(3, dtype=F64)) for _ in range(2))
        self.raw = nn.Parameter(torch.randn(3, 3, dtype=F64))
        self.rate, self.kernel = (nn.Parameter(torch.randn(n, dtype=F64)) for n in (1, 3))

    def forward(self, t, y):
        hidden = torch.tanh(self.layer(y)) + self.shift
        hidden = self.layer(hidden * self.scale) / (1 + self.scale.square())
        matrix = torch.softmax(self.raw, -1)
        turned = torch.einsum("ij,...j->...i", matrix, hidden) + hidden @ self.raw
        smooth = nn.functional.conv1d(turned.unsqueeze(-2), self.kernel.reshape(1, 1, 3), padding=1).squeeze(-2)
        sides = torch.cat([smooth[..., :1], self.shift[:2].expand(*y.shape[:-1], 2)], -1)
        return sides * torch.exp(-self.rate * t) + torch.where(y > 0, self.scale, y)


def gradients(series, inputs):
    weights = torch.randn(series.shape, dtype=series.dtype, generator=torch.Generator().manual_seed(3))
    return torch.autograd.grad((series * weights).sum(), inputs)


@pytest.mark.parametrize("batch", [1, 5])
def test_gradients_are_those_of_nested_differentiation(batch):
    model = Own()
    t, y = (x.requires_grad_() for x in point(batch))
    inputs = [t, y, *model.parameters()]
    ours = gradients(ad.ode_series(model, t, y, 5), inputs)
    for mine, theirs in zip(ours, gradients(nested(model, t, y, 5), inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_gradients_are_analytic_where_they_can_be():
    model = Own()
    t, y = (x.requires_grad_() for x in point())
    assert "_Solution" in type(ad.ode_series(model, t, y, 3).grad_fn).__name__
    assert "_Solution" in type(ad.ode_series(lambda t, y: many_functions(t, y) * model.scale, t, y, 3).grad_fn).__name__


def test_gradients_with_respect_to_tensors_from_a_longer_computation():
    t, y = point()
    raw = torch.randn(3, 3, dtype=F64, requires_grad=True)

    def run(series):
        context = torch.tanh(raw) + 1  # a layer's weight, a factor and something a closure holds, all of one origin
        start = y * context[0] + raw[1]

        def f(t, y):
            return (
                torch.tanh(nn.functional.linear(y, context, raw[2])) * context[1]
                + torch.einsum("bi,ij->bj", y, context) / raw[1].exp()
            )

        return gradients(series(f, t, start, 4), [raw])[0]

    torch.testing.assert_close(run(ad.ode_series), run(nested), rtol=1e-10, atol=1e-10)


def test_gradients_by_functional_call():
    net = mlp()
    t, y = point()
    weights = {name: (2 * p).detach().requires_grad_() for name, p in net.named_parameters()}

    def f(t, y):
        return ad.functional_call(net, weights, (y,))

    ours = gradients(ad.ode_series(f, t, y, 4), list(weights.values()))
    for mine, theirs in zip(ours, gradients(nested(f, t, y, 4), list(weights.values())), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


SCALE = tensor(0.4, -0.8, 0.6)
HARD = {
    "solve": lambda t, y, s: torch.linalg.solve(torch.eye(3, dtype=F64) + y.unsqueeze(-1) * y.unsqueeze(-2), y * s),
    "many functions": lambda t, y, s: many_functions(t, y * s),
    "norm": lambda t, y, s: s * y / (1 + torch.linalg.vector_norm(y, dim=-1, keepdim=True)),
    "layer_norm": lambda t, y, s: nn.functional.layer_norm(y, (3,), s, s) * t,
    "parts": lambda t, y, s: torch.stack([c * s[i] * t for i, c in enumerate(y.unbind(-1))][::-1], -1),
    "own product": lambda t, y, s: (y * y) * s - torch.einsum("bi,bi->b", y, y).unsqueeze(-1) * y,
}


@pytest.mark.parametrize("name", HARD)
def test_first_and_second_derivatives_are_those_of_finite_differences(name):
    t, y = (x.requires_grad_() for x in point(2))
    s = SCALE.clone().requires_grad_()

    def series(t, y, s):
        return ad.ode_series(lambda t, y: HARD[name](t, y, s), t, y, 3)

    assert torch.autograd.gradcheck(series, (t, y, s))
    assert torch.autograd.gradgradcheck(series, (t, y, s))


def test_second_derivatives_with_parameters_in_every_place():
    model = Own()
    t, y = (x.requires_grad_() for x in point(1))
    inputs = [t, y, *model.parameters()]

    def second(series):
        first = torch.autograd.grad(series(model, t, y, 3)[2:].square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), inputs)

    for mine, theirs in zip(second(ad.ode_series), second(nested), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_batched_gradients_and_repeated_backward():
    t, y = point()
    y.requires_grad_()
    series = ad.ode_series(many_functions, t, y, 3)[3].sum(0)
    rows = [torch.autograd.grad(series[i], y, retain_graph=True)[0] for i in range(3)]
    together = torch.autograd.grad(series, y, torch.eye(3, dtype=F64), is_grads_batched=True)[0]
    torch.testing.assert_close(together, torch.stack(rows), rtol=1e-12, atol=1e-12)


def test_a_complex_field_has_the_gradients_of_autograd():
    z = torch.randn(2, 3, dtype=torch.complex128, requires_grad=True)
    weight = torch.randn(3, 3, dtype=torch.complex128, requires_grad=True)
    scale = torch.randn(3, dtype=F64, requires_grad=True)

    def series(z, weight, scale):
        return ad.ode_series(lambda t, z: torch.sin(nn.functional.linear(z, weight)) * scale * (z + t), 0.2, z, 3)

    assert torch.autograd.gradcheck(series, (z, weight, scale))


# Tensors that change between the series and its gradient


FROZEN = {
    "y @ w": (lambda y, w: y @ w, (3, 3)),
    "y * s": (lambda y, s: y * s, (3,)),
    "linear": (lambda y, w: nn.functional.linear(y, w), (3, 3)),
    "conv1d": (lambda y, w: nn.functional.conv1d(y.unsqueeze(-2), w, padding=1).squeeze(-2), (1, 1, 3)),
    "closure": (lambda y, w: y.roll(1, -1) * torch.softmax(y, -1) / w, (3,)),
}


@pytest.mark.parametrize("create_graph", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("name", FROZEN)
def test_refuses_gradients_after_a_constant_was_changed_in_place(name, create_graph):
    function, shape = FROZEN[name]
    constant = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(5)) + 2.0
    y = point()[1].requires_grad_()

    def series():
        return ad.ode_series(lambda t, y: function(torch.sin(y), constant), 0.0, y, 3).square().sum()

    (expected,) = torch.autograd.grad(series(), y)
    late = series()
    (result,) = torch.autograd.grad(late, y, retain_graph=True, create_graph=create_graph)
    torch.testing.assert_close(result.detach(), expected)
    constant.mul_(2.0)
    with pytest.raises(RuntimeError, match=r"version|modified by an inplace operation"):
        torch.autograd.grad(late, y, create_graph=create_graph)


def test_a_constant_that_the_gradient_does_not_need_may_change():
    shift, y = torch.ones(3, dtype=F64), point()[1].requires_grad_()
    series = ad.ode_series(lambda t, y: torch.sin(y) + shift, 0.0, y, 3).square().sum()
    (expected,) = torch.autograd.grad(series, y, retain_graph=True)
    shift.add_(1.0)
    assert torch.equal(torch.autograd.grad(series, y, retain_graph=True)[0], expected)
    with pytest.raises(RuntimeError, match=r"shape \(3,\).*changed in place"):  # all is computed again
        torch.autograd.grad(series, y, create_graph=True)


# Automatic casts

CAST = {
    "layers": lambda net, y: net(y),
    "matrices": lambda net, y: y @ torch.tanh(y.mT @ net(y)),
    "convolution": lambda net, y: nn.functional.conv1d(net(y).unsqueeze(-2), net[0].weight[:1, None], padding=1)[:, 0],
    "contraction": lambda net, y: torch.einsum("bi,oi->bo", y, net[0].weight[:3] ** 2) * net(y).float(),
    "frozen": lambda net, y: y @ net[0].weight.detach()[:3].mT,
}


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("name", CAST)
def test_gradients_of_a_series_under_autocast(name, inside):
    net, y = mlp().float(), point()[1].float().requires_grad_()
    inputs = [y, *net.parameters()] if name != "frozen" else [y]

    def run(*, cast, second=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            loss = ad.ode_series(lambda t, y: 0.3 * CAST[name](net, y).float() - y, 0.0, y, 3).square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast and inside):
            first = torch.autograd.grad(loss, inputs, create_graph=second, allow_unused=True)
            if not second:
                return first
            total = sum(g.square().sum() for g in first if g is not None)
            return torch.autograd.grad(total, inputs, allow_unused=True)

    for second in (False, True):
        for mine, exact in zip(run(cast=True, second=second), run(cast=False, second=second), strict=True):
            if exact is not None:
                assert mine.dtype == torch.float32
                assert (mine - exact).norm() <= 0.1 * exact.norm() + 1e-6  # bfloat16 has 8 bits


# Transforms and the compiler


def test_under_vmap_and_torch_func():
    model = Own()
    t, y = point()
    series = ad.ode_series(model, t, y, 4)
    torch.testing.assert_close(ad.vmap(lambda y: ad.ode_series(model, t, y, 4))(y).movedim(0, 1), series)
    recorded = y.clone().requires_grad_()
    (expected,) = torch.autograd.grad(ad.ode_series(model, t, recorded, 4).square().sum(), recorded)
    result = torch.func.grad(lambda y: ad.ode_series(model, t, y, 4).square().sum())(y)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    _, along = torch.func.jvp(lambda t: ad.ode_series(lambda t, y: t * y, t, y, 2), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(along[1], y)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_compiles_as_one_graph_with_the_same_gradients(dtype):
    net = mlp(4).to(dtype)

    def f(t, y):
        return net(torch.cat([y, t.expand(*y.shape[:-1], 1)], -1))

    t, y = (x.to(dtype).requires_grad_() for x in point())
    inputs = [t, y, *net.parameters()]
    compiled = torch.compile(lambda t, y: ad.ode_series(f, t, y, 4), fullgraph=True, dynamic=False)
    # Backward code that may overwrite saved tensors gives wrong gradients of parameters of batches (torch 2.13).
    with torch._functorch.config.patch(donated_buffer=False):
        series = compiled(t, y)
        results = gradients(series, inputs)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-11}
    torch.testing.assert_close(series, ad.ode_series(f, t, y, 4), **tolerance)
    for mine, theirs in zip(results, gradients(ad.ode_series(f, t, y, 4), inputs), strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


A = tensor(0.7, -0.4, 1.3)
OPERATORS = {
    "y + A": lambda t, y: y + A,
    "A + y": lambda t, y: A + y,
    "y - A": lambda t, y: y - A,
    "A - y": lambda t, y: A - y,
    "y * A": lambda t, y: y * A,
    "y / A": lambda t, y: y / A,
    "A / y": lambda t, y: A / y,
    "y ** 3": lambda t, y: y**3,
    "-y": lambda t, y: -y,
    "y > A": lambda t, y: torch.where(y > A, y * y, y),
    "matmul": lambda t, y: torch.matmul(y, W),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_between_the_state_and_tensors_keep_their_order_under_the_compiler(name):
    torch._dynamo.reset()
    t, y = point()
    compiled = torch.compile(lambda y: ad.ode_series(OPERATORS[name], t, y, 3), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(y), ad.ode_series(OPERATORS[name], t, y, 3))


def test_refuses_a_matrix_product_whose_order_the_compiler_does_not_tell():
    # torch 2.13 turns `y @ W` into W.matmul(y), with another result if both are square.
    torch._dynamo.reset()
    y = tensor(0.3, 0.5, -0.2)
    compiled = torch.compile(lambda y: ad.ode_series(lambda t, y: y @ W, 0.0, y, 2), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=r"torch.matmul\(a, b\)"):
        compiled(y)


# States, times and functions of the solution


def test_a_pytree_has_a_series_for_every_tensor():
    def f(t, state):
        return {"x": state["v"], "v": [-torch.sin(state["x"]) * t][0]}

    def flat(t, y):
        x, v = y.split([2, 2])
        return torch.cat([v, -torch.sin(x) * t])

    t, y = tensor(0.4)[0], torch.randn(4, dtype=F64, requires_grad=True)
    series = ad.ode_series(f, t, {"x": y[:2], "v": y[2:]}, 5)
    expected = nested(flat, t, y, 5)
    torch.testing.assert_close(torch.cat([series["x"], series["v"]], -1), expected, rtol=1e-12, atol=1e-12)
    mine = gradients(torch.cat([series["x"], series["v"]], -1), [y])
    torch.testing.assert_close(mine, gradients(expected, [y]), rtol=1e-11, atol=1e-11)


def test_each_sample_may_have_its_own_time():
    t, y = torch.linspace(0, 1, 5, dtype=F64), point()[1]
    series = ad.ode_series(lambda t, y: many_functions(t.unsqueeze(-1), y), t, y, 4)
    for i in range(5):
        torch.testing.assert_close(series[:, i], ad.ode_series(many_functions, t[i], y[i], 4), rtol=1e-12, atol=1e-12)


def test_total_derivatives_are_those_of_nested_differentiation():
    t, y = (x.requires_grad_() for x in point())
    model = Own()

    def g(t, y):
        return (torch.sin(t * y) @ model.raw).square().sum(-1)

    factorials = tensor(*(math.factorial(k) for k in range(6))).unsqueeze(-1)
    ours, theirs = ad.total_derivatives(g, model, t, y, 5), nested(model, t, y, 5, g) * factorials
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    inputs = [t, y, *model.parameters()]
    for a, b in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_total_derivatives_of_a_conserved_quantity_vanish():
    derivatives = ad.total_derivatives(
        lambda t, y: {"energy": y[1] ** 2 / 2 - torch.cos(y[0]), "time": t * t},
        lambda t, y: torch.stack([y[1], -torch.sin(y[0])]),
        0.5,
        tensor(0.3, 0.8),
        6,
    )
    assert derivatives["energy"][1:].abs().max() < 1e-14
    torch.testing.assert_close(derivatives["time"], tensor(0.25, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0))


def test_mean_squares_per_sample():
    t, y = point()
    series = ad.ode_series(many_functions, t, y, 4)
    squares = ad.mean_square_derivatives(series)
    assert squares.shape == (5, 5)
    for k in range(5):
        torch.testing.assert_close(squares[k], (math.factorial(k) * series[k]).square().mean(-1))
    halves = {"a": series[..., :1], "b": series[..., 1:]}
    torch.testing.assert_close(ad.mean_square_derivatives(halves), squares)


def test_numbers_that_are_not_finite_pass_through():
    series = ad.ode_series(lambda t, y: y.log(), 0.0, tensor(-1.0, 1.0), 2)
    assert series[1:, 0].isnan().all()
    assert series[:, 1].isfinite().all()


# Errors


@pytest.mark.parametrize("order", [0, -1, 2.0, True])
def test_refuses_an_order_that_is_none(order):
    with pytest.raises(ValueError, match=r"order of at least 1"):
        ad.ode_series(lambda t, y: y, 0.0, tensor(1.0), order)


@pytest.mark.parametrize(("t", "y"), [(0.0, torch.ones(2, dtype=torch.int64)), (torch.tensor(0), torch.ones(2))])
def test_refuses_integers(t, y):
    with pytest.raises(TypeError, match=r"real or complex floats.*torch.int64"):
        ad.ode_series(lambda t, y: y, t, y, 2)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda t, y: y.sum(), r"shape and dtype of `y`, \(2,\) torch.float64, got \(\) torch.float64"),
        (lambda t, y: (y, y), r"structure of `y`"),
        (lambda t, y: y.float(), r"got \(2,\) torch.float32"),
        (lambda t, y: 1.0, r"got float"),
    ],
)
def test_refuses_a_field_whose_value_does_not_fit(f, message):
    with pytest.raises(ValueError, match=message):
        ad.ode_series(f, 0.0, tensor(1.0, 2.0), 2)


def test_refuses_a_field_that_hides_from_autograd():
    scale = tensor(2.0).requires_grad_()

    def f(t, y):
        with torch.no_grad():
            return y * scale

    with pytest.raises(ValueError, match=r"torch.no_grad"):
        ad.ode_series(f, 0.0, tensor(1.0), 2)
    with torch.no_grad():
        torch.testing.assert_close(ad.ode_series(f, 0.0, tensor(1.0), 2)[:, 0], tensor(1.0, 2.0, 2.0))
