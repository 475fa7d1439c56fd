"""Chunks of attempts on memory of their own, as a GPU replays them, against the eager engine."""

import logging
import sys

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import ude
from ude import ODEProblem, solve
from ude.solve.replayed import Replayed

TIGHT = {"rtol": 1e-8, "atol": 1e-8}
ENGINE = Replayed(chunk=4)
module = sys.modules["ude.solve.replayed"]


class Tape(TorchDispatchMode):
    """Writes down operations with the memory they worked on, as a CUDA graph does, and makes them again."""

    def __init__(self):
        super().__init__()
        self.operations = []
        self.replays = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def replay(self):
        self.replays += 1
        for function, args, kwargs, result in self.operations:
            again = function(*args, **kwargs)
            for old, new in zip(pytree.tree_leaves(result), pytree.tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def tapes(monkeypatch):
    """Let chunks be recorded once, and from then on replayed without any Python of theirs."""
    made = []

    def captured(run, device):
        tape = Tape()
        with tape:
            run()
        made.append(tape)
        return tape.replay

    monkeypatch.setattr(sys.modules["ude.solve.compilation"], "_compiled", {})  # chunks of other tests
    monkeypatch.setattr(module, "_captured", captured)
    monkeypatch.setattr(module, "lower", lambda graph, inputs: graph)
    return made


def oscillator(t, y):
    x, v = y.unbind(-1)
    return torch.stack([v, 2.0 * (1.0 - x * x) * v - x + 0.0 * t.squeeze(-1)], dim=-1)


def starts(batch, shift=0.0):
    x = torch.linspace(-2, 2, batch, dtype=torch.float64)
    return torch.stack([x + shift, torch.linspace(0, 1, batch, dtype=torch.float64)], dim=-1)


def assert_alike(ours, theirs):
    # Rounding of the error estimate moves the ends of steps a little, but not the solution.
    torch.testing.assert_close(ours.ys[-1], theirs.ys[-1], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ours.ts, theirs.ts, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.steps.dt, theirs.steps.dt, rtol=1e-4, atol=1e-9)
    assert ours.steps.accepted.tolist() == theirs.steps.accepted.tolist()
    assert ours.stats.nfe.tolist() == theirs.stats.nfe.tolist()
    assert ours.status.tolist() == theirs.status.tolist()


def both(problem, method=None, **options):
    method = method or ude.Tsit5()
    with torch.no_grad():
        return tuple(solve(problem, method, engine=engine, **TIGHT, **options) for engine in (ENGINE, "eager"))


def test_compiled_chunks_make_the_steps_of_the_eager_engine():
    problem = ODEProblem(oscillator, starts(6), (0.0, 5.0), batched=True)
    for options in ({}, {"save_at": torch.linspace(0, 5, 11, dtype=torch.float64)}):
        ours, theirs = both(problem, **options)
        assert_alike(ours, theirs)
        times = torch.tensor([0.3, 4.9], dtype=torch.float64)
        torch.testing.assert_close(ours(times), theirs(times), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "method", [ude.Tsit5(), ude.Heun(), ude.Vern7(), ude.BS3()], ids=lambda method: type(method).__name__
)
def test_recorded_chunks_make_the_steps_of_the_eager_engine(tapes, method):
    options = {"rtol": 1e-5, "atol": 1e-5}
    problem = ODEProblem(oscillator, starts(3), (0.0, 3.0), batched=True)
    with torch.no_grad():
        ours, theirs = (solve(problem, method, engine=engine, **options) for engine in (ENGINE, "eager"))
    assert_alike(ours, theirs)
    assert tapes[0].replays


def test_own_intervals_backwards_and_stops_agree(tapes):
    ends = torch.tensor([1.0, -2.0, 0.0, 3.0, 0.5, 2.0], dtype=torch.float64)
    assert_alike(*both(ODEProblem(oscillator, starts(6), (0.0, ends), batched=True)))
    assert_alike(*both(ODEProblem(oscillator, starts(6), (0.0, 3.0), batched=True), stop_at=[1.0, 2.5]))
    assert_alike(*both(ODEProblem(lambda t, y: -y * t, torch.tensor(2.0, dtype=torch.float64), (0.0, 3.0))))


def test_a_recorded_chunk_sees_new_values_of_everything_it_depends_on(tapes):
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    outside = [torch.tensor(1.0, dtype=torch.float64)]

    def field(t, y, p):
        return net(y) - p * y * outside[0]

    def check(y0, p, **options):
        assert_alike(*both(ODEProblem(field, y0, (0.0, 3.0), p=p, batched=True), **options))

    rate = torch.tensor(0.5, dtype=torch.float64)
    check(starts(6), rate)
    check(starts(6, 0.3), rate)
    check(starts(6), rate + 1.0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(0.5)
    check(starts(6), rate)
    outside[0] = outside[0] + 1.0
    check(starts(6), rate)
    assert len(tapes) == 1


def test_the_host_stops_one_chunk_after_the_last(tapes):
    problem = ODEProblem(oscillator, starts(6), (0.0, 5.0), batched=True)
    ours, _ = both(problem)
    needed = -(-len(ours.steps.t) // ENGINE.chunk)
    assert tapes[0].replays == needed + 1


def test_attempts_that_are_no_whole_chunk_are_made_too(tapes):
    problem = ODEProblem(oscillator, starts(6), (0.0, 5.0), batched=True)
    ours, theirs = both(problem, max_steps=11, throw=False)
    assert (ours.status == ude.Status.MAX_STEPS).all()
    assert len(ours.steps.t) == 11
    torch.testing.assert_close(ours.steps.t, theirs.steps.t, rtol=1e-6, atol=1e-9)


def test_a_failing_sample_leaves_the_others_alone(tapes):
    problem = ODEProblem(
        lambda t, y: y * y, torch.tensor([[0.5], [2.0]], dtype=torch.float64), (0.0, 1.0), batched=True
    )
    ours, theirs = both(problem, throw=False)
    assert ours.status.tolist() == theirs.status.tolist() == [ude.Status.SUCCESS, ude.Status.STEP_TOO_SMALL]
    torch.testing.assert_close(ours.ys[-1, 0], torch.tensor([1.0], dtype=torch.float64), rtol=1e-6, atol=0.0)


def test_gradients_and_implicit_methods_go_to_compiled_blocks():
    y0 = starts(3).requires_grad_()
    problem = ODEProblem(oscillator, y0, (0.0, 1.0), batched=True)
    ours, theirs = (solve(problem, ude.Heun(), engine=engine, rtol=1e-4, atol=1e-4) for engine in (ENGINE, "eager"))
    grads = [torch.autograd.grad(solution.ys[-1].sum(), y0)[0] for solution in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-8)


def test_a_field_that_changes_a_tensor_in_place_is_refused_with_a_reason(tapes, caplog):
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

        def forward(self, t, y):
            self.calls += 1.0
            return -y

    field, y0 = Counting(), torch.ones(2, 1, dtype=torch.float64)
    caplog.set_level(logging.INFO, logger="ude")
    with torch.no_grad():
        solution = solve(ODEProblem(field, y0, (0.0, 1.0), batched=True), ude.Tsit5(), engine=ENGINE, **TIGHT)
    torch.testing.assert_close(solution.ys[-1], y0 * torch.exp(torch.tensor(-1.0)), rtol=1e-7, atol=0.0)
    assert any("No graph of attempts for Counting" in record.getMessage() for record in caplog.records)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="it needs a GPU")
def test_graphs_on_a_gpu_make_the_steps_of_the_cpu():
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    ts = torch.linspace(0, 3, 7, dtype=torch.float64)

    def solved(device, engine, y0):
        net.to(device)
        problem = ODEProblem(lambda t, y: net(y) - 0.5 * y, y0.to(device), (0.0, 3.0), batched=True)
        with torch.no_grad():
            return solve(problem, ude.Tsit5(), engine=engine, save_at=ts.to(device), dense=False, **TIGHT)

    for shift in (0.0, 0.3):
        ours, theirs = (solved(*where, starts(300, shift)) for where in (("cuda", "loop"), ("cpu", "eager")))
        torch.testing.assert_close(ours.ys.cpu(), theirs.ys, rtol=1e-8, atol=1e-10)
        assert (ours.stats.accepted.cpu() - theirs.stats.accepted).abs().max() <= 1
        with torch.no_grad():
            net[0].weight.mul_(0.9)
