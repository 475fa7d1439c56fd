"""
What a derivative carries along
===============================

Pictures for :doc:`../kernel`: how a jet passes through a layer, the slots of a biharmonic operator and how they
multiply, how many there are in comparison with other ways, and what nested differentiation costs.
"""

from math import comb

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap
from torch.utils._python_dispatch import TorchDispatchMode

from ude import ad

# %%
# A jet in a layer
# ----------------
# A jet is a value and some slots, here those of a Laplacian in two variables. A matrix multiplies all of them alike. A
# function of single numbers, such as tanh, mixes them by the product rule: what enters each slot of the result is drawn
# as a line. Nothing flows back from slots of higher order to lower ones.

names = ["value", r"$\partial_x$", r"$\partial_y$", r"$\Delta$"]
heights = [3, 2, 1, 0]
stages = [(0.0, "input\n(x, y)"), (2.6, "after the matrix\nu = W (x, y) + b"), (5.6, "after the function\ntanh u")]

figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
for place, title in stages:
    ax.text(place + 0.6, 3.75, title, ha="center", va="bottom")
    for name, height, colour in zip(names, heights, ["#cfe2f3", "#fce5cd", "#fce5cd", "#d9ead3"], strict=True):
        box = plt.Rectangle((place, height - 0.28), 1.2, 0.56, facecolor=colour, edgecolor="0.3")
        ax.add_patch(box)
        ax.text(place + 0.6, height, name, ha="center", va="center")
arrow = {"arrowstyle": "->", "color": "0.3", "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
for height in heights:
    ax.annotate("", (2.6, height), (1.2, height), arrowprops=arrow)
for source, target in [(3, 3), (3, 2), (2, 2), (3, 1), (1, 1), (3, 0), (2, 0), (1, 0), (0, 0)]:
    ax.annotate("", (5.6, target), (3.8, source), arrowprops=arrow)
formulas = [
    r"$\tanh u$",
    r"$v\, u_x, \quad v = 1 - \tanh^2 u$",
    r"$v\, u_y$",
    r"$v\, \Delta u + v'\,(u_x^2 + u_y^2)$",
]
for formula, height in zip(formulas, heights, strict=True):
    ax.text(7.0, height, formula, va="center")
ax.text(1.9, -0.75, "times W,\nslot by slot", ha="center", va="top", color="0.3")
ax.text(4.7, -0.75, "the algebra's\nproduct rule", ha="center", va="top", color="0.3")
ax.set(xlim=(-0.1, 10.3), ylim=(-1.6, 4.7))
ax.axis("off")

# %%
# The slots of a biharmonic operator
# ----------------------------------
# Start from the symbol of the operator, differentiate by each variable, and go on until nothing new comes. The
# polynomials that are met span the slots. In two variables there are nine. In five variables there are 27, where the
# derivatives up to order four number 126.

biharmonic = ad.Symbol({(4, 0): 1, (2, 2): 2, (0, 4): 1})
print(biharmonic)


def typeset(label):
    """A slot's label as mathematics."""
    return "$" + label.replace("d0", r"\xi").replace("d1", r"\eta").replace(" + ", "+").replace(" ", r"\,") + "$"


labels = [typeset(label) for label in biharmonic.labels]
places = {}
for degree, count in enumerate(biharmonic.slots_per_degree):
    for number in range(count):
        places[len(places)] = ((number - (count - 1) / 2) * 2.6, degree)

# The derivative of a slot by a variable is what stands beside that variable in the coproduct.
edges = [(1, 0, "tab:blue"), (2, 0, "tab:orange")]
for out, left, right, _ in biharmonic.structure:
    if left in (1, 2):
        edges.append((out, right, "tab:blue" if left == 1 else "tab:orange"))

figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
for slot, part, colour in edges:
    (x0, y0), (x1, y1) = places[slot], places[part]
    arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1.3}
    ax.annotate("", (x1, y1 + 0.16), (x0, y0 - 0.16), arrowprops=arrow)
frame = {"boxstyle": "round", "fc": "white", "ec": "0.4"}
for slot, (x, y) in places.items():
    ax.text(x, y, labels[slot], ha="center", va="center", fontsize=12, bbox=frame)
ax.plot([], [], color="tab:blue", label=r"contained in the derivative by $\xi$")
ax.plot([], [], color="tab:orange", label=r"contained in the derivative by $\eta$")
ax.legend(frameon=False, loc="upper left", fontsize=9)
ax.set(xlim=(-4.4, 4.4), ylim=(-0.4, 4.4), yticks=range(5), ylabel="order of the derivative")
ax.xaxis.set_visible(False)
for side in ("top", "right", "bottom"):
    ax.spines[side].set_visible(False)

# %%
# How slots multiply
# ------------------
# Each square is the product of two slots. Its colour says into which slot the product goes, its number with which
# factor; white squares are zero. The whole arithmetic of the operator is in this table: functions, products and the
# adjoint are all computed from it.

size = biharmonic.dim
target = torch.full((size, size), float("nan"))
factor = {}
for slot in range(size):
    target[0, slot] = target[slot, 0] = slot
    factor[0, slot] = factor[slot, 0] = 1
for out, left, right, scale in biharmonic.structure:
    target[left, right] = out
    factor[left, right] = scale

figure, ax = plt.subplots(figsize=(8.6, 6), layout="constrained")
colours = ListedColormap(plt.get_cmap("Set3").colors[:size])
image = ax.imshow(target, cmap=colours, vmin=-0.5, vmax=size - 0.5)
for (left, right), scale in factor.items():
    ax.text(right, left, str(scale), ha="center", va="center", fontsize=10)
ax.set_xticks(range(size), labels, rotation=40, ha="left", rotation_mode="anchor", fontsize=9)
ax.set_yticks(range(size), labels, fontsize=9)
ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
ax.set_xticks([i + 0.5 for i in range(size - 1)], minor=True)
ax.set_yticks([i + 0.5 for i in range(size - 1)], minor=True)
ax.grid(which="minor", color="white", linewidth=2)
ax.tick_params(which="minor", length=0, top=False)
bar = figure.colorbar(image, ax=ax, ticks=range(size), shrink=0.9)
bar.ax.set_yticklabels(labels, fontsize=9)
bar.ax.tick_params(length=0)
bar.ax.set_title("the product\ngoes into", fontsize=10, loc="left")

# %%
# How many slots
# --------------
# Standard Taylor mode needs D + D(D - 1) + D(D - 1)/2 directions for a biharmonic operator and carries four
# coefficients for each. Collapsing sums the last one over the directions of each of the three groups. The symbol
# algebra keeps one slot of order four, and by duality as many slots of order three as of order one. The bars lie one
# before the other, and their widths are the numbers of slots.


def squared_laplacian(dimension):
    terms = {}
    for i in range(dimension):
        for j in range(dimension):
            index = [0] * dimension
            index[i] += 2
            index[j] += 2
            terms[tuple(index)] = terms.get(tuple(index), 0) + 1
    return terms


def directions(dimension):
    return dimension + dimension * (dimension - 1) * 3 // 2


figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), layout="constrained", sharey=True)
for ax, dimension in zip(axes, [2, 5, 10], strict=True):
    count = directions(dimension)
    ways = {
        "standard Taylor mode": [1, count, count, count, count],
        "collapsed Taylor mode": [1, count, count, count, 3],
        "symbol algebra": list(ad.Symbol(squared_laplacian(dimension)).slots_per_degree),
    }
    for (name, sizes), colour in zip(ways.items(), ["0.85", "tab:orange", "tab:blue"], strict=True):
        left = [-size / 2 for size in sizes]
        ax.barh(range(5), sizes, left=left, height=0.8, color=colour, label=f"{name}: {sum(sizes)}")
    ax.set(xlabel=f"slots (widest bar: {count})", xlim=(-0.55 * count, 0.55 * count), ylim=(-0.5, 6.8))
    ax.set(title=f"D = {dimension}", xticks=[], yticks=range(5))
    ax.legend(frameon=False, fontsize=8, loc="upper center")
axes[0].set_ylabel("order of the derivative")

# %%
# On the left the totals for the biharmonic operator against the number of variables, on the right those of the powers
# of the Laplacian in three variables against their order. "All derivatives" is the full truncated polynomial algebra.

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
dimensions = [1, 2, 3, 4, 5, 6, 8, 10, 12]
lines = {
    "all derivatives": [comb(D + 4, 4) for D in dimensions],
    "standard Taylor mode": [1 + 4 * directions(D) for D in dimensions],
    "collapsed Taylor mode": [1 + 3 * directions(D) + (3 if D > 1 else 1) for D in dimensions],
    "nested Laplacians": [(D + 2) ** 2 for D in dimensions],
    "symbol algebra": [ad.Symbol(squared_laplacian(D)).dim for D in dimensions],
}
colours = dict(zip(lines, ["0.5", "tab:red", "tab:orange", "tab:green", "tab:blue"], strict=True))
for name, numbers in lines.items():
    axes[0].semilogy(dimensions, numbers, ".-", label=name, color=colours[name])
axes[0].set(xlabel="number of variables D", ylabel="slots", title="biharmonic operator")
axes[0].legend(frameon=False, fontsize=9)


def times(p, q):
    result = {}
    for a, x in p.items():
        for b, y in q.items():
            index = tuple(i + j for i, j in zip(a, b, strict=True))
            result[index] = result.get(index, 0) + x * y
    return result


laplacian = {(2, 0, 0): 1, (0, 2, 0): 1, (0, 0, 2): 1}
powers = [laplacian]
while len(powers) < 4:
    powers.append(times(powers[-1], laplacian))
orders = [2, 4, 6, 8]
lines = {
    "all derivatives": [comb(3 + order, 3) for order in orders],
    "nested Laplacians": [5 ** (order // 2) for order in orders],
    "symbol algebra": [ad.Symbol(power).dim for power in powers],
}
for name, numbers in lines.items():
    axes[1].semilogy(orders, numbers, ".-", label=name, color=colours[name])
axes[1].set(xlabel="order of the operator", ylabel="slots", title="powers of the Laplacian, D = 3", xticks=orders)
axes[1].legend(frameon=False, fontsize=9)

# %%
# What nesting costs
# ------------------
# The number of tensor operations that the K-th derivative of a small function takes: by forward mode nested K times,
# and by power series. A dispatch mode counts them.


class Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        return func(*args, **(kwargs or {}))


def function(x):
    return torch.tanh(torch.sin(x) * torch.exp(x))


def nested(order):
    derivative = function
    for _ in range(order):
        derivative = lambda x, f=derivative: ad.jvp(f, (x,), (torch.ones_like(x),))[1]  # noqa: E731
    return derivative


def counted(call):
    with Count() as count:
        call()
    return count.operations


x, one, zero = (torch.tensor(value, dtype=torch.float64) for value in (0.3, 1.0, 0.0))
orders = list(range(1, 9))
by_nesting = [counted(lambda K=K: nested(K)(x)) for K in orders[:7]]
by_series = [counted(lambda K=K: ad.jet(function, (x, one) + (zero,) * (K - 1))) for K in orders]
print("order  " + "".join(f"{K:8d}" for K in orders))
print("nested " + "".join(f"{n:8d}" for n in by_nesting))
print("series " + "".join(f"{n:8d}" for n in by_series))

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.semilogy(orders[: len(by_nesting)], by_nesting, "o-", color="tab:orange", label="nested forward mode")
ax.semilogy(orders, by_series, "s-", color="tab:blue", label="power series")
ax.set(xlabel="order of the derivative", ylabel="tensor operations")
ax.legend(frameon=False)
