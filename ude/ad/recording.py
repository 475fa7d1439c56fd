"""Is anybody watching? Fused code and code that works in place run only where nobody is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._C import _autograd, _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd import forward_ad

F = TypeVar("F", bound=Callable[..., Any])


def constant_result(function: F) -> F:
    """Let the compiler call a function once, while it traces.

    This is `torch.compiler.assume_constant_result`, without importing the compiler, which takes a second.
    """
    function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


def is_transformed() -> bool:
    """Whether a function transform (vmap, jvp, grad, compile) sees the operations that run now."""
    return (
        torch.compiler.is_compiling()
        or _functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


@constant_result
def is_compiled_for_autograd() -> bool:
    """Whether the compiler traces for autograd alone, without function transforms inside; only while it traces."""
    return _functorch.peek_interpreter_stack() is None and forward_ad._current_level < 0


def is_recorded() -> bool:
    """Whether autograd or a function transform sees the operations that run now."""
    return torch.is_grad_enabled() or is_transformed()


def is_hooked() -> bool:
    """Whether what autograd keeps passes through hooks, as inside of a checkpoint, where no backward pass may begin."""
    return _autograd._top_saved_tensors_default_hooks(True) is not None
