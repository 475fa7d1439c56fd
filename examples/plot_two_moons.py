"""
A density learned from samples: two moons
=========================================

A continuous normalizing flow carries a normal distribution to the data along a vector field. The logarithm of the
density changes on the way by minus the trace of the field's Jacobian, so that the likelihood of the data is known, and
so is its gradient.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import make_moons

import ude

seed = torch.Generator().manual_seed(0)
points, _ = make_moons(4096, noise=0.08, random_state=0)
data = torch.tensor(points, dtype=torch.float32)
data = (data - data.mean(0)) / data.std(0)

# %%
# The field is a small network that sees the time at every layer. In two dimensions the trace is exact; in many,
# `estimator=ude.ad.Rademacher(1, per_sample=True)` estimates it from a single direction (FFJORD). A mini-batch is one
# state, and its samples share every step.

field = ude.DenseField((2, 48, 48, 2), activates_output=False, generator=seed, dtype=torch.float32)
flow = ude.CNF(field, 2, integrator=ude.Integrator(rtol=1e-3, atol=1e-3))

# %%
# Training maximises the likelihood. The solution of every batch is at hand, so that a cost of its steps or of its
# trajectories could be added to the loss.

iterations = 400
optimizer = torch.optim.Adam(flow.parameters(), lr=0.02)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
for iteration in range(iterations):
    batch = data[torch.randint(len(data), (256,), generator=seed)]
    optimizer.zero_grad()
    solution = flow.solve(batch)
    loss = -flow.log_density(solution).mean()
    loss.backward()
    optimizer.step()
    schedule.step()
    if iteration % 100 == 99:
        print(f"{iteration + 1} iterations: {loss.item():.3f} nats, {int(solution.stats.nfe)} evaluations per solve")

# %%
# Two half circles, blurred by 0.08 of their radius, have an entropy of about 1.56 nats in these units: no density can
# give the data a better likelihood on average.

with torch.no_grad():
    print(f"all data: {-float(flow.log_prob(data).mean()):.3f} nats")
    axis = torch.linspace(-2.6, 2.6, 120)
    grid = torch.cartesian_prod(axis, axis)
    density = flow.log_prob(grid).exp().reshape(120, 120)
    print(f"the density integrates to {float(density.sum() * (axis[1] - axis[0]) ** 2):.3f}")
    start = torch.randn(1000, 2, generator=seed)
    times = torch.linspace(0, 1, 30)
    paths = ude.NeuralODE(field, integrator=flow.integrator).solve(start, save_at=times).ys

figure, axes = plt.subplots(1, 3, figsize=(11, 4.3), sharex=True, sharey=True, layout="constrained")
axes[0].scatter(*data[:1000].T, s=2)
axes[0].set_title("data")
axes[1].pcolormesh(axis, axis, density.T, cmap="viridis")
axes[1].set_title("density")
axes[2].plot(*paths[:, :60].movedim(-1, 0), color="0.8", linewidth=0.7, zorder=1)
axes[2].scatter(*paths[-1].T, s=2, zorder=2)
axes[2].set_title("samples, and the way of some of them")
for ax in axes:
    ax.set(aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
