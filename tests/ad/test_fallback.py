"""Functions without a rule are written out or refused by name; nothing loses derivatives silently."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ude import ad
from ude.ad import Jet, Univariate


@pytest.fixture
def x():
    slots = torch.tensor([[1.0, 0.5, -1.0], [0.0, 2.0, 1.0]], dtype=torch.float64)
    return Jet(Univariate(2), torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64), slots)


def series(x):
    return torch.stack([x.value, *x.dense()])


@pytest.mark.parametrize(
    ("function", "same"),
    [
        (lambda x: F.hinge_embedding_loss(x, torch.tensor([1.0, -1.0, 1.0])), lambda x: (x[0] + (1 - x[1]) + x[2]) / 3),
        (torch.ops.aten.tanh, torch.tanh),
        (lambda x: torch.ops.aten.addmm(x[None], x[:, None], x[None]), lambda x: x[None] + x[:, None] @ x[None]),
    ],
)
def test_what_has_no_rule_is_written_out(function, same, x):
    torch.testing.assert_close(series(function(x)), series(same(x)))


@pytest.mark.parametrize(
    "function",
    [torch.linalg.eigvalsh, torch.linalg.svdvals, torch.linalg.qr, lambda x: torch.special.zeta(x, x + 3.0)],
)
def test_what_cannot_be_written_out_is_refused_by_name(function, x):
    matrix = x[:, None] * x[None] + torch.eye(3, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match=r"eigvalsh|svd|qr|zeta"):
        function(matrix)


def test_the_refusal_says_how_to_enter_a_rule(x):
    with pytest.raises(NotImplementedError, match=r"`airy_ai`.*ude\.ad\.register"):
        torch.special.airy_ai(x)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.add_(1.0), lambda x: x.relu_(), F.relu_, torch.sigmoid_, lambda x: x.__setitem__(0, 1.0),
        lambda x: x.__iadd__(1.0), lambda x: torch.zeros(3, dtype=torch.float64).add_(x),
        lambda x: torch.zeros(3, dtype=torch.float64).__setitem__(0, x[0]),
        lambda x: torch.zeros(3, dtype=torch.float64).__imul__(x), lambda x: x.clamp_(0.0), lambda x: x.copy_(x),
    ],
)  # fmt: skip
def test_changes_in_place_are_refused(change, x):
    with pytest.raises((TypeError, NotImplementedError), match=r"new tensor"):
        change(x)


def test_what_has_no_derivative_does_not_pass_as_a_plain_tensor(x):
    for function in (torch.unique, torch.unique_consecutive):
        with pytest.raises(NotImplementedError, match="unique"):
            function(x)


def test_infinite_values_are_kept(x):
    y = F.log_softmax(torch.cat([x[:2], torch.tensor([-torch.inf], dtype=torch.float64)]), 0)
    torch.testing.assert_close(series(y)[:, :2], series(F.log_softmax(x[:2], 0)))
    assert y.value[2] == -torch.inf


def test_augmented_assignment_is_refused_with_what_to_write(x):
    with pytest.raises(NotImplementedError, match=r"x = x \* y"):
        x *= 2.0


def test_an_argument_given_away_is_the_result_from_then_on(x):
    y = F.relu(x, inplace=True)
    torch.testing.assert_close(series(x), series(y))
    assert float(x.value.min()) == 0.0


def test_out_is_refused(x):
    with pytest.raises(TypeError, match="out="):
        torch.add(x, 1.0, out=torch.zeros(3, dtype=torch.float64))


def test_numpy_is_refused(x):
    for function in (np.sin, np.asarray, lambda x: x.numpy()):
        with pytest.raises(TypeError, match=r"NumPy|ufuncs"):
            function(x)


def test_values_decide_and_have_no_derivatives(x):
    assert bool(x[0] > 0)
    assert float(x[0]) == pytest.approx(0.3)
    assert x[1].item() == pytest.approx(-0.7)
    for function in (torch.argmax, torch.isnan, torch.zeros_like, lambda x: x > 0, lambda x: x.long(), torch.argsort):
        assert isinstance(function(x), torch.Tensor)


def test_number_formats_change(x):
    assert x.float().dtype == torch.float32
    assert x.to(torch.complex128).is_complex()
    assert isinstance(x.float(), Jet)
    assert isinstance(x.type_as(torch.zeros(1)), Jet)
    assert x.to("cpu") is x
    assert not isinstance(x.to(torch.int64), Jet)
    torch.testing.assert_close(series(x.float().double()), series(x), rtol=1e-6, atol=1e-6)


def test_bits_are_not_read_as_other_numbers(x):
    with pytest.raises(TypeError, match="number format"):
        x.view(torch.int64)


def test_batch_norm_in_training_is_refused(x):
    layer = torch.nn.BatchNorm1d(3).double()
    with pytest.raises(NotImplementedError, match="eval"):
        layer(x[None].expand(2, 3))


def test_dropout_has_one_mask_for_all_slots():
    jet = Jet(Univariate(1), torch.ones(1000), torch.ones(1, 1000))
    for layer in (torch.nn.Dropout(0.5), torch.nn.AlphaDropout(0.5)):
        y = layer(jet)
        dropped = y.value == y.value.min()
        assert 300 < int(dropped.sum()) < 700
        assert bool(((y.dense()[0] == 0) == dropped).all())


def test_elementwise_rules_refuse_what_they_would_drop(x):
    bounds = torch.ones(3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(TypeError, match="first argument"):
        ad.elementwise(lambda u, a: (u, u))(x, bounds)


def test_parameters_keep_their_gradients_through_a_decomposition(x):
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y = F.margin_ranking_loss(x * weight, torch.zeros(3, dtype=torch.float64), -torch.ones(3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(y.value, [weight])
    torch.testing.assert_close(gradient, torch.tensor([0.1, 0.0, 1.1 / 3], dtype=torch.float64))


def test_many_functions_have_a_rule():
    assert len(list(ad.registered())) > 400
