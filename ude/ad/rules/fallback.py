"""Functions without a rule: written out in functions that have one, or refused by name.

A function of torch that is written in Python is run as it stands, on jets. Any other is traced into ATen operations on
tensors without contents, with the core decompositions, and the graph is interpreted by the same table. Nothing is ever
evaluated on values alone unless the list of `ude.ad.rules.values` says so.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NoReturn

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from ude.ad.rules.kinds import is_lifted
from ude.ad.rules.table import Handler, aten_rule, name_of

_PYTHON = ("torch.nn.functional", "torch.functional")
_REGISTER = "Register a rule with `ude.ad.register(function, handler)`; `ude.ad.elementwise` and others make handlers."


def decompose(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Apply a function without a rule.

    Raises:
        NotImplementedError: If it cannot be written out in functions with a rule.
        TypeError: If it changes a tensor in place.
    """
    name = name_of(function)
    if (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE:
        refuse(name)
    if name == "__get__":
        raise NotImplementedError("Expected a tensor property with a rule, got one that jets do not have.")
    if getattr(function, "__module__", None) in _PYTHON:
        try:
            return body(function)(*args, **kwargs)
        except RecursionError:  # its helpers ask the question again
            raise NotImplementedError(f"`{name}` has no rule for jets. {_REGISTER}") from None
    leaves, spec = pytree.tree_flatten((tuple(args), kwargs), is_leaf=is_lifted)
    tensors = [leaf for leaf in leaves if is_lifted(leaf) or isinstance(leaf, Tensor)]
    constants = tuple(_Hole if is_lifted(leaf) or isinstance(leaf, Tensor) else leaf for leaf in leaves)
    shapes = tuple((tuple(x.shape), x.dtype, x.device) for x in tensors)
    try:
        graph = _traced(function, spec, constants, shapes)
    except Exception as error:
        raise NotImplementedError(
            f"`{name}` has no rule for jets, and it cannot be written out in simpler functions "
            f"({type(error).__name__}: {_first_line(error)}). {_REGISTER}"
        ) from error
    return _Interpreter(graph, name).run(*tensors)


_IN_PLACE = {
    "__setitem__", "__delitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__ifloordiv__",
    "__imod__",
    "__ipow__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__", "__imatmul__", "set_data",
}  # fmt: skip


def refuse(name: str) -> NoReturn:
    """Raise, saying what to write instead of something that changes a jet in place."""
    if name == "__setitem__":
        raise TypeError(
            "Expected operations that return a new tensor, got an assignment to entries of a tensor. Build the result "
            "with `torch.cat`, `torch.stack`, `torch.where` or `index_put`."
        )
    if name.startswith("__i"):
        sign = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "pow": "**", "matmul": "@"}.get(name[3:-2], "...")
        # Not a TypeError, which torch would take for a hint to try `x + y` instead.
        raise NotImplementedError(
            f"Expected operations that return a new tensor, got `x {sign}= y`, which changes a jet in place. "
            f"Write `x = x {sign} y`."
        )
    if not name.endswith("_"):
        raise TypeError(f"Expected functions of numbers, got `{name}`, which jets do not have.")
    raise NotImplementedError(
        f"Expected operations that return a new tensor, got `{name}`, which changes a jet in place. "
        f"Use `{name.rstrip('_')}` and assign its result."
    )


# Functions written in Python


@functools.cache
def body(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of torch without its question whether an argument handles the call itself."""
    bare = inspect.unwrap(function)
    if not isinstance(bare, FunctionType):
        raise NotImplementedError(f"`{name_of(function)}` has no rule for jets. {_REGISTER}")
    questions = dict.fromkeys(
        ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), _nobody
    )
    copy = FunctionType(
        bare.__code__, {**bare.__globals__, **questions}, bare.__name__, bare.__defaults__, bare.__closure__
    )
    copy.__kwdefaults__ = bare.__kwdefaults__
    return copy


def _nobody(*_: Any) -> bool:
    return False


# Functions written in ATen


class _Hole:
    """Stands for a tensor among the arguments."""


@functools.lru_cache(maxsize=256)
def _cached(function: Any, spec: Any, constants: Any, shapes: Any) -> fx.GraphModule:
    return _trace(function, spec, constants, shapes)


def _traced(function: Any, spec: Any, constants: Any, shapes: Any) -> fx.GraphModule:
    try:
        key = hash((spec, constants, shapes))
    except TypeError:
        return _trace(function, spec, constants, shapes)
    del key
    # 1 == True == 1.0: types belong to the key.
    return _cached(function, spec, tuple(_Typed(constant) for constant in constants), shapes)


class _Typed:
    """A constant that equals only constants of its own type."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Typed)
            and type(self.value) is type(other.value)
            and repr(self.value) == repr(other.value)
        )

    def __hash__(self) -> int:
        return hash(self.value)


def _trace(function: Any, spec: Any, constants: Any, shapes: Any) -> fx.GraphModule:
    constants = [constant.value if isinstance(constant, _Typed) else constant for constant in constants]

    def on_tensors(*tensors: Tensor) -> Any:
        waiting = iter(tensors)
        leaves = [next(waiting) if constant is _Hole else constant for constant in constants]
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        return function(*args, **kwargs)

    with temporarily_clear_interpreter_stack(), torch.no_grad():
        # Tensors without contents: whatever depends on data raises instead of being baked in.
        blanks = [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in shapes]
        decompositions: Any = core_aten_decompositions()
        trace = functools.partial(make_fx, decomposition_table=decompositions, tracing_mode="fake")
        graph = trace(on_tensors)(*blanks)
        if any(_changes(node) for node in graph.graph.nodes):
            graph = trace(torch.func.functionalize(graph))(*blanks)
        return graph


def _changes(node: fx.Node) -> bool:
    """Whether a node changes a tensor in place."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


class _Interpreter(fx.Interpreter):
    """Runs a graph of ATen operations on jets."""

    def __init__(self, graph: fx.GraphModule, name: str) -> None:
        super().__init__(graph)
        self.extra_traceback = False  # an error is about the user's function, not about this graph
        self._name = name

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Apply an operation by its rule; without jets as it stands."""
        leaves = pytree.tree_leaves((args, kwargs), is_leaf=is_lifted)
        if target is operator.getitem or not any(is_lifted(leaf) for leaf in leaves):
            return target(*args, **kwargs)
        operation = getattr(target, "_schema", target)
        name = str(getattr(operation, "name", target)).removeprefix("aten::")
        rule: Handler | None = aten_rule(name)
        if rule is None:
            raise NotImplementedError(
                f"`{self._name}` has no rule for jets, and among the operations that it consists of `aten.{name}` "
                f"has none either. {_REGISTER}"
            )
        return rule(*args, **kwargs)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
