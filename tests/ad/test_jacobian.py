"""The dense Jacobian: values against closed forms, and what they cost in products and evaluations."""

import gc
import warnings
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ude import ad
from ude._checks import UdeWarning
from ude.ad import Mode


class Recorder:
    """y = sin(A x) with its Jacobian diag(cos(A x)) A; counts its calls."""

    def __init__(self, outputs, inputs):
        generator = torch.Generator().manual_seed(outputs + 10 * inputs)
        self.A = torch.randn(outputs, inputs, dtype=torch.float64, generator=generator)
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return (self.A @ x).sin()

    def jacobian(self, x):
        return (self.A @ x).cos()[:, None] * self.A


def point(n):
    return torch.linspace(-1, 1, n, dtype=torch.float64)


@pytest.mark.parametrize(
    ("outputs", "inputs", "mode", "chunk_size", "expected"),
    [
        (2, 5, None, None, ad.ProductCount(reverse=2, evaluations=1)),
        (5, 2, None, None, ad.ProductCount(forward=2, evaluations=2)),
        (4, 4, None, None, ad.ProductCount(forward=4, evaluations=2)),
        (3, 1, None, None, ad.ProductCount(forward=1, evaluations=1)),
        (2, 5, Mode.FORWARD, None, ad.ProductCount(forward=5, evaluations=1)),
        (5, 2, Mode.REVERSE, None, ad.ProductCount(reverse=5, evaluations=1)),
        (2, 5, Mode.FORWARD, 2, ad.ProductCount(forward=5, evaluations=3)),
        (5, 2, Mode.REVERSE, 2, ad.ProductCount(reverse=5, evaluations=1)),
        (2, 5, Mode.FORWARD, 1, ad.ProductCount(forward=5, evaluations=5)),
        (5, 2, Mode.REVERSE, 1, ad.ProductCount(reverse=5, evaluations=1)),
        (2, 5, Mode.FORWARD, 7, ad.ProductCount(forward=5, evaluations=1)),
    ],
)
def test_jacobian_costs_what_its_shape_and_options_say(outputs, inputs, mode, chunk_size, expected):
    f, x = Recorder(outputs, inputs), point(inputs)
    with ad.count_products() as count:
        J = ad.jacobian(f, x, mode=mode, chunk_size=chunk_size)
    torch.testing.assert_close(J, f.jacobian(x), rtol=1e-14, atol=1e-14)  # rounding only
    assert count == expected
    assert f.calls == expected.evaluations


@pytest.mark.parametrize("mode", [None, *Mode])
@pytest.mark.parametrize("outputs", [(), (4,), (2, 2), (0,)])
@pytest.mark.parametrize("inputs", [(), (1,), (2, 3), (0,)])
def test_jacobian_has_the_axes_of_the_value_and_then_those_of_x(inputs, outputs, mode):
    x = torch.arange(1.0, 1 + torch.Size(inputs).numel(), dtype=torch.float64).reshape(inputs)
    weights = torch.arange(1.0, 1 + torch.Size(outputs).numel(), dtype=torch.float64).reshape(outputs)
    J = ad.jacobian(lambda x: weights * (x**2).sum(), x, mode=mode)
    torch.testing.assert_close(J, weights[(..., *[None] * x.ndim)] * 2 * x)


class Batches(TorchDispatchMode):
    """The first axes of the products computed, below what vmap hides."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mul.Tensor:
            self.sizes.append(len(result))
        return result


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(("chunk_size", "sizes"), [(None, [7]), (3, [3, 3, 1])])
def test_chunk_size_products_are_batched_at_a_time(mode, chunk_size, sizes):
    # The derivative of sin is one multiplication by cos for each batch of products.
    with Batches() as batches:
        ad.jacobian(torch.sin, point(7), mode=mode, chunk_size=chunk_size)
    assert batches.sizes == sizes


@pytest.mark.parametrize("mode", Mode)
def test_jacobian_can_be_differentiated_again_compiled_and_batched(mode):
    x = point(3).requires_grad_()
    (second,) = ad.grad(ad.jacobian(torch.sin, x, mode=mode, chunk_size=2).sum(), [x])
    torch.testing.assert_close(second, -x.sin())
    nested = ad.jacobian(lambda x: ad.jacobian(lambda x: (x**3).sum(), x, mode=mode), x.detach(), mode=mode)
    torch.testing.assert_close(nested, torch.diag(6 * x.detach()))
    rows = torch.stack([point(3), 2 * point(3)])
    torch.testing.assert_close(
        ad.vmap(lambda x: ad.jacobian(torch.sin, x, mode=mode))(rows), torch.diag_embed(rows.cos())
    )
    with ad.count_products() as count:
        compiled = torch.compile(lambda x: ad.jacobian(torch.sin, x, mode=mode), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(rows[0]), torch.diag(rows[0].cos()))
    assert count == ad.ProductCount()


class NoVmapRule(torch.autograd.Function):
    """x^2 without a rule for vmap; its backward pass looks at a number."""

    @staticmethod
    def forward(x):
        return x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * ctx.saved_tensors[0] * tangent

    @staticmethod
    def backward(ctx, cotangent):
        factor = 2.0 if float(cotangent.sum()) else 0.0
        return factor * ctx.saved_tensors[0] * cotangent


@pytest.mark.parametrize("mode", Mode)
def test_without_vmap_products_are_taken_one_at_a_time_and_a_warning_says_so(mode):
    x = point(3)
    with pytest.warns(UdeWarning, match="3 products were taken one at a time.*chunk_size=1") as record:
        J = ad.jacobian(NoVmapRule.apply, x, mode=mode)
    assert record[0].filename == __file__
    torch.testing.assert_close(J, torch.diag(2 * x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(ad.jacobian(NoVmapRule.apply, x, mode=mode, chunk_size=1), J)


class Layers(TorchDispatchMode):
    """Weak references to the values of all tanh."""

    def __init__(self):
        super().__init__()
        self.storages = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.tanh.default:
            self.storages.append(weakref.ref(result.untyped_storage()))
        return result

    def alive(self):
        gc.collect()
        return sum(storage() is not None for storage in self.storages)


def test_what_was_recorded_to_learn_the_shape_is_freed_before_forward_mode_starts():
    def f(x):
        before.append(layers.alive())
        for _ in range(5):
            x = x.tanh()
        return x

    before = []
    with Layers() as layers:
        value, pullback = ad.vjp(f, point(3))
        assert layers.alive() == 5  # a recording holds every layer
        del value, pullback
        ad.jacobian(f, point(3))
    assert before == [0, 0, 0]


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_an_error_of_the_function_itself_reaches_the_caller(chunk_size):
    def f(x):
        raise RuntimeError("the field left its domain")

    for mode in (None, *Mode):
        with pytest.raises(RuntimeError, match="left its domain"):
            ad.jacobian(f, point(3), mode=mode, chunk_size=chunk_size)


def test_a_missing_forward_mode_names_reverse_mode():
    def f(x):
        return torch.nn.functional.multi_margin_loss(x[None], torch.tensor([1]))

    x = point(4)
    with pytest.raises(NotImplementedError, match=r"no forward mode.*mode=Mode.REVERSE"):
        ad.jacobian(f, x, mode=Mode.FORWARD)
    # All margins are active: every other entry pushes by 1/4, the target by the sum.
    exact = torch.tensor([0.25, -0.75, 0.25, 0.25], dtype=torch.float64)
    torch.testing.assert_close(ad.jacobian(f, x, mode=Mode.REVERSE), exact)
