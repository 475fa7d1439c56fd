"""A Brownian path that is drawn where it is asked for."""

from __future__ import annotations

import itertools

import pytest
import torch

from ude.brownian import RecordedPath
from ude.brownian.tree import BoundTree

F64 = torch.float64
MANY = 40_000


def at(*times):
    return torch.tensor(times, dtype=F64)


def bound(noise=4, seed=0):
    return RecordedPath(seed).bind(at(0.0), at(1.0), noise)


def step(path, start, end):
    return path.increment(at(start), at(end) - at(start))


def integral(part, start, end):
    """Of the path over a step, counted from its value at the start of the step."""
    return (end - start) * (0.5 * part.w + part.h)


def test_the_same_question_has_the_same_answer_whatever_was_asked_between():
    path = bound()
    before = [step(path, 0.0, 0.4), step(path, 0.4, 1.0), step(path, 0.0, 1.0)]
    for start, end in ((0.1, 0.7), (0.05, 0.1), (0.65, 1.3)):
        step(path, start, end)
    after = [step(path, 0.0, 0.4), step(path, 0.4, 1.0), step(path, 0.0, 1.0)]
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one.w, other.w, rtol=0.0, atol=1e-14)
        torch.testing.assert_close(one.h, other.h, rtol=0.0, atol=1e-14)


def test_parts_add_up_to_the_whole_in_path_and_integral():
    path = bound()
    whole = step(path, 0.0, 1.0)
    left, right = step(path, 0.0, 0.3), step(path, 0.3, 1.0)
    torch.testing.assert_close(left.w + right.w, whole.w)
    total = integral(left, 0.0, 0.3) + 0.7 * left.w + integral(right, 0.3, 1.0)
    torch.testing.assert_close(total, integral(whole, 0.0, 1.0))


def test_a_step_back_undoes_the_step():
    path = bound()
    there, back = step(path, 0.2, 0.9), path.increment(at(0.9), at(-0.7))
    torch.testing.assert_close(back.w, -there.w)
    # The area is that of the path above its chord, which is the same from either side.
    torch.testing.assert_close(back.h, there.h)


def test_a_step_of_no_length_is_nothing():
    path = bound()
    assert torch.equal(path.increment(at(0.3), at(0.0)).w, torch.zeros(1, 4, dtype=F64))
    assert torch.equal(path.wiener(at(0.0), at(0.0)), torch.zeros(1, 4, dtype=F64))


@pytest.mark.parametrize("forced", [False, True], ids=["drawn in order", "parted twice after a rejection"])
def test_pieces_have_the_moments_of_a_brownian_path(forced):
    path, knots = bound(MANY), (0.0, 0.25, 0.7, 1.0)
    if forced:
        step(path, 0.0, 1.0)
        step(path, 0.0, 0.7)
    pieces = [step(path, *ends) for ends in itertools.pairwise(knots)]
    numbers = torch.cat([torch.cat([p.w, p.h]) for p in pieces])
    lengths = at(0.25, 0.45, 0.3)
    variances = torch.stack([lengths, lengths / 12.0], dim=1).flatten()
    # All six numbers are independent. Five standard deviations of estimates from 40,000 samples.
    scaled = numbers / variances.sqrt().unsqueeze(1)
    torch.testing.assert_close(scaled.mean(1), torch.zeros(6, dtype=F64), rtol=0.0, atol=5 / MANY**0.5)
    torch.testing.assert_close(scaled.cov(), torch.eye(6, dtype=F64), rtol=0.0, atol=5 * (2 / MANY) ** 0.5)


def test_times_that_differ_by_rounding_are_one():
    path = RecordedPath(0).bind(torch.zeros(1), torch.ones(1), 1)
    t = torch.zeros(1)
    for _ in range(10):
        path.increment(t, torch.tensor([0.1]))
        t = t + 0.1
    path.increment(torch.tensor([0.1 + 0.2]), torch.tensor([0.7]))
    assert len(path.pieces) == 10


def test_the_seed_decides_and_neighbours_differ():
    one, same, other = (step(bound(seed=seed), 0.0, 0.5).w for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_samples_with_steps_of_their_own_get_a_tree():
    path = RecordedPath(3).bind(at(0.0, 0.0), at(1.0, 1.0), 2)
    assert isinstance(path, BoundTree)
    assert path.wiener(at(0.1, 0.2), at(0.3, 0.4)).shape == (2, 2)


def test_a_time_before_the_start_is_refused():
    with pytest.raises(ValueError, match=r"begins at 0 and was asked for -0\.5"):
        bound().wiener(at(-0.5), at(1.0))
