"""Put a `Discovery` together from the chosen candidate and the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ude.discovery.candidates import Learned, Structure
from ude.discovery.diagnostics import correlated_states, is_worse
from ude.discovery.learned import Case
from ude.discovery.refit import LevenbergMarquardt, Minimum, covariance
from ude.discovery.result import Candidate, Discovery, Estimate, RecoveredTerm
from ude.discovery.selection import NoiseModel, Refitted, Search, criteria, minimum_of
from ude.discovery.shooting import Shooting
from ude.discovery.sparse_term import SparseTerm
from ude.models import UDE, Term

KEPT_CANDIDATES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the search has found.

    Args:
        learned: What the networks have learned.
        noise: The noise model.
        search: How candidates are compared.
        table: All fitted candidates.
        free: Physical parameters and initial states that were fitted.
        learned_sse: Sum of squared errors of the best network, of every state.
        resampled: Share of the bootstrap samples each structure has won.
    """

    learned: Learned
    noise: NoiseModel
    search: Search
    table: Mapping[Structure, Refitted]
    free: Tensor
    learned_sse: Tensor
    resampled: Mapping[Structure, float] | None


def assemble(case: Case, shooting: Shooting, evidence: Evidence, best: Refitted) -> Discovery:
    """Return the discovery whose equations are those of `best`."""
    minimum = minimum_of(
        shooting, [best.structure], best.theta[None], evidence.free, LevenbergMarquardt(max_iter=30, tolerance=1e-13)
    )
    theta = minimum.theta[0]
    model, y0 = _fitted_model(shooting, theta)
    ranked = sorted(evidence.table.values(), key=lambda c: evidence.search.score(c, evidence.noise, evidence.learned))
    weights = _weights(ranked, evidence)
    candidates = [_candidate(c, evidence, w) for c, w in zip(ranked[:KEPT_CANDIDATES], weights.tolist(), strict=False)]
    place = [c.structure for c in ranked].index(best.structure)
    chosen = _candidate(best, evidence, float(weights[place]))
    if place >= len(candidates):
        candidates.append(chosen)
    else:
        candidates[place] = chosen
    active = evidence.free.clone()
    active[list(best.structure)] = True
    estimates, matrix, singular_values = _uncertainty(case, shooting, evidence, minimum, active)
    terms = _terms(case, evidence, best, theta, ranked, weights)
    return Discovery(
        model=model,
        y0=y0,
        data=case.data,
        terms=terms,
        candidates=tuple(candidates),
        chosen=chosen,
        estimates=estimates,
        covariance=matrix,
        singular_values=singular_values,
        freedom=max(int(evidence.noise.counts.sum()) - len(estimates), 1),
        noise=evidence.noise.deviation(best.sse, spent=len(estimates)),
        learned_sse=float(evidence.learned_sse.sum()),
        stability=None if evidence.resampled is None else evidence.resampled.get(best.structure, 0.0),
        warnings=tuple(
            _warnings(case, shooting, evidence, best, minimum, estimates, singular_values, chosen, candidates)
        ),
        signal=case.signal,
    )


def _fitted_model(shooting: Shooting, theta: Tensor) -> tuple[UDE, Tensor]:
    """Return the model and the initial states that a parameter vector stands for."""
    layout, model = shooting.layout, shooting.model
    tensors = layout.tensors(theta[None, : layout.shared])
    for name, _, _ in layout.terms:
        network = model.terms[name].get_submodule("network")
        assert isinstance(network, SparseTerm)
        coefficients = tensors[f"model.terms.{name}.network.coefficients"][0]
        model = model.replace(
            name, network.with_coefficients(coefficients).simplified(cast("Term", model.terms[name]).inputs)
        )
    if layout.physical:
        with torch.no_grad():
            model.physical.raw.copy_(tensors["model.physical.raw"][0])
    return model, model.coordinates.decode(theta[layout.shared :].reshape(layout.groups, layout.states))


def _weights(ranked: list[Refitted], evidence: Evidence) -> Tensor:
    scores = torch.tensor(
        [evidence.search.score(c, evidence.noise, evidence.learned) for c in ranked], dtype=torch.float64
    )
    return torch.softmax(-0.5 * (scores - scores.min()), dim=0)


def _candidate(refitted: Refitted, evidence: Evidence, weight: float) -> Candidate:
    terms: dict[str, dict[str, float]] = {f"{c.term}.{c.output}": {} for c in evidence.learned.columns}
    for column in refitted.structure:
        c = evidence.learned.columns[column]
        terms[f"{c.term}.{c.output}"][c.feature] = float(refitted.theta[column])
    return Candidate(
        terms=terms,
        sse=tuple(refitted.sse.tolist()),
        **criteria(refitted, evidence.noise, evidence.learned),
        weight=weight,
        converged=refitted.converged,
    )


def _uncertainty(
    case: Case, shooting: Shooting, evidence: Evidence, minimum: Minimum, active: Tensor
) -> tuple[tuple[Estimate, ...], Tensor, Tensor]:
    """Return the fitted numbers, their covariance, and the singular values of their scaled effects."""
    names, kinds, values, slopes = _numbers(case, shooting, evidence, minimum.theta[0])
    chosen = active.nonzero()[:, 0].tolist()
    # Derivatives with respect to the numbers themselves, not to the coordinates that they were fitted in.
    jacobian = minimum.jacobian[0][:, active] / slopes[active]
    matrix, singular_values = covariance(jacobian)
    errors = matrix.diagonal().clamp(min=0).sqrt()
    estimates = tuple(
        Estimate(name=names[i], kind=kinds[i], value=float(values[i]), error=float(error))
        for i, error in zip(chosen, errors, strict=True)
    )
    return estimates, matrix, singular_values


def _numbers(
    case: Case, shooting: Shooting, evidence: Evidence, theta: Tensor
) -> tuple[list[str], list[str], Tensor, Tensor]:
    """Return name, kind, value, and derivative of the value by the fitted coordinate, of all parameters."""
    layout, model = shooting.layout, shooting.model
    physical = model.physical.names
    columns = [f"{c.term}.{c.output}: {c.feature}" for c in evidence.learned.columns]
    several = len(case.data.groups) > 1
    starts = [f"{s}(0)" + (f" [{g}]" if several else "") for g in case.data.groups for s in case.data.states]
    raw = theta[layout.coefficients : layout.shared].clone().requires_grad_()
    decoded = [model.physical.specs[n].decode(r) for n, r in zip(physical, raw.unbind(), strict=True)]
    values, slopes = theta.clone(), torch.ones_like(theta)
    if decoded:
        torch.stack(decoded).sum().backward()
        assert raw.grad is not None
        slopes[layout.coefficients : layout.shared] = raw.grad
        values[layout.coefficients : layout.shared] = torch.stack(decoded).detach()
    z = theta[layout.shared :].reshape(layout.groups, layout.states)
    y = model.coordinates.decode(z)
    values[layout.shared :] = y.flatten()
    slopes[layout.shared :] = (1 / model.coordinates.velocity(y, torch.ones_like(y))).flatten()
    kinds = ["coefficient"] * len(columns) + ["parameter"] * len(physical) + ["initial state"] * len(starts)
    return [*columns, *physical, *starts], kinds, values, slopes


def _terms(
    case: Case, evidence: Evidence, best: Refitted, theta: Tensor, ranked: list[Refitted], weights: Tensor
) -> tuple[RecoveredTerm, ...]:
    learned, result = evidence.learned, []
    shares = dict(zip((c.structure for c in ranked), weights.tolist(), strict=True))
    inclusion = learned.targets[0].new_zeros(len(learned.columns))
    for structure, share in (shares if evidence.resampled is None else evidence.resampled).items():
        inclusion[list(structure)] += share
    for slot, target in enumerate(learned.targets):
        start = learned.offset(slot)
        features = learned.features[slot]
        column = learned.columns[start]
        chosen = [c for c in best.structure if learned.columns[c].slot == slot]
        recovered = features[:, [c - start for c in chosen]] @ theta[chosen]
        span = range(start, start + features.shape[1])
        result.append(
            RecoveredTerm(
                term=column.term,
                output=column.output,
                inputs=cast("Term", case.model.terms[column.term]).inputs,
                features=tuple(learned.columns[c].feature for c in chosen),
                coefficients=tuple(theta[chosen].tolist()),
                inclusion={learned.columns[c].feature: float(inclusion[c]) for c in span if inclusion[c] > 1e-4},
                mismatch=float((recovered - target).norm() / target.norm().clamp(min=1e-300)),
            )
        )
    return tuple(result)


def _warnings(
    case: Case,
    shooting: Shooting,
    evidence: Evidence,
    best: Refitted,
    minimum: Minimum,
    estimates: tuple[Estimate, ...],
    singular_values: Tensor,
    chosen: Candidate,
    candidates: list[Candidate],
) -> list[str]:
    states = case.data.states
    found = []
    errors = shooting.states(shooting.nodes(minimum.theta))[0] - case.data.ys
    correlated = [states[i] for i in correlated_states(errors, evidence.noise.floor)]
    if correlated:
        worse = is_worse(best.sse, evidence.learned_sse, evidence.noise.counts, len(estimates))
        reason = (
            "and are larger than the network's: the library cannot express the learned term. Offer more functions"
            if worse
            else "as the network's may do too: the known part, or the assumption of independent noise, may be wrong"
        )
        found.append(f"The residuals of {', '.join(correlated)} follow each other in time, {reason}.")
    if not bool(minimum.converged[0]):
        found.append("The fit of the coefficients to the data has not converged.")
    full = [o for o, k in enumerate(evidence.learned.counts(best.structure)) if k == evidence.search.max_terms]
    if full:
        names = {c.slot: f"{c.term}.{c.output}" for c in evidence.learned.columns}
        listed = ", ".join(names[o] for o in full)
        found.append(f"{listed} has as many functions as allowed ({evidence.search.max_terms}): raise `max_terms`.")
    rivals = [c for c in candidates if c is not chosen and c.weight > 0.1 * chosen.weight]
    if rivals:
        found.append(f"The data do not decide between the chosen equations and {len(rivals)} other(s): {rivals[0]}.")
    if float(singular_values.min()) < 1e-5 * float(singular_values.max()):
        found.append("The data cannot tell the effects of some fitted numbers apart; see `singular_values`.")
    loose = [e.name for e in estimates if e.kind != "initial state" and 2 * e.error > abs(e.value)]
    if loose:
        found.append(f"Not distinguishable from zero at two standard errors: {', '.join(loose)}.")
    return found
