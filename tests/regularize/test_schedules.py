"""Times that are drawn anew, and weights in the course of a training."""

import math
import pickle

import pytest
import torch

import ude
from ude.regularize import Anneal, ErrorEstimate, Steer

F64 = torch.float64


def growth(t, y):
    return y


class TestSteer:
    def test_the_end_is_uniform_around_its_place(self):
        steer = Steer(0.5, generator=torch.Generator().manual_seed(0))
        problem = ude.ODEProblem(growth, torch.ones(1, dtype=F64), (1.0, 3.0))
        ends = torch.stack([steer.prepare(problem)[0].t_span[1] for _ in range(2_000)])
        assert ends.dtype == F64
        assert 2.0 <= ends.min() < 2.02
        assert 3.98 < ends.max() <= 4.0
        assert ends.mean().item() == pytest.approx(3.0, abs=4 * 2.0 / math.sqrt(12 * 2_000))
        assert ends.std().item() == pytest.approx(2.0 / math.sqrt(12), rel=0.05)

    def test_a_solve_goes_to_the_end_that_was_drawn(self):
        steer = Steer(0.3, generator=torch.Generator().manual_seed(0))
        problem, save_at = steer.prepare(ude.ODEProblem(growth, torch.ones(1, dtype=F64), (0.0, 1.0)), [1.0])
        solution = ude.solve(problem, ude.Tsit5(), save_at=save_at, rtol=1e-9, atol=1e-9)
        assert float(save_at[0]) != 1.0
        torch.testing.assert_close(solution.ys[0, 0], save_at[0].exp(), rtol=1e-7, atol=0.0)
        assert steer(solution) == 0.0

    def test_saved_times_stay_in_order_and_in_the_interval_on_uneven_grids_and_backward(self):
        steer = Steer(0.5, generator=torch.Generator().manual_seed(0))
        even = torch.linspace(0.0, 1.0, 49, dtype=F64)
        uneven = torch.tensor([0.0, 0.1, 0.11, 0.6, 1.0], dtype=F64)
        for ts in (even, uneven, 1.0 - even):
            for _ in range(50):
                moved = steer.times(ts)
                assert moved[0] == ts[0]
                assert bool(((moved.diff() * (ts[-1] - ts[0]).sign()) >= 0).all())
                assert bool(((moved >= 0.0) & (moved <= 1.0)).all())
        gaps = torch.stack([steer.times(even)[1:-1] - even[1:-1] for _ in range(400)])
        # Each moves by up to half a distance: the published jitter.
        assert gaps.abs().max() <= 0.5 / 48
        assert gaps.std().item() == pytest.approx(1.0 / 48 / math.sqrt(12), rel=0.02)

    def test_it_goes_together_with_costs(self):
        steer = Steer(generator=torch.Generator().manual_seed(0))
        both = steer + ErrorEstimate()
        problem = ude.ODEProblem(growth, torch.ones(1, dtype=F64), (0.0, 1.0))
        ts = torch.linspace(0.0, 1.0, 5, dtype=F64)
        changed, save_at = both.prepare(problem, ts)
        assert not torch.equal(save_at, ts)
        solution = ude.solve(changed, ude.Tsit5(), save_at=save_at)
        torch.testing.assert_close(both(solution), ErrorEstimate()(solution), rtol=0.0, atol=0.0)
        # Without the start among the saved times it stays where it is all the same.
        assert len(steer.prepare(problem, ts[1:])[1]) == 4

    def test_the_generator_alone_decides(self):
        draws = [Steer(generator=torch.Generator().manual_seed(7)).times(torch.tensor([0.0, 1.0])) for _ in range(2)]
        assert torch.equal(*draws)

    def test_bad_widths_and_times_are_refused(self):
        for width in (0.0, 0.6, -1.0):
            with pytest.raises(ValueError, match="width"):
                Steer(width)
        for ts in (torch.zeros(1), torch.zeros(2, 2)):
            with pytest.raises(ValueError, match="at least one more time"):
                Steer().times(ts)


class TestAnneal:
    def test_exponential_weights_are_the_published_ones(self):
        weight = Anneal("exp", 1000.0, 100.0, 300)
        for epoch in (0, 1, 137, 299):
            assert weight(epoch) == pytest.approx(1000.0 * math.exp(-epoch * math.log(10.0) / 300))
        assert weight(300) == weight(10_000) == pytest.approx(100.0)

    def test_other_schedules_have_their_ends_and_middles(self):
        cosine, linear, constant = Anneal("cosine", 3.0, 1.0, 10), Anneal("linear", 3.0, 1.0, 10), Anneal("constant", 2)
        assert [cosine(k) for k in (0, 5, 10, 11)] == pytest.approx([3.0, 2.0, 1.0, 1.0])
        assert cosine(1) > linear(1)
        assert [linear(k) for k in (0, 5, 10, 11)] == pytest.approx([3.0, 2.0, 1.0, 1.0])
        assert constant(0) == constant(99) == 2.0
        assert Anneal("linear", 1.0, 0.0, 4)(4) == 0.0

    def test_the_warm_up_comes_first(self):
        weight = Anneal("exp", 8.0, 2.0, 10, warmup=4)
        assert [weight(k) for k in (0, 1, 4, 14)] == pytest.approx([0.0, 2.0, 8.0, 2.0])

    def test_a_checkpoint_goes_on_where_it_was_made(self):
        first = Anneal("cosine", 3.0, 1.0, 10)
        before = [first.advance() for _ in range(4)]
        assert before == [first(k) for k in range(4)]
        second = Anneal("constant", 1.0)
        second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
        assert second() == first() == first(4)
        assert repr(second) == repr(first) == "Anneal('cosine', 3, 1, steps=10)"

    def test_bad_numbers_are_refused(self):
        for arguments, word in (
            (("exp", 1.0), "needs"),
            (("exp", 1.0, 0.0, 10), "positive"),
            (("linear", 1.0, 2.0, 0), "steps"),
            (("constant", 1.0, 2.0), "neither"),
            (("quadratic", 1.0, 2.0, 3), "schedule"),
            (("linear", math.inf, 2.0, 3), "finite"),
        ):
            with pytest.raises(ValueError, match=word):
                Anneal(*arguments)
        with pytest.raises(ValueError, match="warmup"):
            Anneal("linear", 1.0, 2.0, 3, warmup=-1)
        with pytest.raises(ValueError, match="negative"):
            Anneal("constant", 1.0)(-1)
        with pytest.raises(ValueError, match="Expected a state"):
            Anneal("constant", 1.0).load_state_dict({"step": 3})
