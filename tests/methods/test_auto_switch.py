"""Steps that are explicit or implicit as the problem asks: when they change, and that nothing else does."""

import pytest
import torch

import ude
from ude.methods import BS3, RK4, AutoSwitch, Dopri5, Method, Rodas5P, Rosenbrock23, Tsit5, Vern7
from ude.methods.bdf import BDF
from ude.methods.esdirk import TRBDF2
from ude.nonlinear import GMRES

F64 = torch.float64
SWITCH = AutoSwitch(Tsit5(), Rodas5P())


def numbers(*values):
    return torch.tensor(values, dtype=F64)


def decay(rate):
    """A fast and a slow component, coupled and driven in time."""
    rate = rate if isinstance(rate, torch.Tensor) else numbers(rate)

    def f(t, y):
        a, b = y.unbind(-1)
        return torch.stack([-rate * (a - torch.cos(t)) - b, -0.5 * b + torch.sin(t) * a], -1)

    return f


def made_implicit(result, method=SWITCH):
    """Which samples went the implicit way: their explicit stages are zero."""
    return torch.stack([(stage == 0.0).all(-1) for stage in result.stages[: method.stages[0]]]).all(0)


def advance(method, f, y, lengths, t=0.0):
    """Take steps of these lengths; return their results."""
    time, results = numbers(t).expand(len(y)), []
    carry = method.init(f, time, y)
    for length in lengths:
        dt = torch.as_tensor(length, dtype=F64).expand(len(y))
        result = method.step(f, time, dt, y, carry)
        time, y, carry = time + dt, result.y1, result.carry
        results.append(result)
    return results


def test_goes_over_after_more_than_ten_stiff_steps_and_back_after_more_than_three_calm_ones():
    # 3.3 of the 3.5 that are stable; then steps that are a hundred times shorter.
    results = advance(SWITCH, decay(100.0), numbers(1.0, 1.0)[None], [0.033] * 14 + [0.00033] * 6)
    implicit = [bool(made_implicit(result)) for result in results]
    assert implicit == [False] * 11 + [True] * 3 + [True] * 4 + [False] * 2


@pytest.mark.parametrize("method", [SWITCH, AutoSwitch(Dopri5(), TRBDF2())], ids=str)
def test_every_step_is_that_of_the_method_that_makes_it(method):
    f, y, t = decay(100.0), numbers(1.0, 1.0)[None], numbers(0.0)
    # Both carry a last stage from step to step, which is out of date after steps of the other; the last steps go over
    # to the implicit method a second time.
    lengths = [0.033] * 14 + [0.00033] * 6 + [0.033] * 14
    results = advance(method, f, y, lengths)
    assert [bool(made_implicit(result, method)) for result in results[-4:]] == [False, True, True, True]
    for length, result in zip(lengths, results, strict=True):
        single = method.stiff if made_implicit(result, method) else method.nonstiff
        alone = single.step(f, t, numbers(length), y, single.init(f, t, y))
        for name in ("y1", "error", "stiffness"):
            # Times that were added up in another order, and the end of iterations.
            torch.testing.assert_close(getattr(result, name), getattr(alone, name), rtol=1e-8, atol=1e-13)
        t, y = t + length, result.y1


def test_single_stiff_steps_do_not_count_for_ever():
    # One stiff step in six: four of the others make up for it.
    results = advance(SWITCH, decay(100.0), numbers(1.0, 1.0)[None], ([0.033] + [0.001] * 5) * 20)
    assert not any(bool(made_implicit(result)) for result in results)
    # Every second step is stiff: at the limit of stability.
    results = advance(SWITCH, decay(100.0), numbers(1.0, 1.0)[None], [0.033, 0.030] * 20)
    assert made_implicit(results[-1])


@pytest.mark.parametrize(
    "method", [SWITCH, AutoSwitch(Vern7(), Rosenbrock23()), AutoSwitch(Dopri5(), TRBDF2())], ids=str
)
def test_samples_of_a_batch_go_their_own_ways(method):
    rates = numbers(1.0, 120.0, 600.0)
    f, y, lengths = decay(rates), torch.ones(3, 2, dtype=F64), [0.03] * 16
    together = advance(method, f, y, lengths)
    for i in range(3):
        alone = advance(method, decay(rates[i : i + 1]), y[i : i + 1], lengths)
        for whole, one in zip(together, alone, strict=True):
            assert made_implicit(whole, method)[i] == made_implicit(one, method)[0]
            # The iterations of one sample do not depend on the others; roundings do.
            torch.testing.assert_close(whole.y1[i : i + 1], one.y1, rtol=1e-7, atol=1e-12)
            torch.testing.assert_close(whole.stages[0][i : i + 1], one.stages[0], rtol=1e-7, atol=1e-7)
    assert made_implicit(together[-1], method).tolist() == [False, method.nonstiff != Vern7(), True]


@pytest.mark.parametrize("method", [SWITCH, AutoSwitch(Vern7(), Rodas5P())], ids=str)
def test_dense_output_is_that_of_the_method_that_made_the_step(method):
    f, y, dt = decay(numbers(1.0, 800.0)), torch.ones(2, 2, dtype=F64), numbers(0.01, 0.01)
    results = advance(method, f, y, [0.01] * 14)
    result, before = results[-1], results[-2]
    assert made_implicit(result, method).tolist() == [False, True]
    t, theta = numbers(0.13, 0.13), numbers(0.0, 0.3, 0.7, 1.0)
    stages = torch.stack(method.dense_stages(f, t, dt, before.y1, result))
    assert len(stages) == len(method.dense_weights(theta)) == sum(method.stages) + method.dense_evaluations
    states = before.y1 + 0.01 * torch.einsum("sj,sbn->jbn", method.dense_weights(theta), stages)
    for i, single in enumerate((method.nonstiff, method.stiff)):
        step = single.step(f, t, dt, before.y1, single.init(f, t, before.y1))
        own = torch.stack(single.dense_stages(f, t, dt, before.y1, step))
        expected = before.y1 + 0.01 * torch.einsum("sj,sbn->jbn", single.dense_weights(theta), own)
        # Times were added up in another order.
        torch.testing.assert_close(states[:, i], expected[:, i], rtol=1e-10, atol=1e-12)


def test_steps_of_length_zero_stand_still():
    result = advance(SWITCH, decay(numbers(1.0, 600.0)), torch.ones(2, 2, dtype=F64), [0.03] * 13 + [0.0])[-1]
    before = advance(SWITCH, decay(numbers(1.0, 600.0)), torch.ones(2, 2, dtype=F64), [0.03] * 13)[-1]
    assert torch.equal(result.y1, before.y1)


def test_gradients_of_steps_of_both_kinds_are_right():
    def final(rates, y):
        return advance(SWITCH, decay(rates), y, [0.02] * 14)[-1].y1

    rates, y = numbers(2.0, 160.0).requires_grad_(), torch.ones(2, 2, dtype=F64, requires_grad=True)
    assert made_implicit(advance(SWITCH, decay(rates), y, [0.02] * 14)[-1]).tolist() == [False, True]
    # Unstable steps, before the switch, amplify the rounding of differences.
    assert torch.autograd.gradcheck(final, (rates, y), rtol=1e-5, atol=1e-7)


def test_the_gradient_of_one_sample_is_not_spoilt_by_what_the_other_way_would_have_been():
    # An explicit step of the stiff sample overflows.
    method, y = AutoSwitch(Tsit5(), Rosenbrock23()), torch.ones(2, 2, dtype=F64, requires_grad=True)
    f = lambda t, y: -numbers(1.0, 1e8)[:, None] * y**3 - y  # noqa: E731
    t, dt = numbers(0.0, 0.0), numbers(0.1, 1e30)
    carry = (numbers(0.0, 12.0)[:, None], *method.init(f, t, y)[1:])
    result = method.step(f, t, dt, y, carry)
    assert made_implicit(result, method).tolist() == [False, True]
    (gradient,) = torch.autograd.grad(result.y1.sum() + result.error.sum(), y)
    assert bool(gradient.isfinite().all())


def test_a_step_compiles_into_one_graph():
    method = AutoSwitch(Tsit5(), Rosenbrock23())
    rates = numbers(1.0, 600.0)
    f, t, dt, y = decay(rates), numbers(0.1, 0.2), numbers(0.03, 0.03), torch.ones(2, 2, dtype=F64)
    for memory in ([0.0, 0.0], [10.0, 13.0], [11.0, 12.0], [17.0, 17.0], [15.0, 15.0]):
        carry = (numbers(*memory)[:, None], *method.init(f, t, y)[1:])
        step = lambda y, carry=carry: tuple(method.step(f, t, dt, y, carry))  # noqa: E731
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(y)
        *results, evaluations = compiled
        *expected, count = step(y)
        for a, b in zip(results, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
        # The eager step leaves out what is as usual.
        assert evaluations.tolist() == ([method.evaluations] * 2 if count is None else count.tolist())


def test_is_a_method_with_a_readable_name():
    assert isinstance(SWITCH, Method)
    assert str(SWITCH) == "AutoSwitch(Tsit5, Rodas5P)"
    assert AutoSwitch(Tsit5(), Rodas5P()) == SWITCH
    assert hash(AutoSwitch(Tsit5(), Rodas5P())) == hash(SWITCH)
    assert (SWITCH.order, SWITCH.error_order, SWITCH.evaluations) == (5, 5, 6)


def test_a_matrix_free_method_without_an_estimate_stays():
    method = AutoSwitch(Tsit5(), TRBDF2(linear_solver=GMRES()))
    results = advance(method, decay(100.0), numbers(1.0, 1.0)[None], [0.033] * 12 + [0.0001] * 8)
    assert made_implicit(results[-1], method)


def test_methods_without_estimates_are_refused():
    with pytest.raises(ValueError, match="estimates of error and stiffness"):
        AutoSwitch(BS3(), Rodas5P())
    with pytest.raises(ValueError, match="estimates of error and stiffness"):
        AutoSwitch(Rodas5P(), Rodas5P())
    with pytest.raises(ValueError, match="with an error estimate"):
        AutoSwitch(Tsit5(), RK4())


def test_says_how_to_do_without_a_jacobian_that_cannot_be_made():
    f, t, dt = lambda t, y: -1.0 * y, numbers(0.0), numbers(0.1)
    y = torch.ones(1, 2, dtype=torch.complex128)
    carry = (numbers(12.0)[:, None], *SWITCH.init(f, t, y)[1:])
    with pytest.raises(ValueError, match="real state") as caught:
        SWITCH.step(f, t, dt, y, carry)
    assert "`method=Tsit5()`" in caught.value.__notes__[0]


def test_a_stiff_sample_keeps_the_step_lengths_of_bdf_beside_one_that_is_not_stiff():
    rates, y0 = torch.tensor([[1.0], [5e4]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)

    def solved(chosen):
        problem = ude.ODEProblem(
            lambda t, y, p: -p * (y - torch.cos(t)), y0[chosen], (0.0, 10.0), p=rates[chosen], batched=True
        )
        return ude.solve(problem, AutoSwitch(Tsit5(), BDF()), rtol=1e-6, atol=1e-6)

    together, alone = solved(slice(0, 2)), [solved(slice(i, i + 1)) for i in range(2)]
    assert together.stats.accepted.tolist() == [int(one.stats.accepted) for one in alone]
    torch.testing.assert_close(together.ys[-1], torch.cat([one.ys[-1] for one in alone]), rtol=1e-12, atol=0.0)
