"""
Operators of partial differential equations
===========================================

The left-hand sides of six equations, applied to small networks: heat, Helmholtz, wave, plate, Kuramoto-Sivashinsky and
Korteweg-de Vries. Each takes one evaluation of the network with a few numbers carried along (:doc:`../kernel` explains
which). Finite differences serve for comparison, and the same differences with 80 digits as the truth. All quantities
are dimensionless.
"""

import matplotlib.pyplot as plt
import mpmath
import numpy as np
import torch
from matplotlib.ticker import MaxNLocator

from ude import ad


class Scalar(torch.nn.Sequential):
    """A network with one output, without an axis for it."""

    def forward(self, z):
        return super().forward(z).squeeze(-1)


def network(seed):
    """A scalar function of two numbers with two hidden layers, in float64."""
    random = torch.Generator().manual_seed(seed)
    layers = []
    for inputs, outputs, scale in [(2, 16, 1.2), (16, 16, 1.0), (16, 1, 1.0)]:
        layer = torch.nn.Linear(inputs, outputs, dtype=torch.float64).requires_grad_(False)
        layer.weight.copy_(scale * torch.randn(outputs, inputs, generator=random) / inputs**0.5)
        layer.bias.copy_(torch.randn(outputs, generator=random))
        layers += [layer, torch.nn.Tanh()]
    return Scalar(*layers[:-1])


u, w = network(5), network(2)  # u(t, x) and w(x, y)

# %%
# The operators
# -------------
# A multi-index counts derivatives: ``(1, 0)`` is the derivative by the first input and ``(0, 2)`` the second derivative
# by the second. Several operators of one function share a pass, such as the linear part of an equation and the slope
# that its nonlinear term needs.


def heat(z):
    return ad.linear_operator(u, z, {(1, 0): 1, (0, 2): -1}).operator


def helmholtz(z):
    result = ad.laplacian(w, z)
    return result.operator + 4 * result.value


def wave(z):
    return ad.weighted_laplacian(w, z, 1.0, weights=[1, -1]).operator


def plate(z):
    return ad.biharmonic(w, z).operator


def kuramoto_sivashinsky(z):
    result = ad.linear_operator(u, z, [{(1, 0): 1, (0, 2): 1, (0, 4): 1}, {(0, 1): 1}])
    linear, slope = result.operator
    return linear + result.value * slope


def korteweg_de_vries(z):
    result = ad.linear_operator(u, z, [{(1, 0): 1, (0, 3): 1}, {(0, 1): 1}])
    linear, slope = result.operator
    return linear + 6 * result.value * slope


# %%
# The same operators once more, as data for the finite differences: the function, the linear terms, and the factor a of
# the nonlinear term a u u_x.

equations = {
    "heat": (heat, u, {(1, 0): 1, (0, 2): -1}, 0, r"$u_t - u_{xx}$"),
    "Kuramoto-Sivashinsky": (
        kuramoto_sivashinsky, u, {(1, 0): 1, (0, 2): 1, (0, 4): 1}, 1,
        r"$u_t + u u_x + u_{xx} + u_{xxxx}$",
    ),
    "Korteweg-de Vries": (
        korteweg_de_vries, u, {(1, 0): 1, (0, 3): 1}, 6, r"$u_t + 6 u u_x + u_{xxx}$",
    ),
    "Helmholtz": (helmholtz, w, {(2, 0): 1, (0, 2): 1, (0, 0): 4}, 0, r"$\Delta w + 4 w$"),
    "wave": (wave, w, {(2, 0): 1, (0, 2): -1}, 0, r"$w_{xx} - w_{yy}$"),
    "plate": (plate, w, {(4, 0): 1, (2, 2): 2, (0, 4): 1}, 0, r"$\Delta^2 w$"),
}  # fmt: skip


def slots(linear, factor):
    """How many numbers each neuron carries, its value among them."""
    return ad.Symbol(linear, {(0, 1): 1}).dim if factor else ad.Symbol(linear).dim


# %%
# What the operators look like
# ----------------------------
# The upper row shows functions of t and x, the lower row functions of x and y. Every derivative amplifies what is
# steep.

first = torch.linspace(-2, 2, 81, dtype=torch.float64)
grid = torch.cartesian_prod(first, first)

panels = [(name, kernel, formula) for name, (kernel, *_, formula) in equations.items()]
panels.insert(3, ("network", w, "$w(x, y)$"))
panels.insert(0, ("network", u, "$u(t, x)$"))

figure, axes = plt.subplots(2, 4, figsize=(9, 7), layout="constrained", sharex="row", sharey="row")
figure.get_layout_engine().set(hspace=0.06)
for ax, (name, function, formula) in zip(axes.flat, panels, strict=True):
    field = function(grid).reshape(81, 81)
    limit = float(field.abs().max())
    colours = {} if name == "network" else {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    image = ax.pcolormesh(first, first, field.T, shading="gouraud", **colours)
    ax.set_title(f"{name}\n{formula}", fontsize=10)
    ax.set_aspect("equal")
    figure.colorbar(image, ax=ax, location="bottom", shrink=0.9).locator = MaxNLocator(4)
for ax in axes[0]:
    ax.set_xlabel("t")
for ax in axes[1]:
    ax.set_xlabel("x")
axes[0, 0].set_ylabel("x")
axes[1, 0].set_ylabel("y")

# %%
# Finite differences
# ------------------
# Central differences of second order, products of stencils in one variable. They are written for any function and any
# kind of number.

STENCILS = {
    0: {0: 1.0},
    1: {-1: -0.5, 1: 0.5},
    2: {-1: 1.0, 0: -2.0, 1: 1.0},
    3: {-2: -0.5, -1: 1.0, 1: -1.0, 2: 0.5},
    4: {-2: 1.0, -1: -4.0, 0: 6.0, 1: -4.0, 2: 1.0},
}


def difference(f, a, b, index, h):
    """Difference quotient of f at the points (a, b), for one multi-index and a step h."""
    total = 0
    for i, c in STENCILS[index[0]].items():
        for j, d in STENCILS[index[1]].items():
            total = total + c * d * f(a + i * h, b + j * h)
    return total / h ** sum(index)


def by_differences(f, a, b, linear, factor, h):
    total = sum(c * difference(f, a, b, index, h) for index, c in linear.items())
    return total + factor * f(a, b) * difference(f, a, b, (0, 1), h) if factor else total


def in_float64(f):
    return lambda a, b: f(torch.stack([a, b], -1))


# %%
# The truth comes from the same formulas, computed with 80 digits and a step of 1e-12. The terms that the stencils leave
# out are then of the size 1e-24, and cancellation in a fourth derivative takes 48 of the 80 digits: the result is right
# to some 24 digits, eight more than float64 holds.

mpmath.mp.dps = 80
tanh = np.frompyfunc(mpmath.tanh, 1, 1)
exact = np.frompyfunc(mpmath.mpf, 1, 1)


def in_many_digits(f):
    layers = [(exact(layer.weight.numpy()), exact(layer.bias.numpy())) for layer in f if hasattr(layer, "weight")]

    def evaluate(a, b):
        y = np.stack([a, b])
        for number, (weight, bias) in enumerate(layers):
            y = weight @ (tanh(y) if number else y) + bias[:, None]
        return y[0]

    return evaluate


points = 4 * torch.rand(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 2
a, b = points.unbind(-1)
a_exact, b_exact = exact(a.numpy()), exact(b.numpy())

steps = np.logspace(-6, 0, 37)
errors, ours = {}, {}
for name, (kernel, f, linear, factor, _) in equations.items():
    truth = by_differences(in_many_digits(f), a_exact, b_exact, linear, factor, mpmath.mpf("1e-12"))

    def largest_error(values, truth=truth):
        """The largest deviation from the truth, over the largest value."""
        return float(max(abs(exact(values.numpy()) - truth)) / max(abs(truth)))

    ours[name] = largest_error(kernel(points))
    quotients = [by_differences(in_float64(f), a, b, linear, factor, float(h)) for h in steps]
    errors[name] = [largest_error(values) for values in quotients]

# %%
# The table gives the order of the operator, the number of values that each neuron carries, and the largest error at 12
# random points, relative to the largest value of the operator.

print("equation               order   slots   kernel      best difference   at step")
for name, (_, _, linear, factor, _) in equations.items():
    best = int(np.argmin(errors[name]))
    order = max(map(sum, linear))
    line = f"{name:21s} {order:6d} {slots(linear, factor):7d}   {ours[name]:.1e}"
    print(f"{line}   {errors[name][best]:15.1e}   {steps[best]:7.0e}")
    assert ours[name] < 1e-13

# %%
# Error against step size
# -----------------------
# Large steps miss terms of order h squared (right branch). Small steps divide the rounding errors of the network by a
# power of h, the order of the operator (left branch). The best difference in between loses half of all digits for
# second derivatives and two thirds for fourth ones, and the step that attains it is not known beforehand. The kernel
# has no step: its error is that of rounding.

figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.6), layout="constrained", sharex=True, sharey=True)
for ax, (name, (_, _, linear, _, formula)) in zip(axes.flat, equations.items(), strict=True):
    order = max(map(sum, linear))
    ax.loglog(steps, errors[name], ".-", markersize=5, linewidth=1, color="tab:orange", label="finite differences")
    ax.axhline(ours[name], color="tab:blue", linewidth=1.8, label="ude.ad")
    right = errors[name][-10] * (steps / steps[-10]) ** 2
    left = errors[name][3] * (steps / steps[3]) ** -order
    ax.plot(steps, right, ":", color="0.35", linewidth=1, label=r"$h^2$")
    ax.plot(steps, left, "--", color="0.35", linewidth=1, label=r"$h^{-\mathrm{order}}$")
    ax.set_title(f"{name}\n{formula}", fontsize=10)
    ax.grid(color="0.92")
axes[0, 0].set(ylim=(1e-17, 1e10), xlim=(7e-7, 1.4))
for ax in axes[1]:
    ax.set_xlabel("step h")
for ax in axes[:, 0]:
    ax.set_ylabel("largest relative error")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
