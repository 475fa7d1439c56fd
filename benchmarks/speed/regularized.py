"""Training steps of a latent ODE with and without regularizers, and beside torchdiffeq.

The model of the PhysioNet tables (GRU encoder, 20-50-20 x 4 tanh, 49 times, batch 256, tolerance 1.4e-8), on random
series a fifth of which is measured; encoding, solving, loss, cost, backward. Weights of the field are scaled until the
solve needs as many evaluations as prototypes did, or as a trained model. Of regularized steps the unregularized one is
"ours", so that the ratio is the cost of the regularizer. Memory stands in MiB where other rows have milliseconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ude
from benchmarks.speed.measure import Row, against_peers, once, side_by_side
from ude.models import MLP, DenseField, GRUEncoder, Integrator, LatentODE, Posterior, Reconstruction, elbo
from ude.regularize import ErrorEstimate, Local, Regularizer, StiffnessEstimate, TaylorEnergy

WIDTHS = (20, 50, 20, 50, 20, 50, 20, 50, 20)
TOLERANCE = 1.4e-8
COSTS: dict[str, tuple[Regularizer, str]] = {
    "R_E": (ErrorEstimate(), "<= 1.05"),
    "R_S": (StiffnessEstimate(), "<= 1.1"),
    "local R_E, 4 steps": (Local(ErrorEstimate()), ""),
    "R_3, 4 random times": (TaylorEnergy(3), "<= 1.1"),
    "R_3, 4 random times, together": (TaylorEnergy(3, independent_rows=True), "<= 1.1"),
    "R_3, 4 random times, detached": (TaylorEnergy(3, detach=True, independent_rows=True), "<= 1.1"),
    "R_3, all 49 times": (TaylorEnergy(3, nodes="saved"), "<= 1.6"),
    "R_3, all 49 times, together": (TaylorEnergy(3, nodes="saved", independent_rows=True), "<= 1.6"),
    "R_3 as a state": (TaylorEnergy(3, nodes="state"), "19.8 by the usual recursion"),
}
CHEAP = [name for name in COSTS if "all" not in name and "state" not in name]
DEAR = [name for name in COSTS if name not in CHEAP]


@dataclass(frozen=True, slots=True)
class Case:
    """A model and a batch of series."""

    model: LatentODE
    data: Tensor
    mask: Tensor
    ts: Tensor

    @classmethod
    def of(cls, batch: int, scale: float, engine: str = "eager") -> Case:
        seed = torch.Generator().manual_seed(0)
        integrator = Integrator(method=ude.Dopri5(), rtol=TOLERANCE, atol=TOLERANCE, engine=engine)
        model = LatentODE(
            GRUEncoder(37, latent=20, state=50, gate_width=40, head_width=50, generator=seed),
            DenseField(WIDTHS, is_autonomous=True, activates_input=True, generator=seed),
            MLP(20, 37, depth=0, generator=seed),
            integrator=integrator,
        )
        with torch.no_grad():
            for weight in model.field.parameters():
                weight.mul_(scale if weight.ndim > 1 else 1.0)
        data = torch.rand(batch, 49, 37, generator=seed, dtype=torch.float64)
        mask = torch.rand(data.shape, generator=seed) < 0.2
        return cls(model, data, mask, torch.arange(49, dtype=torch.float64) / 48)

    def loss(self, cost: Regularizer | None = None) -> Tensor:
        model = self.model
        posterior = model.encoder(self.data, self.mask, self.ts)
        z0 = posterior.sample(torch.Generator().manual_seed(1))
        problem = model.integrator.problem(model.field, z0, (0.0, 1.0))
        save_at: Any = self.ts
        if cost is not None:
            problem, save_at = cost.prepare(problem, save_at)
        solution = model.integrator.solve(problem, save_at=save_at, dense=cost is not None)
        penalty = 0.0 if cost is None else 1e-3 * cost(solution)
        if cost is not None:
            solution = cost.restore(solution)
        made = Reconstruction(model.decode(solution), posterior, solution)
        return penalty - elbo(made, self.data, self.mask)

    def step(self, cost: Regularizer | None = None) -> None:
        self.model.zero_grad()
        self.loss(cost).backward()

    def nfe(self) -> int:
        with torch.no_grad():
            made = self.model(self.data, self.mask, self.ts, generator=torch.Generator().manual_seed(1))
        return int(made.solution.stats.nfe)


class CellEncoder(nn.Module):
    """The same encoder as programs for torchdiffeq have it: a cell of plain layers in a loop over times."""

    def __init__(self):
        super().__init__()
        gate = lambda outputs: nn.Sequential(nn.Linear(175, 40), nn.Tanh(), nn.Linear(40, outputs)).double()  # noqa: E731
        self.update, self.reset, self.candidate = gate(50), gate(50), gate(100)
        self.head = nn.Sequential(nn.Linear(100, 50), nn.Tanh(), nn.Linear(50, 40)).double()

    def forward(self, data, mask, ts):
        mean = spread = data.new_zeros(len(data), 50)
        gaps = torch.cat([ts.diff(), ts.new_zeros(1)])
        for i in reversed(range(len(ts))):
            x = torch.cat([data[:, i], mask[:, i].to(data), gaps[i].expand(len(data), 1)], -1)
            together = torch.cat([mean, spread, x], -1)
            update, reset = torch.sigmoid(self.update(together)), torch.sigmoid(self.reset(together))
            offered = self.candidate(torch.cat([mean * reset, spread * reset, x], -1))
            seen = mask[:, i].any(-1, keepdim=True).to(data)
            mean = mean + seen * update * (offered[:, :50] - mean)
            spread = spread + seen * update * (offered[:, 50:] - spread)
        center, log_variance = self.head(torch.cat([mean, spread], -1)).chunk(2, -1)
        return Posterior(center, log_variance)


def torchdiffeq_step(case: Case, encoder: nn.Module) -> None:
    """The vanilla step with torchdiffeq's solver: dopri5 with the same tolerance takes about the same steps."""
    from torchdiffeq import odeint

    model = case.model
    model.zero_grad()
    posterior = encoder(case.data, case.mask, case.ts)
    z0 = posterior.sample(torch.Generator().manual_seed(1))
    ys = odeint(model.field, z0, case.ts, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")
    made: Any = Reconstruction(model.decoder(ys).transpose(0, 1), posterior, None)  # pyright: ignore[reportArgumentType]
    (-elbo(made, case.data, case.mask)).backward()


def torchdiffeq_nfe(case: Case) -> int:
    """Evaluations of torchdiffeq's solve."""
    from torchdiffeq import odeint

    count = 0

    def field(t, y):
        nonlocal count
        count += 1
        return case.model.field(t, y)

    with torch.no_grad():
        posterior = case.model.encoder(case.data, case.mask, case.ts)
        z0 = posterior.sample(torch.Generator().manual_seed(1))
        odeint(field, z0, case.ts, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")
    return count


def beside_torchdiffeq(case: Case, repeats: int, engines: tuple[str, ...]) -> list[Row]:
    cases = {engine: replace(case, model=_with_engine(case.model, engine)) for engine in engines}
    first = {engine: once(cases[engine].step) for engine in engines}
    cell = CellEncoder()
    runs: dict[str, Any] = {engine: cases[engine].step for engine in engines}
    runs["torchdiffeq, our encoder"] = lambda: torchdiffeq_step(case, case.model.encoder)
    runs["torchdiffeq, cell encoder"] = lambda: torchdiffeq_step(case, cell)
    seconds = side_by_side(runs, repeats)
    task = f"latent ODE, vanilla step, NFE {case.nfe()} and {torchdiffeq_nfe(case)}"
    return against_peers(
        task,
        seconds,
        engines,
        targets={(engine, peer): ">= 1.5" for engine in engines for peer in runs},
        notes={engine: f"first call {first[engine]:.1f} s" for engine in engines},
    )


def _with_engine(model: LatentODE, engine: str) -> LatentODE:
    return LatentODE(model.encoder, model.field, model.decoder, integrator=replace(model.integrator, engine=engine))


def costs(case: Case, repeats: int, names: list[str]) -> list[Row]:
    runs: dict[str, Any] = {"vanilla": case.step}
    for name in names:
        runs[name] = lambda cost=COSTS[name][0]: case.step(cost)
    seconds = side_by_side(runs, repeats)
    task = f"latent ODE, cost of a regularizer, NFE {case.nfe()}"
    return [
        Row(task=task, ours=seconds["vanilla"], peer=seconds[name], peer_name=name, target=COSTS[name][1])
        for name in names
    ]


# With these settings the C library gives freed blocks back at once, so that what is seen is what is in use.
IN_USE = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def peak(name: str, batch: int, scale: float) -> float:
    """MiB that a step in a process of its own takes above the process's own size."""
    command = [sys.executable, "-m", "benchmarks.speed.regularized", name, str(batch), str(scale)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | IN_USE)
    return float(result.stdout)


def memory(batch: int, scale: float, names: list[str]) -> list[Row]:
    plain = peak("vanilla", batch, scale)
    return [
        Row(
            task="latent ODE, peak memory of a step [MiB]",
            ours=plain / 1e3,
            peer=peak(name, batch, scale) / 1e3,
            peer_name=name,
            target="<= 1.15" if name in CHEAP else "",
        )
        for name in names
    ]


def run(*, smoke: bool) -> list[Row]:
    if smoke:
        case = Case.of(8, 1.0)
        rows = beside_torchdiffeq(case, 1, ("eager",)) + costs(case, 1, list(COSTS))
        return rows + memory(8, 1.0, ["R_E"])
    rows = []
    for scale in (1.6, 2.15):
        rows += beside_torchdiffeq(Case.of(256, scale), 9, ("compiled", "eager"))
    for scale in (1.6, 2.15):
        case = Case.of(256, scale)
        # Costs of a few percent need more turns, close to each other.
        rows += costs(case, 21, CHEAP) + costs(case, 5, DEAR)
    return rows + memory(256, 1.6, list(COSTS))


def main() -> None:
    """Print the peak of one step in MiB."""
    torch.set_num_threads(1)
    name, batch, scale = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    cost = None if name == "vanilla" else COSTS[name][0]
    Case.of(4, scale).step(cost)
    case = Case.of(batch, scale)
    before = _high_water()
    case.step(cost)
    print(_high_water() - before)


def _high_water() -> float:
    # Of this program alone: what getrusage reports begins with the size of the program that started it.
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
