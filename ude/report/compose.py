"""What the report of a run says, section by section."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ude import plot
from ude._version import __version__
from ude.discovery import Candidate, Estimate
from ude.report.curves import BEYOND
from ude.report.figures import (
    MAX_GROUPS,
    extrapolation_pictures,
    fit_pictures,
    history_picture,
    residual_pictures,
    term_pictures,
)
from ude.report.job import Run
from ude.report.numbers import count, digits, formula, interval, listed, pretty, raised, sentence
from ude.report.page import Page, Picture, Section, Table
from ude.report.symbols import equations, labels

LEVEL = 0.9
SHOWN_CANDIDATES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the data came from and how to run it again.

    Args:
        name: File or name of the data.
        command: What the user ran.
        sha256: Checksum of the file.
    """

    name: str
    command: str = ""
    sha256: str = ""


def compose(run: Run, source: Source) -> Page:
    """Return the report of a run."""
    return Page(
        title=f"Equations recovered from {source.name}",
        subtitle=_subtitle(run),
        equations=equations(run.discovery),
        lead=_lead(run),
        facts=facts(run),
        warnings=_warnings(run),
        sections=(
            _question(run),
            Section(title="Data and fit", pictures=fit_pictures(run.fit.data, run.paths)),
            _terms(run),
            _extrapolation(run),
            _residuals(run),
            _candidates(run),
            _estimates(run),
            Section(title="Training", text=(_training(run),), pictures=(history_picture(run.fit),)),
            _again(run, source),
        ),
        footer=f"Written by ude {__version__}. This file needs no network and contains no scripts.",
    )


def facts(run: Run) -> tuple[tuple[str, str], ...]:
    """The numbers to read first, with their names."""
    found = run.discovery
    length = run.paths.period
    measured = int((~found.data.ys.isnan()).sum())
    return (
        ("Sum of squared errors", digits(found.sse)),
        ("The same, scaled by maxima", digits(scaled_sse(run))),
        ("Measured values", str(measured)),
        ("Recovered coefficients", str(found.chosen.size)),
        ("Probability among candidates", f"{100 * found.chosen.weight:.0f} %"),
        *(((f"Period in extrapolation ({run.fit.data.time})", digits(length)),) if length else ()),
    )


def scaled_sse(run: Run) -> float:
    """Sum of squared errors of the recovered equations with every state divided by its largest measurement."""
    largest = run.discovery.data.ys.nan_to_num(nan=0.0).abs().amax((0, 1)).tolist()
    return sum(sse / (size or 1.0) ** 2 for sse, size in zip(run.discovery.chosen.sse, largest, strict=True))


def _subtitle(run: Run) -> str:
    data = run.fit.data
    rows = int((~data.ys.isnan()).any(-1).sum())
    groups = "" if len(data.groups) == 1 else f" in {count(len(data.groups), 'trajectory', 'trajectories')}"
    span = f"{digits(float(data.ts.min()))} to {digits(float(data.ts.max()))}"
    return f"{count(rows, 'measurement')} of {listed(data.states)} over {data.time} {span}{groups}"


def _lead(run: Run) -> str:
    found = run.discovery
    ratio = found.sse / found.learned_sse if found.learned_sse else math.inf
    how = "better than" if ratio < 0.95 else "as well as" if ratio < 1.05 else "worse than"
    weights = sum(p.numel() for p in run.fit.model.terms.parameters())
    return (
        f"The equations above, with {count(found.chosen.size, 'coefficient')} in place of {weights} network weights, "
        f"fit the measurements {how} the networks they were read from (sum of squared errors {digits(found.sse)} "
        f"against {digits(found.learned_sse)})."
    )


def _warnings(run: Run) -> tuple[str, ...]:
    shown = tuple(_with_labels(warning, labels(run.system)) for warning in run.discovery.warnings)
    groups = len(run.fit.data.groups)
    if groups > MAX_GROUPS:
        shown += (f"Figures show the first {MAX_GROUPS} of {groups} trajectories; the numbers are of all.",)
    return shown


def _question(run: Run) -> Section:
    rows = [("Equations as given", "; ".join(run.job.equations))]
    named = labels(run.system)
    for term in run.system.terms:
        inputs = listed(term.inputs)
        rows += [(sentence(named[f"{term.name}.{output}"]), f"depends on {inputs}") for output in term.outputs]
    if run.system.inputs:
        rows.append(("Exogenous inputs", listed(run.system.inputs)))
    if run.job.hidden:
        rows.append(("States never observed", listed(list(run.job.hidden))))
    return Section(title="The question", tables=(Table(rows=tuple(rows)),))


def _terms(run: Run) -> Section:
    named = labels(run.system)
    rows = []
    for term in run.discovery.terms:
        inclusion = sorted(term.inclusion.items(), key=lambda entry: -entry[1])[:4]
        rows.append(
            (
                sentence(named.get(f"{term.term}.{term.output}", term.output)),
                formula(term.features, term.coefficients),
                ", ".join(f"{pretty(name)}: {100 * p:.0f} %" for name, p in inclusion) or "none",
                f"{100 * term.mismatch:.1f} %",
            )
        )
    return Section(
        title="Unknown terms: learned and recovered",
        text=(
            "The network is only trusted along the trajectories it was trained on. The recovered equation was fitted "
            "to the measurements, not to the network.",
        ),
        pictures=term_pictures(run.fit, run.discovery.model, run.paths, named),
        tables=(
            Table(
                head=("Term", "Recovered", "Probability that a function belongs", "Distance to the network"),
                rows=tuple(rows),
            ),
            *_parameters(run),
        ),
    )


def _parameters(run: Run) -> tuple[Table, ...]:
    """The physical parameters of both models: what one puts into them, the other may leave to the unknown term."""
    hybrid, recovered = (
        {name: digits(float(value.detach())) for name, value in model.physical.values().items()}
        for model in (run.fit.model, run.discovery.model)
    )
    if not hybrid:
        return ()
    caption = "Parameters. Where they differ, the network has learnt part of the known term, or left part to it."
    rows = tuple((name, hybrid[name], recovered[name]) for name in hybrid)
    return (Table(head=("Parameter", "With the network", "Recovered equations"), rows=rows, caption=caption),)


def _extrapolation(run: Run) -> Section:
    length = run.paths.period
    text = f"Both models, continued for {BEYOND:g} times the measured interval."
    if run.system.inputs:
        text += f" Beyond it, the last value is kept of {listed(run.system.inputs)}."
    if length:
        text += f" The recovered equations oscillate with a period of {digits(length)} ({run.fit.data.time})."
    return Section(title="Extrapolation", text=(text,), pictures=extrapolation_pictures(run.fit.data, run.paths))


def _residuals(run: Run) -> Section:
    noise = zip(run.fit.data.states, run.discovery.noise.tolist(), strict=True)
    text = "Measured values minus the recovered equations. Estimated standard deviation of the noise: "
    return Section(
        title="Residuals",
        text=(text + ", ".join(f"{name} {digits(value, 3)}" for name, value in noise) + ".",),
        pictures=residual_pictures(run.fit.data, run.paths),
    )


def _candidates(run: Run) -> Section:
    found, named = run.discovery, labels(run.system)
    chosen = found.candidates.index(found.chosen)
    order = list(range(min(SHOWN_CANDIDATES, len(found.candidates))))
    order += [chosen] if chosen not in order else []
    rows = tuple(_candidate_row(found.candidates[i], named) for i in order)
    figure = plot.candidates([c.size for c in found.candidates], [c.bic for c in found.candidates], chosen=chosen)
    picture = Picture(
        name="candidates",
        figure=figure,
        caption="Bayesian information criterion of the candidates, above the lowest; the chosen one also weighs how "
        "many equations of its length there are.",
    )
    return Section(
        title="Candidate models",
        text=(f"{count(len(found.candidates), 'equation')} fitted to the measurements, best first.",),
        pictures=(picture,),
        tables=(
            Table(
                head=("Functions", "Coefficients", "Squared errors", "BIC", "Extended BIC", "Probability"),
                rows=rows,
                marked=order.index(chosen),
            ),
        ),
    )


def _candidate_row(candidate: Candidate, named: Mapping[str, str]) -> tuple[str, ...]:
    functions = "; ".join(
        f"{named.get(name, name).removeprefix('unknown term ')}: {', '.join(map(pretty, chosen)) or '0'}"
        for name, chosen in candidate.terms.items()
    )
    return (
        functions,
        str(candidate.size),
        digits(sum(candidate.sse)),
        digits(candidate.bic, 5),
        digits(candidate.ebic, 5),
        f"{100 * candidate.weight:.1f} %",
    )


def _estimates(run: Run) -> Section:
    found, named = run.discovery, labels(run.system)
    ends = found.intervals(LEVEL)
    shown = [e for e in found.estimates if e.kind != "initial state"]
    rows = tuple(
        (_number_name(e, named), e.kind, digits(e.value, 5), digits(e.error, 2), interval(*ends[e.name]))
        for e in found.estimates
    )
    pictures = ()
    if shown:
        low, high = zip(*(ends[e.name] for e in shown), strict=True)
        figure = plot.coefficients(
            [_number_name(e, named) for e in shown], [e.value for e in shown], low, high, level=LEVEL
        )
        caption = f"{100 * LEVEL:.0f} % confidence intervals of coefficients and parameters."
        pictures = (Picture(name="coefficients", figure=figure, caption=caption),)
    text = "From the sensitivity of the solution at the measurements and the size of the residuals"
    return Section(
        title="Coefficients",
        text=(f"{text}, with {count(found.freedom, 'degree')} of freedom.",),
        pictures=pictures,
        tables=(
            Table(head=("Number", "Kind", "Estimate", "Standard error", f"{100 * LEVEL:.0f} % interval"), rows=rows),
        ),
    )


def _training(run: Run) -> str:
    network = run.job.network
    losses = run.fit.losses.numpy()
    finite = np.isfinite(losses).sum()
    return (
        f"{count(len(losses), 'network')} of {count(network.depth, 'hidden layer')} of {network.width} "
        f"({network.activation}), {len(run.fit.history.phase)} evaluations; "
        f"{finite} of {len(losses)} ended with a solution over all measurements."
    )


def _again(run: Run, source: Source) -> Section:
    import sympy

    rows = (
        ("Seed", str(run.job.seed)),
        ("Time taken", f"{run.seconds:.0f} s"),
        ("Data", f"{source.name}" + (f", SHA-256 {source.sha256}" if source.sha256 else "")),
        (
            "Versions",
            f"ude {__version__}, torch {torch.__version__}, sympy {sympy.__version__}, numpy {np.__version__}",
        ),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
    )
    return Section(
        title="How to run it again",
        text=("Same versions, data and seed give the same result; config.json beside this file holds every setting.",),
        tables=(Table(rows=rows),),
        code=source.command,
    )


def _number_name(estimate: Estimate, named: Mapping[str, str]) -> str:
    """Name a fitted number by where it stands, such as `in hare': hare·lynx`."""
    place, colon, feature = estimate.name.partition(": ")
    if not colon or estimate.kind != "coefficient":
        return estimate.name
    return f"{named.get(place, place).removeprefix('unknown term ')}: {pretty(feature)}"


def _with_labels(text: str, named: Mapping[str, str]) -> str:
    """Say where an unknown term stands instead of its internal name."""
    for name, label in named.items():
        text = text.replace(f"{name}:", f"{label.removeprefix('unknown term ')}:").replace(f"{name} ", f"The {label} ")
    return raised(text)
