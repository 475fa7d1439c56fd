"""Published tables, run again: `ude reproduce NAME`."""

from __future__ import annotations

from ude.bsde.suite import CMS, PNAS
from ude.reproduce import bsde, hudson, lotka_volterra, mnist_node, seir, t1, t2
from ude.reproduce.reproduction import Line, Outcome, Reproduction, Result, Settings

PAPER = "Rackauckas et al. (2020), Universal differential equations for scientific machine learning, and its code"
TALK = "Pal et al. (2021), Opening the blackbox, and its code; figures of Rackauckas' talk on SciML use cases"

# Runs of minutes: three seeds tell what is noise.
BUDGETS = {
    "smoke": Settings(seeds=1, budget="smoke"),
    "cpu": Settings(seeds=3, budget="cpu"),
    "full": Settings(seeds=3, budget="full"),
}

REPRODUCTIONS: dict[str, Reproduction] = {
    "lv1": Reproduction(
        title="Lotka-Volterra, scenario 1: dense measurements", source=PAPER, run=lotka_volterra.run_lv1
    ),
    "lv2": Reproduction(
        title="Lotka-Volterra, scenario 2: few measurements of the predator, unknown death rate",
        source=PAPER,
        run=lotka_volterra.run_lv2,
    ),
    "lv-recovery": Reproduction(
        title="Lotka-Volterra: how often the missing terms are recovered, by noise level",
        source=PAPER,
        run=lotka_volterra.run_recovery,
    ),
    "hudson": Reproduction(title="Hudson Bay: lynx and hare", source=PAPER, run=hudson.run),
    "seir": Reproduction(
        title="COVID-19 in Wuhan: neural against universal differential equation", source=PAPER, run=seir.run
    ),
    "t1": Reproduction(
        title="Latent ODEs of intensive-care records, regularized by error, stiffness and Taylor series",
        source=TALK,
        run=t1.run,
        budgets=BUDGETS,
        keeps_runs=True,
    ),
    "t2": Reproduction(
        title="Neural SDEs that tell digits apart, regularized by error, stiffness and the generator",
        source=TALK,
        run=t2.run,
        budgets={**BUDGETS, "cpu": Settings(seeds=1, budget="cpu")},
        keeps_runs=True,
    ),
    "mnist-node": Reproduction(
        title="Neural ODEs that tell digits apart, regularized by error, stiffness and Taylor series",
        source="Pal et al. (2021), Opening the blackbox, and its code",
        run=mnist_node.run,
        budgets=BUDGETS,
        keeps_runs=True,
    ),
    "hjb": Reproduction(
        title="Hamilton-Jacobi-Bellman in 10, 100 and 1000 dimensions", source=PNAS, run=bsde.run_hjb, budgets=BUDGETS
    ),
    "bsde-suite": Reproduction(
        title="Eight semilinear equations in 50 and 100 dimensions",
        source=f"{PNAS}; {CMS}; Raissi (2018), Forward-backward stochastic neural networks",
        run=bsde.run_suite,
        budgets=BUDGETS,
    ),
}

__all__ = ["REPRODUCTIONS", "Line", "Outcome", "Reproduction", "Result", "Settings"]
