"""Batched optimizers against closed forms, SciPy and themselves run alone."""

import pytest
import scipy.optimize
import torch

from ude import ad
from ude.fit.adam import Adam
from ude.fit.lbfgs import LBFGS


def rosenbrock(x):
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def minimise(optimizer, loss_of, theta):
    state = optimizer.init(theta)
    while not optimizer.is_finished(state):
        x = state["theta"].clone().requires_grad_()
        loss = loss_of(x)
        loss.sum().backward()
        state = optimizer.update(state, loss.detach(), x.grad)
    return state


@pytest.fixture
def starts():
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(6, 10, generator=generator, dtype=torch.float64)


def test_lbfgs_minimises_rosenbrock_about_as_fast_as_scipy(starts):
    def value_and_grad(x):
        x = torch.tensor(x)[None].requires_grad_()
        loss = rosenbrock(x).sum()
        return loss.item(), ad.grad(loss, [x])[0][0].numpy()

    ours = minimise(LBFGS(iterations=2000, tolerance=1e-12), rosenbrock, starts)
    scipys = [
        scipy.optimize.minimize(
            value_and_grad, x.numpy(), jac=True, method="L-BFGS-B", options={"ftol": 1e-20, "maxcor": 30}
        )
        for x in starts
    ]
    # 1e-16: the gradient tolerance 1e-10 squared over the smallest curvature, with room.
    assert (ours["best_loss"] < 1e-16).all()
    assert int(ours["iteration"]) <= 1.5 * max(result.nfev for result in scipys)


def test_each_member_of_lbfgs_follows_exactly_the_path_it_follows_alone(starts):
    together = minimise(LBFGS(iterations=300), rosenbrock, starts)
    for i in range(len(starts)):
        alone = minimise(LBFGS(iterations=300), rosenbrock, starts[i : i + 1])
        assert torch.equal(alone["best"][0], together["best"][i])


def test_lbfgs_solves_a_quadratic_in_as_many_iterations_as_it_has_dimensions():
    # With an almost exact line search BFGS terminates in n steps; strong Wolfe needs a few more evaluations.
    scales = torch.tensor([[1.0, 4.0, 9.0, 16.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    state = minimise(LBFGS(iterations=40), lambda x: (scales * (x - 1) ** 2).sum(1), torch.zeros_like(scales))
    torch.testing.assert_close(state["best"], torch.ones_like(scales), rtol=1e-9, atol=1e-9)  # gradient 1e-10


def test_lbfgs_backs_out_of_a_region_where_the_loss_is_not_a_number():
    def log_barrier(x):
        return x.sum(1) - x.log().sum(1)  # NaN for x < 0, minimum at 1

    far = torch.tensor([[30.0, 0.01], [0.5, 2.0]], dtype=torch.float64)
    state = minimise(LBFGS(iterations=200), log_barrier, far)
    torch.testing.assert_close(state["best"], torch.ones_like(far), rtol=1e-8, atol=1e-8)  # gradient 1e-10


def test_lbfgs_freezes_a_member_whose_start_diverges_and_leaves_the_rest_alone(starts):
    poisoned = starts.clone()
    poisoned[2] = torch.nan
    state = minimise(LBFGS(iterations=300), rosenbrock, poisoned)
    alone = minimise(LBFGS(iterations=300), rosenbrock, starts)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(state["best"][others], alone["best"][others])
    assert state["best_loss"][2].isinf()


def test_adam_equals_the_published_algorithm_for_every_member(starts):
    ours = minimise(Adam(iterations=50, final_lr=1.0, lr=0.01, clip=1e9, eps=1e-8), rosenbrock, starts)
    theta = starts.clone().requires_grad_()
    reference = torch.optim.Adam([theta], lr=0.01, eps=1e-8)
    for _ in range(50):
        reference.zero_grad()
        rosenbrock(theta).sum().backward()
        reference.step()
    torch.testing.assert_close(ours["theta"], theta.detach(), rtol=1e-12, atol=1e-12)  # rounding, 50 steps


def test_adam_restores_a_diverged_member_with_a_smaller_rate_and_keeps_the_others_bit_for_bit():
    calls = 0

    def loss_of(x, poison):
        nonlocal calls
        calls += 1
        loss = ((x - 3) ** 2).sum(1)
        return torch.where(torch.tensor([poison and calls == 20, False]), torch.nan, loss)

    theta = torch.zeros(2, 3, dtype=torch.float64)
    clean = minimise(Adam(iterations=100, lr=0.2), lambda x: loss_of(x, False), theta)
    calls = 0
    state = minimise(Adam(iterations=100, lr=0.2), lambda x: loss_of(x, True), theta)
    assert torch.equal(state["theta"][1], clean["theta"][1])
    assert state["rate"].tolist() == [0.5, 1.0]
    assert state["best_loss"][0] < 1e-2 * 27  # 1 % of the loss at the start


def test_adam_halves_the_parameters_of_a_member_that_diverges_from_the_start():
    def loss_of(x):
        return torch.where(x.abs().amax(1) > 1, torch.nan, (x**2).sum(1))

    state = minimise(Adam(iterations=200), loss_of, torch.full((1, 2), 10.0, dtype=torch.float64))
    assert state["best_loss"][0] < 1.0


def test_adam_hands_over_when_no_member_makes_progress(starts):
    state = minimise(Adam(iterations=10_000, patience=20, lr=0.1), lambda x: (x**2).sum(1) + 1.0, starts)
    assert int(state["iteration"]) < 1000
