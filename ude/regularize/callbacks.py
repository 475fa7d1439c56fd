"""Callbacks of two training frameworks, which are imported only when one is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from ude.regularize.penalty import Penalty

PREFIX = "regularizer"
"""Of the names in the log, such as `regularizer/weight`."""


def lightning_callback(penalty: Penalty) -> Any:
    """Return a callback of PyTorch Lightning that sets the weight of a cost and logs what was measured with it.

    At the start of every batch the penalty takes the weight of `trainer.global_step`; at its end the means over the
    batch are logged by the module, as `regularizer/weight`, `/cost`, `/nfe`, `/accepted` and `/rejected`.

    Args:
        penalty: What the module multiplies its cost with in `training_step`.

    Returns:
        A `lightning.pytorch.Callback`, or one of `pytorch_lightning` where only that is installed.

    Raises:
        ImportError: If neither is.
    """
    callback = _imported(("lightning.pytorch", "pytorch_lightning"), "lightning").Callback

    class PenaltyCallback(callback):
        """Sets the weight, logs the figures."""

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            """Set the weight."""
            penalty.set_step(trainer.global_step)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            """Log the figures."""
            pl_module.log_dict(_named(penalty), on_step=True, on_epoch=False)

        def __reduce__(self) -> tuple[Any, ...]:
            """Let other processes make their own."""
            return lightning_callback, (penalty,)

    return PenaltyCallback()


def trainer_callback(penalty: Penalty) -> Any:
    """Return a callback of the Hugging Face `Trainer` that sets the weight of a cost and logs what was measured.

    At the start of every step the penalty takes the weight of `state.global_step`. Whenever the trainer logs a loss,
    the means since the last time are added to what it logs and to `state.log_history`, named as by
    `lightning_callback`. The trainer's own callbacks that report elsewhere come before those of the user: put this one
    in front by `trainer.callback_handler.callbacks.insert(0, callback)` if they are to report it too.

    Args:
        penalty: What the model, or `compute_loss`, multiplies its cost with.

    Returns:
        A `transformers.TrainerCallback`.

    Raises:
        ImportError: If `transformers` is not installed.
    """
    callback = _imported(("transformers",), "transformers").TrainerCallback

    class PenaltyCallback(callback):
        """Sets the weight, logs the figures."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Set the weight."""
            penalty.set_step(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            """Log the figures beside a loss; evaluations and the summary at the end are logs as well."""
            if logs is None or "loss" not in logs:
                return
            figures = _named(penalty)
            logs.update(figures)
            state.log_history[-1].update(figures)

        def __reduce__(self) -> tuple[Any, ...]:
            """Let other processes make their own."""
            return trainer_callback, (penalty,)

    return PenaltyCallback()


def _named(penalty: Penalty) -> dict[str, float]:
    return {f"{PREFIX}/{name}": value for name, value in penalty.figures().items()}


def _imported(modules: tuple[str, ...], package: str) -> Any:
    """Return the first of several modules that is installed."""
    for name in modules:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise  # it is installed, and something that it needs is not
    raise ImportError(
        f"This callback needs the package `{package}`: pip install {package}, or pip install 'ude[callbacks]'."
    )
