"""Functions of the values alone: their derivatives vanish or do not exist, and their results are plain tensors."""

from __future__ import annotations

from typing import Any

import torch

from ude.ad.rules.kinds import is_lifted, primal, value_of
from ude.ad.rules.table import functions_named, register

_COMPARISONS = """
    eq ne lt le gt ge greater greater_equal less less_equal not_equal isnan isinf isfinite isposinf isneginf isreal
    signbit any all allclose isclose equal logical_and logical_or logical_not logical_xor is_nonzero isin
    __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __and__ __or__ __xor__ __rand__ __ror__ __rxor__ __invert__
"""
_WHERE = """
    argmax argmin argsort argwhere count_nonzero nonzero bucketize searchsorted
    histc
"""
_WHOLE_NUMBERS = "floor_divide __floordiv__ __rfloordiv__ int long short char byte bool"
_LIKE = """
    zeros_like ones_like full_like empty_like rand_like randn_like randint_like bernoulli new_zeros new_ones new_full
    new_empty new_tensor multinomial
"""
_PROPERTIES = """
    result_type is_floating_point is_complex is_same_size is_signed is_inference is_conj is_neg tolist stride
    element_size nelement numel get_device data_ptr storage_offset is_pinned is_distributed is_set_to can_cast
"""

NAMES = " ".join([_COMPARISONS, _WHERE, _WHOLE_NUMBERS, _LIKE, _PROPERTIES]).split()


def _bincount(input: Any, weights: Any = None, minlength: int = 0) -> Any:
    """Count; linear in the weights, which torch itself does not differentiate."""
    if is_lifted(weights):
        raise NotImplementedError(
            "Expected weights of `bincount` without derivatives. Use `index_add`, which is linear in its source."
        )
    return torch.bincount(value_of(input), value_of(weights), minlength)


def install() -> None:
    """Enter the rules of this file."""
    for function in functions_named("bincount"):
        register(function, _bincount)
    for name in NAMES:
        for function in functions_named(name):
            register(function, primal(function))
