"""
Solve, look at the steps, differentiate
=======================================

The van der Pol oscillator: what a solve returns, how the steps follow the solution, and the gradient of the
period-long trajectory with respect to the parameter.
"""

import matplotlib.pyplot as plt
import torch

import ude


def van_der_pol(t, y, mu):
    x, v = y.unbind(-1)
    return torch.stack([v, mu * (1 - x**2) * v - x], dim=-1)


mu = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
start = torch.tensor([2.0, 0.0], dtype=torch.float64)
problem = ude.ODEProblem(van_der_pol, start, (0.0, 20.0), p=mu)
solution = ude.solve(problem, rtol=1e-6, atol=1e-8)
print(f"{int(solution.stats.accepted)} steps, {int(solution.stats.nfe)} evaluations of the right-hand side")

# %%
# The solution is a function of time, and every step comes with its length, its error ratio (accepted when at most 1)
# and an estimate of the fastest rate in the system.

times = torch.linspace(0, 20, 600, dtype=torch.float64)
with torch.no_grad():
    x = solution(times)[:, 0]
steps = solution.steps
taken = steps.accepted

figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True, layout="constrained")
axes[0].plot(times, x)
axes[0].set_ylabel("x")
axes[1].semilogy(steps.t[taken], steps.dt[taken], ".-", label="taken")
axes[1].semilogy(steps.t[~taken], steps.dt[~taken], "x", label="rejected")
axes[1].set_ylabel("step length")
axes[1].legend(frameon=False)
axes[2].semilogy(steps.t[taken], steps.stiffness[taken].detach(), ".-")
axes[2].set_ylabel("fastest rate")
axes[2].set_xlabel("t")

# %%
# Gradients flow through the steps that were taken. Here: how x at t = 20 changes with mu, against a difference
# quotient.

(solution.ys[-1, 0]).backward()


def end(value):
    tight = ude.ODEProblem(van_der_pol, start, (0.0, 20.0), p=value)
    with torch.no_grad():
        return ude.solve(tight, rtol=1e-10, atol=1e-12).ys[-1, 0]


difference = (end(mu.detach() + 1e-5) - end(mu.detach() - 1e-5)) / 2e-5
print(f"d x(20) / d mu = {float(mu.grad):.5f}, by differences {float(difference):.5f}")

# %%
# A batch of oscillators: every sample has its own steps.

mus = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)
many = ude.ODEProblem(lambda t, y: van_der_pol(t, y, mus), start.expand(3, 2), (0.0, 20.0), batched=True)
batch = ude.solve(many, save_at=times, rtol=1e-6, atol=1e-8)
print("steps per sample:", batch.stats.accepted.tolist())

figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
for value, curve in zip(mus, batch.ys[:, :, 0].T, strict=True):
    ax.plot(times, curve, label=f"mu = {value:g}")
ax.set(xlabel="t", ylabel="x")
ax.legend(frameon=False, ncols=3, loc="lower right")
