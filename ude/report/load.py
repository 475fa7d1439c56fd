"""A model back from its folder, without ever running code that the folder holds."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from ude._checks import InputError
from ude.datasets.table import show
from ude.models import UDE, EquationSystem, Expression, Term, parse_expression
from ude.models.mlp import ACTIVATIONS
from ude.report.job import Network
from ude.report.write import FORMAT

MAX_WIDTH, MAX_DEPTH = 4096, 64


def load(folder: str | Path, *, recovered: bool = False) -> UDE:
    """Return the model that a run has written into `folder`.

    Equations are parsed through the list of what is allowed, and weights are read as numbers only, so a folder
    from someone else cannot run code.

    Args:
        folder: A folder that `ude discover` or `write_report` made.
        recovered: The model with the recovered equations in place of the networks.

    Returns:
        The hybrid model with its trained networks, or the recovered one.

    Raises:
        InputError: If the folder is not one of results, or is damaged.
    """
    folder = Path(folder)
    configuration = _read_json(folder / "config.json")
    weights = _read_weights(folder / "model.pt")
    try:
        model = _build(configuration)
        if recovered:
            return _with_formulas(model, weights["recovered"])
        model.load_state_dict(weights["model"], strict=True)
    except InputError as error:
        raise InputError(f"{show(folder)} holds equations that cannot be used: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise InputError(_damaged(folder, error)) from None
    return model


def _build(configuration: Mapping[str, Any]) -> UDE:
    shape = configuration["job"]["network"]
    width, depth, activation = shape["width"], shape["depth"], shape["activation"]
    if not (type(width) is type(depth) is int and 0 < width <= MAX_WIDTH and 0 <= depth <= MAX_DEPTH):
        raise ValueError("network of an impossible size")
    if activation not in ACTIVATIONS:
        raise ValueError("unknown activation")
    system = EquationSystem.from_dict(configuration["system"])
    positive = [name for name in configuration["job"]["positive"] if name in system.states]
    return system.to_ude(network=Network(width=width, depth=depth, activation=activation), positive=positive)


def _with_formulas(model: UDE, content: Mapping[str, Any]) -> UDE:
    for name, texts in content["terms"].items():
        term = cast("Term", model.terms[name])
        inputs = [f"x{i + 1}" for i in range(len(term.inputs))]
        if len(texts) != len(term.outputs):
            raise ValueError("wrong number of formulas")
        model = model.replace(name, Expression([parse_expression(text, inputs) for text in texts], inputs))
    if set(content["terms"]) != set(model.terms):
        raise InputError("a recovered term has no formula.")
    model.physical.set_values({name: float(content["parameters"][name]) for name in model.physical.names})
    return model


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{show(str(path.parent))} is not a folder of results: it has no {path.name}. Name the folder given as "
            "`--out`."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(_damaged(path, error)) from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(f"{show(str(path))} was not written by this version of the program. Run the command again.")
    return values


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise InputError(f"{show(str(path.parent))} has no {path.name}. Run the command again.") from None
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
        raise InputError(_damaged(path, error)) from None
    except (pickle.UnpicklingError, zipfile.BadZipFile, IndexError, RecursionError, MemoryError) as error:
        raise InputError(_damaged(path, error)) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{show(str(path))} was not written by this version of the program. Run the command again.")
    return content


def _damaged(path: Path, error: Exception) -> str:
    return f"{show(str(path))} is damaged ({type(error).__name__}). Run the command again."
