"""
Find an unknown force
=====================

A pendulum swings in a medium whose friction nobody has written down. Its angle and its angular velocity were measured,
with noise. A network stands for the friction; then the friction is read back as an equation.
"""

import matplotlib.pyplot as plt
import torch

import ude

# %%
# The measurements. The true friction has a linear and a quadratic part; the fit is not told.


def friction(v):
    return -0.15 * v - 0.1 * v * v.abs()


def pendulum(t, y):
    angle, v = y.unbind(-1)
    return torch.stack([v, -9.81 * angle.sin() + friction(v)], dim=-1)


generator = torch.Generator().manual_seed(0)
ts = torch.linspace(0, 4, 81, dtype=torch.float64)
start = torch.tensor([1.2, 0.0], dtype=torch.float64)
truth = ude.solve(ude.ODEProblem(pendulum, start, (0.0, 4.0)), save_at=ts, rtol=1e-9, atol=1e-9).ys
noisy = truth + 0.01 * torch.randn(truth.shape, generator=generator, dtype=torch.float64)
data = ude.Trajectories.from_arrays(ts, noisy, states=("angle", "v"))

# %%
# The known part, and a network for the friction: a function of the velocity, added to its time derivative.


def known(t, y, p):
    angle, v = y.unbind(-1)
    return v, -9.81 * angle.sin()


unknown = ude.Term(ude.MLP(1, 1, width=8), inputs=("v",), outputs=("v",))
model = ude.UDE(known, {"friction": unknown}, states=("angle", "v"))
fit = ude.fit(model, data, replicates=4, y0="learn", solver=ude.SolverOptions(halvings=0), generator=generator)
print("mean squared residuals of the four networks, in units of the states' scales:", fit.losses)

# %%
# The network's friction becomes an equation. Candidates are powers of the velocity, and ``v*abs(v)``.

library = ude.Polynomial(degree=3) + ude.Custom((lambda v: v * v.abs(),), ("{0}*abs({0})",))
found = ude.discover(fit, library=library)
print(found)

# %%
# The true friction, the network's, and that of the equation.

path = found.predict(ts).ys[0]
v = torch.linspace(float(path[:, 1].min()), float(path[:, 1].max()), 200, dtype=torch.float64)
with torch.no_grad():
    learned = fit.model.terms["friction"](v[:, None])[:, 0]
    recovered = found.model.terms["friction"](v[:, None])[:, 0]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.plot(ts, noisy[:, 0], "o", ms=3, mfc="none", color="0.4", label="measured")
left.plot(ts, path[:, 0], label="found")
left.set(xlabel="time / s", ylabel="angle")
left.legend(frameon=False)
right.plot(v, friction(v), color="0.2", lw=3, alpha=0.3, label="truth")
right.plot(v, learned, "--", label="network")
right.plot(v, recovered, label="equation")
right.set(xlabel="angular velocity", ylabel="friction")
right.legend(frameon=False)
