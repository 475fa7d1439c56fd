"""What stands in for a tensor while derivatives propagate: it answers to every torch function by a rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ude.ad.rules import fallback
from ude.ad.rules.table import lookup
from ude.ad.series import Rule

TensorFunction = Callable[..., Any]


class Lifted(ABC):
    """A tensor together with its derivatives. User code handles it like a tensor.

    There are three ways to propagate derivatives; every rule is one of them or is composed of them.
    """

    value: Tensor
    """The tensor itself."""

    __array_ufunc__ = None  # a NumPy number on the left leaves the operation to us

    @property
    @abstractmethod
    def order(self) -> int:
        """Products of more nilpotent parts than this vanish."""

    @abstractmethod
    def elementwise(self, rule: Rule) -> Lifted:
        """Apply a function to every number."""

    @classmethod
    @abstractmethod
    def linear(cls, function: TensorFunction, operands: Sequence[Lifted | Tensor]) -> Any:
        """Apply a function that is linear in all operands together; tensors among them have no derivatives."""

    @classmethod
    @abstractmethod
    def bilinear(cls, function: TensorFunction, a: Lifted, b: Lifted) -> Lifted:
        """Apply a function that is linear in each of two operands."""

    @abstractmethod
    def constant(self, value: Tensor) -> Lifted:
        """Return a tensor without derivatives, as one of this kind."""

    # Compositions, which a kind may do faster

    def nilpotent(self) -> Lifted:
        """Return the derivatives with a value of zero: `self - constant(value)`."""
        finite = torch.where(self.value.isfinite(), self.value, torch.zeros_like(self.value))
        return self.plus(finite, -1.0)

    def pinned(self, value: Tensor) -> Lifted:
        """Return the same derivatives with a more accurate evaluation of the value."""
        return self.nilpotent().plus(value)

    def times(self, other: Any) -> Lifted:
        """Multiply by another of this kind, number by number."""
        return type(self).bilinear(torch.mul, self, other)

    def scaled(self, factor: Any) -> Lifted:
        """Multiply by a tensor without derivatives, or by a number."""
        return type(self).linear(lambda x: x * factor, [self])

    def plus(self, other: Any, sign: float = 1.0) -> Lifted:
        """Add `sign` times another of this kind, a tensor or a number."""
        if not isinstance(other, Lifted | Tensor):
            dtype = self.dtype if isinstance(other, float | int) else self.dtype.to_complex()
            other = torch.as_tensor(other, dtype=dtype, device=self.device)
        return type(self).linear(lambda x, y: torch.add(x, y, alpha=sign), [self, other])

    def mapped(self, function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor] | None = None) -> Any:
        """Apply an affine function to which leading axes are a batch; `derivative` is its linear part."""
        if derivative is None:
            return type(self).linear(function, [self])
        return type(self).linear(derivative, [self.nilpotent()]).plus(function(self.value))

    def layer(self, weight: Tensor, bias: Tensor | None) -> Any:
        """Return x W^T + b, a linear layer."""
        return self.mapped(
            lambda u: torch.nn.functional.linear(u, weight, bias), lambda u: torch.nn.functional.linear(u, weight)
        )

    @classmethod
    def __torch_function__(
        cls, func: TensorFunction, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if options.get("out") is not None:
            raise TypeError("Expected operations that return a new tensor, got `out=`, which would lose derivatives.")
        handler = lookup(as_in_eager(func, args) if torch.compiler.is_compiling() else func)
        if handler is None:
            return fallback.decompose(func, args, options)
        result = handler(*args, **options)
        if options.get("inplace") is True:
            _overwrite(args[0] if args else options["input"], result)
        return result

    # What does not depend on derivatives

    @property
    def shape(self) -> torch.Size:
        """Shape of the value."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes of the value."""
        return self.value.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Number format."""
        return self.value.dtype

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.value.device

    @property
    def requires_grad(self) -> bool:
        """Whether autograd records the value."""
        return self.value.requires_grad

    @property
    def is_nested(self) -> bool:
        """Nested tensors have no jets."""
        return False

    @property
    def is_cuda(self) -> bool:
        """Whether the numbers are on a CUDA device."""
        return self.value.is_cuda

    @property
    def layout(self) -> torch.layout:
        """Memory layout of the value."""
        return self.value.layout

    @property
    def is_sparse(self) -> bool:
        """Sparse tensors have no jets."""
        return False

    @property
    def is_quantized(self) -> bool:
        """Quantized tensors have no jets."""
        return False

    @property
    def is_meta(self) -> bool:
        """Whether there are shapes only."""
        return self.value.is_meta

    def stride(self, *dim: Any) -> Any:
        """Strides of the value."""
        return self.value.stride(*dim)

    def size(self, dim: int | None = None) -> Any:
        """Shape of the value, or one entry of it."""
        return self.value.shape if dim is None else self.value.shape[dim]

    def dim(self) -> int:
        """Number of axes of the value."""
        return self.value.ndim

    def numel(self) -> int:
        """Number of entries of the value."""
        return self.value.numel()

    def item(self) -> Any:
        """Return the value as a number, for control flow."""
        return self.value.item()

    def detach(self) -> Tensor:
        """Return the value without derivatives."""
        return self.value.detach()

    def is_complex(self) -> bool:
        """Whether the numbers are complex."""
        return self.value.is_complex()

    def is_floating_point(self) -> bool:
        """Whether the numbers are real floats."""
        return self.value.is_floating_point()

    def is_contiguous(self, **options: Any) -> bool:
        """Whether the value is contiguous."""
        return self.value.is_contiguous(**options)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Any:
        return iter(self.unbind(0))  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return id(self)

    @property
    def T(self) -> Any:
        """Transpose of a matrix."""
        return self.transpose(0, 1) if self.ndim > 1 else self  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def mT(self) -> Any:
        """Transpose of the last two axes."""
        return self.transpose(-2, -1)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def real(self) -> Any:
        """Real part."""
        return torch.real(self)  # pyright: ignore[reportArgumentType]

    @property
    def imag(self) -> Any:
        """Imaginary part."""
        return torch.imag(self)  # pyright: ignore[reportArgumentType]

    @property
    def H(self) -> Any:
        """Conjugate transpose of a matrix."""
        return self.adjoint()  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def mH(self) -> Any:
        """Conjugate transpose of the last two axes."""
        return self.adjoint()  # pyright: ignore[reportAttributeAccessIssue]

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Expected a torch function, got a NumPy one: derivatives do not go through NumPy.")

    def __setitem__(self, index: Any, value: Any) -> None:
        fallback.refuse("__setitem__")

    def numpy(self, **_: Any) -> Any:
        """Refuse: derivatives do not go through NumPy."""
        return self.__array__()


def as_in_eager(func: TensorFunction, args: Sequence[Any]) -> TensorFunction:
    """Return the function that the table knows, in place of the compiler's (torch 2.13) name for it.

    The compiler does not find Python functions such as `Tensor.__rsub__` in a dictionary. For `x @ W` as well as
    `W @ x` it calls the method `matmul` of W, so that nobody can tell which of them was meant.
    """
    if func is Tensor.matmul and not isinstance(args[0], Lifted):
        raise NotImplementedError(
            "Expected `torch.matmul(a, b)` under `torch.compile`, got `a @ b` or `a.matmul(b)`, whose order the "
            "compiler does not tell."
        )
    for known in _PYTHON_FUNCTIONS:
        if func is known:
            return known
    return func


_PYTHON_FUNCTIONS = (Tensor.__rsub__, Tensor.__rdiv__, Tensor.__rpow__, Tensor.__pow__, Tensor.__rmatmul__)

_OPERATORS = [
    "add",
    "radd",
    "sub",
    "rsub",
    "mul",
    "rmul",
    "truediv",
    "rtruediv",
    "div",
    "rdiv",
    "pow",
    "rpow",
    "matmul",
    "rmatmul",
    "neg",
    "pos",
    "abs",
    "mod",
    "rmod",
    "floordiv",
    "rfloordiv",
    "getitem",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "and",
    "or",
    "xor",
    "rand",
    "ror",
    "rxor",
    "invert",
]

_IN_PLACE = [
    "iadd",
    "isub",
    "imul",
    "itruediv",
    "idiv",
    "ifloordiv",
    "imod",
    "ipow",
    "imatmul",
    "iand",
    "ior",
    "ixor",
    "ilshift",
    "irshift",
]

_REFUSED = [
    "backward",
    "register_hook",
    "register_post_accumulate_grad_hook",
    "retain_grad",
    "numpy",
    "set_",
    "share_memory_",
]


def _method(name: str) -> Callable[..., Any]:
    function = getattr(Tensor, name)

    def method(self: Lifted, *args: Any, **kwargs: Any) -> Any:
        return type(self).__torch_function__(function, (), (self, *args), kwargs)

    method.__name__ = method.__qualname__ = name
    return method


def _refusal(name: str) -> Callable[..., Any]:
    def method(self: Lifted, *args: Any, **kwargs: Any) -> Any:
        fallback.refuse(name)

    method.__name__ = method.__qualname__ = name
    return method


def _overwrite(x: Any, result: Any) -> None:
    """Let an argument that the caller gave away (`inplace=True`) be the result from now on, as torch does."""
    if isinstance(x, Lifted) and type(x) is type(result) and x is not result:
        for kind in type(x).__mro__:
            for name in getattr(kind, "__slots__", ()):
                setattr(x, name, getattr(result, name))
        for name, attribute in getattr(result, "__dict__", {}).items():
            setattr(x, name, attribute)


def _add_tensor_methods() -> None:
    """Give the class torch's methods and operators, each of which goes through the table."""
    for name in _OPERATORS:
        if callable(getattr(Tensor, f"__{name}__", None)):
            setattr(Lifted, f"__{name}__", _method(f"__{name}__"))
    for name in _IN_PLACE:
        setattr(Lifted, f"__{name}__", _refusal(f"__{name}__"))
    for name in dir(Tensor):
        if name.startswith("_") or hasattr(Lifted, name) or not callable(getattr(Tensor, name)):
            continue
        setattr(Lifted, name, _refusal(name) if name.endswith("_") or name in _REFUSED else _method(name))


_add_tensor_methods()
