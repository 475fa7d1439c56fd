"""Twenty-one years of hare and lynx pelts: the real data that need no download."""

from __future__ import annotations

import torch

from ude.problems import Trajectories

HUDSON_BAY_CITATION = (
    "Pelts bought by the Hudson's Bay Company, in thousands: C. G. Hewitt, "
    '"The Conservation of the Wild Life of Canada" (1921), as tabulated by E. P. Odum, '
    '"Fundamentals of Ecology" (1953).'
)

# fmt: off
_HARE = (30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1,  # 1900-1910
         40.3, 57.0, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7)  # 1911-1920
_LYNX = (4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4,  # 1900-1910
         8.0, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6)  # 1911-1920
# fmt: on


def hudson_bay(*, normalized: bool = False) -> Trajectories:
    """Yearly hare and lynx pelts of the Hudson's Bay Company, 1900-1920.

    Args:
        normalized: Divide each species by its maximum (77.4 and 59.4 thousand), as the universal
            differential equations paper does; otherwise values are in thousands of pelts.

    Returns:
        One trajectory of 21 rows with states `("hare", "lynx")` over `year`.

    Reference:
        See `HUDSON_BAY_CITATION`.

    Example:
        >>> data = hudson_bay()
        >>> data.ys[0, 0], data.ts[0, -1].item()
        (tensor([30.,  4.], dtype=torch.float64), 1920.0)
    """
    ys = torch.tensor([_HARE, _LYNX], dtype=torch.float64).T
    if normalized:
        ys = ys / ys.amax(0)
    ts = torch.arange(1900, 1921, dtype=torch.float64)
    return Trajectories(ts=ts[None], ys=ys[None], states=("hare", "lynx"), time="year")


def hudson_bay_csv() -> str:
    """The Hudson Bay table as the text of a CSV file with the columns `year,hare,lynx`, in thousands of pelts.

    Example:
        >>> hudson_bay_csv().splitlines()[2:4]
        ['1900,30.0,4.0', '1901,47.2,6.1']
    """
    rows = [f"{1900 + i},{hare},{lynx}" for i, (hare, lynx) in enumerate(zip(_HARE, _LYNX, strict=True))]
    return "\n".join([f"# {HUDSON_BAY_CITATION}", "year,hare,lynx", *rows]) + "\n"
