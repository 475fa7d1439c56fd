import dataclasses

import pytest
import torch

from ude.bsde import EqualSteps, SemilinearPDE, black_scholes_barenblatt, burgers_type
from ude.bsde.rollout import estimate, follow


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@dataclasses.dataclass
class Known:
    """A model that knows the gradient; its guess of the value is off."""

    field: object
    guess: float

    def start(self):
        return torch.tensor(self.guess, dtype=torch.float64)

    def gradients(self, paths):
        return self.gradient(paths.times, paths.states)

    def gradient(self, t, x):
        return self.field(t, x)


def drawer(equation, steps):
    generator = seeded()
    return lambda count: steps.draw(equation.pde, equation.x0, 0.0, count, generator)


def exact_gradient(equation):
    def field(t, x):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(equation.exact(t, x).sum(), x)[0]

    return field


@pytest.mark.parametrize("family", [burgers_type, black_scholes_barenblatt])
def test_the_exact_solution_ends_in_the_terminal_value_as_steps_shrink(family):
    equation = family(5)
    field, value, sizes = exact_gradient(equation), torch.tensor(equation.value, dtype=torch.float64), []
    for steps in (16, 64, 256):
        paths = EqualSteps(steps=steps).draw(equation.pde, equation.x0, 0.0, 2000, seeded())
        missed = follow(equation.pde, paths, value, field(paths.times, paths.states))
        sizes.append(float(missed.square().mean().sqrt()))
    # The scheme of Euler and Maruyama has strong order 1/2: a factor of 2 each.
    assert sizes[0] / sizes[1] == pytest.approx(2.0, rel=0.15)
    assert sizes[1] / sizes[2] == pytest.approx(2.0, rel=0.15)


def test_with_the_exact_gradient_fresh_paths_find_the_value_from_any_guess():
    equation, steps = burgers_type(5), EqualSteps(steps=100)
    found = [
        estimate(
            equation.pde,
            Known(exact_gradient(equation), guess),
            drawer(equation, steps),
            1000,
        )
        for guess in (0.2, 0.9)
    ]
    # Four steps of Newton's method: the last by means over the same paths.
    assert found[0].u0 == pytest.approx(found[1].u0, rel=1e-6)
    assert found[0].u0 == pytest.approx(equation.value, abs=4 * found[0].standard_error)
    assert found[0].standard_error < 5e-3


def test_without_a_gradient_the_estimate_is_the_plain_monte_carlo_mean_discounted():
    rate, steps = 0.3, EqualSteps(steps=10)
    pde = SemilinearPDE(
        drift=0.0, diffusion=1.0, f=lambda t, x, u, p: -rate * u, g=lambda x: (x**2).sum(-1, keepdim=True), t1=1.0
    )
    x0 = torch.zeros(2, dtype=torch.float64)
    generator = seeded(3)
    found = estimate(
        pde, Known(lambda t, x: torch.zeros_like(x), 0.0), lambda n: steps.draw(pde, x0, 0.0, n, generator), 700
    )
    # The first chunk of 256 only starts Newton's method; then come 256, 256 and 188 paths.
    again = seeded(3)
    ends = [pde.terminal(steps.draw(pde, x0, 0.0, n, again).end) for n in (256, 256, 256, 188)]
    values = torch.cat(ends[1:])
    growth = (1 + rate * 0.1) ** 10
    assert found.u0 == pytest.approx(float(values.mean()) / growth, rel=1e-9)
    assert found.standard_error == pytest.approx(float(values.std()) / growth / 700**0.5, rel=1e-6)
    assert found.mismatch == pytest.approx(float(values.std(correction=0)), rel=1e-6)
