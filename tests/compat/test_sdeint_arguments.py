"""What `sdeint` and `sdeint_adjoint` refuse, and what they warn of."""

from __future__ import annotations

import warnings

import pytest
import torch
from sde_cases import DT, TS, Equation, Product, motion, start

import ude
from ude.brownian import BrownianGrid
from ude.compat import sdeint, sdeint_adjoint


def refused(match, *, equation=None, error=ValueError, **changed):
    call = {"y0": start(), "ts": TS, "dt": DT, **changed}
    with pytest.raises(error, match=match):
        sdeint(Equation("diagonal", "ito") if equation is None else equation, **call)


def test_arguments_that_cannot_be_used_are_named():
    refused("must be one of euler, milstein", method="eular")
    refused("`euler` solves equations with sde_type ito", equation=Equation("diagonal", "stratonovich"), method="euler")
    refused("`srk` solves.*got ito and general noise", equation=Equation("general", "ito"), method="srk")
    refused("`milstein` solves", equation=Equation("general", "ito"), method="milstein")
    refused("is an `adjoint_method`", equation=Equation("general", "stratonovich"), method="adjoint_reversible_heun")
    refused("EulerMaruyama has no error estimate", method=ude.EulerMaruyama(), adaptive=True)
    refused("`y0` must be a real tensor of shape", y0=torch.ones(3))
    refused("`ts` must be strictly increasing", ts=TS.flip(0))
    refused("`ts` must be one-dimensional", ts=TS.unsqueeze(0))
    refused("must not require a gradient", ts=TS.clone().requires_grad_())
    refused("`dt` must not require a gradient", dt=torch.tensor(0.1, requires_grad=True))
    refused("must be positive and finite", dt=0.0)
    refused("`bm` must have the shape .* = \\(4, 3\\)", bm=motion("general"))
    refused("one of them for the log-ratio", bm=motion("diagonal"), logqp=True)
    refused("`bm` must be a `ude.BrownianTree`", bm=3)
    refused("constant steps", bm=BrownianGrid(0), adaptive=True)
    refused("`names` has the keys", names={"drfit": "mu"})
    refused("needs the integral of the Brownian motion", bm=motion("diagonal", area="none"), method="srk")
    with pytest.raises(ValueError, match="`adjoint_method` must be one of"):
        sdeint_adjoint(Equation("diagonal", "ito"), start(), TS, adjoint_method="rk4")


def test_equations_that_cannot_be_used_are_named():
    class Wrong(Equation):
        def f(self, t, y):
            return super().f(t, y)[:, :2]

    class Flat(Equation):
        def g(self, t, y):
            return super().g(t, y)[..., 0]

    class Wide(Equation):
        def g(self, t, y):
            return super().g(t, y).expand(-1, -1, 2)

    class Moving(Equation):
        def g(self, t, y):
            return super().g(t, y) * y.unsqueeze(-1)

    refused("The drift must have the shape of the state", equation=Wrong("diagonal", "ito"))
    refused("With general noise the diffusion must have", equation=Flat("general", "ito"))
    refused("Scalar noise has one Brownian motion", equation=Wide("scalar", "ito"))
    refused("does not depend on the state", equation=Moving("additive", "ito"))
    refused("`sde.noise_type` must be one of", equation=Equation("white", "ito"))
    refused("`sde.sde_type` must be one of", equation=Equation("diagonal", "backward"))
    refused("How many Brownian motions", equation=Product(Equation("general", "ito")))
    refused("must have a diffusion", equation=type("Bare", (), {"noise_type": "scalar", "sde_type": "ito", "f": 1})())
    refused("must have a drift", equation=type("Bare", (), {"noise_type": "scalar", "sde_type": "ito", "g": 1})())
    refused("a method `h`", equation=Product(Equation("general", "ito")), bm=motion("general"), logqp=True)


def test_arguments_and_options_that_are_not_known_are_warned_of():
    equation = Equation("diagonal", "ito")
    with pytest.warns(UserWarning, match="Unexpected arguments.*tolerance"):
        sdeint(equation, start(), TS, dt=DT, tolerance=1e-3)
    with pytest.warns(UserWarning, match="Unexpected options.*step"):
        sdeint(equation, start(), TS, dt=DT, options={"step": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sdeint(equation, start(), TS, bm=motion("diagonal"), dt=0.1)
