"""
Equations from data alone
=========================

Where nothing is known, sparse regression finds the equations of the Lorenz system from a trajectory. The estimator
follows scikit-learn, so that scripts written for pysindy go on working.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import ude
from ude.discovery import STLSQ, Polynomial
from ude.systems import lorenz

problem = lorenz((-8.0, 7.0, 27.0), (0.0, 20.0))
ts = torch.linspace(0, 20, 4001, dtype=torch.float64)
x = ude.solve(problem, save_at=ts, rtol=1e-10, atol=1e-10).ys.numpy()

model = ude.SINDy(optimizer=STLSQ(threshold=0.2), feature_library=Polynomial(degree=2))
model.fit(x, ts.numpy(), feature_names=["x", "y", "z"])
model.print()

# %%
# The fate of a chaotic trajectory hangs on every digit, its shape does not.

again = model.simulate(x[0], ts.numpy())
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.plot(ts, x[:, 0], label="data")
left.plot(ts, again[:, 0], "--", label="found")
left.set(xlabel="t", ylabel="x")
left.legend(frameon=False)
right.plot(x[:, 0], x[:, 2], lw=0.7)
right.plot(np.asarray(again)[:, 0], np.asarray(again)[:, 2], lw=0.7)
right.set(xlabel="x", ylabel="z")
