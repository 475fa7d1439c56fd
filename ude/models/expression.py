"""A formula with learnable coefficients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ude.ad import is_tensor
from ude.models.equations.printing import to_latex, to_text
from ude.models.program import compile_program

if TYPE_CHECKING:
    import sympy


class Expression(nn.Module):
    """Formulas of named inputs, with their floating-point numbers as learnable coefficients.

    Each occurrence of a floating-point number, except in an exponent, is a coefficient of its own; integers and
    fractions are structure. The formulas are compiled once into a list of torch operations.

    Args:
        expressions: One sympy expression per output.
        inputs: Names of the inputs, in the order of the last axis of the argument.
        learnable: Whether the numbers are learnable; if not they are part of the structure.
        replicates: Number K of sets of coefficients, all starting at the same values.
        dtype: Floating-point type of the coefficients.

    Attributes:
        coefficients: Their values, shape `(coefficients,)`, or `(K, coefficients)`.
        structure: The formulas with a symbol in the place of each coefficient.
        coefficient_symbols: These symbols.

    Raises:
        ValueError: If an expression holds a symbol that is not an input, or a function without a torch counterpart.

    Example:
        >>> import sympy
        >>> x, y = sympy.symbols("x y")
        >>> term = Expression([-0.9 * x * y, 0.8 * x * y], inputs=("x", "y"))
        >>> term(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).detach()
        tensor([[-1.8000,  1.6000]], dtype=torch.float64)
    """

    def __init__(
        self,
        expressions: sympy.Expr | Sequence[sympy.Expr],
        inputs: Sequence[str],
        *,
        learnable: bool = True,
        replicates: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        import sympy

        super().__init__()
        given = expressions if isinstance(expressions, list | tuple) else [expressions]
        self.inputs, self.replicates = tuple(inputs), replicates
        values: list[float] = []
        symbols: list[Any] = []
        exact = [sympy.sympify(e, strict=True) for e in given]
        self.structure = tuple(_parametrise(e, values, symbols) for e in exact) if learnable else tuple(exact)
        self.coefficient_symbols = tuple(symbols)
        self._evaluate = compile_program(self.structure, (*self.inputs, *symbols)).on_tensors()
        lead = () if replicates is None else (replicates,)
        start = torch.tensor(values, dtype=dtype).expand(*lead, -1).clone()
        self.coefficients = nn.Parameter(start)

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return len(self.inputs)

    @property
    def out_features(self) -> int:
        """Number of formulas."""
        return len(self.structure)

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate at `x` of shape `(*batch, inputs)`, or `(K, *batch, inputs)` for K replicates."""
        columns, shape = x.unbind(-1), x.shape[:-1]
        if self.coefficient_symbols:
            coefficients: Tensor = self.coefficients
            if self.replicates is not None and x.ndim > 2:
                coefficients = coefficients.reshape(self.replicates, *[1] * (x.ndim - 2), -1)
            columns = (*columns, *coefficients.unbind(-1))
        outputs = self._evaluate(columns)
        return torch.stack([_filled(output, shape, x) for output in outputs], dim=-1)

    @property
    def sympy(self) -> tuple[sympy.Expr, ...]:
        """The formulas with the present values of the coefficients."""
        import sympy

        if self.replicates is not None:
            raise ValueError("Every replicate has its own coefficients: take one of them with `member(index)`.")
        values = map(sympy.Float, self.coefficients.detach().tolist())
        numbers = dict(zip(self.coefficient_symbols, values, strict=True))
        return tuple(cast("Any", expression).xreplace(numbers) for expression in self.structure)

    def texts(self, digits: int | None = None) -> list[str]:
        """Return each formula as text, with this many significant digits (None for all)."""
        return [to_text(expression, digits) for expression in self.sympy]

    def latex(self, digits: int | None = 4) -> list[str]:
        """Return each formula as LaTeX."""
        return [to_latex(expression, digits) for expression in self.sympy]

    def to_function(self) -> Callable[[Sequence[float]], list[float]]:
        """Return the formulas with their present coefficients as a fast function of a list of Python numbers."""
        return compile_program(self.sympy, self.inputs).on_numbers()

    def replicate(self, replicates: int, generator: torch.Generator | None = None) -> Expression:
        """Return K copies as one; the coefficients of each start at the present ones, so `generator` is not used."""
        return self._like(replicates, self.coefficients)

    def member(self, index: int) -> Expression:
        """Return copy `index` of K."""
        return self._like(None, self.coefficients[index])

    def _like(self, replicates: int | None, coefficients: Tensor) -> Expression:
        other = copy.deepcopy(self)
        lead = () if replicates is None else (replicates,)
        values = coefficients.detach().expand(*lead, -1).clone()
        other.replicates, other.coefficients = replicates, nn.Parameter(values)
        return other

    def __str__(self) -> str:
        return "\n".join(self.texts(4)) if self.replicates is None else super().__str__()


def _parametrise(expression: Any, values: list[float], symbols: list[Any]) -> sympy.Expr:
    """Put a new symbol in the place of each floating-point number, in the order in which they are written."""
    import sympy

    if isinstance(expression, sympy.Float):
        values.append(float(expression))
        symbols.append(sympy.Dummy(f"c{len(symbols)}"))
        return symbols[-1]
    if not expression.args:
        return expression
    if expression.is_Pow:
        base, exponent = expression.as_base_exp()
        base = _parametrise(base, values, symbols)
        exponent = exponent if exponent.is_number else _parametrise(exponent, values, symbols)
        return sympy.Pow(base, exponent)
    arguments = expression.as_ordered_terms() if expression.is_Add else expression.args
    return expression.func(*[_parametrise(argument, values, symbols) for argument in arguments])


def _filled(output: Any, shape: torch.Size, like: Tensor) -> Tensor:
    if not is_tensor(output):
        return like.new_full(shape, output)
    return output if output.shape == shape else output.expand(shape)
