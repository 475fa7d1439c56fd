"""
What a derivative costs
=======================

The chain rule is a product of matrices, and the order of the multiplications decides what a gradient costs. From the
inputs on (forward mode), each product with the Jacobian gives one column of it; from the outputs back (reverse mode),
each product gives one row. A loss has one row and as many columns as there are parameters. Reverse mode has its price
too: it keeps the values of every layer until it comes back to them.

This page counts the products, times a gradient with respect to up to a million parameters in both orders, and measures
the memory that both modes hold as a computation gets deeper.
"""

import math
import time
import weakref

import matplotlib.pyplot as plt
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ude import ad

generator = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=generator) / math.sqrt(shape[-1])


# %%
# Which mode, and how many products
# ---------------------------------
# For a function with n inputs and m outputs, ``ad.jacobian`` takes min(n, m) products: forward ones if the Jacobian is
# tall or square, reverse ones if it is wide. The function is evaluated once and recorded to learn m. Reverse mode uses
# that recording; forward mode evaluates once more, with all its products side by side. Asking for forward mode saves
# the first evaluation. With a single input there is nothing to learn: one product is enough.

shapes = [(3, 200, None), (200, 3, None), (200, 3, ad.Mode.FORWARD), (50, 50, None), (200, 1, None)]
print("   m     n   mode      forward  reverse  evaluations   largest error")
for outputs, inputs, mode in shapes:
    A, x = normal(outputs, inputs).double(), normal(inputs).double()
    with ad.count_products() as count:
        J = ad.jacobian(lambda x, A=A: (A @ x).sin(), x, mode=mode)
    error = float((J - (A @ x).cos()[:, None] * A).abs().max())
    chosen = "by shape" if mode is None else mode.value
    products = f"{count.forward:7d}  {count.reverse:7d}  {count.evaluations:11d}"
    print(f"{outputs:4d}  {inputs:4d}   {chosen:8s}  {products}   {error:13.0e}")

# %%
# The gradient with respect to a million parameters
# -------------------------------------------------
# A network with n inputs, 100 hidden units and 100 outputs; we want the gradient of a squared error with respect to its
# first weight matrix, which has P = 100 n entries. In the chain rule
#
# .. math::
#    \frac{\partial L}{\partial W_1}
#    = \frac{\partial L}{\partial f}\,\frac{\partial f}{\partial g}\,\frac{\partial g}{\partial W_1}
#
# the three factors have the sizes 1 x 100, 100 x 100 and 100 x P. With n = 10,000, so that P is one million, these are
# the multiplications that each order needs. The last factor is sparse: a product of a row vector with it is the outer
# product of that vector with the input, and automatic differentiation never builds the matrix.

hidden = 100
P = hidden * 10_000
print("Multiplications for P = 1,000,000")
print(f"  forward order, right to left, with full matrices   {hidden * hidden * P + hidden * P:14,d}")
print(f"  reverse order, left to right, with full matrices   {hidden * hidden + hidden * P:14,d}")
print(f"  reverse order, outer product in the last factor    {hidden * hidden + P:14,d}")


def squared_error(inputs):
    """The loss as a function of the first weight matrix, and a matrix to start from."""
    x, target = normal(inputs), normal(hidden)
    W2, b1, b2 = normal(hidden, hidden), normal(hidden), normal(hidden)
    return lambda W1: (W2 @ torch.tanh(W1 @ x + b1) + b2 - target).square().sum(), normal(hidden, inputs)


# %%
# Forward mode needs one product for each of the P entries, reverse mode one. Forward products are batched, a million
# numbers at a time. Up to P = 10,000 the whole gradient is taken in both orders and compared. For more parameters one
# batch of forward products is timed and its time per product multiplied by P: these values are extrapolated. The first
# rows of the table, where both are at hand, show how good such an extrapolation is. Reverse mode is always measured.


def seconds(call, *arguments, repeats=15):
    """The median time of a call, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        call(*arguments)
        times.append(time.perf_counter() - begin)
    return sorted(times[1:])[repeats // 2]


def forward_gradient(loss, W1):
    return ad.jacobian(loss, W1, mode=ad.Mode.FORWARD, chunk_size=1_000_000 // W1.numel())


def reverse_gradient(loss, W1):
    return ad.jacobian(loss, W1, mode=ad.Mode.REVERSE)


def one_batch(loss, W1):
    """Forward products with the first unit vectors, as many as `forward_gradient` takes at a time."""
    number = min(W1.numel(), 1_000_000 // W1.numel())
    directions = torch.eye(number, W1.numel()).reshape(number, *W1.shape)
    return ad.vmap(lambda v: ad.jvp(loss, (W1,), (v,))[1])(directions)


sizes, reverse, measured, extrapolated = [100, 1_000, 10_000, 100_000, 1_000_000], [], [], []
print("        P    reverse (s)   forward: measured (s)   extrapolated (s)   largest difference")
for P in sizes:
    loss, W1 = squared_error(P // hidden)
    reverse.append(seconds(reverse_gradient, loss, W1))
    extrapolated.append(seconds(one_batch, loss, W1) / len(one_batch(loss, W1)) * P)
    line = f"{P:9,d}   {reverse[-1]:12.6f}   {{:>21s}}   {extrapolated[-1]:16.4f}   {{:>18s}}"
    if P > 10_000:
        print(line.format("-", "-"))
        continue
    with ad.count_products() as count:
        difference = (forward_gradient(loss, W1) - reverse_gradient(loss, W1)).abs().max()
    assert (count.forward, count.reverse) == (P, 1)
    measured.append(seconds(forward_gradient, loss, W1, repeats=5))
    print(line.format(f"{measured[-1]:.4f}", f"{float(difference):.0e}"))
print(f"forward / reverse at P = 1,000,000: about {extrapolated[-1] / reverse[-1]:,.0f}")

# %%
# A forward product takes longer as P grows, and P of them are needed: beyond a thousand parameters the time goes
# roughly like the square of P. Reverse mode takes a fraction of a millisecond for the calls alone, whatever P is, and
# only towards a million parameters does their number show.

known = len(measured)
figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
ax.loglog(sizes, measured + extrapolated[known:], "--", color="tab:blue", linewidth=1)
ax.plot(sizes[:known], measured, "o", color="tab:blue", label="forward order, measured")
ax.plot(sizes[known:], extrapolated[known:], "o", color="tab:blue", mfc="white", label="forward order, extrapolated")
ax.plot(sizes, reverse, "s-", color="tab:orange", linewidth=1, label="reverse order, measured")
above = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center"}
ax.annotate(f"{extrapolated[-1] / 60:.0f} min", (sizes[-1], extrapolated[-1]), **above)
ax.annotate(f"{reverse[-1] * 1e3:.1f} ms", (sizes[-1], reverse[-1]), **above)
ax.set(
    xlabel="number of parameters P", ylabel="time of one gradient (s)", title="The gradient of a loss in both orders"
)
ax.margins(0.09, 0.12)
ax.legend(frameon=False, loc="upper left")

# %%
# Memory against depth
# --------------------
# Now a chain of L layers, each of which maps a state of 64 x 64 numbers (16 KiB) to the next. Forward mode carries the
# state and its tangent along and forgets the rest. Reverse mode keeps every state. Checkpointed reverse mode cuts the
# chain into about sqrt(L) segments, keeps the states between them, and computes the states of one segment again when it
# comes back to it. In code, each segment goes through ``ad.checkpoint``, and ``ad.grad`` takes the product.
#
# The memory is measured, not computed: a dispatch mode sees each operation, adds the storages that it allocates, and
# takes each one off when it is freed.


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that were allocated inside the block and are still alive, and their peak."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak, self.layers = set(), 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {id(x.untyped_storage()) for x in args if isinstance(x, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        self.layers += func is torch.ops.aten.tanh.default
        if isinstance(result, torch.Tensor):  # no operation here returns several
            storage = result.untyped_storage()
            if id(storage) not in given and id(storage) not in self.known:
                self.add(storage)
        return result

    def add(self, storage):
        key, size = id(storage), storage.nbytes()
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.drop, key, size)

    def drop(self, key, size):
        self.known.discard(key)
        self.now -= size


W, start, direction = normal(64, 64), normal(64, 64), normal(64, 64)


def chain(y, layers):
    for _ in range(layers):
        y = torch.tanh(y @ W)
    return y


def by_jvp(depth):
    return ad.jvp(lambda y: chain(y, depth), (start,), (direction,))[1]


def by_vjp(depth):
    return ad.vjp(lambda y: chain(y, depth), start)[1](direction)[0]


def by_checkpointed_vjp(depth):
    first = y = start.clone().requires_grad_()
    segment = math.isqrt(depth)
    for done in range(0, depth, segment):
        y = ad.checkpoint(chain, y, min(segment, depth - done))
    return ad.grad(y, [first], direction)[0]


depths = [4, 16, 64, 256, 1024, 4096]
methods = {"vjp": by_vjp, "checkpointed vjp": by_checkpointed_vjp, "jvp": by_jvp}
memory = {name: [] for name in methods}
print("             peak memory (MiB) and layers evaluated")
print("depth L" + "".join(f"{name:>26s}" for name in methods))
for depth in depths:
    results, row = {}, f"{depth:7d}"
    for name, derivative in methods.items():
        with LiveBytes() as live:
            results[name] = derivative(depth)
        memory[name].append(live.peak / 2**20)
        row += f"{memory[name][-1]:18.3f}{live.layers:8d}"
    print(row)
    assert torch.equal(results["vjp"], results["checkpointed vjp"])
    torch.testing.assert_close((results["jvp"] * direction).sum(), (results["vjp"] * direction).sum())

# %%
# The vjp holds L states, the jvp the same seven at any depth, and the checkpointed vjp about twice the square root of L
# states, for which it evaluates every layer twice. The checkpointed gradient is the same to the last bit. The dotted
# lines are the laws L, square root of L, and constant, drawn through the deepest chain.

laws = {"vjp": (1, "s", "L"), "checkpointed vjp": (0.5, "D", r"$\sqrt{L}$"), "jvp": (0, "o", "constant")}
figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for name, (power, marker, law) in laws.items():
    (points,) = ax.plot(depths, memory[name], marker, markersize=9 if name == "vjp" else 6, label=name)
    guide = [memory[name][-1] * (depth / depths[-1]) ** power for depth in depths]
    ax.plot(depths, guide, ":", color=points.get_color(), linewidth=1)
    ax.annotate(law, (depths[-1], guide[-1]), xytext=(10, 0), textcoords="offset points", va="center")
ax.set_xscale("log", base=2)
ax.set_yscale("log")
ax.set_xticks(depths, [str(depth) for depth in depths])
ax.set(xlabel="depth L (layers)", ylabel="peak memory (MiB)", title="Memory of a derivative through L layers")
ax.set_xlim(depths[0] / 1.4, depths[-1] * 3)
ax.legend(frameon=False, loc="upper left")
