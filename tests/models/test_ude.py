from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ude._checks import InputError
from ude.models import MLP, UDE, Parameter, Parameters, Term


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def lotka_volterra(t, y, p):
    return p.a * y[..., 0] + 0.1 * t, -p.d * y[..., 1]


def lv_model(network=None, **options):
    network = MLP(2, 2, width=6, generator=seeded()) if network is None else network
    parameters = {"a": 1.3, "d": Parameter(1.8, positive=True)}
    return UDE(lotka_volterra, network, states=("x", "y"), parameters=parameters, **options)


def seir(t, y, p, u):
    """Known structure around two unknown terms, one of them called twice."""
    s, i = y[..., 0], y[..., 1]
    flow = u["f"](torch.stack([s, i], -1))[..., 0] + u["f"](torch.stack([i, s], -1))[..., 0]
    loss = u["g"](y[..., 1:])[..., 0]
    return -flow * s + p.temperature, flow * s - p.gamma * i + loss * t


def seir_model(**options):
    terms = {
        "f": Term(MLP(2, 1, width=4, generator=seeded(2)), inputs=("S", "I"), outputs=("flow",)),
        "g": Term(MLP(1, 1, width=4, generator=seeded(3)), inputs=("I",), outputs=("loss",)),
    }
    return UDE(seir, terms, states=("S", "I"), parameters={"gamma": 0.2}, inputs=("temperature",), **options)


def test_known_part_and_network_are_added():
    model, y = lv_model(), randn(5, 2)
    expected = torch.stack([1.3 * y[:, 0] + 0.2, -1.8 * y[:, 1]], -1) + model.terms["U"].network(y)
    torch.testing.assert_close(model(2.0, y), expected, rtol=1e-14, atol=1e-14)


def test_two_positional_arguments_are_time_and_state():
    model = UDE(lambda t, y: -y, MLP(3, 3), states=("a", "b", "c"))
    y = randn(4, 3)
    torch.testing.assert_close(model(0.0, y), -y + model.terms["U"](y))


def test_named_columns_of_a_term_are_gathered_and_added():
    term = Term(MLP(3, 1, generator=seeded()), inputs=("y", "t", "heat"), outputs=("x",))
    model = UDE(lambda t, y: 0 * y, term, states=("x", "y"), inputs=("heat",))
    y, heat = randn(4, 2), randn(4, 1, seed=5)
    x = torch.stack([y[:, 1], torch.full((4,), 0.3, dtype=torch.float64), heat[:, 0]], -1)
    rate = model(0.3, y, heat)
    torch.testing.assert_close(rate[:, :1], term.network(x))
    assert rate[:, 1].abs().max() == 0


@pytest.mark.parametrize("time", ["number", "scalar", "column", "row"])
@pytest.mark.parametrize("batch", [(), (7,), (7, 3)])
def test_time_of_any_layout_gives_the_row_by_row_result(time, batch):
    model, y = lv_model(), randn(*batch, 2)
    t = randn(*batch, seed=3)
    t = {"number": 0.5, "scalar": torch.tensor(0.5).double(), "column": t[..., None], "row": t}[time]
    rate = model(t, y)
    rows = t.reshape(-1) if time in ("column", "row") else [0.5] * max(1, y.numel() // 2)
    alone = [model(t_i, y_i) for t_i, y_i in zip(rows, y.reshape(-1, 2), strict=True)]
    torch.testing.assert_close(rate, torch.stack(alone).reshape(y.shape), rtol=0, atol=1e-13)


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).double()

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("network", [MLP(2, 2, width=6), Custom()], ids=["mlp", "custom"])
@pytest.mark.parametrize("groups", [1, 4])
def test_members_equal_single_models_in_every_layout(network, groups):
    many = lv_model(network).replicate(3, seeded())
    y, t = randn(3, groups, 2), randn(3, groups, seed=9)
    flat, column = y.reshape(-1, 2), t.reshape(-1, 1)
    alone = torch.stack([many.member(k)(t[k], y[k]) for k in range(3)])
    torch.testing.assert_close(many(t, y), alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(many(column, flat), alone.reshape(-1, 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(many(column.reshape(3, groups, 1), y), alone, rtol=0, atol=1e-12)
    deep = y[:, :, None].expand(3, groups, 2, 2)
    torch.testing.assert_close(many(0.5, deep)[:, :, 1], many(0.5, y), rtol=0, atol=1e-12)


def test_members_equal_single_models_with_several_terms_and_inputs():
    many = seir_model().replicate(3, seeded())
    y, heat = randn(12, 2), randn(12, 1, seed=4)
    alone = [many.member(k)(0.5, y[4 * k : 4 * k + 4], heat[4 * k : 4 * k + 4]) for k in range(3)]
    torch.testing.assert_close(many(0.5, y, heat), torch.cat(alone), rtol=0, atol=1e-12)


def test_every_parameter_of_a_replicated_model_has_a_leading_axis():
    many = seir_model().replicate(3, seeded())
    assert {p.shape[0] for p in many.parameters()} == {3}
    assert many.physical.values()["gamma"][0].item() == pytest.approx(0.2)
    assert len(set(many.physical.values()["gamma"].tolist())) == 3


def test_states_that_do_not_fit_the_replicates_are_refused():
    many = lv_model().replicate(3, seeded())
    with pytest.raises(ValueError, match=r"\(3 \* groups, states\), got \(4, 2\)"):
        many(0.0, randn(4, 2))


def test_record_gives_inputs_and_outputs_of_each_term():
    model, y, heat = seir_model(), randn(5, 2), randn(5, 1, seed=4)
    tape = model.record(0.5, y, heat)
    inputs, outputs = tape["f"]
    torch.testing.assert_close(inputs, torch.cat([y, y.flip(-1)]))
    torch.testing.assert_close(outputs, model.terms["f"](inputs))
    assert tape["g"][0].shape == (5, 1)
    many = lv_model().replicate(3, seeded())
    assert many.record(0.0, randn(3, 4, 2))["U"][0].shape == (3, 4, 2)
    assert many.record(0.0, randn(12, 2))["U"][0].shape == (12, 2)


def test_replace_takes_unscaled_inputs_and_leaves_the_original_alone():
    model, y = lv_model(), randn(6, 2)
    model.scale_terms(torch.zeros(6), y, torch.ones(2))
    before = model(0.0, y)

    class Product(nn.Module):
        def forward(self, x):
            return torch.stack([-0.9 * x[..., 0] * x[..., 1], 0.8 * x[..., 0] * x[..., 1]], -1)

    exact = model.replace("U", Product())
    expected = torch.stack([1.3 * y[:, 0] - 0.9 * y.prod(-1), -1.8 * y[:, 1] + 0.8 * y.prod(-1)], -1)
    torch.testing.assert_close(exact(0.0, y), expected, rtol=1e-14, atol=1e-14)
    assert torch.equal(model(0.0, y), before)
    with pytest.raises(ValueError, match="no unknown term 'V'"):
        model.replace("V", Product())


def test_scaling_makes_network_inputs_and_effects_of_order_one():
    model = seir_model()
    y = torch.stack([1e7 + 1e5 * randn(50), 50 + 10 * randn(50, seed=2)], -1)
    model.scale_terms(torch.ones(50), y, torch.tensor([1e3, 1e3]).double(), 0 * y[:, :1])
    f, g = model.terms["f"], model.terms["g"]
    z = (y[:, 1:] - g.input_shift) / g.input_scale
    assert z.mean().abs() < 1e-12
    assert z.std(correction=0) == pytest.approx(1.0)
    # The rate changes by 2 S per unit of the flow (two calls) and by t = 1 per unit of the loss.
    assert f.output_scale.item() == pytest.approx(1e3 / (2 * y[:, 0].square().mean().sqrt().item()))
    assert g.output_scale.item() == pytest.approx(1e3)


def test_gradcheck_with_respect_to_state_networks_and_physical_parameters():
    model = seir_model()
    names = [name for name, _ in model.named_parameters()]

    def field(t, y, heat, *values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (t, y, heat))

    leaves = [p.detach().clone().requires_grad_() for p in model.parameters()]
    t, y, heat = randn(4, seed=6), randn(4, 2), randn(4, 1, seed=7)
    assert torch.autograd.gradcheck(field, (t.requires_grad_(), y.requires_grad_(), heat.requires_grad_(), *leaves))


@pytest.mark.parametrize("replicates", [None, 3])
def test_compiles_without_a_break(replicates):
    torch._dynamo.reset()
    model = seir_model(positive=("I",))
    model = model if replicates is None else model.replicate(replicates, seeded())
    field = model.latent_field()
    t, y, heat = randn(6, 1), randn(6, 2), randn(6, 1, seed=4)
    compiled = torch.compile(field, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(t, y, heat), field(t, y, heat), rtol=1e-13, atol=1e-13)


def test_a_replicated_custom_module_compiles_without_a_break():
    torch._dynamo.reset()
    model, y = lv_model(Custom()).replicate(3, seeded()), randn(6, 2)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(0.5, y), model(0.5, y), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("positive", [(), ("I",), ("S", "I")])
def test_log_coordinates_follow_the_chain_rule(positive):
    model, heat = seir_model(positive=positive), randn(5, 1, seed=4)
    y = randn(5, 2).abs() + 0.1
    z = model.coordinates.encode(y)
    torch.testing.assert_close(model.coordinates.decode(z), y, rtol=1e-14, atol=1e-14)
    velocity = model.latent_field()(0.5, z, heat)
    _, rate = torch.func.jvp(model.coordinates.decode, (z,), (velocity,))
    torch.testing.assert_close(rate, model(0.5, y, heat), rtol=1e-13, atol=1e-13)


def test_log_coordinates_give_the_trajectory_of_the_plain_field():
    model = lv_model(positive=("x", "y"))

    def rk4(f, y, steps=400, dt=0.005):
        for n in range(steps):
            k1 = f(n * dt, y)
            k2 = f((n + 0.5) * dt, y + 0.5 * dt * k1)
            k3 = f((n + 0.5) * dt, y + 0.5 * dt * k2)
            k4 = f((n + 1) * dt, y + dt * k3)
            y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y

    y0 = torch.tensor([1.0, 2.0]).double()
    model = model.replace("U", nn.Identity())
    logs = model.coordinates.decode(rk4(model.latent_field(), model.coordinates.encode(y0)))
    # Both discretisations have error about dt**4 = 6e-10 times the fifth derivative, of order ten.
    torch.testing.assert_close(logs, rk4(model, y0), rtol=1e-7, atol=0)


def test_a_positive_state_must_start_positive():
    model = lv_model(positive=("y",))
    with pytest.raises(InputError, match="'y' is kept positive, but one of its values is 0"):
        model.coordinates.encode(torch.tensor([1.0, 0.0]))


def test_parameters_keep_their_sign_and_bounds():
    specs = {
        "free": Parameter(-2.0),
        "rate": Parameter(0.5, positive=True),
        "share": Parameter(0.3, bounds=(0.0, 1.0)),
        "known": Parameter(4.0, learnable=False),
    }
    p = Parameters(specs)
    assert {k: v.item() for k, v in p.values().items()} == pytest.approx({k: s.initial for k, s in specs.items()})
    with torch.no_grad():
        p.raw.fill_(-30.0)
    assert p.values()["rate"] > 0
    assert p.values()["share"] >= 0
    p.set_values({"rate": 2.0, "share": 0.9})
    assert p.values()["rate"].item() == pytest.approx(2.0)
    assert p.values()["share"].item() == pytest.approx(0.9)
    assert p.raw.shape == (3,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, True), "start above zero"),
        ((float("nan"),), "finite"),
        ((2.0, False, (0.0, 1.0)), "within `bounds`"),
    ],
)
def test_an_impossible_start_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Parameter(*arguments)


def test_a_misspelt_parameter_is_named_with_the_nearest():
    model = UDE(lambda t, y, p: p.grwth * y, None, states=("x",), parameters={"growth": 1.0})
    with pytest.raises(AttributeError, match="Did you mean 'growth'"):
        model(0.0, torch.ones(1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UDE(lambda t: t, MLP(1, 1)), "takes 1 positional"),
        (lambda: UDE(lambda t, y, p, u: y, MLP(1, 1)), "Name the states"),
        (lambda: UDE(lambda t, y: y, Term(MLP(1, 1), ("q",), ("x",)), states=("x",)), r"names \['q'\]"),
        (lambda: UDE(lambda t, y: y, None, states=("x",), parameters={"x": 1.0}), "used twice"),
        (lambda: UDE(lambda t, y: y, None, states=("x",), positive=("z",)), "not among the states"),
        (lambda: Term(MLP(2, 1), ("x",), ("y",)), "in_features=2, but 1 inputs"),
        (lambda: UDE(lambda t, y: y[..., :1], None, states=("x", "y"))(0.0, torch.ones(2)), "a rate for every state"),
        (lambda: lv_model().member(0), "no replicates"),
        (lambda: UDE(lambda t, y, p: p.k * y, MLP(1, 1), parameters={"k": 1.0}).replicate(3), r"p.k\[..., None\] \* y"),
        (lambda: lv_model()(0.0, torch.ones(3)), "must hold the states"),
        (lambda: UDE(lambda t, y: y, {"pop": MLP(1, 1)}, states=("x",)), "cannot be called 'pop'"),
        (lambda: seir_model()(0.0, torch.ones(2)), r"model\(t, y, signal\)"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_model_without_unknown_terms_has_replicates_of_its_parameters():
    model = UDE(
        lambda t, y, p: -p.k[..., None] * y, None, states=("x", "z"), parameters={"k": Parameter(2.0, positive=True)}
    )
    many, y = model.replicate(3, seeded()), torch.ones(3, 5, 2).double()
    torch.testing.assert_close(many(0.0, y)[1], many.member(1)(0.0, y[1]), rtol=0, atol=1e-14)
    assert (many.physical.values()["k"] > 0).all()
    assert many.record(0.0, y) == {}


def test_a_model_can_be_copied_and_its_state_restored():
    model = seir_model().replicate(2, seeded())
    other = copy.deepcopy(seir_model()).replicate(2, seeded(8))
    other.load_state_dict(model.state_dict())
    y, heat = randn(4, 2), randn(4, 1)
    assert torch.equal(model(0.1, y, heat), other(0.1, y, heat))
