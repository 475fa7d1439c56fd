"""From equations with unknown terms and measurements to recovered equations, in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ude._checks import InputError
from ude.discovery import Discovery, Fourier, Library, Polynomial, Rational, Search, discover
from ude.fit import LBFGS, Adam, Collocation, Fit, InitialStates, MultipleShooting, SingleShooting, SolverOptions, fit
from ude.models import MLP, UDE, EquationSystem, Parameter, parse_equations
from ude.problems import Trajectories
from ude.report.curves import Paths

LIBRARIES = ("polynomial", "fourier", "rational")
STRATEGIES = ("collocation", "multiple", "single")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Shape of the networks that stand for the unknown terms; see `ude.MLP`."""

    width: int = 16
    depth: int = 2
    activation: str = "tanh"

    def __call__(self, inputs: int, outputs: int) -> MLP:
        """Return a network."""
        return MLP(inputs, outputs, width=self.width, depth=self.depth, activation=self.activation, final_scale=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is known, what is asked, and how hard to try: plain values that can be written to a file.

    Args:
        equations: One per state, such as `hare' = a*hare + ?(hare, lynx)`; `?(...)` is an unknown term.
        inputs: Names in the equations that are exogenous inputs.
        parameters: Where parameters start; the others start at 1.
        positive: Names of states and parameters that are never negative.
        hidden: States that were never measured, and a guess of where they start.
        fixed_start: Take the first measurement as the initial state instead of fitting it.
        common_noise: All states have noise of the same size, in the units of the data.
        libraries: Families of candidate functions, of `LIBRARIES`; monomials up to degree 5 if empty.
        degree: Largest degree of polynomial candidates.
        max_terms: Most functions in one unknown term.
        strategy: How the networks are trained, of `STRATEGIES`; multiple shooting if a state is hidden, else
            collocation.
        network: Shape of the networks.
        replicates: Networks trained side by side.
        bootstraps: Resamples of the data in which the candidates compete again.
        seed: Of all random numbers.
        quick: Fewer iterations, for a first look.
    """

    equations: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    parameters: Mapping[str, float] = field(default_factory=dict)
    positive: tuple[str, ...] = ()
    hidden: Mapping[str, float] = field(default_factory=dict)
    fixed_start: bool = False
    common_noise: bool = False
    libraries: tuple[str, ...] = ()
    degree: int | None = None
    max_terms: int = 4
    strategy: str | None = None
    network: Network = field(default_factory=Network)
    replicates: int = 8
    bootstraps: int = 0
    seed: int = 0
    quick: bool = False

    def system(self, time: str = "t") -> EquationSystem:
        """Return the equations as symbols.

        Raises:
            InputError: If an equation or a name cannot be used.
        """
        system = parse_equations(self.equations, self.inputs, time=time)
        self._check_names(system)
        starts = {name: self.parameters.get(name, 1.0) for name in system.parameters}
        for name in self.positive:
            if starts.get(name, 1.0) <= 0:
                raise InputError(
                    f"The parameter {name!r} is positive, so it must start above 0, not at {starts[name]}."
                )
        specs = {name: Parameter(start, positive=name in self.positive) for name, start in starts.items()}
        return parse_equations(self.equations, self.inputs, time=time, parameters=specs)

    def model(self, system: EquationSystem) -> UDE:
        """Return the model of the system, its networks not drawn yet."""
        return system.to_ude(network=self.network, positive=tuple(n for n in self.positive if n in system.states))

    def library(self) -> Library | None:
        """Return the candidate functions; None for the default."""
        if not self.libraries and self.degree is None:
            return None
        families = {
            "polynomial": Polynomial(degree=self.degree or 3),
            "fourier": Fourier(),
            "rational": Rational(degree=2),
        }
        chosen = [families[name] for name in self.libraries or ("polynomial",)]
        return sum(chosen[1:], start=chosen[0])

    def _check_names(self, system: EquationSystem) -> None:
        known = {
            "parameter": (self.parameters, system.parameters),
            "positive state or parameter": (self.positive, (*system.states, *system.parameters)),
            "hidden state": (self.hidden, system.states),
        }
        for what, (names, allowed) in known.items():
            for name in names:
                if name not in allowed:
                    raise InputError(
                        f"{name!r} is not a {what} of the equations; choose from {', '.join(allowed) or 'none'}."
                    )
        if not system.terms:
            raise InputError("The equations have no unknown term. Mark it with a question mark, such as `?(x, y)`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came out of a job.

    Args:
        job: What was asked.
        system: The equations as symbols.
        fit: The trained hybrid models.
        discovery: The recovered equations.
        paths: Both models within and beyond the measurements.
        seconds: Wall time.
    """

    job: Job
    system: EquationSystem
    fit: Fit
    discovery: Discovery
    paths: Paths
    seconds: float


def run_job(
    job: Job,
    data: Trajectories,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """Fit the equations to the data and recover their unknown terms.

    Args:
        job: What to do.
        data: Measurements of the states, and values of the inputs.
        checkpoint: File that an interrupted run is continued from.
        resume: Continue from it.
        progress: Show a progress bar.
        say: Called with one line at the start of every stage.

    Raises:
        InputError: If equations and data do not fit together.
        Interrupted: On Ctrl-C.
    """
    started = time.perf_counter()
    system = job.system(data.time if data.time.isidentifier() else "t")
    data = _ordered(data, system)
    generator = torch.Generator().manual_seed(job.seed)
    say(f"Training {job.replicates} networks for {_terms(system)}")
    result = fit(
        job.model(system),
        data,
        strategy=_strategy(job),
        replicates=job.replicates,
        y0=InitialStates(values=job.hidden, learn=tuple(job.hidden)) if job.hidden else "data",
        # The networks only propose structures, which are then fitted to the data: their solver's error may stay.
        solver=SolverOptions(halvings=0),
        generator=generator,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
    )
    say("Comparing candidate equations on the measurements")
    found = discover(
        result,
        library=job.library(),
        learn_y0=_learned_starts(job, system),
        noise="common" if job.common_noise else "each state",
        search=Search(max_terms=job.max_terms),
        bootstraps=job.bootstraps,
        generator=generator,
    )
    paths = Paths.of(result, found)
    seconds = time.perf_counter() - started
    return Run(job=job, system=system, fit=result, discovery=found, paths=paths, seconds=seconds)


def _strategy(job: Job) -> tuple[Collocation | MultipleShooting | SingleShooting, ...]:
    # After a warm start Adam is left out: its first steps would throw it away.
    search, polish = Adam(iterations=100 if job.quick else 300), LBFGS(iterations=40 if job.quick else 150)
    whole = SingleShooting(optimizers=(polish,))
    return {
        "collocation": (Collocation(), whole),
        "multiple": (MultipleShooting(optimizers=(search, polish)), whole),
        "single": (SingleShooting(optimizers=(search, polish)),),
    }[job.strategy or ("multiple" if job.hidden else "collocation")]


def _learned_starts(job: Job, system: EquationSystem) -> bool | tuple[str, ...] | None:
    if job.fixed_start:
        return tuple(job.hidden)
    return tuple(system.states) if job.hidden else None


def _ordered(data: Trajectories, system: EquationSystem) -> Trajectories:
    """Return the data with the states and inputs of the system, in its order."""
    absent = [name for name in system.states if name not in data.states]
    if absent:
        raise InputError(
            f"The equations have the state {absent[0]!r}, but the data have {', '.join(data.states)}. Rename a column, "
            "or declare the state as never observed."
        )
    missing = [name for name in system.inputs if name not in data.input_names]
    if missing:
        raise InputError(f"The data have no input {missing[0]!r}; their inputs are {data.input_names or 'none'}.")
    columns = [data.states.index(name) for name in system.states]
    inputs = None if data.inputs is None else data.inputs[..., [data.input_names.index(name) for name in system.inputs]]
    return Trajectories(
        ts=data.ts,
        ys=data.ys[..., columns],
        states=system.states,
        inputs=inputs if system.inputs else None,
        input_names=system.inputs,
        groups=data.groups,
        time=data.time,
    )


def _terms(system: EquationSystem) -> str:
    outputs = [f"{output}({', '.join(term.inputs)})" for term in system.terms for output in term.outputs]
    return ", ".join(outputs)
