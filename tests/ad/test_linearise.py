"""Value, Jacobian and rate from one pass, against nested automatic differentiation and finite differences."""

import pytest
import torch

from ude.ad import JacobianProduct, Linearisable, Linearisation, jacobian_product, linearise, time_derivative

F64 = torch.float64


class Field(torch.nn.Module):
    """A network of state and time, with what users write around it."""

    def __init__(self, n, dtype=F64):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(n + 1, 8), torch.nn.Tanh(), torch.nn.Linear(8, n)).to(dtype)

    def forward(self, t, y):
        inside = self.net(torch.cat([torch.sin(t)[:, None], y], -1))
        return torch.where(y > 0.0, inside, 0.5 * inside) * t[:, None] ** 2 - y.flip(-1) ** 3


def point(n, batch=4, dtype=F64):
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    return draw(batch), draw(batch, n)


def reference(f, t, y):
    """Row by row, by reverse mode."""
    rows = [(t[i : i + 1], y[i : i + 1]) for i in range(len(t))]
    by_state = [torch.func.jacrev(lambda v, s=s: f(s, v[None])[0])(v[0]) for s, v in rows]
    by_time = [torch.func.jacrev(lambda u, v=v: f(u, v)[0])(s)[:, 0] for s, v in rows]
    return f(t, y), torch.stack(by_state), torch.stack(by_time)


recording = pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
"""Off the autograd graph small states are linearised by reverse mode, on it all of them by jets."""


@recording
@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_equals_reverse_mode_row_by_row(n, dtype, recorded):
    f, (t, y) = Field(n, dtype), point(n, dtype=dtype)
    with torch.set_grad_enabled(recorded):
        got = linearise(f, t, y)
    assert {x.requires_grad for x in got} == {recorded}
    # The same derivatives summed in another order.
    tolerance = 1e-13 if dtype == F64 else 1e-5
    for a, b in zip(got, reference(f, t, y), strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_without_the_rate_the_rest_is_the_same():
    f, (t, y) = Field(3), point(3)
    whole, part = linearise(f, t, y), linearise(f, t, y, rate=False)
    assert part.rate is None
    torch.testing.assert_close(part.jacobian, whole.jacobian, rtol=1e-14, atol=1e-15)


@recording
def test_is_one_call_of_the_field(recorded):
    calls = []
    with torch.set_grad_enabled(recorded):
        linearise(lambda t, y: calls.append(1) or y * t[:, None], *point(3))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "f",
    [
        lambda t, y: torch.ones_like(y.value if hasattr(y, "value") else y),
        lambda t, y: torch.tensor([[1.0, 2.0]], dtype=F64).expand(4, 2),
        lambda t, y: -y,
        lambda t, y: t[:, None].expand(-1, 2) ** 2,
    ],
    ids=["a constant of the state's shape", "a plain tensor", "state only", "time only"],
)
@recording
def test_works_where_the_field_ignores_state_or_time(f, recorded):
    t, y = point(2)
    with torch.set_grad_enabled(recorded):
        got = linearise(f, t, y)
    for a, b in zip(got, reference(f, t, y), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)


@recording
def test_what_a_field_keeps_from_the_graph_is_constant(recorded):
    t, y = point(2)
    with torch.set_grad_enabled(recorded):
        at = linearise(lambda t, y: y * y.detach() * t.detach()[:, None], t, y)
    torch.testing.assert_close(at.jacobian, torch.diag_embed(y * t[:, None]), rtol=1e-14, atol=0.0)
    assert not bool(at.rate.any())


@pytest.mark.parametrize("partly", [True, False])
def test_what_a_field_does_under_no_grad_is_differentiated_where_nothing_is_recorded(partly):
    f, (t, y) = Field(2), point(2)
    silent = torch.no_grad()(f)
    with torch.no_grad():
        at = linearise((lambda t, y: y**2 + silent(t, y)) if partly else silent, t, y)
    expected = reference((lambda t, y: y**2 + f(t, y)) if partly else f, t, y)
    for a, b in zip(at, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_a_gradient_inside_of_the_field_without_a_graph_is_refused_not_taken_for_a_constant():
    def hamiltonian(t, y):
        with torch.enable_grad():
            return torch.autograd.grad((y**4).sum(), y)[0] - y

    with torch.no_grad(), pytest.raises(RuntimeError, match="does not require grad"):
        linearise(hamiltonian, *point(2))


def test_a_state_that_wants_a_gradient_gets_none_where_nothing_is_recorded():
    f, (t, y) = Field(2), point(2)
    t.requires_grad_()
    y.requires_grad_()
    with torch.no_grad():
        at = linearise(f, t, y)
    assert not any(x.requires_grad for x in at)
    assert all(x.grad is None for x in (t, y, *f.parameters()))


def test_inside_of_a_checkpoint_nothing_runs_backwards_before_its_time():
    f, (t, y) = Field(2), point(2)
    y.requires_grad_()
    calls = []

    def counted(t, y):
        calls.append(1)
        return f(t, y)

    def step(y):
        with torch.no_grad():
            matrix = linearise(counted, t, y).jacobian
        return (matrix @ y.unsqueeze(-1)).sum()

    torch.utils.checkpoint.checkpoint(step, y, use_reentrant=False).backward()
    assert len(calls) == 2  # once, and once again on the way back
    torch.testing.assert_close(y.grad, reference(f, t, y)[1].sum(1), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("transform", ["vmap", "jvp"])
def test_function_transforms_see_the_linearisation_where_nothing_is_recorded(transform):
    f, (t, y) = Field(2), point(2)

    def jacobian(scale):
        return linearise(f, t, scale * y, rate=False).jacobian

    with torch.no_grad():
        if transform == "vmap":
            scales = torch.tensor([0.5, 2.0], dtype=F64)
            got, expected = torch.func.vmap(jacobian)(scales), torch.stack([jacobian(s) for s in scales])
        else:
            one, h = torch.tensor(1.0, dtype=F64), 1e-4
            got = torch.func.jvp(jacobian, (one,), (torch.ones_like(one),))[1]
            expected = (jacobian(one + h) - jacobian(one - h)) / (2 * h)
    # Central differences: h^2 times third derivatives of order ten.
    torch.testing.assert_close(got, expected, rtol=1e-13 if transform == "vmap" else 1e-5, atol=1e-6)


def test_derivatives_of_the_result_are_right():
    f, (t, y) = Field(2), point(2, batch=2)
    names, parameters = zip(*f.named_parameters(), strict=True)

    def everything(t, y, *values):
        def g(t, y):
            return torch.func.functional_call(f, dict(zip(names, values, strict=True)), (t, y))

        return tuple(linearise(g, t, y))

    inputs = tuple(x.detach().clone().requires_grad_() for x in (t, y, *parameters))
    assert torch.autograd.gradcheck(everything, inputs)


@pytest.mark.parametrize("n", [1, 3])
def test_compiles_into_one_graph(n):
    f, (t, y) = Field(n), point(n)
    y.requires_grad_()
    compiled = torch.compile(lambda t, y: tuple(linearise(f, t, y)), fullgraph=True, backend="aot_eager")(t, y)
    expected = tuple(linearise(f, t, y))
    for a, b in zip(compiled, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)
    (a,), (b,) = (torch.autograd.grad(x[1].square().sum() + x[2].sum(), y) for x in (compiled, expected))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rate", [False, True])
def test_compiles_whatever_the_field_is_made_of(rate):
    t, y = point(2)
    weight = torch.randn(2, 2, dtype=F64)
    for f in (
        lambda t, y: torch.ones_like(y),
        lambda t, y: y @ weight,
        lambda t, y: torch.stack(tuple(x * t for x in y.unbind(-1)), -1),
    ):
        compiled = torch.compile(lambda t, y, f=f: linearise(f, t, y, rate=rate)[:3], fullgraph=True, backend="eager")
        for a, b in zip(compiled(t, y), linearise(f, t, y, rate=rate), strict=True):
            assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-14, atol=1e-15)


class Known:
    """A field that knows its Jacobian (and gives one that differentiation would not find)."""

    def __call__(self, t, y):
        return -y

    def linearise(self, t, y, *, rate):
        return Linearisation(-y, torch.full((len(y), 2, 2), 7.0, dtype=F64), torch.zeros_like(y) if rate else None)


def test_a_field_that_knows_its_jacobian_is_asked_for_it():
    t, y = point(2)
    assert isinstance(Known(), Linearisable)
    assert not isinstance(Field(2), Linearisable)
    assert bool((linearise(Known(), t, y).jacobian == 7.0).all())
    v = torch.ones_like(y)
    assert bool((jacobian_product(Known(), t, y).forward(v) == 14.0).all())
    assert bool((jacobian_product(Known(), t, y).transposed(v) == 14.0).all())


def test_products_equal_those_with_the_matrix_and_so_do_their_derivatives():
    f, (t, y) = Field(3), point(3, batch=2)
    y.requires_grad_()
    v = torch.randn(2, 3, dtype=F64, requires_grad=True)
    results = []
    for J in (jacobian_product(f, t, y), JacobianProduct.of(linearise(f, t, y).jacobian)):
        forward, transposed = J.forward(v), J.transposed(v)
        loss = forward.square().sum() + (transposed**3).sum()
        # The last bias has no part in a Jacobian.
        parameters = list(f.parameters())[:-1]
        results.append((forward, transposed, *torch.autograd.grad(loss, [y, v, *parameters])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_the_rate_alone_equals_that_of_the_whole_pass():
    f, (t, y) = Field(3), point(3)
    value, rate = time_derivative(f, t, y)
    whole = linearise(f, t, y)
    torch.testing.assert_close(value, whole.value, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(rate, whole.rate, rtol=1e-13, atol=1e-14)


def test_says_what_is_wrong_with_state_or_value():
    t, y = point(2)
    with pytest.raises(ValueError, match="real state of shape"):
        linearise(lambda t, y: y, t, y.to(torch.complex128))
    with pytest.raises(ValueError, match="real state of shape"):
        jacobian_product(lambda t, y: y, t, y[0])
    with pytest.raises(ValueError, match="values of shape"):
        linearise(lambda t, y: y.sum(-1, keepdim=True), t, y)
