"""Compiled functions, kept as long as the vector field they were made for."""

from __future__ import annotations

import logging
import re
import time
import types
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

from ude.solve.lowering import lower

logger = logging.getLogger("ude")

FIXED = re.compile(
    r"(layout|method|controller)\b|dict\(type\((layout|method|controller)\)|"
    r"(dict\()?G\['(?!__import_(?!(ude|torch)(_dot_|')))"
)
"""What the compiler calls the parts of a block that never change."""

RARELY_BROKEN = ("NOT_PRESENT_IN_GENERIC_DICT", "EMPTY_NN_MODULE_HOOKS_DICT")
"""Checks of every submodule for hooks and for attributes that replace its methods."""

Backend: TypeAlias = Callable[[Any, list[Any]], Any]


class NotCompilable(RuntimeError):
    """The compiler does not take a function; the message says which and why."""


F = TypeVar("F", bound=Callable[..., Any])

_compiled: dict[int, tuple[weakref.ref[Any], dict[Hashable, Callable[..., Any]]]] = {}


def compiled_for(
    vector_field: Callable[..., Any],
    configuration: Hashable,
    make: Callable[[], F],
    backend: Backend = lower,
    takes: str = "ten seconds or more",
    *,
    thorough: bool = False,
    repeats: bool = False,
) -> F:
    """Return a compiled function for a vector field and a configuration, making it when it is first asked for.

    A module is known by its identity; a function by its code, so that a closure made anew in every iteration of a
    training loop is compiled once, the compiler checking what it closes over.

    Args:
        vector_field: The user's function; it must be an argument of the compiled function, not held by it.
        configuration: Everything else that the function was made from.
        make: Returns the function to compile; it must be defined by `def`.
        backend: Turns graphs into machine code.
        takes: How long that takes, for the log.
        thorough: Check everything that the function depends on before every call.
        repeats: It is called many times in a row with what should need no new code; see `PATIENCE`.
    """
    owner, extra = owner_of(vector_field)
    entry = _compiled.get(id(owner))
    if entry is None or entry[0]() is not owner:
        key = id(owner)
        entry = (weakref.ref(owner, lambda _: _compiled.pop(key, None)), {})
        _compiled[key] = entry
    functions = entry[1]
    if (extra, configuration) not in functions:
        functions[extra, configuration] = _compile(
            make(),
            _name(vector_field),
            backend,
            takes,
            thorough=thorough or not isinstance(vector_field, nn.Module),
            repeats=repeats,
        )
    return functions[extra, configuration]  # pyright: ignore[reportReturnType]


K = TypeVar("K")


def kept_for(vector_field: Callable[..., Any], shelf: dict[int, tuple[Any, set[K]]]) -> set[K]:
    """Return what a shelf holds for a vector field, for as long as that lives."""
    owner, extra = owner_of(vector_field)
    key = hash((id(owner), extra))
    entry = shelf.get(key)
    if entry is None or entry[0]() is not owner:
        entry = (weakref.ref(owner, lambda _: shelf.pop(key, None)), set())
        shelf[key] = entry
    return entry[1]


def owner_of(vector_field: Callable[..., Any]) -> tuple[Any, Hashable]:
    """Return what a vector field lives and dies with, and what tells it from others of the same owner."""
    if isinstance(vector_field, types.MethodType):
        return vector_field.__self__, vector_field.__func__.__qualname__
    if isinstance(vector_field, types.FunctionType):
        return vector_field.__code__, None
    return vector_field, None


PATIENCE = 4
"""Calls in a row that had to be compiled anew, after which something must be changing with every call."""


def _compile(
    function: Callable[..., Any],
    name: str,
    backend: Backend,
    takes: str,
    *,
    thorough: bool,
    repeats: bool = False,
) -> Callable[..., Any]:
    """Return a compiled function that tells what it does and explains why it cannot."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
    from torch._dynamo.utils import counters

    logger.info("Compiling the steps for %s. This may take some %s, once.", name, takes)
    compiled = _compile_alone(function, name, backend, thorough=thorough)
    made = 0

    def call(*args: Any) -> Any:
        nonlocal compiled, made
        if repeats and made >= PATIENCE:
            raise NotCompilable(
                f"The vector field {name} would have to be compiled anew for every step: something it depends on "
                'changes with every call, such as a list of its own that grows. Solve with `engine="eager"`, or leave '
                "counting to `solution.stats.nfe`."
            )
        before = counters["stats"]["unique_graphs"]
        began = time.perf_counter()
        try:
            try:
                result = compiled(*args)
            except FailOnRecompileLimitHit:
                # Many shapes, or many closures of one code: start another shelf rather than give up.
                compiled = _compile_alone(function, name, backend, thorough=thorough)
                result = compiled(*args)
        except TorchDynamoException as error:
            raise NotCompilable(
                f"The vector field {name} cannot be compiled: {str(error).strip().splitlines()[0]} "
                'Solve with `engine="eager"`, or write it in plain tensor operations.'
            ) from error
        made = made + 1 if counters["stats"]["unique_graphs"] > before else 0
        if made:
            logger.info("Compiled the steps for %s in %.1f s.", name, time.perf_counter() - began)
        return result

    return call


def compiled(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a compiled function that belongs to no vector field; it must be defined by `def`."""
    return _compile(function, name.replace(" ", "_"), lower, "seconds", thorough=True)


def _compile_alone(function: Callable[..., Any], name: str, backend: Backend, *, thorough: bool) -> Callable[..., Any]:
    # The compiler keeps its results with the code object: with one of its own, no function crowds out another's.
    assert isinstance(function, types.FunctionType)
    own = types.FunctionType(
        function.__code__.replace(co_name=f"{function.__name__}_{name}"),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return torch.compile(own, backend=backend, fullgraph=True, dynamic=False, options=_options(thorough))


def _options(thorough: bool) -> dict[str, Any] | None:
    """Check fewer assumptions before every call, where this version of PyTorch can be told so."""
    if not hasattr(torch.compiler, "skip_all_guards_unsafe"):
        return None
    return {"guard_filter_fn": _keep_most_guards if thorough else _keep_guards}


def _keep_guards(guards: Sequence[Any]) -> list[bool]:
    """Drop assumptions whose check would take longer than a step.

    They are that a method, a controller and our own modules are what they were, which nobody can break, and that no
    hook was added to a part of a module and no attribute of it replaced that was its class's when it was compiled.
    """
    return [not FIXED.match(guard.name) and guard.guard_type not in RARELY_BROKEN for guard in guards]


def _keep_most_guards(guards: Sequence[Any]) -> list[bool]:
    """Drop the assumptions that nobody can break."""
    return [not FIXED.match(guard.name) for guard in guards]


def _name(vector_field: Callable[..., Any]) -> str:
    return getattr(vector_field, "__name__", type(vector_field).__name__)
