"""A solve with a cost of its trajectory beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.compat.adaptive import adaptive
from ude.compat.call import Call, Field, State, Tolerance, bind, check_times, in_form
from ude.compat.callbacks import NAMES, Callback
from ude.compat.clock import Clock
from ude.compat.errors import ArgumentError
from ude.compat.evaluations import Evaluations, Tally
from ude.compat.fixed import fixed
from ude.compat.foreign import by_torchdiffeq
from ude.compat.names import ADAMS, FIXED
from ude.compat.norms import mixed_norm
from ude.compat.wrapped import Normed
from ude.methods import Method
from ude.problems import ODEProblem, Solution, Stats, Status, Steps
from ude.regularize.energy import TrajectoryIntegral
from ude.regularize.local import Local
from ude.regularize.regularizer import Regularizer
from ude.regularize.steer import Steer
from ude.regularize.steps import ErrorEstimate, StiffnessEstimate
from ude.regularize.terms import terms_of
from ude.solve.flatten import Layout
from ude.solve.interpolant import Interpolant


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a solve with a regularizer says of itself.

    Args:
        cost: The cost, shape `()`, differentiable: add it to the loss, times a weight.
        steps: One row per attempted step; its times as `t` counts them. Empty if torchdiffeq made the steps.
        t: Times of the states returned; those asked for unless the regularizer moves them, as `Steer` does.
        tally: Counts the evaluations, see `nfe`.
    """

    cost: Tensor
    steps: Steps
    t: Tensor
    tally: Tally

    @property
    def nfe(self) -> Evaluations:
        """Evaluations of the vector field up to now: those of backward passes are known after them."""
        return self.tally.counts

    @property
    def accepted(self) -> int:
        """Steps that were taken."""
        return int(self.steps.accepted.sum())

    @property
    def rejected(self) -> int:
        """Steps that were tried and thrown away."""
        return len(self.steps.accepted) - self.accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularized:
    """A call together with a cost of its trajectory.

    Args:
        cost: The regularizer.
        problem: What is solved, in the user's form of the state, as the regularizer changed it.
        call: The same as a call.
        tally: Counts evaluations.
    """

    cost: Regularizer
    problem: ODEProblem
    call: Call
    tally: Tally

    @classmethod
    def read(
        cls,
        cost: Regularizer,
        func: Field,
        y0: State,
        t: Tensor,
        rtol: Tolerance,
        atol: Tolerance,
        method: str | Method | None,
        options: dict[str, Any] | None,
    ) -> Regularized:
        """Check the arguments of a call and let the regularizer change its problem.

        Raises:
            ArgumentError: If an argument cannot be used, or the cost cannot be had from this method.
        """
        if not isinstance(cost, Regularizer):
            raise ArgumentError(
                f"`regularizer` must be one of those in `ude.regularize`, such as `ErrorEstimate()`, got {cost!r}."
            )
        plain = Call.read(func, y0, t, rtol, atol, method, options)
        _check_method(cost, plain)
        tally = Tally()
        counted = tally.counting(func)
        given = ODEProblem(in_form(counted), plain.unpack(plain.y0), (plain.t[0], plain.t[-1]))
        problem, times = _prepared(cost, given, plain)
        check_times(times)
        if problem.vector_field is given.vector_field and problem.y0 is given.y0:
            call = replace(plain, t=times, field=bind(counted, plain.packing))
        else:
            call = _changed(plain, problem, times, method, options)
        if plain.options.get("engine", "eager") == "eager":
            call = tally.listening(call)
        return cls(cost=cost, problem=replace(problem, t_span=(times[0], times[-1])), call=call, tally=tally)

    def solve(self, *, dense: bool = True) -> Solution:
        """Return the solution in the user's times; its states packed, its continuous extension not."""
        call = self.call
        if call.stepper is not None:
            clock = Clock.of(call)
            with clock.explained():
                solution = clock.solution(adaptive(clock.call(call), dense=dense))
        elif call.method in FIXED:
            solution = fixed(call, dense=True)
        else:
            solution = _without_steps(call, by_torchdiffeq(call)[1])
        if call.options.get("engine", "eager") != "eager" and call.stepper is not None:
            is_given = call.options.get("first_step") is not None
            self.tally.take(solution.stats, call.stepper, is_given=is_given)
        return self._in_form(solution)

    def result(self, solution: Solution, ys: Tensor) -> tuple[Any, Info]:
        """Return the states in the form of the user's, and what there is to say of the solve.

        Args:
            solution: What `solve` returned.
            ys: Its packed states, with their gradient.
        """
        solution = replace(solution, ys=_shaped(self.call.unpack(ys), self.problem.y0))
        self.tally.go_on("regularizer")
        cost = self.cost(solution).to(self.call.y0.real.dtype)
        self.tally.go_on("adjoint")
        info = Info(cost=cost, steps=solution.steps, t=self.call.t, tally=self.tally)
        return self.cost.restore(solution).ys, info

    def _in_form(self, solution: Solution) -> Solution:
        """Return a solution with everything but its states as `ude.solve` would have it of the user's problem."""
        call, like, interpolant = self.call, self.problem.y0, solution.interpolant
        if isinstance(interpolant, Interpolant):
            layout = Layout.of(like, batched=False)
            interpolant = replace(interpolant, task=replace(interpolant.task, layout=layout))
        elif interpolant is not None:
            packed = interpolant
            interpolant = lambda t: _shaped(call.unpack(packed(t)), like)  # noqa: E731
        method: Any = FIXED.get(call.method, call.method) if call.stepper is None else call.stepper
        if call.norm is not None and call.stepper is not None and any(isinstance(x, Local) for x in _costs(self.cost)):
            # It repeats steps, whose errors are to be measured as they were.
            method = Normed(call.stepper, call.norm, call.y0.shape, call.rtol, call.atol)
        return replace(
            solution,
            ts=call.t,
            problem=self.problem,
            method=method,
            rtol=_tolerance(call, call.rtol, like),
            atol=_tolerance(call, call.atol, like),
            interpolant=interpolant,
        )


def refuse_event(event_fn: object) -> None:
    """Raise `ArgumentError` if a solve is to end at an event."""
    if event_fn is not None:
        raise ArgumentError(
            "`regularizer` needs a solve whose end is known. Leave `event_fn` out: find the event first, then solve "
            "up to it; or use `ude.solve` with `events=`."
        )


def check_constant_states(cost: Regularizer, *, recorded: bool) -> bool:
    """Return whether a cost needs the continuous solution, having checked that no gradient has to pass through it.

    Args:
        cost: The regularizer.
        recorded: A gradient is asked for at all.

    Raises:
        ArgumentError: If one has to.
    """
    dense = not recorded
    for term in _costs(cost):
        if isinstance(term, ErrorEstimate | StiffnessEstimate) and recorded:
            raise ArgumentError(
                f"The steps of `odeint_adjoint` carry no gradient, which {term} needs. Take `Local({term})`, which "
                "repeats a few of them on the autograd graph, or solve with `odeint`."
            )
        elsewhere = isinstance(term, TrajectoryIntegral) and not _is_rule(term, "saved", "state")
        if isinstance(term, TrajectoryIntegral) and elsewhere and recorded and not term.detach:
            raise ArgumentError(
                f"`odeint_adjoint` knows the gradient of the states at `t` only, not at the nodes of {term}. Give it "
                "`nodes='saved'`, or `detach=True` to leave that gradient out, or solve with `odeint`."
            )
        dense = dense or elsewhere or isinstance(term, Local)
    return dense


def _check_method(cost: Regularizer, call: Call) -> None:
    """Raise unless the method makes what the costs need."""
    if call.stepper is None and call.method not in FIXED and call.method not in ADAMS:
        raise ArgumentError(
            f"No gradient passes through {call.method!r}. Use 'dopri5', or a method such as `Rodas5P()`."
        )
    for term in _costs(cost):
        inner = term.cost if isinstance(term, Local) else term
        if call.stepper is None and isinstance(inner, ErrorEstimate):
            raise ArgumentError(
                f"{call.method!r} makes no error estimate, which {inner} needs. Use a method that controls its steps, "
                "such as 'dopri5', or `TaylorEnergy`, which works with every method."
            )
        if call.norm is not None and inner is not term and isinstance(inner, ErrorEstimate) and inner.scale == "raw":
            raise ArgumentError(
                f"{term} cannot be had where a norm of its own measures the error, as that of a tuple does. Use "
                "`scale='tolerance'`, or `ErrorEstimate(scale='raw')` itself with `odeint`."
            )
        keeps = isinstance(term, Steer) or (isinstance(term, TrajectoryIntegral) and _is_rule(term, "saved", "state"))
        if call.method in ADAMS and not keeps:
            raise ArgumentError(
                f"torchdiffeq makes the steps of {call.method!r} and keeps none of them, which {term} needs. Use "
                "`TaylorEnergy(nodes='saved')`, or another method."
            )


def _costs(cost: Regularizer) -> list[Regularizer]:
    return [term for _, term in terms_of(cost)]


def _is_rule(cost: TrajectoryIntegral, *rules: str) -> bool:
    return isinstance(cost.nodes, str) and cost.nodes in rules


def _prepared(cost: Regularizer, problem: ODEProblem, call: Call) -> tuple[ODEProblem, Tensor]:
    """Return the problem and the times of a call as a regularizer changes them."""
    # It computes with times in the precision of the state.
    clock = Clock.of(call)
    asked = clock.elapsed(call.t)
    problem, moved = cost.prepare(replace(problem, t_span=(asked[0], asked[-1])), asked)
    if moved is asked:
        return problem, call.t
    times = clock.time(torch.as_tensor(moved)).to(call.t)
    return problem, torch.cat([call.t[:1], times[1:]])


def _changed(
    plain: Call, problem: ODEProblem, t: Tensor, method: str | Method | None, options: dict[str, Any] | None
) -> Call:
    """Return a call that solves another problem, whose state is that of a call with further tensors behind it."""
    parts, spec = pytree.tree_flatten(problem.y0)
    own = len(pytree.tree_leaves(plain.unpack(plain.y0)))

    def func(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        derivative = problem.vector_field(t, pytree.tree_unflatten(state, spec))
        return tuple(pytree.tree_leaves(derivative))

    def state_of(parts: tuple[Tensor, ...]) -> State:
        return parts[:own] if plain.packing else parts[0]

    def told(callback: Callback) -> Callback:
        return lambda t, y, dt: callback(t, state_of(y), dt)

    def norm(parts: tuple[Tensor, ...]) -> Tensor:
        sizes = [torch.as_tensor(chosen["norm"](state_of(parts))).abs(), mixed_norm(parts[own:])]
        return torch.stack([size.to(parts[0].real) for size in sizes]).amax()

    def tolerance(packed: float | Tensor) -> Tolerance:
        if not isinstance(packed, Tensor) or packed.ndim == 0:
            return packed
        spread = plain.unpack(packed.expand(plain.y0.shape))
        return (*(spread if plain.packing else (spread,)), *[packed.min()] * (len(parts) - own))

    for name, callback in plain.callbacks.functions.items():
        setattr(func, name, told(callback))
    for name in NAMES:
        if hasattr(plain.func, f"{name}_adjoint"):
            setattr(func, f"{name}_adjoint", getattr(plain.func, f"{name}_adjoint"))
    chosen = dict(options or {})
    changed = {**chosen, "norm": norm} if "norm" in chosen else chosen
    return Call.read(func, tuple(parts), t, tolerance(plain.rtol), tolerance(plain.atol), method, changed)


def _without_steps(call: Call, ys: Tensor) -> Solution:
    """Return the solution of a solver that says nothing of its steps."""
    nothing, zero = call.t.new_empty(0).detach(), torch.zeros((), dtype=torch.int64, device=ys.device)
    steps = Steps(t=nothing, dt=nothing, error=nothing, stiffness=nothing, accepted=nothing.bool())
    stats = Stats(nfe=zero, accepted=zero, rejected=zero)
    return Solution(ts=call.t, ys=ys, steps=steps, stats=stats, status=zero + int(Status.SUCCESS))


def _tolerance(call: Call, packed: float | Tensor, like: State) -> Any:
    """Return a tolerance as a number, or in the form of a state."""
    if not isinstance(packed, Tensor) or packed.ndim == 0:
        return float(packed)
    return _shaped(call.unpack(packed.expand(call.y0.shape)), like)


def _shaped(state: State, like: State) -> Any:
    """Return the tensors of a state in the structure of another one."""
    return state if isinstance(state, Tensor) else pytree.tree_unflatten(state, pytree.tree_structure(like))
