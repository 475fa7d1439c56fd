"""Brownian paths: their distribution, and that they are values."""

from __future__ import annotations

import math

import pytest
import torch

from ude.brownian import BrownianGrid, BrownianTree
from ude.brownian.normals import hashed, normal_pairs
from ude.brownian.wavelets import cell, whole

F64 = torch.float64
MANY = 20_000


def at(*times):
    return torch.tensor(times, dtype=F64)


def tree(noise=MANY, depth=14, seed=3, start=1.0, end=4.0):
    return BrownianTree(seed, depth).bind(at(start), at(end), noise)


def test_hashes_are_those_of_the_published_generator():
    # The first numbers of SplitMix64 from the seed 1234567, as programs of many languages print them.
    published = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431)
    found = hashed(torch.tensor(1234567), torch.arange(1, 5))
    assert [int(x) % 2**64 for x in found] == list(published)


def test_normal_numbers_have_the_moments_of_normal_numbers():
    for z in normal_pairs(torch.tensor(1), torch.arange(200_000)):
        assert float(z.mean()) == pytest.approx(0.0, abs=0.01)
        assert float(z.square().mean()) == pytest.approx(1.0, abs=0.015)
        assert float(z.pow(4).mean()) == pytest.approx(3.0, abs=0.1)


def test_the_basis_is_orthonormal_and_its_integrals_are_right():
    z = torch.linspace(-1.0, 1.0, 200_001, dtype=F64)
    shapes = cell(z)
    functions = [shape.diff() / z.diff() for shape in shapes[:2]]
    for i, one in enumerate(functions):
        assert float(shapes[i][-1]) == pytest.approx(0.0, abs=1e-12)
        assert float(shapes[i + 2][-1]) == pytest.approx(0.0, abs=1e-12)
        for j, other in enumerate(functions):
            assert float((one * other * z.diff()).sum()) == pytest.approx(float(i == j), abs=1e-4)
        integral = torch.cat([z.new_zeros(1), torch.cumulative_trapezoid(shapes[i], z)])
        torch.testing.assert_close(shapes[i + 2], integral, rtol=0.0, atol=1e-9)
    u = torch.linspace(0.0, 1.0, 10_001, dtype=F64)
    line = whole(u)
    for i in (0, 1):
        integral = torch.cat([u.new_zeros(1), torch.cumulative_trapezoid(line[i], u)])
        torch.testing.assert_close(line[i + 2], integral, rtol=0.0, atol=1e-7)


@pytest.mark.parametrize(("start", "end"), [(1.0, 4.0), (1.3, 1.7), (2.0, 2.01), (2.5, 2.1), (3.99, 4.0)], ids=str)
def test_increments_and_areas_have_their_variances_and_are_independent(start, end):
    step = abs(end - start)
    made = tree().increment(at(start), at(end - start))
    assert float(made.w.var()) / step == pytest.approx(1.0, abs=0.04)
    assert float(made.h.var()) * 12.0 / step == pytest.approx(1.0, abs=0.04)
    assert float((made.w * made.h).mean()) / step == pytest.approx(0.0, abs=0.01)
    torch.testing.assert_close(tree().wiener(at(start), at(end - start)), made.w, rtol=0.0, atol=0.0)


def test_parts_make_the_whole():
    path = tree(noise=50)
    first, second = path.increment(at(1.5), at(0.25)), path.increment(at(1.75), at(0.4))
    both = path.increment(at(1.5), at(0.65))
    torch.testing.assert_close(first.w + second.w, both.w, rtol=0.0, atol=1e-13)
    area = (0.25 * first.h + 0.4 * second.h + 0.5 * (0.4 * first.w - 0.25 * second.w)) / 0.65
    torch.testing.assert_close(area, both.h, rtol=0.0, atol=1e-13)


def test_the_area_is_the_integral_of_the_path():
    path = tree(noise=5, depth=12)
    times = torch.linspace(2.0, 2.5, 4_097, dtype=F64)
    w = torch.stack([path.wiener(at(2.0), t.reshape(1) - 2.0)[0] for t in times])
    integral = torch.trapezoid(w, times, dim=0) / 0.5 - 0.5 * w[-1]
    torch.testing.assert_close(integral, path.increment(at(2.0), at(0.5)).h[0], rtol=0.0, atol=1e-3)


def test_disjoint_increments_samples_components_and_seeds_are_independent():
    path = tree()
    w, h = path.increment(at(1.5), at(0.25))
    others = [
        path.increment(at(1.75), at(0.25)),
        tree(seed=4).increment(at(1.5), at(0.25)),
    ]
    for other in others:
        for one, two in ((w, other.w), (h, other.h), (w, other.h)):
            assert abs(float(torch.corrcoef(torch.stack([one[0], two[0]]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([w[0, 1:], w[0, :-1]]))[0, 1])) < 0.03
    samples = BrownianTree(0, 8).bind(torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64), MANY)
    made = samples.wiener(torch.zeros(2, dtype=F64), torch.full((2,), 0.3, dtype=F64))
    assert abs(float(torch.corrcoef(made)[0, 1])) < 0.03


def test_a_part_of_an_increment_given_the_whole_is_a_bridge():
    path = tree()
    whole_step, part = path.wiener(at(2.0), at(0.8))[0], path.wiener(at(2.0), at(0.3))[0]
    rest = part - 0.3 / 0.8 * whole_step
    assert float(rest.var()) == pytest.approx(0.3 * 0.5 / 0.8, rel=0.04)
    assert abs(float(torch.corrcoef(torch.stack([rest, whole_step]))[0, 1])) < 0.03


def test_the_same_question_has_the_same_answer_in_any_order():
    path = tree(noise=3)
    first = path.increment(at(2.0), at(0.125))
    path.increment(at(1.1), at(0.3))
    again = tree(noise=3).increment(at(2.0), at(0.125))
    assert torch.equal(first.w, again.w)
    assert torch.equal(first.h, again.h)
    back = path.increment(at(2.125), at(-0.125))
    torch.testing.assert_close(back.w, -first.w, rtol=0.0, atol=1e-14)


def test_samples_may_be_asked_at_times_of_their_own():
    both = BrownianTree(7, 10).bind(at(0.0, 0.0), at(1.0, 2.0), 4)
    made = both.increment(at(0.25, 0.5), at(0.5, 0.0))
    alone = BrownianTree(7, 10).bind(at(0.0), at(1.0), 4).increment(at(0.25), at(0.5))
    torch.testing.assert_close(made.w[:1], alone.w, rtol=0.0, atol=1e-15)
    assert float(made.w[1].abs().max()) == 0.0
    assert float(made.h[1].abs().max()) == 0.0


def test_large_questions_are_answered_in_parts_that_agree():
    wide = BrownianTree(7, 6).bind(at(0.0), at(1.0), 100_000)
    few = BrownianTree(7, 6).bind(at(0.0), at(1.0), 10)
    torch.testing.assert_close(
        wide.wiener(at(0.1), at(0.7))[:, :10], few.wiener(at(0.1), at(0.7)), rtol=0.0, atol=1e-14
    )


def test_seeds_are_drawn_from_a_generator():
    seeds = [BrownianTree.drawn(torch.Generator().manual_seed(i)).seed for i in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert BrownianGrid.drawn(torch.Generator().manual_seed(0)) == BrownianGrid.drawn(torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="from 1 to 30, got 31"):
        BrownianTree(0, depth=31)


class TestGrid:
    times = (0.0, 0.25, 0.5, 0.8)

    def test_steps_have_their_variances(self):
        path = BrownianGrid(1).bind(self.times, torch.zeros(1, dtype=F64), MANY)
        for start, end in zip(self.times[:-1], self.times[1:], strict=True):
            made = path.increment(at(start), at(end - start))
            assert float(made.w.var()) / (end - start) == pytest.approx(1.0, abs=0.04)
            assert float(made.h.var()) * 12.0 / (end - start) == pytest.approx(1.0, abs=0.04)
            assert abs(float(torch.corrcoef(torch.stack([made.w[0], made.h[0]]))[0, 1])) < 0.03

    def test_steps_can_be_asked_for_in_any_order(self):
        count = 3_000_000
        path = BrownianGrid(1).bind(self.times, torch.zeros(1), count)  # more than are drawn together
        first = path.wiener(torch.tensor([0.0]), torch.tensor([0.25]))
        path.wiener(torch.tensor([0.5]), torch.tensor([0.3]))
        assert torch.equal(path.wiener(torch.tensor([0.0]), torch.tensor([0.25])), first)

    def test_samples_that_stand_still_do_not_move(self):
        path = BrownianGrid(1).bind(self.times, torch.zeros(2, dtype=F64), 3)
        made = path.increment(at(0.1, 0.25), at(0.0, 0.25))
        assert float(made.w[0].abs().max()) == 0.0
        assert float(made.w[1].abs().min()) > 0.0

    def test_other_steps_are_refused(self):
        path = BrownianGrid(1).bind(self.times, torch.zeros(1, dtype=F64), 3)
        for start, step in ((0.1, 0.15), (0.0, 0.5), (0.8, 0.1)):
            with pytest.raises(ValueError, match=r"no step from .*BrownianTree"):
                path.wiener(at(start), at(step))


def test_large_normal_numbers_occur_as_often_as_they_should():
    z = torch.cat(normal_pairs(torch.tensor(5), torch.arange(500_000)))
    for size in (2.0, 3.0):
        share = float((z.abs() > size).double().mean())
        assert share == pytest.approx(math.erfc(size / math.sqrt(2.0)), rel=0.05)


def test_increments_of_sixteen_cells_have_their_variance_wherever_they_begin():
    path, cell_length = BrownianTree(3, 8).bind(at(0.0), at(1.0), 60_000), 2.0**-8
    for offset in (0.25, 0.5):
        made = path.increment(at((37 + offset) * cell_length), at(16 * cell_length))
        assert float(made.w.var()) / (16 * cell_length) == pytest.approx(1.0 - 1.0 / (6 * 16), abs=0.02)
        assert float(made.h.var()) * 12 / (16 * cell_length) == pytest.approx(1.0 - 1.0 / (2 * 16), abs=0.03)


def test_a_stored_grid_is_the_same_path():
    times = [0.0, 0.25, 0.5, 0.8]
    path = BrownianGrid(1).bind(times, torch.zeros(2, dtype=F64), 3)
    stored = path.stored(area=True)
    start, step = at(0.25, 0.1), at(0.25, 0.0)
    for one, other in zip(path.increment(start, step), stored.increment(start, step), strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-15)
    torch.testing.assert_close(path.wiener(start, step), stored.wiener(start, step), rtol=0.0, atol=1e-15)
