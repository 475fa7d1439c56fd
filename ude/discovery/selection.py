"""Choose between candidate equations by how well their solutions fit the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ude.discovery.candidates import Learned, Structure, starting_structures
from ude.discovery.refit import LevenbergMarquardt, Minimum
from ude.discovery.shooting import Shooting

Criterion: TypeAlias = Literal["ebic", "bic", "aic"]

# Differences of BIC below 2 are "not worth more than a bare mention" (Kass and Raftery 1995): the shorter
# equation is preferred within them.
INDIFFERENCE = 2.0
# Enough to tell good candidates from bad ones; the best are fitted to convergence afterwards.
SCREEN = LevenbergMarquardt(max_iter=12, tolerance=1e-3, hopeless=10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseModel:
    r"""Normal noise whose variance is not known, with the variance integrated out.

    For every state the variance has a weak prior (scaled inverse $\chi^2$ with $\nu$ degrees of freedom around
    $\tau^2$), so that a state with a handful of measurements cannot claim to be known exactly:
    $-\log p = \tfrac{n + \nu}{2} \log \frac{\mathrm{SSE} + \nu \tau^2}{n + \nu}$ up to a constant.

    Args:
        counts: Number of measurements of every state, shape `(states,)`.
        scale: Typical size of the noise of every state before the candidates are seen, $\tau$, shape `(states,)`.
        floor: Errors below this are those of the solver, not of the model, shape `(states,)`.
        others: Number of physical parameters and initial states that are fitted in every candidate.
        is_common: All states share one variance in the units of the data.
        strength: $\nu$.
    """

    counts: Tensor
    scale: Tensor
    floor: Tensor
    others: int = 0
    is_common: bool = False
    strength: float = 3.0

    def deviance(self, sse: Tensor) -> Tensor:
        """Return minus twice the log likelihood, up to a constant, of sums of squares `(..., states)`."""
        n, nu = self.counts, self.strength
        sse = sse + n * self.floor**2
        if self.is_common:
            return n.sum() * (sse.sum(-1) / n.sum()).log()
        variance = (sse + nu * self.scale**2) / (n + nu)
        return torch.where(n > 0, (n + nu) * variance.log(), 0.0).sum(-1)

    def deviation(self, sse: Tensor, spent: int = 0) -> Tensor:
        """Return the standard deviation of the noise of every state after `spent` parameters were fitted."""
        n, nu = self.counts, self.strength
        share = (1 - spent / n.sum()).clamp(min=0.1)
        sse = sse + n * self.floor**2
        if self.is_common:
            return (sse.sum() / (n.sum() * share)).sqrt().expand_as(sse)
        if spent:
            return torch.where(n > 0, sse / (n * share).clamp(min=1e-300), 1.0).sqrt()
        return torch.where(n > 0, ((sse + nu * self.scale**2) / (n + nu)).sqrt(), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refitted:
    """A candidate fitted to the data.

    Args:
        structure: Its columns.
        theta: Coefficients, physical parameters and initial states, shape `(parameters,)`.
        sse: Sum of squared errors of every state, shape `(states,)`; infinite if the candidate cannot be solved.
        converged: Whether the fit has converged.
    """

    structure: Structure
    theta: Tensor
    sse: Tensor
    converged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Trajectories that candidates are fitted to.

    Args:
        shooting: The residuals.
        theta: Where to start: physical parameters and initial states, coefficients zero.
        free: Which of these are fitted.
    """

    shooting: Shooting
    theta: Tensor
    free: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Search over structures: score, then add, drop and exchange functions of the best ones until nothing helps.

    Args:
        max_terms: Most functions in one output of an unknown term.
        criterion: "ebic" (extended BIC), "bic" or "aic".
        pool: Number of combinations that are scored first.
        beam: Number of structures whose neighbours are tried.
        neighbours: Number of additions tried for each of them.
        finalists: Number of these that are fitted to whole trajectories, after all were fitted to short pieces.
        rounds: Most rounds of neighbours.
    """

    max_terms: int = 4
    criterion: Criterion = "ebic"
    pool: int = 64
    beam: int = 3
    neighbours: int = 6
    finalists: int = 24
    rounds: int = 8

    def run(self, whole: Stage, pieces: Stage, learned: Learned, noise: NoiseModel) -> dict[Structure, Refitted]:
        """Fit candidates to the data, from the best descriptions of the learned terms outwards.

        Args:
            whole: The whole trajectories; the weights follow the noise of the best candidate.
            pieces: Short pieces of the trajectories, which start on the learned ones.
            learned: What the networks have learned.
            noise: What is known of the noise.
        """
        table: dict[Structure, Refitted] = {}
        starts = self._screened(whole, pieces, learned, noise)
        previous = math.inf
        for _ in range(self.rounds + 1):
            for structure, candidate in refit(whole.shooting, starts, whole.free).items():
                known = table.get(structure)
                if known is None or noise.deviance(candidate.sse) < noise.deviance(known.sse):
                    table[structure] = candidate
            ranked = sorted(table.values(), key=lambda c: self.score(c, noise, learned))[: self.beam]
            best = self.score(ranked[0], noise, learned)
            if not math.isfinite(best) or not best < previous - 1e-6:
                break
            previous = best
            whole.shooting.set_weights(1 / noise.deviation(ranked[0].sse))
            starts = self._neighbours(whole, learned, ranked)
            starts = {
                s: start for s, start in starts.items() if s not in table or _is_doubtful(table[s], ranked, noise)
            }
            if not starts:
                break
        return table

    def score(self, candidate: Refitted, noise: NoiseModel, learned: Learned) -> float:
        """Return the criterion of a candidate; less is better."""
        return criteria(candidate, noise, learned)[self.criterion]

    def choose(self, candidates: Sequence[Refitted], noise: NoiseModel, learned: Learned) -> Refitted:
        """Return the best candidate: of those that the criterion cannot tell from the first, the simplest.

        That is the one with the fewest functions, and of equally long ones the closest to what the networks learned.
        """
        scores = [self.score(c, noise, learned) for c in candidates]
        close = [i for i, score in enumerate(scores) if score <= min(scores) + INDIFFERENCE]

        def simplicity(i: int) -> tuple[int, float]:
            return len(candidates[i].structure), sum(learned.mismatch(candidates[i].theta))

        return candidates[min(close, key=simplicity)]

    def _screened(self, whole: Stage, pieces: Stage, learned: Learned, noise: NoiseModel) -> dict[Structure, Tensor]:
        """Return the structures that fit short pieces of the trajectories best, each with parameters to start from."""
        shared = whole.shooting.layout.shared
        first = starting_structures(learned, self.max_terms, self.pool)
        starts = {s: torch.cat([pieces.theta[:shared] + learned.regress(s), pieces.theta[shared:]]) for s in first}
        found = refit(pieces.shooting, starts, pieces.free)
        best = sorted(found.values(), key=lambda c: self.score(c, noise, learned))[: self.finalists]
        return {c.structure: torch.cat([c.theta[:shared], whole.theta[shared:]]) for c in best}

    def _neighbours(self, whole: Stage, learned: Learned, ranked: Sequence[Refitted]) -> dict[Structure, Tensor]:
        ranked = [c for c in ranked if bool(c.sse.isfinite().all())]
        theta = torch.stack([c.theta for c in ranked])
        rows = torch.zeros(len(ranked), dtype=torch.long)
        residuals, memo = whole.shooting.residuals(theta, rows)
        jacobian = whole.shooting.jacobian(theta, rows, memo)
        result: dict[Structure, Tensor] = {}
        for candidate, r, j in zip(ranked, residuals, jacobian, strict=True):
            linear = Linearised(learned, candidate, -r, j, whole.free)
            for structure, start in linear.neighbours(self.neighbours, self.max_terms):
                result.setdefault(structure, start)
        return result


def _is_doubtful(candidate: Refitted, relatives: Sequence[Refitted], noise: NoiseModel) -> bool:
    """Whether a candidate may have missed its minimum, and a longer or a better shorter one gives another start."""
    own = set(candidate.structure)
    return any(
        own < set(r.structure)
        or (own > set(r.structure) and bool(noise.deviance(candidate.sse) > noise.deviance(r.sse)))
        for r in relatives
    )


def refit(
    shooting: Shooting, starts: Mapping[Structure, Tensor], free: Tensor, method: LevenbergMarquardt | None = None
) -> dict[Structure, Refitted]:
    """Fit candidates to the data as one batch.

    Args:
        shooting: The residuals.
        starts: Where each structure starts, shape `(parameters,)`.
        free: Which physical parameters and initial states may change, shape `(parameters,)`.
        method: The least-squares method.
    """
    if not starts:
        return {}
    structures = list(starts)
    minimum = minimum_of(shooting, structures, torch.stack([starts[s] for s in structures]), free, method)
    sse = sum_of_squares(shooting, minimum.residuals)
    return {
        s: Refitted(structure=s, theta=minimum.theta[i], sse=sse[i], converged=bool(minimum.converged[i]))
        for i, s in enumerate(structures)
    }


def minimum_of(
    shooting: Shooting,
    structures: Sequence[Structure],
    theta: Tensor,
    free: Tensor,
    method: LevenbergMarquardt | None = None,
) -> Minimum:
    """Fit one structure per row from `theta` of shape `(structures, parameters)`."""
    may_change = free.expand(len(structures), -1).clone()
    for i, structure in enumerate(structures):
        may_change[i, list(structure)] = True
    method = method or SCREEN
    return method.minimize(shooting, _solvable(shooting, theta), may_change)


def sum_of_squares(shooting: Shooting, residuals: Tensor) -> Tensor:
    """Return the sum of squared errors of every state in its unit, infinite where there is no solution."""
    weights = torch.where(shooting.is_measured, shooting.weights, 1.0)
    errors = residuals.reshape(-1, *weights.shape) / weights
    return errors.square().sum((1, 2)).nan_to_num(nan=torch.inf)


def criteria(candidate: Refitted, noise: NoiseModel, learned: Learned) -> dict[str, float]:
    r"""Return information criteria, on the scale of minus twice the log likelihood; less is better.

    With $p$ fitted numbers and $n$ measurements AIC adds $2 p\, n / (n - p - 1)$, BIC $p \log(n)\, n / (n - p - 2)$,
    both with the correction for small samples, without which they overfit when $p$ is not small beside $n$. The
    extended BIC also counts how many equations of this length the library offers,
    $2 \sum_o \log \binom{l_o}{k_o}$ for $k_o$ of $l_o$ functions in output $o$: the more functions are tried, the
    better one of them fits by chance.

    Reference:
        Hurvich and Tsai (1989), Regression and time series model selection in small samples; McQuarrie (1999), A
        small-sample correction for the Schwarz SIC model selection criterion; Chen and Chen (2008), Extended Bayesian
        information criteria for model selection with large model spaces.
    """
    deviance = float(noise.deviance(candidate.sse))
    p, n = len(candidate.structure) + noise.others, float(noise.counts.sum())
    aic = deviance + (2 * p * n / (n - p - 1) if n > p + 1 else math.inf)
    bic = deviance + (p * math.log(n) * n / (n - p - 2) if n > p + 2 else math.inf)
    choices = sum(
        math.log(math.comb(learned.offered(o), k_o)) for o, k_o in enumerate(learned.counts(candidate.structure))
    )
    return {"aic": aic, "bic": bic, "ebic": bic + 2 * choices}


class Linearised:
    """The neighbours of a fitted candidate, judged by the linear model around it.

    Args:
        learned: The columns.
        candidate: The candidate.
        target: Weighted errors, data minus solution, shape `(residuals,)`.
        jacobian: Derivative of the solution with respect to all parameters, shape `(residuals, parameters)`.
        free: Which physical parameters and initial states are fitted too.
    """

    def __init__(self, learned: Learned, candidate: Refitted, target: Tensor, jacobian: Tensor, free: Tensor) -> None:
        self.learned, self.candidate, self.target = learned, candidate, target
        self.others = jacobian[:, free]
        self.columns = jacobian[:, : len(learned.columns)]
        self.outside = learned.usable.clone()
        self.outside[list(candidate.structure)] = False

    def neighbours(self, additions: int, max_terms: int) -> list[tuple[Structure, Tensor]]:
        """Return neighbouring structures, each with parameters to start from."""
        structure, theta = self.candidate.structure, self.candidate.theta
        counts = self.learned.counts(structure)
        room = torch.tensor([counts[c.slot] < max_terms for c in self.learned.columns])
        found = [(self._with(c), theta) for c in self._best(structure, self.target, room, additions)[0]]
        for column in structure:
            rest = tuple(c for c in structure if c != column)
            without = theta.clone()
            without[column] = 0.0
            found.append((rest, without))
            slot = self.learned.columns[column].slot
            same = torch.tensor([c.slot == slot for c in self.learned.columns])
            restored = self.target + self.columns[:, column] * theta[column]
            for other, value in zip(*self._best(rest, restored, same, additions // 2), strict=True):
                exchanged = without.clone()
                exchanged[other] = value
                found.append((tuple(sorted((*rest, other))), exchanged))
        return found

    def _with(self, column: int) -> Structure:
        return tuple(sorted((*self.candidate.structure, column)))

    def _best(self, kept: Structure, target: Tensor, allowed: Tensor, number: int) -> tuple[list[int], list[float]]:
        """Return the columns that lower the sum of squares most beside the kept ones, and their coefficients."""
        base = torch.cat([self.columns[:, list(kept)], self.others], dim=1)
        q = torch.linalg.qr(base / base.norm(dim=0).clamp(min=1e-300)).Q
        left = self.columns - q @ (q.mT @ self.columns)
        length = left.square().sum(0)
        # What the kept columns describe to four digits is no alternative to them.
        is_new = self.outside & allowed & (length > 1e-8 * self.columns.square().sum(0)) & length.isfinite()
        product = left.mT @ (target - q @ (q.mT @ target))
        gain = torch.where(is_new, product.square() / length.clamp(min=1e-300), -1.0)
        chosen = gain.argsort(descending=True)[:number]
        chosen = chosen[gain[chosen] > 0]
        return chosen.tolist(), (product[chosen] / length[chosen]).tolist()


def _solvable(shooting: Shooting, theta: Tensor) -> Tensor:
    """Shrink the coefficients of candidates whose solution blows up, until it does not."""
    width = shooting.layout.coefficients
    for factor in (0.5, 0.2, 0.0):
        broken = ~shooting.nodes(theta).flatten(1).isfinite().all(1)
        if not bool(broken.any()):
            break
        theta = theta.clone()
        theta[broken, :width] *= factor
    return theta
