"""A function around a jet: what it makes of the jet, and of a cotangent on the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch import Tensor

from ude.ad.algebra.bilinear import BlockProduct
from ude.ad.algebra.blocks import Blocks, add_product, as_tensor, inner, multiply_add, plus, value_of
from ude.ad.recording import is_recorded
from ude.ad.series import Coefficient, Point, Pool, Rule, Series, given

if TYPE_CHECKING:
    from ude.ad.algebra.base import Algebra

Slots: TypeAlias = "list[list[Tensor | None] | None]"
"""Single slots by degree."""


class Expansion:
    r"""A function $g$ around a jet $x_0 + N$, by the powers of its nilpotent part.

    $$g(x_0 + N) = \sum_n \frac{g^{(n)}(x_0)}{n!} N^n$$

    The powers do not depend on the function and are computed once, for the image and the adjoint.

    Args:
        algebra: Multiplies slots.
        rule: The function and its derivative as series.
        value: $x_0$.
        slots: $N$.
    """

    def __init__(self, algebra: Algebra, rule: Rule, value: Tensor, slots: Tensor) -> None:
        self.algebra, self.value, self.slots = algebra, value, slots
        self._powers: list[Blocks] | None = None
        self._expand(rule, self._argument())

    def _argument(self) -> Series:
        return Point(self.value)

    def _expand(self, rule: Rule, u: Series) -> None:
        self._pool = Pool()
        with self._pool:
            self.y, self.v = rule(u)

    def image(self) -> tuple[Tensor, Tensor | None]:
        """Return value and slots of the function of the jet."""
        room = self._room(self.y.primal)
        return self.y.primal, self._settle(self._combine(self.y, room), room)

    def adjoint(self, bar_value: Tensor | None, bar_slots: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        r"""Return the cotangent of the jet from that of its image, as value and slots.

        With $v = g'(x)$ it is $\bar x_b = \sum_{ac} C_{cab}\, v_a\, \bar y_c$, whatever the function and the algebra.
        """
        slope = self._slope()
        if any(part is not None and part.is_complex() for part in slope):
            slope = [None if part is None else part.conj().resolve_conj() for part in slope]
        return self._transpose(slope, self.algebra.blocks(bar_value, bar_slots))

    def _transpose(self, v: Blocks, bar: Blocks) -> tuple[Tensor | None, Tensor | None]:
        """Return the transpose of the multiplication by `v`, applied to a cotangent."""
        slope, order = value_of(v), self.algebra.order
        room = self._room(slope)
        value = None if bar[0] is None else bar[0] * slope
        result: Blocks = [None] * (order + 1)
        for degree in range(1, order + 1):
            left, right = v[degree], bar[degree]
            if right is not None:
                result[degree] = multiply_add(None, slope, right, room[degree])
            if left is not None and right is not None:
                value = plus(value, inner(left, right))
        for (out, i, j), plan in self.algebra.transposes.items():
            left, right = v[i], bar[j]
            if left is not None and right is not None:
                result[out] = add_product(result[out], plan, left, right, into=room[out])
        return value, self._settle(result, room)

    def _slope(self) -> Blocks:
        """Return the jet of the derivative."""
        nothing: Blocks = [None] * (self.algebra.order + 1)
        return [as_tensor(self.v[0], self.value), *self._combine(self.v, nothing)[1:]]

    def release(self) -> None:
        """Let go of the coefficients, which refer to one another in circles."""
        self._pool.forget()

    def powers(self) -> list[Blocks]:
        r"""Return $N, N^2, \dots, N^K$."""
        if self._powers is None:
            algebra = self.algebra
            base: Blocks = [None, *algebra.blocks(self.value, self.slots)[1:]]
            powers = [base]
            while len(powers) < algebra.order:
                plans, previous = algebra.squares if len(powers) == 1 else algebra.products, powers[-1]
                result: Blocks = [None] * (algebra.order + 1)
                for (out, i, j), plan in plans.items():
                    left, right = base[i], previous[j]
                    if left is not None and right is not None:
                        result[out] = add_product(result[out], plan, left, right)
                powers.append(result)
            self._powers = powers
        return self._powers

    def _combine(self, series: Series, room: Blocks) -> Blocks:
        """Return the sum of coefficients times powers, from degree 1 on."""
        result: Blocks = [None] * (self.algebra.order + 1)
        for n, power in enumerate(self.powers(), 1):
            coefficient = series[n]
            if coefficient is None:
                continue
            for degree in range(n, self.algebra.order + 1):
                block = power[degree]
                if block is not None:
                    result[degree] = multiply_add(result[degree], coefficient, block, room[degree])
        return result

    def _room(self, like: Tensor) -> Blocks:
        """Return one stretch of memory for all slots, as blocks; nothing where operations are recorded."""
        if is_recorded():
            return [None] * (self.algebra.order + 1)
        buffer = like.new_empty((self.algebra.dim - 1, *like.shape))
        return [buffer, *buffer.split(self.algebra.sizes)]

    def _settle(self, blocks: Blocks, room: Blocks) -> Tensor | None:
        """Return the slots from degree 1 on as one tensor."""
        pairs = list(zip(blocks[1:], room[1:], strict=True))
        if room[0] is None or any(block is not place for block, place in pairs if block is not None):
            return self.algebra.join(blocks)
        if all(block is None for block, _ in pairs):
            return None
        for block, place in pairs:
            if block is None and place is not None:
                place.zero_()
        return room[0]


class Unrolled(Expansion):
    """The same, slot by slot: many small operations, which a compiler fuses into few."""

    def image(self) -> tuple[Tensor, Tensor | None]:
        """Return value and slots of the function of the jet."""
        order = self.algebra.order
        base: Slots = [
            None,
            *(
                None if block is None else list(block.unbind(0))
                for block in self.algebra.blocks(self.value, self.slots)[1:]
            ),
        ]
        power: Slots = base
        result: list[list[Tensor | None]] = [[None] * size for size in (0, *self.algebra.sizes)]
        for n in range(1, order + 1):
            if n > 1:
                power = self._times(base, power, self.algebra.squares if n == 2 else self.algebra.products)
            coefficient = self.y[n]
            if coefficient is not None:
                for degree in range(n, order + 1):
                    _add_scaled(result[degree], coefficient, power[degree])
        return self.y.primal, self._stacked(result)

    def _times(self, x: Slots, y: Slots, plans: Mapping[tuple[int, int, int], BlockProduct]) -> Slots:
        result: Slots = [None] * (self.algebra.order + 1)
        for (out, i, j), plan in plans.items():
            left, right = x[i], y[j]
            if left is None or right is None:
                continue
            zero = torch.zeros_like(self.value)
            filled = [zero if slot is None else slot for slot in right]
            total, product = result[out], plan.slotwise(cast("list[Tensor]", left), filled)
            result[out] = product if total is None else [_sum(a, b) for a, b in zip(total, product, strict=True)]
        return result

    def _stacked(self, slots: list[list[Tensor | None]]) -> Tensor:
        shape = self.value.shape
        flat = [slot for block in slots for slot in block]
        zero = torch.zeros_like(self.value)
        return torch.stack([zero if slot is None else slot.expand(shape) for slot in flat])


class Recurrence(Expansion):
    """A function of a power series in one variable, by the recurrence of its rule: accurate at every order."""

    def _argument(self) -> Series:
        _, *blocks = self.algebra.blocks(self.value, self.slots)
        return given([self.value, *(None if block is None else block.squeeze(0) for block in blocks)])

    def image(self) -> tuple[Tensor, Tensor | None]:
        """Return value and slots of the function of the jet."""
        return self.y.primal, self.algebra.join(self._as_blocks(self.y))

    def _slope(self) -> Blocks:
        return self._as_blocks(self.v)

    def _as_blocks(self, series: Series) -> Blocks:
        first = as_tensor(series[0], self.value)
        return [first, *(_block(series[k], self.value) for k in range(1, self.algebra.order + 1))]


class SecondOrder(Expansion):
    """A function of a jet with directions and one weighted sum of second derivatives, in the fewest operations.

    Not for recorded tensors.

    Args:
        algebra: Has a block of directions and one further slot.
        rule: The function and its derivative as series.
        value: Of the jet.
        slots: Of the jet: all, or the first derivatives only.
        weights: Of the directions, shape `(directions, 1, ...)`; None if all are 1.
    """

    def __init__(self, algebra: Algebra, rule: Rule, value: Tensor, slots: Tensor, weights: Tensor | None) -> None:
        super().__init__(algebra, rule, value, slots)
        count = algebra.sizes[0]
        self._first = slots if slots.shape[0] == count else slots.narrow(0, 0, count)
        self._weighted = self._first if weights is None else self._first * weights
        self._square: Tensor | None = None

    def image(self) -> tuple[Tensor, Tensor | None]:
        """Return value and slots of the function of the jet."""
        value, slope, bend = self.y.primal, self.y[1], self.y[2]
        slots = self._scaled(as_tensor(slope, value), self.slots)
        if bend is not None:
            slots[-1].addcmul_(as_tensor(bend, value), self._norm())
        return value, slots

    def adjoint(self, bar_value: Tensor | None, bar_slots: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return the cotangent of the jet from that of its image."""
        if bar_slots is None or bar_slots.shape[0] < self.algebra.dim - 1 or is_recorded():
            return super().adjoint(bar_value, bar_slots)
        slope, steep, bend = (self.v[k] for k in range(3))
        slope, bar_top = as_tensor(slope, self.value), bar_slots[-1]
        result = torch.zeros_like(self.value) if bar_value is None else slope * bar_value
        slots = self._scaled(slope, bar_slots)
        if bend is not None:
            result.addcmul_(as_tensor(bend, self.value) * bar_top, self._norm())
        if steep is not None:
            steep = as_tensor(steep, self.value)
            result.addcmul_(steep, inner(self.slots, bar_slots[: self.slots.shape[0]]))
            slots[:-1].addcmul_(steep * bar_top, self._weighted)
        return result, slots

    def _scaled(self, factor: Tensor, slots: Tensor) -> Tensor:
        """Return slots times a factor, as new memory for all slots."""
        result = factor.new_empty((self.algebra.dim - 1, *factor.shape))
        if slots.shape[0] == result.shape[0]:
            return torch.mul(factor, slots, out=result)
        torch.mul(factor, slots, out=result[: slots.shape[0]])
        result[slots.shape[0] :].zero_()
        return result

    def _norm(self) -> Tensor:
        """Return the weighted sum of squares over the directions."""
        if self._square is None:
            self._square = inner(self._weighted, self._first)
        return self._square


def _add_scaled(total: list[Tensor | None], factor: Tensor | float, slots: list[Tensor | None] | None) -> None:
    for number, slot in enumerate(slots or []):
        if slot is not None:
            total[number] = _sum(total[number], slot * factor)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _block(coefficient: Coefficient, like: Tensor) -> Tensor | None:
    if coefficient is None:
        return None
    return as_tensor(coefficient, like).unsqueeze(0)
