"""The door `discover`: from a learned term to an equation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

from ude._checks import InputError
from ude.discovery.assemble import Evidence, assemble
from ude.discovery.bootstrap import bootstrap
from ude.discovery.candidates import Column, Learned, Structure, default_library, finite_part
from ude.discovery.learned import ERROR_PER_NOISE, Case, Paths, learn, solve_learned
from ude.discovery.libraries import Library, as_library
from ude.discovery.refit import LevenbergMarquardt
from ude.discovery.result import Discovery
from ude.discovery.segments import cut
from ude.discovery.selection import NoiseModel, Refitted, Search, Stage, refit
from ude.discovery.shooting import Shooting
from ude.discovery.sparse_term import SparseTerm
from ude.fit import Fit
from ude.models import UDE, Term
from ude.problems import Trajectories

# Errors of the solver, relative to the spread of a state: smaller residuals are not told apart.
SOLVER_ERROR = 1e-6
POLISHED = 10
POLISH = LevenbergMarquardt(max_iter=60, tolerance=1e-10)


def discover(
    source: Fit | UDE | Sequence[UDE],
    data: Trajectories | None = None,
    library: Library | Mapping[str, Library] | Any = None,
    *,
    y0: Tensor | None = None,
    learn_y0: bool | tuple[str, ...] | None = None,
    noise: Literal["each state", "common"] = "each state",
    search: Search = Search(),  # noqa: B008
    bootstraps: int = 0,
    generator: torch.Generator | None = None,
) -> Discovery:
    r"""Recover the unknown terms of fitted models as equations.

    The networks only propose: sparse regression on what they have learned gives a pool of candidate structures.
    Every candidate is put into the differential equation and its coefficients, the physical parameters and the initial
    states are fitted to the data together, all candidates as one batch. The best are varied (functions added, dropped,
    exchanged) and fitted again until the criterion no longer falls. The shortest of the candidates that the criterion
    cannot tell from the best one is chosen.

    Args:
        source: A `Fit`, whose good members all propose; or a fitted model, or several of the same system.
        data: Measurements; those of the `Fit` by default.
        library: Candidate functions of the inputs of the unknown terms, or a mapping from the names of the terms to
            such; libraries of pysindy are accepted. By default monomials up to degree 5, fewer for many inputs.
        y0: Initial states of a model that is not in a `Fit`, shape `(states,)` or `(groups, states)`; the first
            measurements by default.
        learn_y0: Names of the states whose initial values are fitted, True for all, False for none. By default
            those that are measured at the start: a measurement is not the state.
        noise: "each state" has noise of its own size, or it is "common" to all in the units of the data.
        search: How structures are searched and compared.
        bootstraps: Number of resamples of the data in which the best candidates compete again; their share is the
            inclusion probability. Without them, the weights of the criterion give it.
        generator: Source of the resampling's randomness.

    Returns:
        The equations, with their uncertainty and what was considered besides.

    Raises:
        InputError: If the models cannot be solved over the data, or the library fits nothing.
        ValueError: If arguments do not fit together.

    Example:
        >>> t = torch.linspace(0, 2, 21, dtype=torch.float64)
        >>> data = Trajectories.from_arrays(t, (2 / (1 + 4 * (-t).exp()))[:, None], states=("n",))
        >>> learned = SparseTerm(default_library(1), torch.tensor([[0, 0.02, -0.52, 0.01, 0, 0]]).double())
        >>> model = UDE(lambda t, y: y, learned, states=("n",))  # a fitted network would stand here
        >>> discover(model, data).equations
        ("n' = -0.5*n**2 + n",)
    """
    case = Case.of(source, data, y0)
    libraries = _libraries(case.model, library)
    paths = solve_learned(case)
    libraries = _finite(case, paths, libraries)
    model = _candidate_model(case.model, libraries)
    learned = learn(case, paths, model, _columns(case.model, libraries))
    is_learned = _learned_starts(case, learn_y0)
    others = len(case.model.physical.names) + int(is_learned.sum())
    noise_model = _noise(case, paths, others, is_common=noise == "common")
    # Networks wiggle; the equations that are compared with them do not, and need no shorter steps than this.
    dt = max(paths.dt, paths.time_scale / 4)
    weights = 1 / noise_model.deviation(_learned_sse(case, paths))
    shooting = Shooting(model, case.data, weights, dt, signal=case.signal)
    whole = _stage(shooting, case, case.y0s[0], is_learned)
    short = cut(case, paths)
    none = torch.zeros_like(short.y0s, dtype=torch.bool)
    pieces = _stage(Shooting(model, short.data, weights, dt, signal=short.signal), case, short.y0s, none)
    table = search.run(whole, pieces, learned, noise_model)
    free = whole.free
    shooting = _accurate(
        shooting, min(table.values(), key=lambda c: search.score(c, noise_model, learned)), noise_model
    )
    best, table = _polish(search, shooting, learned, noise_model, table, free)
    resampled = None
    if bootstraps:
        resampled = bootstrap(search, shooting, learned, noise_model, table, free, bootstraps, generator)
    evidence = Evidence(
        learned=learned,
        noise=noise_model,
        search=search,
        table=table,
        free=free,
        learned_sse=_learned_sse(case, paths),
        resampled=resampled,
    )
    return assemble(case, shooting, evidence, best)


def _polish(
    search: Search,
    shooting: Shooting,
    learned: Learned,
    noise: NoiseModel,
    table: dict[Structure, Refitted],
    free: Tensor,
) -> tuple[Refitted, dict[Structure, Refitted]]:
    """Fit the best candidates to convergence and choose; the weights follow the noise of the chosen one."""
    solvable = [c for c in table.values() if bool(c.sse.isfinite().all())]
    if not solvable:
        raise InputError(
            "No candidate equation could be solved over the times of the data. Offer other functions in `library`: "
            "high powers make solutions grow without bound."
        )
    polished = sorted(solvable, key=lambda c: search.score(c, noise, learned))[:POLISHED]
    best = polished[0]
    for _ in range(3):
        shooting.set_weights(1 / noise.deviation(best.sse, spent=len(best.structure) + noise.others))
        polished = list(refit(shooting, {c.structure: c.theta for c in polished}, free, POLISH).values())
        best = search.choose(polished, noise, learned)
    return best, table | {c.structure: c for c in polished}


def _accurate(shooting: Shooting, candidate: Refitted, noise: NoiseModel) -> Shooting:
    """Halve the steps until the error of the candidate's solution is far below the noise."""
    theta = candidate.theta.unsqueeze(0)
    deviation = noise.deviation(candidate.sse)
    for _ in range(8):
        finer = shooting.halved()
        change = (shooting.states(shooting.nodes(theta)) - finer.states(finer.nodes(theta))).abs().amax((0, 1, 2))
        if bool((change <= ERROR_PER_NOISE * deviation).all()):
            break
        shooting = finer
    return shooting


def _libraries(model: UDE, library: Any) -> dict[str, Library]:
    if not model.terms:
        raise ValueError("The model has no unknown term, so there is nothing to discover.")
    if isinstance(library, Mapping):
        strange = set(library) ^ set(model.terms)
        if strange:
            raise ValueError(
                f"`library` must have an entry for each unknown term {tuple(model.terms)}; check {strange}."
            )
        return {name: as_library(library[name]) for name in model.terms}
    if library is not None:
        return {name: as_library(library) for name in model.terms}
    return {name: default_library(len(cast("Term", term).inputs)) for name, term in model.terms.items()}


def _columns(model: UDE, libraries: Mapping[str, Library]) -> list[Column]:
    columns, slot = [], 0
    for name, module in model.terms.items():
        term = cast("Term", module)
        for output in term.outputs:
            names = libraries[name].names(term.inputs)
            columns += [Column(term=name, output=output, feature=f, slot=slot) for f in names]
            slot += 1
    return columns


@torch.no_grad()
def _finite(case: Case, paths: Paths, libraries: Mapping[str, Library]) -> dict[str, Library]:
    """Leave functions out of the libraries that are not finite along the learned trajectories."""
    signal = None if case.signal is None else case.signal(paths.t).flatten(0, 1)
    recorded = case.model.record(paths.t.flatten(), paths.ys[0].flatten(0, 1), signal)
    return {name: finite_part(library, recorded[name][0].flatten(0, -2)) for name, library in libraries.items()}


def _candidate_model(model: UDE, libraries: Mapping[str, Library]) -> UDE:
    for name, library in libraries.items():
        term = cast("Term", model.terms[name])
        zeros = torch.zeros(len(term.outputs), library.size(len(term.inputs)), dtype=term.input_shift.dtype)
        model = model.replace(name, SparseTerm(library, zeros))
    return model


def _learned_sse(case: Case, paths: Paths) -> Tensor:
    """Sum of squared errors of every state, of the best model."""
    return (paths.at_data[0] - case.data.ys).square().nansum((0, 1))


def _noise(case: Case, paths: Paths, others: int, *, is_common: bool) -> NoiseModel:
    counts = (~case.data.ys.isnan()).sum((0, 1)).to(case.data.ys)
    relative = ((_learned_sse(case, paths) / case.scale**2).sum() / counts.sum()).sqrt()
    floor = SOLVER_ERROR * case.scale
    return NoiseModel(counts=counts, scale=relative * case.scale, floor=floor, others=others, is_common=is_common)


def _stage(shooting: Shooting, case: Case, y0s: Tensor, is_learned: Tensor) -> Stage:
    """Start from the physical parameters of the best model and initial states, of which some are fitted too."""
    start = shooting.model.coordinates.encode(y0s).flatten()
    raw = case.model.physical.raw.detach().to(start)
    theta = torch.cat([start.new_zeros(shooting.layout.coefficients), raw, start])
    free = torch.zeros(len(theta), dtype=torch.bool)
    free[shooting.layout.coefficients : shooting.layout.shared] = True
    free[shooting.layout.shared :] = is_learned.flatten()
    return Stage(shooting=shooting, theta=theta, free=free)


def _learned_starts(case: Case, learn_y0: bool | tuple[str, ...] | None) -> Tensor:
    """Return which initial states are fitted, shape `(groups, states)`."""
    states = case.data.states
    if isinstance(learn_y0, tuple):
        strange = [name for name in learn_y0 if name not in states]
        if strange:
            raise ValueError(f"`learn_y0` names {strange}, which are not among the states {states}.")
        return torch.tensor([name in learn_y0 for name in states]).expand(len(case.data.groups), -1)
    if learn_y0 is None:
        return ~case.data.ys[:, 0].isnan()
    return torch.full((len(case.data.groups), len(states)), learn_y0)
