"""What a recorded result depends on."""

from __future__ import annotations

from torch import Tensor


def leaves(*outputs: Tensor) -> list[Tensor]:
    """Return the leaf tensors with `requires_grad` that recorded tensors depend on, each once, in no set order.

    Example:
        >>> import torch
        >>> a = torch.tensor(2.0, requires_grad=True)
        >>> leaves(a.exp() * 3)[0] is a
        True
    """
    found = {id(x): x for x in outputs if x.requires_grad and x.grad_fn is None}
    seen, stack = set(), [x.grad_fn for x in outputs if x.grad_fn is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found[id(variable)] = variable
        stack += [following for following, _ in node.next_functions if following is not None]
    return list(found.values())
