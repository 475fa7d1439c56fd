"""Every product is counted once, in every open count, where it is taken."""

import threading

import pytest
import torch

from ude import ad


@pytest.fixture
def x():
    return torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def cubes(x):
    return (x**3).sum()


def test_each_product_counts_as_itself(x):
    with ad.count_products() as count:
        ad.jvp(torch.sin, (x,), (x,))
    assert count == ad.ProductCount(forward=1, evaluations=1)
    with ad.count_products() as count:
        ad.hvp(cubes, x, x)
    assert count == ad.ProductCount(forward=1, reverse=1, evaluations=1)
    a = x.clone().requires_grad_()
    with ad.count_products() as count:
        ad.grad(cubes(a), [a])
    assert count == ad.ProductCount(reverse=1)


def test_vjp_counts_an_evaluation_and_then_each_call_of_its_pullback(x):
    with ad.count_products() as first:
        _, pullback = ad.vjp(torch.sin, x)
    assert first == ad.ProductCount(evaluations=1)
    with ad.count_products() as later:
        pullback(x)
        pullback(2 * x)
    assert later == ad.ProductCount(reverse=2)
    assert first == ad.ProductCount(evaluations=1)


def test_counts_nest_and_close(x):
    with ad.count_products() as outer:
        ad.jvp(torch.sin, (x,), (x,))
        with ad.count_products() as inner:
            ad.jacobian(torch.sin, x, mode=ad.Mode.FORWARD)
        ad.hvp(cubes, x, x)
    ad.hvp(cubes, x, x)
    assert inner == ad.ProductCount(forward=3, evaluations=1)
    assert outer == ad.ProductCount(forward=5, reverse=1, evaluations=3)


def test_a_count_closes_after_an_error(x):
    def leave():
        with ad.count_products() as count:
            kept.append(count)
            raise KeyError

    kept = []
    with pytest.raises(KeyError):
        leave()
    ad.jvp(torch.sin, (x,), (x,))
    assert kept == [ad.ProductCount()]


def test_a_refused_call_is_not_counted(x):
    with ad.count_products() as count:
        with pytest.raises(ValueError, match="shape"):
            ad.jvp(torch.sin, (x,), (x[:2],))
        with pytest.raises(ValueError, match="shape"):
            ad.hvp(cubes, x, x[:2])
    assert count == ad.ProductCount()


def test_a_product_inside_vmap_counts_once(x):
    rows = torch.stack([x, 2 * x])
    with ad.count_products() as count:
        tangents = ad.vmap(lambda v: ad.jvp(torch.sin, (x,), (v,))[1])(rows)
    torch.testing.assert_close(tangents, rows * x.cos())
    assert count == ad.ProductCount(forward=1, evaluations=1)


def test_another_thread_does_not_count(x):
    with ad.count_products() as count:
        thread = threading.Thread(target=ad.jvp, args=(torch.sin, (x,), (x,)))
        thread.start()
        thread.join()
    assert count == ad.ProductCount()


@pytest.mark.parametrize(
    "derivative",
    [
        lambda x: ad.jvp(torch.sin, (x,), (x,))[1],
        lambda x: ad.vjp(torch.sin, x)[1](x)[0],
        lambda x: ad.hvp(cubes, x, x),
    ],
    ids=["jvp", "vjp", "hvp"],
)
def test_compiled_products_give_the_same_value_in_one_graph_and_are_not_counted(derivative, x):
    with ad.count_products() as count:
        compiled = torch.compile(derivative, fullgraph=True, backend="eager")(x)
    assert count == ad.ProductCount()
    torch.testing.assert_close(compiled, derivative(x))
