from __future__ import annotations

import pytest
import torch

from ude.ad import ode_series
from ude.models import DenseField


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def test_the_time_is_one_more_input_of_every_layer():
    field, y, t = DenseField((3, 5, 3), generator=seeded()), randn(4, 3), torch.tensor(0.7).double()
    w = dict(field.named_parameters())
    h = y
    for layer in range(2):
        joined = torch.cat([h, t.expand(4, 1)], dim=-1)
        matrix = torch.cat([w[f"weight{layer}"], w[f"time{layer}"].unsqueeze(-1)], dim=-1)
        h = torch.tanh(joined @ matrix.mT + w[f"bias{layer}"])
    # Sums in another order: rounding only.
    torch.testing.assert_close(field(t, y), h, rtol=1e-13, atol=1e-13)


def test_as_many_parameters_as_the_published_classifier():
    # 785 x 100 + 100 and 101 x 784 + 784.
    assert sum(p.numel() for p in DenseField((784, 100, 784)).parameters()) == 785 * 100 + 100 + 101 * 784 + 784


def test_an_autonomous_field_with_active_input_is_the_written_formula():
    field = DenseField((2, 4, 2), is_autonomous=True, activates_input=True, generator=seeded())
    w, y = dict(field.named_parameters()), randn(5, 2)
    hidden = torch.tanh(torch.tanh(y) @ w["weight0"].mT + w["bias0"])
    expected = torch.tanh(hidden @ w["weight1"].mT + w["bias1"])
    torch.testing.assert_close(field(3.0, y), expected, rtol=1e-13, atol=1e-13)
    assert torch.equal(field(3.0, y), field(-1.0, y))


def test_without_activation_of_the_output_the_last_layer_is_affine():
    bounded, free = (DenseField((2, 4, 2), activates_output=flag, generator=seeded()) for flag in (True, False))
    y = randn(5, 2)
    torch.testing.assert_close(torch.tanh(free(0.3, y)), bounded(0.3, y), rtol=1e-14, atol=0)


@pytest.mark.parametrize("batch", [(), (7,), (7, 3)])
def test_times_of_samples_give_the_row_by_row_result(batch):
    field, y, t = DenseField((2, 4, 2), generator=seeded()), randn(*batch, 2), randn(*batch, 1, seed=3)
    alone = [field(float(t_i), y_i) for t_i, y_i in zip(t.reshape(-1), y.reshape(-1, 2), strict=True)]
    torch.testing.assert_close(field(t, y), torch.stack(alone).reshape(y.shape), rtol=0, atol=1e-13)


def test_a_seed_repeats_the_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, again = DenseField((2, 4, 2), generator=seeded()), DenseField((2, 4, 2), generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert torch.equal(before, torch.get_rng_state())


def test_glorot_bounds_count_the_time_among_the_inputs():
    field = DenseField((50, 400, 50), generator=seeded())
    w = dict(field.named_parameters())
    bound = (6 / (51 + 400)) ** 0.5
    # The largest of 20,000 uniform numbers lies within a thousandth of the bound.
    assert 0.999 * bound < float(w["weight0"].detach().abs().max()) <= bound
    assert float(w["time0"].detach().abs().max()) <= bound
    assert float(w["bias0"].detach().abs().max()) == 0


def test_taylor_coefficients_go_through_the_field():
    # y'' = f_t + f_y f, from the kernel against nested reverse mode.
    field, y, t = DenseField((2, 4, 2), generator=seeded()), randn(3, 2), torch.tensor(0.3).double()
    series = ode_series(field, t, y, 2)
    rate = field(t, y)
    _, second = torch.func.jvp(field, (t, y), (torch.ones_like(t), rate))
    torch.testing.assert_close(2 * series[2], second, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wrong", [{"sizes": (3,)}, {"sizes": (3, 0, 3)}, {"sizes": (3, 3), "activation": "tanhh"}])
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        DenseField(**wrong)
