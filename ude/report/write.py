"""The folder of a run: report, figures, equations, model and configuration."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ude._version import __version__
from ude.plot import to_png
from ude.report.compose import Source, compose, scaled_sse
from ude.report.folder import fresh_folder
from ude.report.job import Run
from ude.report.page import render
from ude.report.symbols import recovered_formulas

FORMAT = "ude-run-1"


def write_report(folder: str | Path, run: Run, source: Source, *, overwrite: bool = False) -> Path:
    """Write everything about a run into a folder that is there completely or not at all.

    The folder holds `report.html` (one file that needs no network), `figures/*.png`, `equations.json`,
    `equations.tex`, `model.pt` (weights only) and `config.json`; `ude.load` reads it back.

    Args:
        folder: Where to; it must not exist, or be empty.
        run: The run.
        source: Where the data came from.
        overwrite: Replace an existing folder of results, once the new one is complete.

    Returns:
        The path of the report.

    Raises:
        InputError: If the folder exists or cannot be made.
        OSError: If writing fails, for example because the disk is full; an existing folder is then kept.
    """
    folder = Path(folder)
    page = compose(run, source)
    with fresh_folder(folder, overwrite=overwrite) as draft:
        (draft / "figures").mkdir()
        for picture in page.pictures:
            (draft / "figures" / f"{picture.name}.png").write_bytes(to_png(picture.figure))
        _write_json(draft / "equations.json", _equations(run))
        (draft / "equations.tex").write_text(run.discovery.latex() + "\n", encoding="utf-8")
        torch.save(_weights(run), draft / "model.pt")
        _write_json(draft / "config.json", _configuration(run, source))
        (draft / "report.html").write_text(render(page), encoding="utf-8")
    return folder / "report.html"


def _weights(run: Run) -> dict[str, Any]:
    found = run.discovery
    values = {name: float(value.detach()) for name, value in found.model.physical.values().items()}
    return {
        "format": FORMAT,
        "model": dict(run.fit.model.state_dict()),
        "y0": run.fit.y0.detach(),
        "recovered": {"parameters": values, "terms": recovered_formulas(found), "y0": found.y0.detach()},
    }


def _equations(run: Run) -> dict[str, Any]:
    found = run.discovery
    return {
        **json.loads(found.to_json()),
        "scaled_sse": scaled_sse(run),
        "period": run.paths.period,
        "time": run.fit.data.time,
    }


def _configuration(run: Run, source: Source) -> dict[str, Any]:
    data = run.fit.data
    return {
        "format": FORMAT,
        "ude": __version__,
        "torch": torch.__version__,
        "command": source.command,
        "job": asdict(run.job),
        "system": run.system.to_dict(),
        "data": {
            "name": source.name,
            "sha256": source.sha256,
            "time": data.time,
            "states": list(data.states),
            "inputs": list(data.input_names),
            "groups": list(data.groups),
            "rows": int(data.ts.numel()),
        },
        "seconds": run.seconds,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
