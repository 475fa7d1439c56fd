"""The door `fit`."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from ude._checks import InputError, UdeWarning
from ude.fit.assembly import assemble, data_sets
from ude.fit.checkpoint import Checkpoint, Saver, load_checkpoint
from ude.fit.collocation import Collocation, is_measured_often
from ude.fit.initial_states import InitialStates
from ude.fit.lbfgs import LBFGS
from ude.fit.multiple_shooting import MultipleShooting
from ude.fit.optimizer import Optimizer
from ude.fit.options import SolverOptions
from ude.fit.result import Fit
from ude.fit.simulation import Stepping
from ude.fit.single_shooting import SingleShooting, is_resolved, mean_square, trajectories
from ude.fit.task import Task
from ude.fit.training import Phase, Training
from ude.models import UDE
from ude.problems import Trajectories
from ude.solve import Compiled, Eager


@runtime_checkable
class Strategy(Protocol):
    """Turns a task into phases of training."""

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """Optimizers that are run one after the other."""
        ...

    def phases(self, task: Task, stepping: Stepping) -> list[Phase]:
        """Return the phases, in order."""
        ...


STRATEGIES: dict[str, tuple[Strategy, ...]] = {
    "single": (SingleShooting(),),
    "multiple": (MultipleShooting(), SingleShooting(optimizers=(LBFGS(iterations=200),))),
    "collocation": (Collocation(), SingleShooting(optimizers=(LBFGS(iterations=200),))),
}
"""Ready-made chains, by the names that `fit` accepts for them; "auto" is one of the last two."""

_COMPILING_PAYS_FROM = 1500


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a fit; nothing is lost.

    Attributes:
        fit: The fit so far.
        checkpoint: The checkpoint that `resume=True` continues from; None if there was no place for it.
    """

    def __init__(self, message: str, fit: Fit, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.fit, self.checkpoint = fit, checkpoint


def fit(
    model: UDE,
    data: Trajectories | Sequence[Trajectories],
    *,
    strategy: str | Strategy | Sequence[Strategy] = "auto",
    replicates: int | None = None,
    y0: Literal["data", "learn"] | Tensor | InitialStates = "data",
    weights: Mapping[str, float] | Tensor | None = None,
    l2: float = 0.0,
    solver: SolverOptions = SolverOptions(),  # noqa: B008
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    checkpoint: str | Path | Checkpoint | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Fit:
    r"""Fit a universal differential equation to measurements.

    Minimises, for each of K replicates on its own but all in one batch,

    $$ L = \frac{1}{n} \sum_{j,i} w_{ji} \left(\hat y_i(t_j) - y_{ji}\right)^2 + l_2\, \overline{\theta^2} $$

    over the network and physical parameters and, if wanted, the initial states. Values that are NaN in the data
    are left out. States, rates and times are scaled by the data's own sizes, which also scale the network's
    inputs and outputs.

    Args:
        model: What to fit; it is not changed.
        data: Measurements, or one set of measurements per replicate (all at the same times).
        strategy: "single", "multiple" or "collocation"; or strategy objects that are run one after the other,
            such as `(Collocation(), SingleShooting())`. "multiple" and "collocation" end with single shooting
            too; where every state was measured often enough, "multiple" begins with collocation, and "auto" is
            "collocation". Elsewhere "auto" is "multiple".
        replicates: Number K of freshly drawn networks and physical parameters. By default the model is
            fitted as it is, from its present parameters; it may be one that `model.replicate` made.
        y0: Initial states: the first measurement ("data"), learned from there ("learn"), given as a tensor
            `(states,)`, `(groups, states)` or `(K, groups, states)`, or `InitialStates`.
        weights: Weight $w$ of the squared residuals in 1 / unit²: by state name, or a tensor that broadcasts to
            `(groups, times, states)`. By default 1 / scale².
        l2: Weight of the mean squared network parameter.
        solver: How the equations are integrated.
        generator: Source of the replicates' randomness.
        dtype: Floating-point type of the fit; L-BFGS tends to stall in single precision.
        checkpoint: File that is written now and then, and on Ctrl-C.
        resume: Continue from `checkpoint`, bit for bit as if there had been no interruption. All other
            arguments must be those of the first call.
        progress: Show a progress bar.

    Returns:
        The fitted members and the course of the fit.

    Raises:
        InputError: If the data or the checkpoint cannot be used.
        Interrupted: On Ctrl-C, with the fit so far; a checkpoint has been written if there was a place for it.
        ValueError: If arguments do not fit together.

    Example:
        >>> from ude.fit import LBFGS
        >>> t = torch.linspace(0, 2, 11, dtype=torch.float64)
        >>> data = Trajectories.from_arrays(t, (-0.7 * t).exp()[:, None], states=("y",))
        >>> decay = UDE(lambda t, y, p: -p.rate * y, None, states=("y",), parameters={"rate": 0.1})
        >>> result = fit(decay, data, strategy=SingleShooting(optimizers=(LBFGS(),)))
        >>> round(result.model.physical.values()["rate"].item(), 4)
        0.7
    """
    sets = data_sets(data, model, dtype)
    chain = _chain(strategy, sets)
    task = assemble(model, sets, replicates, y0, weights, l2, solver, generator, dtype)
    stepping = _stepping(task, chain)
    phases = [phase for part in chain for phase in part.phases(task, stepping)]
    place = Checkpoint(path=checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    key = _fingerprint(task, phases)
    extra = {"fingerprint": key} | ({} if generator is None else {"generator": generator.get_state()})
    training = Training(phases, task.members, Saver(place), extra, progress)
    if resume:
        _restore(training, place, key, generator)
    try:
        training.run()
        stepping = _refine(training, task, stepping, chain)
    except KeyboardInterrupt as interrupt:
        path = None if place is None else Path(place.path)
        kept = "Nothing was saved: no `checkpoint` was given." if path is None else f"Resume from {path}."
        message = f"The fit was interrupted after {len(training.rows)} evaluations. {kept}"
        raise Interrupted(message, _result(task, stepping, training), path) from interrupt
    _warn_of_stall(training, task)
    return _result(task, stepping, training)


def _warn_of_stall(training: Training, task: Task) -> None:
    """Say so where single precision has ended L-BFGS before it converged."""
    if task.ts.dtype == torch.float32 and training.has_stalled:
        warnings.warn(
            "L-BFGS found no way down although the loss was still falling: single precision cannot resolve it. "
            "Leave `dtype` at float64.",
            UdeWarning,
            stacklevel=3,
        )


def _refine(training: Training, task: Task, stepping: Stepping, chain: Sequence[Strategy]) -> Stepping:
    """Halve the steps while that changes the result, fit again each time, and return the last stepping."""
    polish = SingleShooting(optimizers=(LBFGS(iterations=50),))
    for _ in range(task.solver.halvings):
        if not training.is_ahead and is_resolved(task, stepping):
            return stepping
        stepping = stepping.halved()
        if isinstance(chain[-1], SingleShooting):
            training.phases.extend(polish.phases(task, stepping))
            training.run()
    if task.solver.halvings and not is_resolved(task, stepping):
        warnings.warn(
            f"The solver's error with steps of {stepping.dt:.3g} is not small against the residuals. Fit with "
            "`solver=SolverOptions(is_adaptive=True)`, or give a smaller `dt`.",
            UdeWarning,
            stacklevel=3,
        )
    return stepping


def _chain(strategy: str | Strategy | Sequence[Strategy], sets: Sequence[Trajectories]) -> tuple[Strategy, ...]:
    can_warm_up = all(is_measured_often(d) for d in sets)
    if strategy == "auto":
        strategy = "collocation" if can_warm_up else "multiple"
    if isinstance(strategy, str):
        if strategy not in STRATEGIES:
            raise ValueError(
                f"`strategy` must be one of 'auto', {', '.join(map(repr, STRATEGIES))} or strategy objects, got "
                f"{strategy!r}."
            )
        # From a random start segments, too, end in a poor minimum now and then; smoothed derivatives rarely do.
        warm_up = (Collocation(),) if strategy == "multiple" and can_warm_up else ()
        return (*warm_up, *STRATEGIES[strategy])
    return tuple(strategy) if isinstance(strategy, Sequence) else (strategy,)


def _stepping(task: Task, chain: Sequence[Strategy]) -> Stepping:
    options = task.solver
    planned = sum(
        optimizer.iterations for part in chain if not isinstance(part, Collocation) for optimizer in part.optimizers
    )
    # Longer blocks take minutes to compile and gain little here.
    compiled = Compiled(unroll=1, check_every=16)
    automatic = compiled if planned >= _COMPILING_PAYS_FROM else Eager()
    engine = {"auto": automatic, "compiled": compiled, "eager": Eager()}[options.engine]
    if options.is_adaptive:
        return Stepping(dt=None, engine=engine)
    return Stepping(dt=options.dt or task.scales.time / 2, engine=engine)


def _fingerprint(task: Task, phases: Sequence[Phase]) -> str:
    """Return what a checkpoint must share with the call that resumes it: data, sizes and optimizers."""
    digest = hashlib.sha256()
    for tensor in (task.ts, task.ys(), task.weights, task.start.values):
        digest.update(tensor.detach().numpy().tobytes())
    for phase in phases:
        sizes = {name: tuple(leaf.shape) for name, leaf in phase.variables.leaves.items()}
        digest.update(f"{phase.name}{phase.optimizer}{sizes}{task.solver}{task.l2}".encode())
    return digest.hexdigest()


def _restore(training: Training, place: Checkpoint | None, key: str, generator: torch.Generator | None) -> None:
    if place is None:
        raise ValueError("`resume` needs the `checkpoint` to continue from.")
    content = load_checkpoint(place.path)
    if content["fingerprint"] != key:
        raise InputError(
            f"{place.path} belongs to another fit: the data, the model's size or the settings differ. Call `fit` as "
            "in the interrupted run, or start again without `resume`."
        )
    training.restore(content)
    if generator is not None and "generator" in content:
        generator.set_state(content["generator"])


def _result(task: Task, stepping: Stepping, training: Training) -> Fit:
    with torch.no_grad():
        losses = mean_square(task, trajectories(task, stepping) - task.ys())
        y0s = task.model.coordinates.decode(task.latent_start()).expand(task.members, -1, -1)
    if task.model.replicates is None:
        members: tuple[UDE, ...] = (task.model,)
    else:
        members = tuple(task.model.member(i) for i in range(task.members))
    return Fit(
        members=members,
        losses=losses,
        y0s=y0s,
        data_sets=task.data,
        history=training.history(),
        scales=task.scales,
        signal=task.signal,
    )
