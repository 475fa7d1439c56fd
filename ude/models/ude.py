"""A differential equation of which one part is known and the other is a network."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ude.ad import is_tensor, jvp
from ude.models.coordinates import LatentField, LogCoordinates
from ude.models.parameters import Parameter, Parameters, Values
from ude.models.term import Term

Calls = Mapping[str, Callable[[Tensor], Tensor]]


class UDE(nn.Module):
    r"""Universal differential equation $\dot y = f(t, y, p, u(\cdot))$: known structure $f$, unknown terms $u$.

    Called as a vector field, `model(t, y)`, or `model(t, y, signal)` if it has exogenous inputs.

    Args:
        known: What is known, in one of three forms. `known(t, y)` and `known(t, y, p)` give the known part of
            $\dot y$, to which the unknown terms are added. `known(t, y, p, u)` gives all of $\dot y$ and calls
            the unknown itself: `u(x)` if there is one, `u["name"](x)` if there are several. `p.alpha` is a
            physical parameter or exogenous input; it and `t` are shaped to broadcast with `y[..., i]`. The
            result is a tensor like `y`, or a tuple of its components.
        unknown: A module that maps `(*batch, inputs)` to `(*batch, outputs)`, a `Term`, which also names
            inputs and outputs, or a mapping from names to these. A bare module maps all states to a rate of
            all states. Empty or None for a model that is known but for its parameters.
        states: Names of the states, in the order of the last axis of `y`; `y1, y2, ...` by default.
        parameters: Physical parameters: name to initial value, or to a `Parameter`.
        positive: Names of states that are kept positive by integrating their logarithm.
        inputs: Names of exogenous inputs, in the order of the last axis of the signal.

    Raises:
        ValueError: If the signature of `known`, names or sizes do not fit together.

    Example:
        >>> from ude.models.mlp import MLP
        >>> model = UDE(
        ...     lambda t, y, p: (p.growth * y[..., 0], -p.decay * y[..., 1]),
        ...     MLP(2, 2),
        ...     states=("hare", "lynx"),
        ...     parameters={"growth": 0.5, "decay": Parameter(0.8, positive=True)},
        ... )
        >>> model(0.0, torch.ones(7, 2, dtype=torch.float64)).shape
        torch.Size([7, 2])
    """

    def __init__(
        self,
        known: Callable[..., Any],
        unknown: nn.Module | Mapping[str, nn.Module] | None,
        *,
        states: Sequence[str] | None = None,
        parameters: Mapping[str, float | Parameter] | None = None,
        positive: Sequence[str] = (),
        inputs: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.known, self._arity = known, _arity(known)
        self.states, self.inputs = _state_names(states, unknown, self._arity), tuple(inputs)
        self.terms = nn.ModuleDict(_terms(unknown, self.states))
        specs = {k: v if isinstance(v, Parameter) else Parameter(float(v)) for k, v in (parameters or {}).items()}
        self.replicates = _common_replicates(self.terms)
        self.physical = Parameters(specs, replicates=self.replicates, dtype=_dtype(self.terms))
        self.coordinates = LogCoordinates(self.states, tuple(positive))
        self._columns = (*self.states, *self.inputs, "t")
        _check_names(self.states, self.inputs, specs)
        if self._arity < 4:
            _check_term_names(self.terms, self._columns, self.states)

    def forward(self, t: float | Tensor, y: Tensor, signal: Any = None) -> Tensor:
        """Return the time derivative of `y`.

        Args:
            t: Time: a number, a tensor that broadcasts with `y[..., 0]`, or one with a last axis of 1 that
                broadcasts with `y`.
            y: States, shape `(*batch, states)`. For a model of K replicates `(K, *batch, states)`, or
                `(K * groups, states)` with the groups of one replicate side by side.
            signal: Exogenous inputs: a `Signal`, called at `t`, or their values `(*batch, inputs)`.
        """
        return self._rate(*self._arrange(t, y, signal), self._calls()).reshape(y.shape)

    def record(self, t: float | Tensor, y: Tensor, signal: Any = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Evaluate the field, and return what went into and came out of each unknown term.

        Args:
            t: Time, as for the call.
            y: States, as for the call.
            signal: Exogenous inputs, as for the call.

        Returns:
            Inputs `(*batch, inputs)` and outputs `(*batch, outputs)` of every term, with the leading axes of `y`.
            For a term that is called several times, the calls are joined along the last of the leading axes.
        """
        tape: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.terms}

        def call(name: str, x: Tensor) -> Tensor:
            value = self.terms[name](x)
            tape[name].append((x, value))
            return value

        self._rate(*self._arrange(t, y, signal), {name: partial(call, name) for name in self.terms})
        return {name: _joined(calls, y.shape[:-1]) for name, calls in tape.items() if calls}

    def latent_field(self) -> Callable[..., Tensor]:
        """Return the vector field in `coordinates`: the model itself unless some states are kept positive.

        Solve it from `coordinates.encode(y0)`, and `coordinates.decode` the solution.
        """
        return LatentField(self, self.coordinates) if self.coordinates.positive else self

    def replace(self, name: str, module: nn.Module) -> UDE:
        """Return a copy of the model in which `module` is the term `name`, in the units of the equation."""
        if name not in self.terms:
            raise ValueError(f"There is no unknown term {name!r}; the terms are {tuple(self.terms)}.")
        old = cast("Term", self.terms[name])
        terms = {**self.terms, name: Term(module, old.inputs, old.outputs, dtype=old.input_shift.dtype)}
        return self._with(terms, self.physical)

    def replicate(self, replicates: int, generator: torch.Generator | None = None) -> UDE:
        """Return K models as one, each with freshly drawn networks and physical parameters.

        Every parameter gets a leading axis K. See `Parameter.spread` for the physical ones.

        Raises:
            ValueError: If the known part cannot be evaluated for several replicates at once.
        """
        if replicates < 1:
            raise ValueError(f"`replicates` must be at least 1, got {replicates}.")
        terms = {name: cast("Term", term).replicate(replicates, generator) for name, term in self.terms.items()}
        many = self._with(terms, self.physical.replicate(replicates, generator))
        many._check_broadcasting(replicates)
        return many

    def member(self, index: int) -> UDE:
        """Return model `index` of K as an ordinary one; its parameters are copies."""
        if self.replicates is None:
            raise ValueError("This model has no replicates, so it has no members. Call `replicate(K)` first.")
        terms = {name: cast("Term", term).member(index) for name, term in self.terms.items()}
        return self._with(terms, self.physical.member(index))

    @torch.no_grad()
    def scale_terms(self, t: Tensor, y: Tensor, rate_scale: Tensor, signal: Any = None) -> None:
        r"""Scale every term so that its network sees and gives numbers of order one.

        Inputs are shifted and scaled by their mean and standard deviation over the samples. An output $u$ is
        scaled so that one unit of it changes no rate by more than its scale,
        $s_u = \min_i r_i / |\partial f_i / \partial u|$ with the root mean square of the derivative over the samples.

        Args:
            t: Times of the samples, shape `(samples,)`.
            y: States at these times, shape `(samples, states)`.
            rate_scale: Typical size of each state's time derivative, $r$, shape `(states,)`.
            signal: Values of the exogenous inputs, shape `(samples, inputs)`.
        """
        single = self if self.replicates is None else self.member(0)
        for name, (inputs, _) in single.record(t, y, signal).items():
            term, columns = cast("Term", self.terms[name]), inputs.reshape(-1, inputs.shape[-1])
            spread = columns.std(dim=0, correction=0)
            size = columns.abs().amax(dim=0)
            # A column that is constant up to rounding carries no scale of its own.
            spread = torch.where(spread > 1e-9 * size, spread, torch.where(size > 0, size, 1.0))
            term.input_shift.copy_(columns.mean(dim=0))
            term.input_scale.copy_(spread)
            for output in range(len(term.outputs)):
                change = single._sensitivity(name, output, t, y, signal)
                scales = torch.where(change > 0, rate_scale / change.clamp_min(1e-300), torch.inf)
                best = scales.amin()
                term.output_scale[output] = best if bool(torch.isfinite(best)) and best > 0 else 1.0

    def _sensitivity(self, name: str, output: int, t: Tensor, y: Tensor, signal: Any) -> Tensor:
        def rate(offset: Tensor) -> Tensor:
            calls = {**self._calls(), name: lambda x: self.terms[name](x) + offset}
            return self._rate(t, y, signal, calls)

        width = len(cast("Term", self.terms[name]).outputs)
        direction = torch.eye(width, dtype=y.dtype, device=y.device)[output]
        change = jvp(rate, (torch.zeros_like(direction),), (direction,))[1]
        return change.square().reshape(-1, y.shape[-1]).mean(dim=0).sqrt()

    @torch.no_grad()
    def _check_broadcasting(self, replicates: int) -> None:
        """Evaluate two samples of each replicate, or three: mixed up axes would fit by chance if both were as many."""
        y = self.physical.raw.new_ones(replicates, 3 if replicates == 2 else 2, len(self.states))
        try:
            self(0.5, y, y.new_ones(*y.shape[:-1], len(self.inputs)) if self.inputs else None)
        except RuntimeError as error:
            raise ValueError(
                "`known` cannot be evaluated for several replicates at once. Parameters, inputs and `t` broadcast with "
                f"`y[..., i]`: write `p.k * y[..., 0]`, or `p.k[..., None] * y` for all states. Torch says: {error}"
            ) from error

    def _calls(self) -> Calls:
        return cast("Calls", dict(self.terms.items()))

    def _arrange(self, t: float | Tensor, y: Tensor, signal: Any) -> tuple[float | Tensor, Tensor, Any]:
        """Give `t` the shape of `y[..., 0]`, and all arrays of K replicates the shape `(K, samples, columns)`."""
        if y.shape[-1:] != (len(self.states),):
            raise ValueError(f"The last axis of `y` must hold the states {self.states}, got shape {tuple(y.shape)}.")
        if is_tensor(t) and t.ndim == y.ndim and t.ndim > 0:
            t = t.squeeze(-1)
        if self.replicates is None:
            return t, y, signal
        if y.ndim < 2 or y.shape[0] % self.replicates or (y.ndim > 2 and y.shape[0] != self.replicates):
            raise ValueError(
                f"The states of {self.replicates} replicates must have shape ({self.replicates}, *batch, states) or "
                f"({self.replicates} * groups, states), got {tuple(y.shape)}."
            )
        if is_tensor(t) and t.ndim > 0:
            t = t.expand(y.shape[:-1]).reshape(self.replicates, -1)
        if is_tensor(signal):
            signal = signal.expand(*y.shape[:-1], -1).reshape(self.replicates, -1, signal.shape[-1])
        return t, y.reshape(self.replicates, -1, y.shape[-1]), signal

    def _rate(self, t: float | Tensor, y: Tensor, signal: Any, calls: Calls, /) -> Tensor:
        values = self._values(t, y, signal)
        if self._arity == 4:
            return _stacked(self.known(t, y, Values(values), Unknowns(calls)), y)
        rate = _stacked(self.known(t, y) if self._arity == 2 else self.known(t, y, Values(values)), y)
        for name, call in calls.items():
            term = cast("Term", self.terms[name])
            rate = _add(rate, call(self._gather(term.inputs, t, y, values)), term.outputs, self.states)
        return rate

    def _values(self, t: float | Tensor, y: Tensor, signal: Any) -> dict[str, Tensor]:
        values = self.physical.values()
        if self.replicates is not None:
            values = {name: value.unsqueeze(-1) for name, value in values.items()}
        if not self.inputs:
            return values
        if signal is None:
            raise ValueError(f"The model has the exogenous inputs {self.inputs}: call it as `model(t, y, signal)`.")
        columns = cast("Tensor", signal(t if is_tensor(t) else y.new_tensor(t)) if callable(signal) else signal)
        return values | dict(zip(self.inputs, columns.unbind(-1), strict=True))

    def _gather(self, names: tuple[str, ...], t: float | Tensor, y: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        if names == self.states:
            return y
        columns = dict(zip(self.states, y.unbind(-1), strict=True)) | {"t": torch.as_tensor(t).to(y)}
        chosen = [(columns | dict(values))[name] if name not in columns else columns[name] for name in names]
        return torch.stack([column.expand(y.shape[:-1]) for column in chosen], dim=-1)

    def _with(self, terms: Mapping[str, nn.Module], physical: Parameters) -> UDE:
        other = UDE(
            copy.deepcopy(self.known),
            {name: copy.deepcopy(term) for name, term in terms.items()},
            states=self.states,
            parameters=self.physical.specs,
            positive=self.coordinates.positive,
            inputs=self.inputs,
        )
        other.physical = copy.deepcopy(physical)
        other.replicates = physical.replicates
        return other

    def extra_repr(self) -> str:
        """Name states and parameters."""
        return f"states={self.states}, parameters={tuple(self.physical.specs)}"


class Unknowns:
    """The unknown terms, as the known part sees them: `u(x)` if there is one, else `u["name"](x)`."""

    __slots__ = ("_calls",)

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def __getitem__(self, name: str) -> Callable[[Tensor], Tensor]:
        return self._calls[name]

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the only unknown term at `x`."""
        if len(self._calls) != 1:
            raise ValueError(f"The model has the unknown terms {tuple(self._calls)}: call one as `u['name'](x)`.")
        (call,) = self._calls.values()
        return call(x)

    def __iter__(self) -> Iterator[str]:
        return iter(self._calls)


def _stacked(rate: Any, y: Tensor) -> Tensor:
    if isinstance(rate, tuple | list):
        rate = torch.stack([_filled(part, y) for part in rate], dim=-1)
    if rate.shape != y.shape:
        raise ValueError(
            f"The known part must return a rate for every state, of shape {tuple(y.shape)}, got {tuple(rate.shape)}."
        )
    return rate


def _filled(part: Any, y: Tensor) -> Tensor:
    """Give one component of the rates the shape of `y[..., 0]`."""
    shape = y.shape[:-1]
    if not is_tensor(part):
        return y.new_full(shape, part)
    return part if part.shape == shape else part.to(y).expand(shape)


def _add(rate: Tensor, value: Tensor, outputs: tuple[str, ...], states: tuple[str, ...]) -> Tensor:
    if outputs == states:
        return rate + value
    columns = list(rate.unbind(-1))
    for name, column in zip(outputs, value.unbind(-1), strict=True):
        columns[states.index(name)] = columns[states.index(name)] + column
    return torch.stack(columns, dim=-1)


def _joined(calls: list[tuple[Tensor, Tensor]], lead: torch.Size) -> tuple[Tensor, Tensor]:
    if len(calls) == 1:
        x, value = calls[0]
        return x.reshape(*lead, -1), value.reshape(*lead, -1)
    rows = [(torch.atleast_2d(x), torch.atleast_2d(value)) for x, value in calls]
    return torch.cat([x for x, _ in rows], dim=-2), torch.cat([value for _, value in rows], dim=-2)


def _arity(known: Callable[..., Any]) -> int:
    target = known.forward if isinstance(known, nn.Module) else known
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    arguments = [p for p in inspect.signature(target).parameters.values() if p.kind in kinds and p.default is p.empty]
    if len(arguments) not in (2, 3, 4):
        raise ValueError(
            f"`known` must take (t, y), (t, y, p) or (t, y, p, u), but it takes {len(arguments)} positional "
            f"arguments: {[p.name for p in arguments]}."
        )
    return len(arguments)


def _state_names(states: Sequence[str] | None, unknown: Any, arity: int) -> tuple[str, ...]:
    if states is not None:
        return tuple(states)
    width = getattr(unknown, "out_features", None)
    if arity == 4 or not isinstance(width, int):
        raise ValueError("Name the states: `UDE(..., states=('x', 'y'))`. Their number cannot be told from `unknown`.")
    return tuple(f"y{i + 1}" for i in range(width))


def _terms(unknown: nn.Module | Mapping[str, nn.Module] | None, states: tuple[str, ...]) -> dict[str, Term]:
    if unknown is None:
        return {}
    named = {"U": unknown} if isinstance(unknown, nn.Module) and not isinstance(unknown, nn.ModuleDict) else unknown
    for name in named:
        if not name or "." in name or hasattr(nn.ModuleDict, name):
            raise ValueError(f"An unknown term cannot be called {name!r}: torch uses this name itself. Rename it.")
    return {name: module if isinstance(module, Term) else _named(module, states) for name, module in named.items()}


def _named(module: nn.Module, states: tuple[str, ...]) -> Term:
    def names(attribute: str, prefix: str) -> tuple[str, ...]:
        width = getattr(module, attribute, len(states))
        return states if width == len(states) else tuple(f"{prefix}{i + 1}" for i in range(width))

    return Term(module, names("in_features", "x"), names("out_features", "u"))


def _common_replicates(terms: nn.ModuleDict) -> int | None:
    counts = {cast("Term", term).replicates for term in terms.values()}
    if len(counts) > 1:
        raise ValueError(f"All unknown terms must have the same number of replicates, got {counts}.")
    return counts.pop() if counts else None


def _dtype(terms: nn.ModuleDict) -> torch.dtype:
    return next((cast("Term", term).input_shift.dtype for term in terms.values()), torch.float64)


def _check_names(states: tuple[str, ...], inputs: tuple[str, ...], specs: Mapping[str, Parameter]) -> None:
    names = [*states, *inputs, *specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"States, inputs and parameters need names of their own; used twice: {twice}.")


def _check_term_names(terms: nn.ModuleDict, columns: tuple[str, ...], states: tuple[str, ...]) -> None:
    for name, module in terms.items():
        term = cast("Term", module)
        strange = [*(x for x in term.inputs if x not in columns), *(x for x in term.outputs if x not in states)]
        if strange:
            raise ValueError(
                f"The unknown term {name!r} names {strange}. Its inputs must be among {columns} and its outputs among "
                f"the states {states}; or call it yourself in `known(t, y, p, u)`."
            )
