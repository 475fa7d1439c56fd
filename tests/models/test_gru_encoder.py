from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from ude.models import GRUEncoder


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def series(batch=5, times=7, features=3, dtype=torch.float64):
    """Measurements with gaps: the first sample has none at all, and some samples none at some times."""
    generator = seeded(1)
    mask = torch.rand(batch, times, features, generator=generator) < 0.4
    mask[0] = False
    mask[:, 2] &= torch.arange(batch).unsqueeze(-1) > 2
    data = torch.rand(batch, times, features, generator=generator, dtype=torch.float64) * mask
    ts = torch.rand(times, generator=generator, dtype=torch.float64).cumsum(0)
    return data.to(dtype), mask, ts.to(dtype)


def encoder(dtype=torch.float64, seed=0):
    model = GRUEncoder(3, latent=2, state=4, gate_width=5, head_width=6, generator=seeded(seed), dtype=dtype)
    for name, bias in model.named_parameters():
        if "bias" in name:
            torch.nn.init.uniform_(bias, -0.5, 0.5, generator=seeded(len(name)))
    return model


def cell_by_cell(model, data, mask, ts):
    """Return the last state, with the equations written as they are read."""
    first = torch.cat([torch.cat([model.gate_weight, model.candidate_weight]), model.input_weight], dim=-1)
    weights, biases = first.split(model.gate_width), model.input_bias.split(model.gate_width)
    mean = std = data.new_zeros(len(data), model.state)
    for i in reversed(range(len(ts))):
        gap = ts[i + 1] - ts[i] if i + 1 < len(ts) else ts.new_zeros(())
        x = torch.cat([data[:, i], mask[:, i].to(data.dtype), gap.expand(len(data), 1)], dim=-1)
        seen = torch.cat([mean, std, x], dim=-1)
        update, reset = (
            torch.sigmoid(
                linear(
                    torch.tanh(linear(seen, weights[k], biases[k])), model.gate_out_weight[k], model.gate_out_bias[k]
                )
            )
            for k in range(2)
        )
        seen = torch.cat([mean * reset, std * reset, x], dim=-1)
        hidden = torch.tanh(linear(seen, weights[2], biases[2]))
        new_mean, new_std = linear(hidden, model.candidate_out_weight, model.candidate_out_bias).chunk(2, dim=-1)
        measured = mask[:, i].any(-1, keepdim=True)
        mean, std = (
            torch.where(measured, (1 - update) * old + update * new, old)
            for old, new in ((mean, new_mean), (std, new_std))
        )
    return torch.cat([mean, std], dim=-1)


def flat(posterior):
    return torch.cat([posterior.mean, posterior.log_variance], dim=-1)


def test_value_and_gradient_are_those_of_the_equations_cell_by_cell():
    model, (data, mask, ts) = encoder(), series()
    ours, theirs = flat(model(data, mask, ts)), model.head(cell_by_cell(model, data, mask, ts))
    # Sums in another order, and tanh by way of sigma: rounding only.
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    cotangent = torch.randn(ours.shape, generator=seeded(2), dtype=ours.dtype)
    gradients = (torch.autograd.grad((y * cotangent).sum(), list(model.parameters())) for y in (ours, theirs))
    for own, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-11, atol=1e-13)
        assert expected.abs().max() > 0


def test_gradients_are_those_of_finite_differences():
    model, (data, mask, ts) = encoder(), series(batch=4, times=4)
    names, values = zip(*model.named_parameters(), strict=True)

    def encode(data, ts, *values):
        return flat(torch.func.functional_call(model, dict(zip(names, values, strict=True)), (data, mask, ts)))

    inputs = [data, ts, *(value.detach() for value in values)]
    assert torch.autograd.gradcheck(encode, [x.requires_grad_() for x in inputs])


def test_without_any_measurement_the_state_stays_at_its_start():
    model, (data, mask, ts) = encoder(), series()
    posterior = model(data, mask, ts)
    torch.testing.assert_close(flat(posterior)[0], model.head(torch.zeros(8, dtype=torch.float64)), rtol=0, atol=1e-15)


def test_samples_do_not_feel_each_other():
    model, (data, mask, ts) = encoder(), series()
    alone = torch.cat([flat(model(data[i : i + 1], mask[i : i + 1], ts)) for i in range(len(data))])
    torch.testing.assert_close(flat(model(data, mask, ts)), alone, rtol=0, atol=1e-13)


def test_it_reads_backwards():
    # A time without measurements before the first one is read last, and leaves the state as it is.
    model, (data, mask, ts) = encoder(), series()
    longer = [torch.cat([torch.zeros_like(x[:, :1]), x], dim=1) for x in (data, mask)]
    early = torch.cat([ts[:1] - 0.5, ts])
    torch.testing.assert_close(flat(model(*longer, early)), flat(model(data, mask, ts)), rtol=0, atol=1e-15)


def test_single_precision_agrees_with_double():
    single, double = encoder(torch.float32), encoder()
    single.load_state_dict(double.state_dict())
    posterior = single(*series(dtype=torch.float32))
    assert posterior.mean.dtype == torch.float32
    # Seven steps of sums of some ten numbers of order one, in single precision.
    torch.testing.assert_close(flat(posterior).double(), flat(double(*series())), rtol=0, atol=1e-5)


def test_as_many_parameters_as_the_published_encoder():
    # Update and reset gate: 175 - 40 - 50; candidate 175 - 40 - 100; head 100 - 50 - 40.
    gate, candidate = 176 * 40 + 41 * 50, 176 * 40 + 41 * 100
    model = GRUEncoder(37)
    assert sum(p.numel() for p in model.parameters()) == 2 * gate + candidate + 101 * 50 + 51 * 40


def test_a_seed_repeats_the_weights_and_a_state_dict_moves_them():
    before = torch.get_rng_state()
    make = lambda seed: GRUEncoder(3, latent=2, generator=seeded(seed))  # noqa: E731
    first, again, other = make(0), make(0), make(1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first(*series()).mean, other(*series()).mean)
    other.load_state_dict(first.state_dict())
    assert torch.equal(first(*series()).mean, other(*series()).mean)


def test_a_second_derivative_raises_instead_of_being_wrong():
    model = encoder()
    value = flat(model(*series())).square().sum()
    (gradient,) = torch.autograd.grad(value, [model.gate_weight], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        gradient.square().sum().backward()


def test_wrong_arguments_are_refused():
    model, (data, mask, ts) = encoder(), series()
    with pytest.raises(ValueError, match="must be at least 1"):
        GRUEncoder(3, state=0)
    with pytest.raises(ValueError, match=r"must have shape \(batch, times, 3\)"):
        model(data[..., :2], mask[..., :2], ts)
    with pytest.raises(ValueError, match=r"must have shape \(batch, times, 3\)"):
        model(data, mask[:, 1:], ts)
    with pytest.raises(ValueError, match="must hold the 7 times"):
        model(data, mask, ts[1:])
    with pytest.raises(ValueError, match="dtype of the parameters"):
        model(data.float(), mask, ts)
