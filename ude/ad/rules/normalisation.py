"""Layers that shift and scale by statistics of their input."""

from __future__ import annotations

from typing import Any

import torch

from ude.ad.rules.table import register, register_names


def standardised(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    """Return numbers of mean 0 and variance 1 along some axes."""
    deviation = x - x.mean(axes, keepdim=True)
    return deviation * (deviation * deviation).mean(axes, keepdim=True).add(eps).rsqrt()


def layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any, **__: Any
) -> Any:
    """Standardise over the last axes."""
    axes = tuple(range(-len(normalized_shape), 0))
    return _affine(standardised(input, axes, eps), weight, bias)


def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """Divide by the root of the mean square over the last axes."""
    axes = tuple(range(-len(normalized_shape), 0))
    floor = torch.finfo(input.dtype).eps if eps is None else eps
    return _affine(input * (input * input).mean(axes, keepdim=True).add(floor).rsqrt(), weight, None)


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any, **__: Any
) -> Any:
    """Standardise over the channels of a group and over space."""
    grouped = input.reshape(input.shape[0], num_groups, -1)
    result = standardised(grouped, (-1,), eps).reshape(input.shape)
    return _affine(result, _by_channel(weight, input), _by_channel(bias, input))


def instance_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, use_input_stats: bool, momentum: float,
    eps: float, *_: Any,
) -> Any:  # fmt: skip
    """Standardise each channel over space."""
    if not use_input_stats:
        return batch_norm(input, weight, bias, running_mean, running_var, False, momentum, eps)
    if running_mean is not None:
        raise NotImplementedError(
            "Expected `track_running_stats=False` or `.eval()`, got an instance norm that would change its running "
            "statistics while derivatives propagate."
        )
    result = standardised(input, tuple(range(2, input.ndim)), eps)
    return _affine(result, _by_channel(weight, input), _by_channel(bias, input))


def batch_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool, momentum: float,
    eps: float, *_: Any,
) -> Any:  # fmt: skip
    """Shift and scale each channel by running statistics.

    In training mode the statistics are those of the batch: each row would depend on all others, which operators that
    act row by row, such as a Laplacian, cannot see.
    """
    if training or running_mean is None:
        raise NotImplementedError(
            "Expected batch norm in eval mode, got training mode, where every row of the batch depends on all others. "
            "Call `.eval()` or use `LayerNorm` or `GroupNorm`."
        )
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    return _affine(input, _by_channel(scale, input), _by_channel(shift, input))


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """Divide by a power of the mean square over neighbouring channels."""
    width = input.shape[1]
    places = torch.arange(width, device=input.device)
    offset = places[None, :] - places[:, None]  # row: the channel, column: its neighbour
    near = (offset >= -(size // 2)) & (offset <= (size - 1) // 2)
    square = (input * input).movedim(1, -1) @ near.to(input.dtype).mT / size
    return input / (square.movedim(-1, 1) * alpha + k).pow(beta)


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _by_channel(weight: Any, x: Any) -> Any:
    return None if weight is None else weight.reshape(-1, *(1,) * (x.ndim - 2))


def _native_layer_norm(input: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    return layer_norm(input, shape, weight, bias, eps), None, None


def _native_group_norm(
    input: Any, weight: Any, bias: Any, batch: int, channels: int, space: int, groups: int, eps: float
) -> Any:
    return group_norm(input, groups, weight, bias, eps), None, None


def _native_batch_norm(*args: Any) -> Any:
    return batch_norm(*args), None, None


def _without_update(input: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float) -> Any:
    return batch_norm(input, weight, bias, mean, variance, False, momentum, eps), None, None


def install() -> None:
    """Enter the rules of this file."""
    for handler in (layer_norm, rms_norm, group_norm, local_response_norm):
        register_names(handler, handler.__name__)
    # `torch.nn.functional` has them with the arguments in another order, and comes here in the end.
    register(torch.batch_norm, batch_norm)
    register(torch.instance_norm, instance_norm)
    register_names(_native_layer_norm, "native_layer_norm")
    register_names(_native_group_norm, "native_group_norm")
    register_names(_native_batch_norm, "native_batch_norm")
    register_names(_without_update, "_native_batch_norm_legit_no_training")
