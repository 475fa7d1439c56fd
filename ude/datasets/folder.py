"""Named data sets, read from a folder that the user has."""

from __future__ import annotations

import os
from pathlib import Path

from ude._checks import InputError
from ude.datasets.csv import read_csv
from ude.datasets.table import show, suggest
from ude.problems import Trajectories


def data_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of data sets: the argument, else the environment variable `UDE_DATA`.

    Raises:
        InputError: If neither names an existing folder.
    """
    named = folder or os.environ.get("UDE_DATA")
    if not named:
        raise InputError(
            "This data set is read from a folder on this computer. Name the folder with `--data DIR`, or set the "
            "environment variable UDE_DATA. `ude download --list` names data sets that can be fetched."
        )
    path = Path(named)
    if not path.is_dir():
        raise InputError(f"The data folder {show(str(path))} does not exist. Correct `--data` or UDE_DATA.")
    return path


def hudson_bay_long(folder: str | Path | None = None) -> Trajectories:
    """Hare and lynx pelts 1845-1935 in thousands, from `hudson_bay/hare_lynx_1845_1935.csv`.

    The series was scanned from a published graph and is probably a composite, partly interpolated: use it as a
    demonstration. It does not agree year by year with `ude.systems.hudson_bay`.

    Reference:
        MacLulich (1937), redrawn in Odum, "Fundamentals of Ecology"; scanned by D. Hundley.
    """
    path = data_folder(folder) / "hudson_bay" / "hare_lynx_1845_1935.csv"
    data = read_csv(path, time="date", states=("hare", "lynx"))
    return Trajectories(ts=data.ts, ys=data.ys, states=data.states, time="year")


def covid19(region: str, folder: str | Path | None = None) -> Trajectories:
    """Cumulative confirmed, deaths and recovered of one region in 2020, over days since 2020-01-22.

    Args:
        region: A name in `covid19/selected_regions_2020.csv`, such as `Italy`.
        folder: The folder of data sets; see `data_folder`.

    Reference:
        Dong, Du and Gardner (2020), "An interactive web-based dashboard to track COVID-19 in real time".
    """
    path = data_folder(folder) / "covid19" / "selected_regions_2020.csv"
    data = read_csv(path, time="date", states=("confirmed", "deaths", "recovered"), group="region")
    if region not in data.groups:
        raise InputError(
            f"There is no region {show(region)}.{suggest(region, data.groups)} Regions: {', '.join(data.groups)}."
        )
    i = data.groups.index(region)
    return Trajectories(
        ts=data.ts[i : i + 1], ys=data.ys[i : i + 1], states=data.states, groups=(region,), time=data.time
    )
