"""Functions that jets must get right, as data: what to call and where."""
# ruff: noqa: E501

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Probe:
    """A function and the shapes and ranges of its arguments.

    `reference` replaces the function where torch has no derivatives of derivatives of it, or where it is not finite.
    `draw` chooses other arguments from the same range, where the first ones lie close to a kink.
    """

    name: str
    function: Callable
    shapes: tuple = ((3,),)
    low: float = -1.2
    high: float = 1.3
    reference: Callable | None = None
    order: int = 3
    heavy: bool = False
    draw: int = 0


def draw(*shape, seed=0, low=-1.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low


C3, C23, C33, C4 = draw(3, seed=1), draw(2, 3, seed=2), draw(3, 3, seed=3), draw(4, seed=4)
FIXED = {
    shape if len(shape) > 1 else shape[0]: draw(*shape)
    for shape in [(1, 1, 2, 2, 2), (1, 2, 2, 2), (2,), (2, 1, 2, 2), (2, 2, 2), (2, 3, 2)]
}
TALL = draw(3, 2, seed=9, low=1.0, high=3.0)
MASK = torch.tensor([True, False, True])
INDEX = torch.tensor([2, 0])


def module(make, train=False):
    torch.manual_seed(7)
    return make().double().train(train)


def simple(name, shapes=((3,),), low=-1.2, high=1.3, function=None, **options):
    """An entry for a function found by its name."""
    found = next(getattr(space, name) for space in (torch, F, torch.special, torch.linalg) if hasattr(space, name))
    return Probe(name, function or found, shapes, low, high, **options)


M = ((2, 3),)
SQUARE = ((3, 3),)
TWO = ((3,), (3,))


def call(function, *args, **kwargs):
    """Fix all arguments but the first."""
    return lambda x: function(x, *args, **kwargs)


def method(name, *args, **kwargs):
    return lambda x: getattr(x, name)(*args, **kwargs)


def regular(x):
    """A matrix that is far from singular."""
    return x + 3.0 * torch.eye(x.shape[-1], dtype=x.dtype)


def definite(x):
    return x @ x.mT + 2.0 * torch.eye(x.shape[-1], dtype=x.dtype)


def split_complex(f):
    """Test a function of complex numbers by its real and imaginary part."""

    def g(x, y):
        z = f(torch.complex(x, y))
        return torch.view_as_real(z) if z.is_complex() else z

    return g


ELEMENTWISE = [
    *(simple(name) for name in ["exp", "exp2", "expm1", "sin", "cos", "sinh", "cosh", "tanh", "atan", "asinh", "sigmoid", "erf", "erfc", "sinc", "square", "abs"]),
    *(simple(name) for name in ["relu", "silu", "gelu", "mish", "softplus", "softsign", "tanhshrink", "elu", "selu", "leaky_relu", "relu6"]),
    *(simple(name) for name in ["hardtanh", "hardswish", "softshrink", "hardshrink", "logsigmoid", "log_ndtr", "ndtr"]),
    *(simple(name) for name in ["sign", "round", "trunc", "frac", "deg2rad", "rad2deg", "neg", "positive", "i0", "i0e", "i1", "i1e"]),
    *(simple(name, low=0.4, high=2.0) for name in ["log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "lgamma", "digamma", "entr"]),
    *(simple(name, low=-0.7, high=0.7) for name in ["asin", "acos", "atanh", "erfinv", "tan"]),
    *(simple(name, low=0.2, high=0.8) for name in ("logit", "ndtri")),
    simple("celu", draw=1),
    simple("ceil", draw=3),
    simple("floor", draw=12),
    simple("acosh", low=1.3, high=2.0),
    simple("erfcx", reference=lambda x: torch.exp(x * x) * torch.erfc(x)),
    simple("hardsigmoid", low=-4.0, high=4.0, reference=lambda x: torch.clamp(x / 6.0 + 0.5, 0.0, 1.0)),
    Probe("gelu tanh", lambda x: F.gelu(x, approximate="tanh")),
    Probe("sinc away", torch.sinc, low=1.0, high=3.0),
    Probe("softplus options", lambda x: F.softplus(x, beta=2.0, threshold=1.0), order=3, draw=3),
    Probe("elu alpha", lambda x: F.elu(x, alpha=0.7)),
    Probe("threshold", lambda x: F.threshold(x, 0.1, 5.0)),
    Probe("clamp", lambda x: x.clamp(-0.5, 0.5), draw=6),
    Probe("clamp min", lambda x: x.clamp_min(0.1)),
    Probe("logit eps", lambda x: torch.logit(x, eps=0.3), low=0.05, high=0.9, draw=96),
    Probe("pow 3", lambda x: x**3),
    Probe("pow 2.5", lambda x: x**2.5, low=0.5, high=2.0),
    Probe("pow -2", lambda x: x**-2, low=0.5, high=2.0),
    Probe("pow 0", lambda x: x**0),
    Probe("pow tensor of whole numbers", lambda x: x ** torch.tensor([2.0, 3.0, 0.0], dtype=torch.float64), order=3),
    Probe("pow tensor broadcast", lambda x: x ** torch.tensor([[2.0], [0.5]], dtype=torch.float64), low=0.4, high=2.0),
    Probe("pow jet", torch.pow, TWO, 0.5, 2.0),
    Probe("rpow", lambda x: 2.0**x),
    Probe("float_power", lambda x: torch.float_power(x, 2), low=0.5),
    Probe("polygamma", lambda x: torch.polygamma(1, x), low=0.5, high=2.0),
    Probe("multigammaln", lambda x: torch.special.multigammaln(x, 2), low=1.5, high=3.0),
    Probe("gammainc", lambda x: torch.special.gammainc(C3.abs() + 0.5, x), low=0.5, high=2.0,
          reference=lambda x: _gammainc(x)),
    Probe("bessel j0", torch.special.bessel_j0, low=-4.0, high=4.0, reference=lambda x: _integral(x, 0)),
    Probe("bessel j1", torch.special.bessel_j1, low=-4.0, high=4.0, reference=lambda x: _integral(x, 1)),
    Probe("bessel k0", torch.special.modified_bessel_k0, low=0.7, high=2.0, reference=lambda x: _bessel_k(x, 0)),
    Probe("bessel k1", torch.special.modified_bessel_k1, low=0.7, high=2.0, reference=lambda x: _bessel_k(x, 1)),
    Probe("i0e far", torch.special.i0e, low=2.5, high=4.0),
    Probe("i1e far", torch.special.i1e, low=-4.0, high=-2.5),
]  # fmt: skip


def _integral(x, n):
    """Bessel's integral, by the trapezoidal rule, which converges exponentially here."""
    theta = torch.linspace(0, 2 * math.pi, 65, dtype=torch.float64)[:-1]
    return torch.cos(n * theta - x[..., None] * theta.sin()).mean(-1)


def _bessel_k(x, n):
    t = torch.linspace(-6.0, 6.0, 241, dtype=torch.float64)
    return 0.5 * (torch.exp(-x[..., None] * t.cosh()) * torch.cosh(n * t)).sum(-1) * 0.05


def _gammainc(x):
    """P(a, x) by its series in x."""
    a = C3.abs() + 0.5
    total, term = 0.0, torch.exp(a * torch.log(x) - x - torch.lgamma(a + 1.0))
    for n in range(1, 28):
        total, term = total + term, term * x / (a + n)
    return total


ARITHMETIC = [
    Probe("add", torch.add, TWO),
    Probe("add alpha", lambda x, y: torch.add(x, y, alpha=2.0), TWO),
    Probe("constant + jet alpha", lambda x: torch.add(C3, x, alpha=-3.0)),
    Probe("add keywords", lambda x: torch.add(input=x, other=C3, alpha=2.0)),
    Probe("sub", lambda x, y: x - y, TWO),
    Probe("number - jet", lambda x: 2.0 - x),
    Probe("rsub", lambda x: torch.rsub(x, C3, alpha=2.0)),
    Probe("mul", lambda x, y: x * y, TWO),
    Probe("mul more axes", lambda x: C23 * x * x),
    Probe("mul fewer axes", lambda x: x * C3 + C3 / 3.0, M),
    Probe("jet broadcasts", lambda x, y: x * y, ((2, 1), (3,))),
    Probe("jet adds in more axes", lambda x, y: x + y * y, ((3,), (2, 1, 3))),
    Probe("jet times 0-d jet", lambda x, y: x * y - y, ((2, 3), ())),
    Probe("div", torch.div, TWO, 0.5, 2.0),
    Probe("constant / jet", lambda x: C3 / x, low=0.5),
    Probe("number / jet", lambda x: 2.0 / x, low=0.5),
    Probe("jet / more axes", lambda x: x / C23),
    Probe("fmod", lambda x: torch.fmod(x, 0.7)),
    Probe("remainder", lambda x: x % 0.7),
    Probe("remainder jet", torch.remainder, TWO, 0.3, 2.0, draw=10),
    Probe("atan2", torch.atan2, TWO, reference=lambda y, x: _angle(y, x)),
    Probe("atan2 constant", lambda y: torch.atan2(y, C3), draw=3),
    Probe("hypot", torch.hypot, TWO),
    Probe("hypot constant", lambda x: torch.hypot(C3, x), draw=3),
    Probe("xlogy", torch.xlogy, TWO, 0.4, 2.0),
    Probe("xlogy constant", lambda y: torch.xlogy(C3, y), low=0.4),
    Probe("xlogy number", lambda x: torch.xlogy(x, 2.0)),
    Probe("xlog1py", torch.special.xlog1py, TWO, 0.4, 2.0),
    Probe("logaddexp", torch.logaddexp, TWO),
    Probe("logaddexp2", torch.logaddexp2, TWO, order=3),
    Probe("addcmul", lambda x, y: torch.addcmul(C3, x, y, value=0.5), TWO),
    Probe("addcdiv", lambda x, y: torch.addcdiv(x, C3, y, value=0.5), TWO, 0.5),
    Probe("lerp", lambda x, y: torch.lerp(x, C3, y), TWO),
    Probe("lerp number", lambda x: torch.lerp(x, C3, 0.3)),
    Probe("copysign", lambda x: torch.copysign(x, C3)),
    Probe("ldexp", lambda x: torch.ldexp(x, torch.tensor([1, 2, 3]))),
    Probe("maximum", torch.maximum, TWO),
    Probe("minimum constant", lambda x: torch.minimum(C3, x)),
    Probe("fmax", torch.fmax, TWO),
    Probe("fmin", torch.fmin, TWO),
    Probe("sum of python", lambda x: sum([x[0], x[1] * x[2]])),
    Probe("full", lambda x: torch.full((2,), 1.0, dtype=torch.float64) * x[0]),
]  # fmt: skip


def _angle(y, x):
    base = torch.atan2(y.detach(), x.detach())
    return torch.atan2(y, x) + 0.0 * base


SHAPES = [
    Probe("reshape", lambda x: (x * x).reshape(3, 2), M),
    Probe("view", lambda x: (x * x).view(-1), M),
    Probe("view of expanded", lambda x: (x.expand(2, 3) * 1.0).view(6)),
    Probe("flatten", lambda x: torch.flatten(x * x), M),
    Probe("transpose", lambda x: (x * x).transpose(0, 1).contiguous(), M),
    Probe("T", lambda x: x.T @ x, M),
    Probe("permute", lambda x: x.permute(2, 0, 1) ** 2, ((2, 3, 1),)),
    Probe("movedim", lambda x: torch.movedim(x, 0, -1) ** 2, M),
    Probe("squeeze", lambda x: (x * x).squeeze(), ((1, 3, 1),)),
    Probe("unsqueeze", lambda x: (x * x)[:, None, :].unsqueeze(-1), M),
    Probe("expand", lambda x: x.unsqueeze(0).expand(2, -1) ** 2),
    Probe("expand_as", lambda x: (x * x).expand_as(C23)),
    Probe("repeat", lambda x: (x * x).repeat(2, 1)),
    Probe("repeat_interleave", lambda x: (x * x).repeat_interleave(2)),
    Probe("tile", lambda x: torch.tile(x * x, (2,))),
    Probe("flip", lambda x: torch.flip(x * x, (0, 1)), M),
    Probe("roll", lambda x: torch.roll(x * x, 1, 1), M),
    Probe("rot90", lambda x: torch.rot90(x * x), M),
    Probe("tril", lambda x: torch.tril(x * x) + torch.triu(x, 1), SQUARE),
    Probe("diag", lambda x: torch.diag(x * x), SQUARE),
    Probe("diagonal", lambda x: x.diagonal() ** 2, SQUARE),
    Probe("diag_embed", lambda x: torch.diag_embed(x * x)),
    Probe("trace", lambda x: torch.trace(x @ x), SQUARE),
    Probe("index", lambda x: (x * x)[..., INDEX], M),
    Probe("index slice", lambda x: (x * x)[1:, ::2, None], M),
    Probe("index mask", lambda x: (x * x)[MASK]),
    Probe("masked_select", lambda x: torch.masked_select(x * x, MASK), M),
    Probe("index_select", lambda x: (x * x).index_select(1, INDEX), M),
    Probe("gather", lambda x: (x * x).gather(1, torch.tensor([[0, 2], [1, 1]])), M),
    Probe("take", lambda x: torch.take(x * x, INDEX), M),
    Probe("take_along_dim", lambda x: torch.take_along_dim(x * x, torch.tensor([[0], [2]]), 1), M),
    Probe("select narrow", lambda x: x.select(0, 1) * x.narrow(1, 0, 2).sum(), M),
    Probe("split", lambda x: torch.cat([a * a for a in x.split([1, 2], 1)], 1), M),
    Probe("chunk", lambda x: torch.stack([a.sum() for a in x.chunk(2, 1)]), M),
    Probe("unbind", lambda x: x.unbind(0)[0] * x.unbind(0)[1], M),
    Probe("iterate", lambda x: torch.stack([a.sin() for a in x]), M),
    Probe("cat with constants", lambda x: torch.cat([x * x, C3, x])),
    Probe("cat keywords", lambda x: torch.cat(tensors=(C3, x * x), dim=0)),
    Probe("stack", lambda x: torch.stack([C3, x * x], dim=1)),
    Probe("hstack vstack", lambda x: torch.vstack([torch.hstack([x * x, C3]), torch.cat([C3, x])])),
    Probe("column_stack", lambda x: torch.column_stack((x, C3, x * x))),
    Probe("block_diag", lambda x: torch.block_diag(x * x, C23), M),
    Probe("meshgrid", lambda x, y: torch.stack(torch.meshgrid(x, y * y, indexing="ij")), ((2,), (3,))),
    Probe("cartesian_prod", lambda x, y: torch.cartesian_prod(x, y * y), ((2,), (3,))),
    Probe("broadcast_tensors", lambda x: torch.broadcast_tensors(x * x, C23)[0]),
    Probe("unfold", lambda x: (x * x).unfold(0, 2, 1)),
    Probe("tensor_split", lambda x: torch.tensor_split(x * x, 2)[0]),
    Probe("pad constant", lambda x: F.pad(x * x, (1, 2), value=3.0)),
    Probe("pad reflect", lambda x: F.pad(x * x, (1, 1), mode="reflect"), M),
    Probe("diff", lambda x: torch.diff(x * x)),
    Probe("diff prepend", lambda x: torch.diff(x * x, prepend=C3[:1])),
    Probe("atleast_2d", lambda x: torch.atleast_2d(x * x)),
    Probe("where", lambda x: torch.where(x > 0, x * x, C3), draw=8),
    Probe("where number", lambda x: torch.where(MASK, 2.0, x * x)),
    Probe("Tensor.where", lambda x: (x * x).where(MASK, C3)),
    Probe("masked_fill", lambda x: (x * x).masked_fill(MASK, 7.0), M),
    Probe("index_add", lambda x: torch.index_add(x * x, 0, INDEX, source=C3[:2], alpha=2.0)),
    Probe("index_copy", lambda x: torch.index_copy(C3, 0, INDEX, (x * x)[:2])),
    Probe("index_fill", lambda x: torch.index_fill(x * x, 0, INDEX, 3.0)),
    Probe("index_put", lambda x: torch.index_put(x * x, (INDEX,), C3[:2], accumulate=True)),
    Probe("scatter", lambda x: torch.scatter(x * x, 0, INDEX, x[:2])),
    Probe("scatter number", lambda x: torch.scatter(x * x, 0, INDEX, 3.0)),
    Probe("scatter_add", lambda x: torch.scatter_add(C3, 0, torch.tensor([0, 0, 1]), x * x)),
    Probe("scatter_reduce", lambda x: torch.scatter_reduce(C3, 0, torch.tensor([0, 0, 1]), x * x, "mean")),
    Probe("masked_scatter", lambda x: torch.masked_scatter(C3, MASK, x * x)),
    Probe("select_scatter", lambda x: torch.select_scatter(C23, x * x, 0, 1)),
    Probe("diagonal_scatter", lambda x: torch.diagonal_scatter(C33, x * x)),
    Probe("non-contiguous", lambda x: (x.T[::2].sin() * 2.0).T, ((4, 3),)),
    Probe("empty", lambda x: torch.cat([x[:0].exp(), x.exp()])),
    Probe("squeeze 0-d", lambda x: (x * x).squeeze(-1).sin(), ((),)),
    Probe("0-d", lambda x: x.sin() * x + x.unsqueeze(0).sum(), ((),)),
]  # fmt: skip

REDUCTIONS = [
    Probe("sum", lambda x: torch.sum(x * x), M),
    Probe("sum dims", lambda x: torch.sum(x.sin(), (0, 2), keepdim=True), ((2, 3, 2),)),
    Probe("sum negative dims", lambda x: (x * x).sum((-1, 0)), ((2, 3, 2),)),
    Probe("sum keyword", lambda x: torch.sum(input=x * x, dim=1, keepdim=True), M),
    Probe("mean", lambda x: (x * x).mean(), M),
    Probe("mean dims", lambda x: (x * x).mean((0, 1), keepdim=True), M),
    Probe("nansum", lambda x: torch.nansum(torch.where(MASK, x * x, math.nan)), reference=lambda x: (x * x)[MASK].sum()),
    Probe("cumsum", lambda x: torch.cumsum(x * x, 1), M),
    Probe("prod", lambda x: x.prod(), reference=lambda x: x[0] * x[1] * x[2]),
    Probe("prod dim", lambda x: torch.prod(x, 1, keepdim=True), M, reference=lambda x: x[:, :1] * x[:, 1:2] * x[:, 2:]),
    Probe("prod with zero", lambda x: torch.prod(x * torch.tensor([0.0, 1.0, 1.0], dtype=x.dtype)),
          reference=lambda x: 0.0 * x[0] * x[1] * x[2]),
    Probe("cumprod", lambda x: torch.cumprod(x, 0), reference=lambda x: torch.stack([x[0], x[0] * x[1], x[0] * x[1] * x[2]])),
    Probe("logsumexp", lambda x: torch.logsumexp(x, 1), M),
    Probe("logsumexp dims", lambda x: torch.logsumexp(x, (0, 1), keepdim=True), M, draw=2),
    Probe("logcumsumexp", lambda x: torch.logcumsumexp(x, 0), reference=lambda x: torch.cumsum(x.exp(), 0).log()),
    Probe("softmax", lambda x: torch.softmax(x, 1), M),
    Probe("F.softmax", lambda x: F.softmax(x, dim=0), M),
    Probe("log_softmax", lambda x: F.log_softmax(x, -1), M),
    Probe("softmin", lambda x: F.softmin(x, -1), M),
    Probe("var", lambda x: torch.var(x), M),
    Probe("var dim", lambda x: x.var(1, keepdim=True, unbiased=False), M),
    Probe("std", lambda x: torch.std(x, dim=1, correction=0), M),
    Probe("var_mean", lambda x: torch.cat(torch.var_mean(x, dim=0)), M),
    Probe("max", lambda x: torch.max(x * x), draw=8),
    Probe("max dim", lambda x: torch.max(x * x, dim=1).values, M, draw=2),
    Probe("max dim keepdim", lambda x: (x * x).max(1, keepdim=True)[0], M),
    Probe("min dim", lambda x: torch.min(x * x, 0)[0], M, draw=3),
    Probe("amax", lambda x: torch.amax(x * x, (0, 1), keepdim=True), M),
    Probe("amin", lambda x: (x * x).amin(1), M),
    Probe("aminmax", lambda x: torch.aminmax(x * x).max, M),
    Probe("sort", lambda x: torch.sort(x * x, descending=True).values, M),
    Probe("topk", lambda x: torch.topk(x * x, 2, dim=1)[0], M, draw=5),
    Probe("median", lambda x: torch.median(x * x), M),
    Probe("median dim", lambda x: torch.median(x * x, 1).values, M, draw=7),
    Probe("kthvalue", lambda x: torch.kthvalue(x * x, 2, 1)[0], M),
    Probe("cummax", lambda x: torch.cummax(x * x, 1).values, M),
    Probe("quantile", lambda x: torch.quantile(x * x, 0.3, dim=1), M, draw=10),
    Probe("norm", lambda x: torch.norm(x), M),
    Probe("norm 3", lambda x: torch.norm(x, p=3, dim=1), M),
    Probe("Tensor.norm", lambda x: x.norm(dim=1, keepdim=True), M),
    Probe("linalg.norm", lambda x: torch.linalg.norm(x), M),
    Probe("vector_norm 1", lambda x: torch.linalg.vector_norm(x, 1, dim=1), M),
    Probe("vector_norm inf", lambda x: torch.linalg.vector_norm(x, math.inf, dim=1), M),
    Probe("vector_norm 4", lambda x: torch.linalg.vector_norm(x, 4), M),
    Probe("matrix_norm", lambda x: torch.linalg.matrix_norm(x), M),
    Probe("matrix_norm 1", lambda x: torch.linalg.matrix_norm(x, 1), M, draw=10),
    Probe("matrix_norm inf", lambda x: torch.linalg.norm(x, math.inf), M),
    Probe("normalize", lambda x: F.normalize(x, dim=1), M),
    Probe("cosine_similarity", lambda x, y: F.cosine_similarity(x, y, dim=1), (*M, *M), order=3),
    Probe("pairwise_distance", lambda x: F.pairwise_distance(x, C23), M, order=3, draw=5),
    Probe("cdist", lambda x: torch.cdist(x, C33), M, reference=lambda x: (x[:, None] - C33).pow(2).sum(-1).sqrt(), order=3, draw=2),
    Probe("dist", lambda x: torch.dist(x, C23), M),
    Probe("trapezoid", lambda x: torch.trapezoid(x * x, dx=0.5), M),
    Probe("trapezoid x", lambda x: torch.trapezoid(x * x, C3.cumsum(0)), M),
    Probe("cov", lambda x: torch.cov(x), M),
    Probe("corrcoef", lambda x: torch.corrcoef(x), M, order=3),
]  # fmt: skip

MATRICES = [
    Probe("matmul", torch.matmul, ((2, 3), (3, 2))),
    Probe("matmul batched", lambda x, y: x @ y, ((2, 1, 2, 3), (2, 3, 1))),
    Probe("constant @ jet", lambda x: C33 @ (x * x)),
    Probe("vector @ matrix", lambda x, y: x @ y, ((2,), (2, 3))),
    Probe("mm mv dot", lambda x, y: torch.dot(torch.mv(x, y), y), ((3, 3), (3,))),
    Probe("bmm", torch.bmm, ((2, 1, 3), (2, 3, 2))),
    Probe("outer", torch.outer, ((2,), (3,))),
    Probe("inner", lambda x: torch.inner(x, C23), ((1, 3),)),
    Probe("kron", torch.kron, ((2, 1), (1, 3))),
    Probe("cross", torch.linalg.cross, TWO),
    Probe("tensordot", lambda x, y: torch.tensordot(x, y, dims=([1], [0])), ((2, 3), (3, 2))),
    Probe("vecdot", lambda x: torch.linalg.vecdot(x, C23), M),
    Probe("einsum 1", lambda x: torch.einsum("ij->ji", x * x), M),
    Probe("einsum 2", lambda x, y: torch.einsum("ij,kj->ik", x, y), (*M, *M)),
    Probe("einsum 3", lambda x, y: torch.einsum("bi,oij,bj->bo", x, FIXED[2, 3, 2], y), ((2, 3), (2, 2))),
    Probe("einsum 3 jets", lambda x, y, z: torch.einsum("...i,ij,j", x, y, z), ((2, 2), (2, 3), (3,))),
    Probe("einsum implicit", lambda x: torch.einsum("ii", x @ x), SQUARE),
    Probe("addmm", lambda x, y: torch.addmm(C3, x, y, beta=0.5, alpha=2.0), ((2, 2), (2, 3))),
    Probe("addmv", lambda x: torch.addmv(x, C33, x)),
    Probe("addr", lambda x, y: torch.addr(C33, x, y), TWO),
    Probe("baddbmm", lambda x, y: torch.baddbmm(C3, x, y), ((2, 1, 3), (2, 3, 3))),
    Probe("addbmm", lambda x, y: torch.addbmm(C3, x, y), ((2, 1, 3), (2, 3, 3))),
    Probe("multi_dot", lambda x, y: torch.linalg.multi_dot([x, C33, y]), ((2, 3), (3, 2))),
    Probe("chain_matmul", lambda x: torch.chain_matmul(x, C33, C33), M),
    Probe("linear", lambda x: F.linear(x, C23, C3[:2]), M),
    Probe("linear with jets", F.linear, ((2, 3), (2, 3), (2,))),
    Probe("F.bilinear", lambda x, y: F.bilinear(x, y, FIXED[2, 3, 2], C3[:2]), ((2, 3), (2, 2))),
    # Twice forward mode of torch's determinants and solutions is wrong in torch 2.13: written out in inverses.
    Probe("det 1", torch.det, ((1, 1),), reference=lambda x: x[0, 0]),
    Probe("det 2", torch.det, ((2, 2),), reference=lambda x: x[0, 0] * x[1, 1] - x[0, 1] * x[1, 0]),
    Probe("det 4", lambda x: torch.det(regular(x)), ((4, 4),), reference=lambda x: _determinant(regular(x))),
    Probe("slogdet", lambda x: torch.linalg.slogdet(regular(x)).logabsdet, SQUARE, order=3,
          reference=lambda x: _determinant(regular(x)).log()),
    Probe("logdet", lambda x: torch.logdet(definite(x)), SQUARE, order=3,
          reference=lambda x: _determinant(definite(x)).log()),
    Probe("inv", lambda x: torch.linalg.inv(regular(x)), SQUARE, order=3),
    Probe("solve", lambda x, y: torch.linalg.solve(regular(x), y), ((3, 3), (3, 2)), order=3,
          reference=lambda x, y: torch.linalg.inv(regular(x)) @ y),
    Probe("solve vector", lambda x: torch.linalg.solve(regular(x), C3), SQUARE, order=3,
          reference=lambda x: torch.linalg.inv(regular(x)) @ C3),
    Probe("solve right", lambda x: torch.linalg.solve(regular(C33), x * x, left=False), M, order=3),
    Probe("solve_triangular", lambda x, y: torch.linalg.solve_triangular(regular(x), y, upper=True), ((3, 3), (3, 2)), order=3),
    Probe("cholesky", lambda x: torch.linalg.cholesky(definite(x)), SQUARE, order=3, heavy=True),
    Probe("matrix_exp", torch.matrix_exp, ((2, 2),), reference=lambda x: _exponential(x)),
    Probe("matrix_power", lambda x: torch.linalg.matrix_power(x, 3), SQUARE),
    Probe("matrix_power -2", lambda x: torch.linalg.matrix_power(regular(x), -2), ((2, 2),), order=3),
    Probe("pinv", lambda x: torch.linalg.pinv(x + TALL), ((3, 2),), order=3,
          reference=lambda x: _pseudo_inverse(x + TALL)),
    # Nested differentiation of torch's cumulative product divides by the numbers, which costs digits.
    Probe("vander", torch.linalg.vander, reference=lambda x: torch.stack([torch.ones_like(x), x, x * x], -1)),
    Probe("conv1d", lambda x: F.conv1d(x * x, FIXED[2, 2, 2], FIXED[2], padding=1), ((1, 2, 4),)),
    Probe("conv1d jets", lambda x, w: F.conv1d(x, w), ((1, 2, 4), (2, 2, 2))),
    Probe("conv2d", lambda x: F.conv2d(x * x, FIXED[2, 1, 2, 2], groups=2), ((1, 2, 3, 3),)),
    Probe("conv3d", lambda x: F.conv3d(x * x, FIXED[1, 1, 2, 2, 2]), ((1, 1, 2, 3, 2),)),
    Probe("conv_transpose2d", lambda x: F.conv_transpose2d(x * x, FIXED[1, 2, 2, 2], FIXED[2], stride=2), ((1, 1, 2, 2),)),
]  # fmt: skip


def _determinant(x):
    """By expansion along the first row."""
    if len(x) == 1:
        return x[0, 0]
    others = [[k for k in range(len(x)) if k != j] for j in range(len(x))]
    return sum((-1) ** j * x[0, j] * _determinant(x[1:, rest]) for j, rest in enumerate(others))


def _standardised(x, axes, eps=1e-5):
    deviation = x - x.mean(axes, keepdim=True)
    return deviation / ((deviation**2).mean(axes, keepdim=True) + eps).sqrt()


def _exponential(x):
    total = term = torch.eye(x.shape[-1], dtype=x.dtype)
    for n in range(1, 22):
        term = term @ x / n
        total = total + term
    return total


def _pseudo_inverse(x):
    return torch.linalg.inv(x.T @ x) @ x.T


def _attention(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return torch.softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf), -1) @ v


LOWER = torch.ones(2, 2, dtype=torch.bool).tril()
MHA = module(lambda: nn.MultiheadAttention(4, 2, batch_first=True))


def _slow_layer_norm(layer):
    """Run a layer with its norms written out: twice forward mode of torch's layer norm is wrong in torch 2.13."""

    def run(*args):
        with patch.object(F, "layer_norm", lambda x, shape, w, b, eps: _standardised(x, -1, eps) * w + b):
            return layer(*args)

    return run


ENCODER = module(
    lambda: nn.TransformerEncoderLayer(4, 2, 3, dropout=0.0, batch_first=True, activation="gelu"), train=True
)
ENCODER_EVAL = module(
    lambda: nn.TransformerEncoderLayer(4, 2, 3, batch_first=True, norm_first=True, activation=torch.tanh)
)
DECODER = module(lambda: nn.TransformerDecoderLayer(4, 2, 3, batch_first=True, activation=torch.tanh))
GRU, LSTM = (
    module(lambda: nn.GRU(2, 2, num_layers=2, bidirectional=True)),
    module(lambda: nn.LSTM(2, 2, batch_first=True)),
)
RNN, GRU_CELL = module(lambda: nn.RNN(2, 2)), module(lambda: nn.GRUCell(2, 3))
LSTM_CELL, RNN_CELL = module(lambda: nn.LSTMCell(2, 2)), module(lambda: nn.RNNCell(2, 2))
BATCH_NORM = module(lambda: nn.BatchNorm1d(3))
BATCH_NORM.running_mean.copy_(C3)
BATCH_NORM.running_var.copy_(C3.abs() + 1.0)
CLASSES = torch.tensor([2, 0])


def _cell(x):
    return torch.cat(LSTM_CELL(x, (x * x, x)), 1)


def _slow_rnn(layer):
    """Torch's recurrent layers have no forward mode twice; their cells, written out, do."""

    def run(x):
        from ude.ad.rules import recurrent

        cells = {nn.GRU: recurrent.gru_cell, nn.LSTM: recurrent.lstm_cell, nn.RNN: recurrent.rnn_tanh_cell}
        cell, states = cells[type(layer)], 2 if isinstance(layer, nn.LSTM) else 1
        if layer.batch_first:
            x = x.transpose(0, 1)
        ways = 2 if layer.bidirectional else 1
        for depth in range(layer.num_layers):
            outputs = []
            for way in range(ways):
                weights = layer._flat_weights[4 * (depth * ways + way) :][:4]
                state = [torch.zeros(x.shape[1], layer.hidden_size, dtype=x.dtype)] * states
                steps = []
                for u in reversed(x.unbind(0)) if way else x.unbind(0):
                    new = cell(u, state[0] if states == 1 else tuple(state), *weights)
                    state = [new] if states == 1 else list(new)
                    steps.append(state[0])
                outputs.append(torch.stack(steps[::-1] if way else steps))
            x = torch.cat(outputs, -1)
        return x.transpose(0, 1) if layer.batch_first else x

    return run


LAYERS = [
    Probe("layer_norm", lambda x: F.layer_norm(x, (3,), C3, C3), M,
          reference=lambda x: _standardised(x, -1) * C3 + C3),
    Probe("LayerNorm", module(lambda: nn.LayerNorm((2, 3))), M, reference=lambda x: _standardised(x, (0, 1))),
    Probe("rms_norm", lambda x: F.rms_norm(x, (3,), C3), M),
    Probe("group_norm", lambda x: F.group_norm(x, 2, C4, C4), ((1, 4, 2),), order=3),
    Probe("instance_norm", lambda x: F.instance_norm(x), ((2, 2, 3),), reference=lambda x: _standardised(x, -1), draw=2),
    Probe("batch_norm", BATCH_NORM, ((2, 3),)),
    Probe("local_response_norm", lambda x: F.local_response_norm(x, 2), ((2, 3, 2),), order=3),
    Probe("prelu", lambda x: F.prelu(x, C3[:1]), M),
    Probe("prelu jets", F.prelu, ((2, 3), (3,)), draw=8),
    Probe("rrelu", lambda x: F.rrelu(x), M),
    Probe("glu", lambda x: F.glu(x, 1), ((2, 4),), reference=lambda x: x[:, :2] * torch.sigmoid(x[:, 2:])),
    Probe("dropout eval", lambda x: F.dropout(x * x, 0.5, training=False), M),
    Probe("embedding", lambda w: F.embedding(INDEX, w * w), SQUARE),
    Probe("avg_pool1d", lambda x: F.avg_pool1d(x * x, 2), ((1, 2, 4),)),
    Probe("max_pool1d", lambda x: F.max_pool1d(x * x, 2), ((1, 2, 4),), draw=5),
    Probe("max_pool2d", lambda x: F.max_pool2d(x * x, 2, stride=1), ((1, 1, 3, 3),), draw=4),
    Probe("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x * x, 2), ((1, 1, 3, 3),)),
    Probe("adaptive_max_pool1d", lambda x: F.adaptive_max_pool1d(x * x, 2), ((1, 2, 4),)),
    Probe("lp_pool1d", lambda x: F.lp_pool1d(x, 2.0, 2), ((1, 2, 4),), 0.5, 2.0),
    Probe("interpolate", lambda x: F.interpolate(x * x, scale_factor=2.0, mode="linear"), ((1, 1, 3),)),
    Probe("pixel_shuffle", lambda x: F.pixel_shuffle(x * x, 2), ((1, 4, 1, 1),)),
    Probe("unfold F", lambda x: F.unfold(x * x, 2), ((1, 1, 3, 3),)),
    Probe("fft", lambda x: torch.view_as_real(torch.fft.rfft(x * x))),
    Probe("attention", F.scaled_dot_product_attention, ((1, 2, 2),) * 3, reference=_attention, order=3),
    Probe("attention causal", lambda q: F.scaled_dot_product_attention(q, q * q, q, is_causal=True), ((1, 2, 2),),
          reference=lambda q: _attention(q, q * q, q, LOWER), order=3),
    Probe("attention mask", lambda q: F.scaled_dot_product_attention(q, q, q, attn_mask=LOWER), ((2, 2),),
          reference=lambda q: _attention(q, q, q, LOWER), order=3),
    Probe("MultiheadAttention", lambda x: MHA(x, x, x, need_weights=False)[0], ((1, 2, 4),), order=3, heavy=True,
          reference=lambda x: MHA(x, x, x, need_weights=True)[0]),
    Probe("MultiheadAttention weights", lambda x: MHA(x, x * x, x)[1], ((1, 2, 4),), order=3, heavy=True),
    Probe("TransformerEncoderLayer train", ENCODER, ((1, 2, 4),), reference=_slow_layer_norm(ENCODER), order=3, heavy=True),
    Probe("TransformerEncoderLayer eval", ENCODER_EVAL, ((1, 2, 4),), reference=_slow_layer_norm(ENCODER_EVAL), order=3, heavy=True),
    Probe("TransformerDecoderLayer", lambda x: DECODER(x, x * x), ((1, 2, 4),), order=3, heavy=True,
          reference=_slow_layer_norm(lambda x: DECODER(x, x * x))),
    Probe("gru", lambda x: GRU(x)[0], ((2, 1, 2),), reference=_slow_rnn(GRU), order=3, heavy=True),
    Probe("lstm", lambda x: LSTM(x)[0], ((1, 2, 2),), reference=_slow_rnn(LSTM), order=3, heavy=True),
    Probe("rnn", lambda x: RNN(x)[0], ((2, 1, 2),), reference=_slow_rnn(RNN), order=3),
    Probe("gru_cell", lambda x, h: GRU_CELL(x, h), ((1, 2), (1, 3)), order=3),
    Probe("lstm_cell", _cell, ((1, 2),), order=3),
    Probe("rnn_cell", lambda x: RNN_CELL(x, x * x), ((1, 2),), order=3),
    Probe("Sequential", module(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Softmax(1))), M),
    Probe("Conv2d ReLU inplace", module(lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(inplace=True), nn.Flatten())),
          ((1, 1, 2, 3),), draw=8),
    Probe("Bilinear", module(lambda: nn.Bilinear(3, 2, 2)), ((2, 3), (2, 2)), order=3),
    Probe("mse_loss", lambda x: F.mse_loss(x, C23), M),
    Probe("l1_loss", lambda x: F.l1_loss(x, C23, reduction="sum"), M, draw=3),
    Probe("huber_loss", lambda x: F.huber_loss(x, C23, delta=0.5), M,
          reference=lambda x: 0.5 * F.smooth_l1_loss(x, C23, beta=0.5), draw=3),
    Probe("smooth_l1_loss", lambda x: F.smooth_l1_loss(x, C23, reduction="none", beta=0.5), M, draw=2),
    Probe("binary_cross_entropy", lambda x: F.binary_cross_entropy(x, C23.abs()), M, 0.2, 0.8),
    Probe("bce with logits", lambda x: F.binary_cross_entropy_with_logits(x, C23.abs(), pos_weight=C3.abs()), M),
    Probe("cross_entropy", lambda x: F.cross_entropy(x, CLASSES, weight=C3.abs()), M),
    Probe("cross_entropy smooth", lambda x: F.cross_entropy(x, CLASSES, label_smoothing=0.1), M),
    Probe("cross_entropy soft", lambda x: F.cross_entropy(x, C23.abs(), reduction="sum"), M, draw=1),
    Probe("nll_loss", lambda x: F.nll_loss(F.log_softmax(x, 1), CLASSES), M),
    Probe("kl_div", lambda x: F.kl_div(F.log_softmax(x, 1), C23.abs(), reduction="batchmean"), M),
    Probe("poisson_nll_loss", lambda x: F.poisson_nll_loss(x, C23.abs()), M),
    Probe("gaussian_nll_loss", lambda x: F.gaussian_nll_loss(x, C23, torch.exp(x)), M, order=3),
    Probe("soft_margin_loss", lambda x: F.soft_margin_loss(x, C23.sign()), M,
          reference=lambda x: F.softplus(-x * C23.sign()).mean()),
]  # fmt: skip

COMPLEX = [
    Probe("complex product", split_complex(lambda z: z * z * (1.0 + 2.0j)), TWO),
    Probe("complex exp", split_complex(torch.exp), TWO),
    Probe("complex division", split_complex(lambda z: (z + 3.0) / (z - 4.0j)), TWO),
    Probe("complex tanh", split_complex(torch.tanh), TWO),
    Probe("complex conj", split_complex(lambda z: z.conj() * z), TWO),
    Probe("complex abs", split_complex(torch.abs), TWO, 0.5, 1.5, reference=lambda x, y: (x * x + y * y).sqrt()),
    Probe("complex angle", split_complex(torch.angle), TWO, 0.5, 1.5, reference=lambda x, y: torch.atan2(y, x)),
    Probe("polar", lambda x, y: torch.view_as_real(torch.polar(x, y)), TWO, 0.5, 1.5,
          reference=lambda x, y: torch.stack([x * y.cos(), x * y.sin()], -1)),
    Probe("complex matmul", split_complex(lambda z: z @ z), ((2, 2), (2, 2))),
    Probe("ifft of fft", lambda x: torch.fft.ifft(torch.fft.fft(x * x) * 2.0).real),
]  # fmt: skip

FALLBACK = [
    Probe("F.tanhshrink of log_softmax", lambda x: F.tanhshrink(F.log_softmax(x, 0))),
    Probe("cumulative_trapezoid", lambda x: torch.cumulative_trapezoid(x * x), M),
    Probe("F.gumbel hard off", lambda x: F.softsign(F.hardtanh(x)), draw=8),
    Probe("triplet_margin_loss", lambda x: F.triplet_margin_loss(x, C23, C23 + 1.0), M, order=3),
    Probe("margin_ranking_loss", lambda x: F.margin_ranking_loss(x, C3, C3.sign())),
    Probe("hinge_embedding_loss", lambda x: F.hinge_embedding_loss(x, C3.sign()), draw=7),
    Probe("cosine_embedding_loss", lambda x: F.cosine_embedding_loss(x, C23, torch.tensor([1, -1])), M, order=3),
    Probe("renorm", lambda x: torch.renorm(x, 2.0, 0, 0.5), M),
    Probe("logspace-like stft-free", lambda x: torch.hann_window(3, dtype=torch.float64) * x),
    Probe("addcmul aten", lambda x: torch.ops.aten.addcmul(x, x, x)),
]  # fmt: skip

ELEMENTWISE = [replace(probe, order=5) if probe.order == 3 and not probe.heavy else probe for probe in ELEMENTWISE]
PROBES = [*ELEMENTWISE, *ARITHMETIC, *SHAPES, *REDUCTIONS, *MATRICES, *LAYERS, *COMPLEX, *FALLBACK]


def inputs(probe, dtype=torch.float64):
    """Arguments that keep away from kinks and poles, the same at every run."""
    seed = sum(probe.name.encode()) + 100 * probe.draw
    return [
        draw(*shape, seed=seed + i, low=probe.low, high=probe.high).to(dtype) for i, shape in enumerate(probe.shapes)
    ]


def directions(probe, count):
    """Directions to move the arguments in."""
    seed = 1000 + sum(probe.name.encode())
    return [[draw(*shape, seed=seed + 10 * j + i) for i, shape in enumerate(probe.shapes)] for j in range(count)]
