"""What every torch function does to jets.

A function has one rule, whatever carries the derivatives. It is elementwise (`elementwise`, `piecewise`, `special`),
linear or bilinear (`arrangement`, `contraction`), composed of other functions, or one of values alone (`values`); what
is none of these is decomposed (`fallback`) or refused by name.
"""

from ude.ad.rules import (
    arithmetic,
    arrangement,
    aten,
    attention,
    contraction,
    loss,
    matrices,
    normalisation,
    piecewise,
    recurrent,
    reduction,
    selection,
    special,
    values,
)
from ude.ad.rules.elementwise import RULES
from ude.ad.rules.kinds import bilinear, elementwise, linear
from ude.ad.rules.table import register, register_names, registered

__all__ = ["bilinear", "elementwise", "linear", "register", "registered"]


_ENTERED_BY_IMPORT = (piecewise, special)


def _install() -> None:
    values.install()
    for name, rule in RULES.items():
        register_names(elementwise(rule), name)
    for topic in (
        arrangement, arithmetic, selection, reduction, normalisation, attention, recurrent, matrices, contraction, loss,
        aten,
    ):  # fmt: skip
        topic.install()


_install()
