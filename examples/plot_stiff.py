"""
Stiff problems: steps of explicit, implicit and switching methods
=================================================================

In a stiff problem something fast has long died out, and still dictates the steps of an explicit method. Implicit steps
cost more and are as long as the solution allows. The default method looks at the problem and switches.
"""

import matplotlib.pyplot as plt
import torch

import ude

# %%
# The van der Pol oscillator with mu = 1000: for hundreds of units of time the state creeps along a curve to which it is
# drawn at rates up to 3000, then it jumps to the other branch within a thousandth of that time.


def van_der_pol(t, y):
    x, v = y.unbind(-1)
    return torch.stack([v, 1000.0 * (1 - x**2) * v - x], dim=-1)


oscillator = ude.ODEProblem(van_der_pol, torch.tensor([2.0, 0.0], dtype=torch.float64), (0.0, 2000.0))

# %%
# Robertson's reaction, with rates from 0.04 to 3e7, over nine decades of time.


def robertson(t, y):
    a, b, c = y.unbind(-1)
    slow, back, fast = 0.04 * a, 1e4 * b * c, 3e7 * b**2
    return torch.stack([back - slow, slow - back - fast, fast], dim=-1)


reaction = ude.ODEProblem(robertson, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), (0.0, 1e5))

# %%
# Every problem is solved by an explicit method, the one that switches (which ``ude.solve`` takes if none is named), and
# an implicit one. The explicit method gets 1000 attempts, and ``throw=False`` to hand over what it has by then.

methods = (ude.Tsit5(), ude.AutoSwitch(ude.Tsit5(), ude.Rodas5P()), ude.Rodas5P())
solutions = {}
for name, problem in (("van der Pol", oscillator), ("Robertson", reaction)):
    for method in methods:
        with torch.no_grad():
            solution = ude.solve(problem, method, max_steps=1000, throw=False, rtol=1e-5, atol=1e-8)
        solutions[name, str(method)] = solution
        steps = solution.steps
        reached = float((steps.t + steps.dt)[steps.accepted].max())
        print(f"{name:12} {method!s:28} {int(solution.stats.accepted):5} steps to t = {reached:.6g}")

# %%
# The lengths of the steps. Those of Tsit5 end up at 3.5 over the fastest rate, which has nothing to do with the
# solution; the others grow to a hundred units of time, and become short only where the oscillator jumps.


def draw(name, *, over_time):
    _, axes = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    for method, marker, size in zip(methods, "ox.", (4, 4, 5), strict=True):
        steps = solutions[name, str(method)].steps
        taken = steps.accepted
        dt = steps.dt[taken]
        across = (steps.t + steps.dt)[taken] if over_time else torch.arange(1, len(dt) + 1)
        look = {"marker": marker, "markersize": size, "linestyle": ""}
        if marker == "o":
            look["markerfacecolor"] = "none"
        axes[0].plot(across, dt, **look, label=str(method))
        axes[1].plot(across, dt * steps.stiffness[taken], **look)
    axes[0].set(yscale="log", ylabel="length of the step")
    axes[0].legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    axes[1].axhline(ude.Tsit5().stability_size, color="0.4", lw=1)
    axes[1].set(yscale="log", ylabel="step times fastest rate", xlabel="t" if over_time else "number of the step")
    return axes


axes = draw("van der Pol", over_time=False)
axes[1].set_xlim(0, 450)

# %%
# The lower panel shows what the stiffness estimate is good for. Below the line, at 3.5, a step of Tsit5 is stable;
# Tsit5 itself runs along it. A step well above can only be an implicit one. ``AutoSwitch`` counts the explicit steps
# that come close to the line, and after some ten of them goes on with Rodas5P; in the jumps of the oscillator, where
# the accuracy asks for short steps anyway, it goes back. Robertson's reaction only ever slows down, and its steps grow
# with time.

axes = draw("Robertson", over_time=True)
axes[1].set_xscale("log")
