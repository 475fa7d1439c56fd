"""Sparse regression and simulation of its models against pysindy: optimizer against optimizer, one thread."""

from __future__ import annotations

import warnings

import numpy as np
import pysindy
import torch
from scipy.integrate import solve_ivp

from benchmarks.speed.measure import Row, once, side_by_side
from ude.discovery import STLSQ, Fourier, Polynomial, SINDy

TIGHT = {"rtol": 1e-12, "atol": 1e-12, "method": "DOP853"}


def lotka_volterra(t, y):
    return [1.3 * y[0] - 0.9 * y[0] * y[1], 0.8 * y[0] * y[1] - 1.8 * y[1]]


def lorenz(t, z):
    return [10 * (z[1] - z[0]), z[0] * (28 - z[2]) - z[1], z[0] * z[1] - 8 / 3 * z[2]]


def trajectory(field, start, ts):
    return solve_ivp(field, (ts[0], ts[-1]), start, t_eval=ts, **TIGHT).y.T


def path(*, smoke: bool) -> Row:
    """801 thresholds, 61 samples, 21 monomials and 2 sines, 2 equations (experiments of the UDE paper, scenario 1)."""
    x = torch.from_numpy(trajectory(lotka_volterra, [0.44249296, 4.6280594], np.linspace(0, 3, 61)).copy())
    features = (Polynomial(degree=5) + Fourier(1, cos=False))(x)
    truth = torch.stack([-0.9 * x.prod(-1), 0.8 * x.prod(-1)], dim=-1)
    noise = torch.randn(truth.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = truth + 0.05 * truth.std(0) * noise
    thresholds = torch.logspace(-3, 5, 21 if smoke else 801, dtype=torch.float64)
    found = {}

    def ours():
        found["ours"] = STLSQ().path(features, targets, thresholds)

    def theirs():
        theta, y = features.numpy(), targets.numpy()
        found["pysindy"] = np.stack([pysindy.STLSQ(threshold=c).fit(theta, y).coef_ for c in thresholds.tolist()])

    seconds = side_by_side({"ours": ours, "pysindy": theirs}, repeats=1 if smoke else 5, warm_up=1)
    support = found["ours"].support.numpy()
    same = (support == (found["pysindy"] != 0)).all(axis=(1, 2))
    apart = np.abs(found["ours"].coefficients.numpy() - found["pysindy"])[same]
    size = np.abs(found["pysindy"])[same].max(axis=(1, 2), keepdims=True) + 1e-300
    return Row(
        task=f"STLSQ path, {len(thresholds)} thresholds, 61 x 23, 2 equations, f64",
        ours=seconds["ours"],
        peer=seconds["pysindy"],
        peer_name="pysindy",
        target=">= 30",
        note=f"{int(same.sum())} of {len(same)} supports equal; coefficients within {(apart / size).max():.1g}",
    )


def single_fit(degree: int, *, smoke: bool) -> Row:
    """One threshold on 10,000 samples of the Lorenz system: where batching brings nothing."""
    ts = np.linspace(0, 20, 100 if smoke else 10_000)
    x = trajectory(lorenz, [-8, 8, 27], ts)
    slopes = np.stack([lorenz(0, row) for row in x])
    features = Polynomial(degree=degree)(torch.from_numpy(x.copy()))
    targets = torch.from_numpy(slopes)
    theta = features.numpy()
    seconds = side_by_side(
        {
            "ours": lambda: STLSQ().fit(features, targets),
            "pysindy": lambda: pysindy.STLSQ().fit(theta, slopes),
        },
        repeats=1 if smoke else 9,
    )
    return Row(
        task=f"STLSQ, one fit, {len(ts)} x {features.shape[-1]}, 3 equations, f64",
        ours=seconds["ours"],
        peer=seconds["pysindy"],
        peer_name="pysindy",
    )


def bagging(models: int, *, smoke: bool) -> Row:
    """Refits on resampled rows: degree 3, 1,000 samples of the Lorenz system."""
    ts = np.linspace(0, 10, 1_000)
    x = trajectory(lorenz, [-8, 8, 27], ts)
    slopes = np.stack([lorenz(0, row) for row in x])
    features, targets = Polynomial(degree=3)(torch.from_numpy(x.copy())), torch.from_numpy(slopes)
    rows = torch.randint(len(ts), (models, len(ts)), generator=torch.Generator().manual_seed(0))
    found = {}

    def ours():
        found["ours"] = STLSQ().fit(features[rows], targets[rows]).support.numpy()

    def theirs():
        fits = [pysindy.STLSQ().fit(features[row].numpy(), targets[row].numpy()) for row in rows]
        found["pysindy"] = np.stack([fit.coef_ != 0 for fit in fits])

    seconds = side_by_side({"ours": ours, "pysindy": theirs}, repeats=1 if smoke else 5, warm_up=1)
    same = (found["ours"] == found["pysindy"]).all(axis=(1, 2)).sum()
    return Row(
        task=f"STLSQ, {models} bootstraps, 1,000 x 20, 3 equations, f64",
        ours=seconds["ours"],
        peer=seconds["pysindy"],
        peer_name="pysindy",
        note=f"{int(same)} of {models} supports equal",
    )


def simulation(name, field, start, fit_times, times, *, smoke: bool) -> Row:
    """Fit, then integrate the recovered model with LSODA at tolerance 1e-12 in both libraries."""
    x = trajectory(field, start, fit_times)
    ours = SINDy().fit(x, fit_times)
    theirs = pysindy.SINDy().fit(x, fit_times)
    compile_seconds = once(lambda: ours.simulate(x[0], times[:2]))
    found = {}

    def simulate(who, model):
        found[who] = model.simulate(x[0], times)

    seconds = side_by_side(
        {"ours": lambda: simulate("ours", ours), "pysindy": lambda: simulate("pysindy", theirs)},
        repeats=1 if smoke else 3,
        warm_up=1,
    )
    a, b = found["ours"], found["pysindy"]
    c = ours.simulate(x[0], times, rtol=1e-13, atol=1e-13)
    equal = np.abs(a - b).max(axis=1) <= 1e-8
    until = times[-1] if equal.all() else times[np.argmin(equal)]
    return Row(
        task=f"simulate {name}, LSODA 1e-12",
        ours=seconds["ours"],
        peer=seconds["pysindy"],
        peer_name="pysindy",
        target=">= 100",
        note=(
            f"trajectories differ by {np.abs(a - b).max():.1g}, 1e-8 until t = {until:g}; at tolerance 1e-13 "
            f"ours moves by {np.abs(a - c).max():.1g}; first call {compile_seconds:.2f} s"
        ),
    )


def run(*, smoke: bool) -> list[Row]:
    with warnings.catch_warnings():
        # pysindy warns whenever a threshold leaves no coefficient, which most of the 801 do.
        warnings.simplefilter("ignore")
        end = 0.2 if smoke else 10.0
        long = np.arange(0, 1 if smoke else 50, 0.01)
        return [
            path(smoke=smoke),
            *(single_fit(degree, smoke=smoke) for degree in ((2,) if smoke else (2, 3, 5))),
            bagging(3 if smoke else 100, smoke=smoke),
            simulation(
                "Lotka-Volterra, 50 time units", lotka_volterra, [0.44249296, 4.6280594],
                np.arange(0, 10, 0.01), long, smoke=smoke,
            ),
            simulation(
                "Lorenz, 10 time units", lorenz, [-8, 8, 27],
                np.arange(0, 10, 0.002), np.arange(0, end, 0.002), smoke=smoke,
            ),
        ]  # fmt: skip


if __name__ == "__main__":
    from benchmarks.speed.measure import table

    torch.set_num_threads(1)
    print(table(run(smoke=False)))
