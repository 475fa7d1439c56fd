"""Programs written for torchdiffeq, short ones of the kinds its users write: only the import changes."""

from __future__ import annotations

import math

import pytest
import torch
import torchdiffeq
from torch import nn

import ude.compat

F64 = torch.float64


def both(program):
    """Run a program with either library, from the same seed."""
    results = []
    for library in (ude.compat, torchdiffeq):
        torch.manual_seed(0)
        results.append(program(library))
    return results


class Cubic(nn.Module):
    """A network on the cubes of the state."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 2))
        for layer in (self.net[0], self.net[2]):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)

    def forward(self, t, y):
        return self.net(y**3)


@pytest.mark.parametrize(
    ("method", "interface"),
    [
        ("dopri5", "odeint"),
        ("rk4", "odeint"),
        ("dopri5", "odeint_adjoint"),
        pytest.param("rk4", "odeint_adjoint", marks=pytest.mark.slow),
    ],
)
def test_a_neural_ode_learns_a_spiral(interface, method):
    def program(library):
        odeint = getattr(library, interface)
        matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
        t = torch.linspace(0.0, 10.0, 200)
        with torch.no_grad():
            truth = library.odeint(lambda t, y: torch.mm(y**3, matrix), torch.tensor([[2.0, 0.0]]), t)
        model = Cubic()
        optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)
        losses = []
        for _ in range(12):
            first = torch.randint(0, 190, (10,))
            wanted = torch.stack([truth[first + i] for i in range(8)])
            optimizer.zero_grad()
            predicted = odeint(model, truth[first], t[:8], method=method, rtol=1e-5, atol=1e-6)
            loss = (predicted - wanted).abs().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    ours, theirs = both(program)
    assert ours[-1] < ours[0]
    # Twelve steps of an optimizer in single precision, tolerance 1e-5.
    assert ours == pytest.approx(theirs, rel=1e-3)


class Ball(nn.Module):
    """A ball that falls and bounces, with its own loop over the bounces."""

    def __init__(self, library):
        super().__init__()
        self.library = library
        self.gravity = nn.Parameter(torch.tensor([9.8], dtype=F64))
        self.log_radius = nn.Parameter(torch.log(torch.tensor([1.0], dtype=F64)))
        self.height = nn.Parameter(torch.tensor([10.0], dtype=F64))
        self.velocity = nn.Parameter(torch.tensor([0.0], dtype=F64))

    def forward(self, t, state):
        return state[1], -self.gravity, torch.zeros_like(state[2])

    def touches(self, t, state):
        height, _, log_radius = state
        return height - torch.exp(log_radius)

    def bounce(self, state):
        height, velocity, log_radius = state
        return height + 1e-7, -0.9 * velocity, log_radius

    def times(self, count):
        t, state = torch.zeros(1, dtype=F64), (self.height, self.velocity, self.log_radius)
        times = []
        for _ in range(count):
            t, solution = self.library.odeint_event(
                self, state, t, event_fn=self.touches, reverse_time=False, atol=1e-8, rtol=1e-8
            )
            state = self.bounce(tuple(part[-1] for part in solution))
            times.append(t.reshape(()))
        return torch.stack(times)


def test_a_ball_bounces_at_the_right_times_with_the_right_gradients():
    def program(library):
        ball = Ball(library)
        times = ball.times(4)
        times.sum().backward()
        return times.detach(), [p.grad for p in ball.parameters()]

    (times, gradients), (their_times, their_gradients) = both(program)
    torch.testing.assert_close(times, their_times, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(gradients, their_gradients, rtol=1e-5, atol=1e-6)
    # Fall through 9, then flights of twice the speed over gravity, 0.9 times as fast each.
    fall, speed = math.sqrt(2 * 9 / 9.8), math.sqrt(2 * 9 * 9.8)
    expected = [fall + sum(2 * 0.9**i * speed / 9.8 for i in range(1, n + 1)) for n in range(4)]
    assert times.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
def test_gravity_and_threshold_are_learned_from_the_times_of_events(interface):
    def program(library):
        class Drop(nn.Module):
            def __init__(self):
                super().__init__()
                self.gravity = nn.Parameter(torch.tensor([5.0], dtype=F64))
                self.floor = nn.Parameter(torch.tensor([0.5], dtype=F64))

            def forward(self, t, state):
                return state[1], -self.gravity, torch.zeros_like(state[2])

        drop = Drop()
        optimizer = torch.optim.Adam(drop.parameters(), lr=0.2)
        losses, heights = [], [2.0, 9.0]
        for _ in range(15):
            loss = torch.zeros(())
            for height in heights:
                # The floor is part of the state, where torchdiffeq finds its gradient.
                start = (torch.tensor([height], dtype=F64), torch.zeros(1, dtype=F64), drop.floor)
                t, _ = library.odeint_event(
                    drop,
                    start,
                    torch.zeros(1, dtype=F64),
                    event_fn=lambda t, state: state[0] - state[2],
                    odeint_interface=getattr(library, interface),
                    rtol=1e-6,
                    atol=1e-8,
                )
                loss = loss + (t - math.sqrt(2 * (height - 1.0) / 9.8)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, [p.detach() for p in drop.parameters()]

    (losses, learned), (_, their_learned) = both(program)
    assert losses[-1] < 0.1 * losses[0]
    torch.testing.assert_close(learned, their_learned, rtol=1e-4, atol=1e-4)


def test_a_latent_ode_trains():
    def program(library):
        class Latent(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder = nn.GRU(2, 8, batch_first=True)
                self.head = nn.Linear(8, 6)
                self.dynamics = nn.Sequential(nn.Linear(3, 16), nn.ELU(), nn.Linear(16, 3))
                self.decoder = nn.Linear(3, 2)

            def forward(self, xs, t):
                _, hidden = self.encoder(xs.flip(1))
                mean, log_variance = self.head(hidden[0]).chunk(2, dim=-1)
                z0 = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
                zs = library.odeint(lambda t, z: self.dynamics(z), z0, t, rtol=1e-4, atol=1e-5).permute(1, 0, 2)
                divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
                return self.decoder(zs), divergence

        t = torch.linspace(0.0, 2.0, 9)
        angles = t + torch.rand(16, 1)
        data = torch.stack([angles.cos(), angles.sin()], -1)
        model = Latent()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        losses = []
        for _ in range(10):
            predicted, divergence = model(data, t)
            loss = (predicted - data).square().sum((1, 2)).mean() + 0.01 * divergence.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    ours, theirs = both(program)
    assert ours[-1] < 0.8 * ours[0]
    assert ours == pytest.approx(theirs, rel=1e-2)


def test_a_continuous_normalizing_flow_has_the_same_density_and_gradient():
    def program(library):
        class Flow(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).double()

            def forward(self, t, state):
                z = state[0]
                with torch.enable_grad():
                    z = z.requires_grad_(True)
                    dz = self.net(torch.cat([z, t.expand(len(z), 1)], -1))
                    trace = sum(
                        torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(z.shape[1])
                    )
                return dz, -trace.reshape(len(z), 1)

        flow = Flow()
        x = torch.randn(12, 2, dtype=F64)
        zs, changes = library.odeint_adjoint(
            flow,
            (x, torch.zeros(12, 1, dtype=F64)),
            torch.tensor([1.0, 0.0], dtype=F64),
            atol=1e-7,
            rtol=1e-7,
            method="dopri5",
            adjoint_options={"norm": "seminorm"},
        )
        log_density = -0.5 * zs[-1].square().sum(-1) - math.log(2 * math.pi) - changes[-1][:, 0]
        log_density.mean().backward()
        return log_density.detach(), [p.grad for p in flow.parameters()]

    (density, gradients), (their_density, their_gradients) = both(program)
    torch.testing.assert_close(density, their_density, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients, their_gradients, rtol=1e-4, atol=1e-6)


def test_a_field_that_counts_its_evaluations_and_reads_a_signal():
    def program(library):
        class Driven(nn.Module):
            def __init__(self):
                super().__init__()
                self.nfe = 0
                self.rate = nn.Parameter(torch.tensor(0.5))
                self.ts, self.us = torch.linspace(0.0, 4.0, 9), torch.sin(torch.arange(9.0))

            def forward(self, t, y):
                self.nfe += 1
                i = torch.searchsorted(self.ts, t.detach()).clamp(1, 8)
                weight = (t - self.ts[i - 1]) / (self.ts[i] - self.ts[i - 1])
                return -self.rate * y + torch.lerp(self.us[i - 1], self.us[i], weight)

        model = Driven()
        options = {"jump_t": model.ts[1:-1]}
        ys = library.odeint(model, torch.zeros(3), torch.linspace(0.0, 4.0, 5), rtol=1e-5, atol=1e-6, options=options)
        ys.sum().backward()
        return ys.detach(), model.rate.grad, model.nfe

    (ys, gradient, nfe), (their_ys, their_gradient, their_nfe) = both(program)
    torch.testing.assert_close(ys, their_ys, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-3, atol=1e-4)
    assert nfe <= 1.1 * their_nfe
