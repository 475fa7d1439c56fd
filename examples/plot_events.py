"""
Events: bouncing balls, doses of a drug
=======================================

What happens at a moment instead of all the time: a ball that hits the floor, a dose that is swallowed. Times of events,
and everything after them, have gradients; so what happens at an event can be learned from when it happens.
"""

import matplotlib.pyplot as plt
import torch

import ude

# %%
# Three balls fall from one meter. The floor is a zero of the height; there the velocity is turned round, and a share of
# it is lost. The bounces would follow one another ever faster without an end; so a ball that is slower than 5 cm/s
# stays where it is, for which it loses its weight, the third component of the state.


def falling(t, y):
    _, v, weight = y.unbind(-1)
    return torch.stack([v, -weight, torch.zeros_like(v)], dim=-1)


def drop(restitution):
    def bounce(t, y):
        height, v, weight = y.unbind(-1)
        moves = v.abs() > 0.05
        return torch.stack([torch.zeros_like(height), -restitution * v * moves, weight * moves], dim=-1)

    floor = ude.ContinuousEvent(condition=lambda t, y: y[:, 0], affect=bounce, direction=-1)
    start = torch.tensor([1.0, 0.0, 9.81], dtype=torch.float64).expand(3, 3)
    return ude.solve(ude.ODEProblem(falling, start, (0.0, 3.5), batched=True), events=[floor])


truth = torch.tensor([0.9, 0.75, 0.65], dtype=torch.float64)
solution = drop(truth)
print("bounces:", (solution.events.which == 0).sum(0).tolist())

# %%
# A stopwatch gives the times of the first five bounces, to some hundredths of a second. From these the restitutions are
# to be found, one number for each ball, all of them at once, by the method of Gauss and Newton. It needs the derivative
# of every time, which is that of the implicit function "height at time t = 0".

generator = torch.Generator().manual_seed(0)
measured = solution.events.ts[:5] + 0.02 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
guess = torch.full((3,), 0.8, dtype=torch.float64, requires_grad=True)
before = drop(guess.detach())
for _ in range(4):
    bounces = drop(guess).events.ts[:5]
    slopes = torch.stack([ude.ad.grad(row.sum(), [guess], retain_graph=True)[0] for row in bounces])
    change = (slopes * (measured - bounces.detach())).sum(0) / slopes.square().sum(0)
    guess = (guess + change).detach().requires_grad_()
after = drop(guess.detach())
print("true restitutions: ", truth.tolist())
print("found restitutions:", [round(x, 3) for x in guess.tolist()])

# %%
# Left the balls as they really fall, right the bounces: measured, at the first guess, and found.

times = torch.linspace(0, 3.5, 700, dtype=torch.float64)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for ball in range(3):
    left.plot(times, solution(times)[:, ball, 0], color=f"C{ball}", label=f"restitution {float(truth[ball]):g}")
    right.plot(range(1, 6), before.events.ts[:5, ball], ":", color="0.6", label="first guess" if ball == 0 else None)
    right.plot(range(1, 6), after.events.ts[:5, ball], color=f"C{ball}", label="found" if ball == 0 else None)
    right.plot(
        range(1, 6), measured[:, ball], "o", color=f"C{ball}", mfc="none", label="measured" if not ball else None
    )
left.set(xlabel="time / s", ylabel="height / m")
left.legend(frameon=False)
right.set(xlabel="bounce", ylabel="time / s", xticks=range(1, 6))
right.legend(frameon=False)

# %%
# A drug is swallowed every eight hours; it passes from the gut into the blood and leaves it again, in every patient at
# a rate of their own. Doses are events at known times: steps end there exactly. A second event has no effect and only
# notes when a concentration of 6 mg/l is passed, in either direction.

elimination = torch.tensor([0.10, 0.17, 0.25], dtype=torch.float64)
doses = 8.0 * torch.arange(1, 6, dtype=torch.float64)


def drug(t, y):
    gut, blood = y.unbind(-1)
    return torch.stack([-1.2 * gut, 1.2 * gut - elimination * blood], dim=-1)


def treat(dose, save_at):
    def swallow(t, y):
        return torch.stack([y[:, 0] + dose, y[:, 1]], dim=-1)

    start = torch.stack([dose, torch.zeros_like(dose)], dim=-1)
    level = ude.ContinuousEvent(condition=lambda t, y: y[:, 1] - 6.0)
    return ude.solve(
        ude.ODEProblem(drug, start, (0.0, 48.0), batched=True),
        save_at=save_at,
        events=[ude.PresetTimes(doses, swallow), level],
    )


# %%
# Which dose leaves 2 mg/l in the blood just before the last one is taken? A state that is saved at the time of an event
# is the one before it. The trough is linear in the dose, so that one step of Newton's method, with the derivative from
# the solve, finds every patient's answer.

dose = torch.full((3,), 5.0, dtype=torch.float64, requires_grad=True)
trough = treat(dose, doses[-1:]).ys[0, :, 1]
(slope,) = ude.ad.grad(trough.sum(), [dose])
own = (dose + (2.0 - trough) / slope).detach()
print("trough with 5 mg/l for everyone:", [round(x, 2) for x in trough.tolist()])
print("dose for a trough of 2 mg/l:    ", [round(x, 2) for x in own.tolist()])
print("trough with it:                 ", [round(x, 6) for x in treat(own, doses[-1:]).ys[0, :, 1].tolist()])

hours = torch.linspace(0, 48, 500, dtype=torch.float64)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
for axis, amount, title in zip(
    axes, (dose.detach(), own), ("5 mg/l for everyone", "the dose found for each"), strict=True
):
    treated = treat(amount, hours)
    log = treated.events
    for patient in range(3):
        name = f"eliminates {float(elimination[patient]):g} / h"
        axis.plot(hours, treated.ys[:, patient, 1], color=f"C{patient}", label=name)
        passed = log.which[:, patient] == 1
        axis.plot(log.ts[passed, patient], log.before[passed, patient, 1], "o", color=f"C{patient}", ms=4)
    axis.axhline(6.0, color="0.6", lw=1)
    axis.axhline(2.0, color="0.6", lw=1, ls=":")
    axis.set(xlabel="time / h", title=title, xticks=range(0, 49, 8))
axes[0].set_ylabel("concentration in the blood / (mg/l)")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
