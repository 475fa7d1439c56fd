"""A function as the front end of the compiler sees it: its operations, and the tensors it works on now."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree


class Unsupported(RuntimeError):
    """A solve is not for this way of making it; the message says why."""


@dataclass(slots=True)
class Traced:
    """The operations of a function, from tensors to tensors.

    Args:
        graph: The operations.
        marks: Stand for the outputs, to see where they go.
        results: Where every tensor of the result comes from; unknown until the first call.
        sources: What the inputs are: those among the arguments by their place among its leaves, others by None.
    """

    graph: GraphModule
    marks: tuple[Tensor, ...]
    results: Any = None
    sources: tuple[int | None, ...] = ()

    @classmethod
    def of(cls, graph: GraphModule, inputs: list[Any]) -> Self:
        """Take over what the front end has traced."""
        outputs = next(node for node in graph.graph.nodes if node.op == "output").args[0]
        return cls(graph, tuple(torch.empty(0) for _ in outputs))

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Leave the current inputs where `find` sees them; nothing is computed here."""
        _found.value = (self, inputs)
        return self.marks

    def named(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> Any:
        """Return outputs of the graph, and inputs it hands on, in the structure of the function's result."""
        return pytree.tree_map(
            lambda place: (outputs if place.is_output else inputs)[place.number],
            self.results,
            is_leaf=lambda x: isinstance(x, _Place),
        )


class _Place(NamedTuple):
    """An output of the graph or one of its inputs, and its number."""

    is_output: bool
    number: int


_found = threading.local()


def find(look: Callable[..., Any], vector_field: Any, arguments: Sequence[Any]) -> tuple[Any, tuple[Tensor, ...]]:
    """Return what was traced of a function of a vector field and arguments, and the tensors that are its inputs now.

    The compiler's front end checks with every call that all the vector field depends on is what it was, and collects
    its parameters; what comes after it is ours.

    Args:
        look: The function, compiled with `Traced.of` in the place of what turns operations into code.
        vector_field: Its first argument.
        arguments: The others; every tensor an object of its own.

    Raises:
        Unsupported: If it cannot be traced, or a result is no tensor that depends on the inputs.
    """
    _found.value = None
    try:
        with _no_side_effects():
            result = look(vector_field, *arguments)
    except Exception as error:  # whatever tracing the user's function may raise; other engines say it better
        if "side effects" in str(error):
            raise Unsupported("the vector field changes something of its own, such as a counter") from error
        raise Unsupported(f"it cannot be traced: {error}") from error
    found: Any = _found.value
    _found.value = None
    if found is None:
        raise Unsupported("it makes no operation on tensors")
    traced, inputs = found
    if traced.results is None:
        if any(node.op == "get_attr" for node in traced.graph.graph.nodes):
            raise Unsupported("a tensor that the compiler keeps to itself, and whose changes would not be seen")
        _check_unchanged(traced, inputs)
        _name_places(traced, inputs, arguments, result)
    return traced, inputs


@contextmanager
def _no_side_effects() -> Iterator[None]:
    """Let the front end refuse a function that changes anything but tensors, before it does.

    It would make such changes with the marks that stand for tensors, once for a solve instead of once for a call.
    """
    config: Any = torch._dynamo.config
    if not hasattr(config, "side_effect_replay_policy"):
        raise Unsupported("this version of PyTorch does not say whether the vector field changes something of its own")
    before, config.side_effect_replay_policy = config.side_effect_replay_policy, "error"
    try:
        yield
    finally:
        config.side_effect_replay_policy = before


def _check_unchanged(traced: Traced, inputs: Sequence[Tensor]) -> None:
    """Raise if the operations change a tensor that they are given."""
    copies = [x.detach().clone() for x in inputs]
    try:
        with torch.no_grad():
            traced.graph(*copies)
    except Exception as error:  # whatever the user's operations may raise on these numbers
        raise Unsupported(f"it cannot be tried out: {error}") from error
    for x, copy in zip(inputs, copies, strict=True):
        if copy._version or not torch.allclose(copy, x.detach(), 0.0, 0.0, equal_nan=True):
            raise Unsupported("the vector field changes a tensor in place")


def _name_places(traced: Traced, inputs: Sequence[Tensor], arguments: Any, result: Any) -> None:
    """Find out, by the identity of tensors, what the inputs and outputs of the graph are."""
    known: dict[int, _Place] = {id(x): _Place(False, i) for i, x in enumerate(inputs)}
    known |= {id(x): _Place(True, i) for i, x in enumerate(traced.marks)}
    leaves, spec = pytree.tree_flatten(result)
    if not all(id(leaf) in known for leaf in leaves):
        raise Unsupported("a step that makes a result out of nothing")
    places = {id(x): i for i, x in enumerate(pytree.tree_leaves(arguments)) if isinstance(x, Tensor)}
    traced.sources = tuple(places.get(id(x)) for x in inputs)
    traced.results = pytree.tree_unflatten([known[id(leaf)] for leaf in leaves], spec)
