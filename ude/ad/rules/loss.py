"""Losses, under the names that `torch.nn.functional` calls them by in the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from ude.ad.rules.arithmetic import absolute
from ude.ad.rules.kinds import joined, value_of
from ude.ad.rules.reduction import log_softmax
from ude.ad.rules.selection import where
from ude.ad.rules.table import register

_NONE, _MEAN = 0, 1
_NN: Any = torch._C._nn  # pyright: ignore[reportAttributeAccessIssue]


def reduce(x: Any, reduction: int | str) -> Any:
    """Return all numbers, their mean or their sum."""
    if reduction in (_NONE, "none"):
        return x
    return x.mean() if reduction in (_MEAN, "mean") else x.sum()


def mse_loss(input: Any, target: Any, reduction: int = _MEAN) -> Any:
    """Return squared differences."""
    return reduce((input - target) ** 2, reduction)


def l1_loss(input: Any, target: Any, reduction: int = _MEAN) -> Any:
    """Return absolute differences."""
    return reduce(absolute(input - target), reduction)


def huber_loss(input: Any, target: Any, reduction: int = _MEAN, delta: float = 1.0) -> Any:
    """Return half of squared differences, beyond delta in a straight line."""
    gap = absolute(input - target)
    near = value_of(gap) < delta
    return reduce(where(near, 0.5 * gap * gap, delta * (gap - 0.5 * delta)), reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: int = _MEAN, beta: float = 1.0) -> Any:
    """Return the Huber loss divided by its range."""
    return l1_loss(input, target, reduction) if beta == 0 else huber_loss(input, target, reduction, beta) / beta


def soft_margin_loss(input: Any, target: Any, reduction: int = _MEAN) -> Any:
    r"""Return $\log(1 + e^{-yx})$."""
    return reduce(-F.logsigmoid(target * input), reduction)


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, reduction: int = _MEAN) -> Any:
    """Return the cross entropy of probabilities, logarithms being -100 at least."""
    loss = (target - 1.0) * _logarithm(1.0 - input) - target * _logarithm(input)
    return reduce(loss if weight is None else loss * weight, reduction)


def _logarithm(x: Any) -> Any:
    return torch.log(x).clamp(min=-100.0)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = _MEAN
) -> Any:
    """Return the cross entropy of the sigmoid."""
    positive = target if pos_weight is None else target * pos_weight
    loss = -(positive * F.logsigmoid(input)) - (1.0 - target) * F.logsigmoid(-input)
    return reduce(loss if weight is None else loss * weight, reduction)


def nll_loss(input: Any, target: Any, weight: Any = None, reduction: int = _MEAN, ignore_index: int = -100) -> Any:
    """Return the negative number at the class of each row."""
    axis = 0 if input.ndim == 1 else 1
    kept = target != ignore_index
    index = target.where(kept, torch.zeros_like(target)).unsqueeze(axis)
    factor = kept.to(input.dtype)
    factor = factor if weight is None else factor * weight[index.squeeze(axis)]
    loss = -(joined(lambda x: x.gather(axis, index).squeeze(axis), input) * factor)
    return loss.sum() / factor.sum() if reduction == _MEAN else reduce(loss, reduction)


def cross_entropy_loss(
    input: Any, target: Any, weight: Any = None, reduction: int = _MEAN, ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """Return the cross entropy of the softmax with classes or probabilities."""
    axis = 0 if input.ndim == 1 else 1
    logarithms = log_softmax(input, axis)
    if value_of(target).is_floating_point():
        return _with_probabilities(logarithms, target, weight, reduction, label_smoothing, axis)
    loss = nll_loss(logarithms, target, weight, reduction, ignore_index)
    if not label_smoothing:
        return loss
    if weight is not None:
        raise NotImplementedError("Expected no class weights together with label smoothing.")
    kept = (target != ignore_index).to(input.dtype)
    smooth = -(logarithms.mean(axis) * kept)
    smooth = smooth.sum() / kept.sum() if reduction == _MEAN else reduce(smooth, reduction)
    return loss * (1.0 - label_smoothing) + smooth * label_smoothing


def _with_probabilities(logarithms: Any, target: Any, weight: Any, reduction: int, smoothing: float, axis: int) -> Any:
    classes = logarithms.shape[axis]
    wanted = target if not smoothing else target * (1.0 - smoothing) + smoothing / classes
    product = logarithms * wanted
    if weight is not None:
        product = product * weight.reshape(-1, *(1,) * (logarithms.ndim - 1 - axis))
    loss = -product.sum(axis)
    return loss.sum() / (logarithms.value.numel() / classes) if reduction == _MEAN else reduce(loss, reduction)


def kl_div(input: Any, target: Any, reduction: int = _MEAN, *, log_target: bool = False) -> Any:
    r"""Return $y (\log y - x)$."""
    loss = torch.exp(target) * (target - input) if log_target else torch.xlogy(target, target) - target * input
    return reduce(loss, reduction)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: int = _MEAN
) -> Any:
    """Return the negative logarithm of the probability of counts."""
    loss = torch.exp(input) - target * input if log_input else input - target * torch.log(input + eps)
    if full:
        stirling = target * torch.log(target) - target + 0.5 * torch.log(2.0 * math.pi * target)
        loss = loss + where(value_of(target) > 1, stirling, torch.zeros_like(value_of(target)))
    return reduce(loss, reduction)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """Return the negative logarithm of a normal density."""
    if not isinstance(var, float) and var.ndim == input.ndim - 1 and tuple(var.shape) != tuple(input.shape):
        var = var.unsqueeze(-1)
    # The lower bound has no derivative of its own, as in torch.
    low = torch.as_tensor(value_of(var), dtype=input.dtype)
    var = var + (low.clamp(min=eps) - low).detach()
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    return reduce(loss + 0.5 * math.log(2.0 * math.pi) if full else loss, reduction)


_PLAIN = (
    mse_loss, l1_loss, huber_loss, smooth_l1_loss, soft_margin_loss, binary_cross_entropy, cross_entropy_loss,
)  # fmt: skip
_TOP = (binary_cross_entropy_with_logits, kl_div, poisson_nll_loss)


def install() -> None:
    """Enter the rules of this file."""
    handlers: list[tuple[Any, Callable[..., Any]]] = [(_NN, handler) for handler in _PLAIN]
    handlers += [(torch, handler) for handler in _TOP]
    for space, handler in handlers:
        register(getattr(space, handler.__name__), handler)
    register(_NN.nll_loss_nd, nll_loss)
    register(F.gaussian_nll_loss, gaussian_nll_loss)
