"""From the lines a user typed to a system of equations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from ude._checks import InputError
from ude.models.equations import functions
from ude.models.equations.parser import Parser, nearest
from ude.models.equations.printing import to_text
from ude.models.equations.system import EquationSystem, UnknownTerm
from ude.models.equations.tokens import MAX_LENGTH, Token, mistake
from ude.models.parameters import Parameter

if TYPE_CHECKING:
    import sympy

MAX_EQUATIONS = 100

_LEFT_SIDES = (
    re.compile(r"\s*(?P<state>\w+)\s*'\s*"),
    re.compile(r"\s*d\s*\(\s*(?P<state>\w+)\s*\)\s*/\s*d(?P<time>\w+)\s*"),
    re.compile(r"\s*d(?P<state>\w+)\s*/\s*d(?P<time>\w+)\s*"),
)
_PASTED = str.maketrans(
    {"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{MULTIPLICATION SIGN}": "*"}
    | dict.fromkeys("·∙⋅", "*")
    | dict.fromkeys("’′", "'")
)


def parse_equations(
    texts: Sequence[str],
    inputs: Sequence[str] = (),
    *,
    time: str = "t",
    parameters: Mapping[str, float | Parameter] | None = None,
) -> EquationSystem:
    """Read differential equations, one per line, into symbols.

    An equation is `hare' = ...`, `d(hare)/dt = ...` or `dhare/dt = ...`. The right-hand side is made of numbers, names,
    `+ - * / ^ **`, parentheses and the functions exp, log, ln, log10, sqrt, sin, cos, tan, cot, sinh, cosh, tanh,
    atan, abs, min, max, sigmoid, `hill(x, K, n)` = x^n/(K^n + x^n) and `mm(x, K)` = x/(K + x). A name that has an
    equation is a state, one in `inputs` an exogenous input, `time` or `t` the time, `pi` the number; any other is a
    parameter, free in sign, that starts at 1 or as `parameters` says.

    `?(x, y)` is an unknown term of these inputs, which may be expressions. Unknown terms without a name and with the
    same inputs are separate outputs of one network, in all equations. `?f(x, y)` is the unknown function f: the
    same name is the same function, wherever and with whatever arguments it stands.

    The text is only ever parsed, by a list of what is allowed; it is not evaluated.

    Args:
        texts: The equations.
        inputs: Names that may occur as exogenous inputs.
        time: Name of the time.
        parameters: Initial value of each parameter, or its `Parameter`.

    Raises:
        InputError: If an equation cannot be read, with the place and what to do.

    Example:
        >>> system = parse_equations(["hare' = a*hare + ?(hare, lynx)", "lynx' = -d*lynx + ?(hare, lynx)"])
        >>> print(system)
        hare' = a*hare + U_hare(hare, lynx)
        lynx' = -d*lynx + U_lynx(hare, lynx)
        >>> system.terms
        (UnknownTerm(name='U', inputs=('hare', 'lynx'), outputs=('U_hare', 'U_lynx')),)
    """
    if isinstance(texts, str):
        texts = [texts]
    if not 0 < len(texts) <= MAX_EQUATIONS:
        raise InputError(f"Expected between 1 and {MAX_EQUATIONS} equations, got {len(texts)}.")
    lines = [text.translate(_PASTED) for text in texts]
    sides = [_left_side(line, time) for line in lines]
    states = tuple(state for state, _ in sides)
    _check_variables(lines, states, inputs, time)
    reader = _Reader(states, [*states, *inputs, *(parameters or {})])
    rhs, names = [], {}
    for (state, start), line in zip(sides, lines, strict=True):
        rhs.append(reader.read(state, line, start))
        names |= {name: (line, token) for name, token in reader.names.items() if name not in names}
    known = {*states, *inputs, time, "t"}
    specs = _specs(names, known, parameters or {}, (*states, *inputs))
    return EquationSystem(
        states=states,
        rhs=tuple(_with_time(expression, time, known - {"t"}) for expression in rhs),
        parameters=specs,
        terms=reader.terms(rhs, {*known, *specs}),
        inputs=tuple(name for name in inputs if name in names),
        time=time,
    )


def parse_expression(text: str, names: Sequence[str]) -> sympy.Expr:
    """Read one formula in these names, in the language of `parse_equations`, without unknown terms.

    Raises:
        InputError: If it cannot be read or contains another name.

    Example:
        >>> parse_expression("2*x^2 - y", ["x", "y"])
        2*x**2 - y
    """
    parser = Parser(text.translate(_PASTED))
    expression = parser.parse()
    for name, token in parser.names.items():
        if name not in names:
            raise mistake(
                text, token.position, f"Unknown name {name!r}{nearest(name, names)}; the names are {tuple(names)}."
            )
    return expression


def parse_parameter(text: str) -> tuple[str, float]:
    """Read `name=value`.

    Raises:
        InputError: If it has another form.

    Example:
        >>> parse_parameter("a=0.5")
        ('a', 0.5)
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name.isidentifier():
        raise InputError(f"Expected a parameter as `name=value`, for example `a=0.5`, got {text[:80]!r}.")
    try:
        number = float(parse_expression(value, []))
    except InputError as error:
        raise InputError(f"The initial value of the parameter {name!r} is not a number: {error}") from error
    return name, number


class _Reader:
    """Reads one right-hand side after the other, and remembers the unknown terms."""

    def __init__(self, states: tuple[str, ...], taken: Iterable[str]) -> None:
        self.states, self.taken = states, {*taken}
        self.state, self.line = "", ""
        self.names: dict[str, Token] = {}
        self.groups: dict[tuple[sympy.Expr, ...], str] = {}
        self.outputs: dict[str, list[str]] = {}
        self.arguments: dict[str, list[tuple[sympy.Expr, ...]]] = {}

    def read(self, state: str, line: str, start: int) -> sympy.Expr:
        self.state, self.line = state, line
        parser = Parser(line, start, self._unknown)
        expression = parser.parse()
        self.names = parser.names
        return expression

    def _unknown(self, name: str | None, arguments: tuple[sympy.Expr, ...], token: Token) -> sympy.Expr:
        import sympy

        if name is None:
            name = self.groups.setdefault(arguments, self._new_group())
            known = self.outputs.setdefault(name, [])
            output, count = f"{name}_{self.state}", 1
            while output in known:
                count += 1
                output = f"{name}_{self.state}_{count}"
            known.append(output)
        else:
            self._check_named(name, arguments, token)
            output, self.outputs[name] = name, [name]
        self.arguments.setdefault(name, []).append(arguments)
        return sympy.Function(output)(*arguments)

    def _new_group(self) -> str:
        number = len(self.groups) + 1
        name = "U" if number == 1 else f"U{number}"
        while name in self.taken:
            name += "_"
        return name

    def _check_named(self, name: str, arguments: tuple[sympy.Expr, ...], token: Token) -> None:
        if name in self.taken or name in functions.NAMES or hasattr(nn.ModuleDict, name):
            raise mistake(self.line, token.position, f"An unknown term cannot be called {name!r}: this name is taken.")
        known = self.arguments.get(name)
        if known and len(known[0]) != len(arguments):
            raise mistake(
                self.line,
                token.position,
                f"The unknown term {name!r} has {len(known[0])} argument(s) elsewhere, {len(arguments)} here. Give it "
                "the same number everywhere, or another name.",
            )

    def terms(self, rhs: Sequence[sympy.Expr], variables: set[str]) -> tuple[UnknownTerm, ...]:
        from sympy.core.function import AppliedUndef

        used = {call.func.__name__ for expression in rhs for call in expression.atoms(AppliedUndef)}
        clash = sorted(variables & {*self.outputs, *used})
        if clash:
            raise InputError(f"{clash[0]!r} is the name of an unknown term and of something else. Rename one of them.")
        terms = []
        for name, outputs in self.outputs.items():
            kept = tuple(output for output in outputs if output in used)
            calls = {*self.arguments[name]}
            single = next(iter(calls))
            inputs = [to_text(x) for x in single] if len(calls) == 1 else [f"x{i + 1}" for i in range(len(single))]
            terms += [UnknownTerm(name=name, inputs=tuple(inputs), outputs=kept)] if kept else []
        return tuple(terms)


def _left_side(line: str, time: str) -> tuple[str, int]:
    """Return the state whose derivative stands on the left, and where the right-hand side begins."""
    if len(line) > MAX_LENGTH:
        raise InputError(f"An equation may have at most {MAX_LENGTH} characters, this one has {len(line)}. Split it.")
    equals = line.find("=")
    if equals < 0:
        raise mistake(
            line, 0, "This is not an equation. Write it like `x' = a*x`, with the derivative of a state on the left."
        )
    if "=" in line[equals + 1 :]:
        raise mistake(
            line, line.index("=", equals + 1), "An equation has one equals sign. Give every equation on its own."
        )
    for pattern in _LEFT_SIDES:
        match = pattern.fullmatch(line, 0, equals)
        if match and match["state"].isidentifier():
            by = match.groupdict().get("time")
            if by not in (None, "t", time):
                raise mistake(
                    line, match.start("time"), f"The derivative must be by the time, {time!r}, not by {by!r}."
                )
            return match["state"], equals + 1
    if line[:equals].count("'") > 1:
        raise mistake(line, 0, "Only first derivatives: write x'' = f as `x' = v` and `v' = f`.")
    raise mistake(line, 0, "Left of the equals sign expected the derivative of a state: `x'`, `d(x)/dt` or `dx/dt`.")


def _check_variables(lines: Sequence[str], states: tuple[str, ...], inputs: Sequence[str], time: str) -> None:
    for i, (line, state) in enumerate(zip(lines, states, strict=True)):
        if state in states[:i]:
            raise mistake(line, 0, f"The state {state!r} has two equations. Add their right-hand sides into one.")
        if state in functions.NAMES or state in ("pi", time) or state.startswith("__"):
            raise mistake(line, 0, f"A state cannot be called {state!r}: this name has another meaning. Rename it.")
        if state in inputs:
            raise mistake(line, 0, f"{state!r} is named as an input but has an equation. Make it one or the other.")


def _specs(
    names: Mapping[str, tuple[str, Token]],
    known: set[str],
    given: Mapping[str, float | Parameter],
    variables: Sequence[str],
) -> dict[str, Parameter]:
    free = [name for name in names if name not in known]
    for name in given:
        if name not in free:
            hint = nearest(name, free)
            what = "is not a parameter" if name in known else "does not occur in the equations"
            raise InputError(f"The parameter {name!r} {what}{hint}. The parameters are {free or 'none'}.")
    for name in free:
        meant = next((x for x in variables if name not in given and _looks_like(name, x)), None)
        if meant:
            line, token = names[name]
            raise mistake(
                line,
                token.position,
                f"Unknown name {name!r} (did you mean {meant!r}?). If it is a parameter of its own, give it a value.",
            )
    values = {name: given.get(name, Parameter()) for name in free}
    return {name: v if isinstance(v, Parameter) else Parameter(float(v)) for name, v in values.items()}


def _looks_like(name: str, other: str) -> bool:
    """Say whether `name` is probably `other` mistyped: other case, or one letter wrong, missing, added or swapped."""
    if min(len(name), len(other)) < 3:
        return False
    if name.lower() == other.lower():
        return True
    # Digits and underscores tell names apart on purpose: k1 and k2, hare and hare_0.
    if len(name) < 4 or [c for c in name if not c.isalpha()] != [c for c in other if not c.isalpha()]:
        return False
    start = next((i for i, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), min(len(name), len(other)))
    rest, wanted = name[start:], other[start:]
    swapped = rest[:2] == wanted[:2][::-1] and rest[2:] == wanted[2:]
    return swapped or rest[1:] == wanted[1:] or rest[1:] == wanted or rest == wanted[1:]


def _with_time(expression: Any, time: str, known: set[str]) -> sympy.Expr:
    """Write the time as `time`, also where the user called it t."""
    import sympy

    if time == "t" or "t" in known:
        return expression
    return expression.xreplace({sympy.Symbol("t"): sympy.Symbol(time)})


def system_from_dict(values: Mapping[str, Any]) -> EquationSystem:
    """Rebuild a system from `EquationSystem.to_dict`."""
    try:
        terms = tuple(
            UnknownTerm(name=str(t["name"]), inputs=tuple(map(str, t["inputs"])), outputs=tuple(map(str, t["outputs"])))
            for t in values["terms"]
        )
        applied = {output: len(term.inputs) for term in terms for output in term.outputs}
        parameters = {str(name): _parameter(spec) for name, spec in values["parameters"].items()}
        states, inputs = tuple(map(str, values["states"])), tuple(map(str, values["inputs"]))
        time, texts = str(values["time"]), list(map(str, values["equations"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"This description of equations is incomplete or damaged: {error!r}.") from error
    names, rhs = {*states, *inputs, time, *parameters}, []
    for text in texts:
        parser = Parser(text, applied=applied)
        rhs.append(parser.parse())
        strange = sorted({*parser.names} - names)
        if strange:
            raise InputError(f"The name {strange[0]!r} in {text!r} is not described. The description is damaged.")
    if len(rhs) != len(states):
        raise InputError(f"Expected one equation per state {states}, got {len(rhs)}. The description is damaged.")
    return EquationSystem(states=states, rhs=tuple(rhs), parameters=parameters, terms=terms, inputs=inputs, time=time)


def _parameter(spec: Mapping[str, Any]) -> Parameter:
    bounds = spec["bounds"]
    try:
        return Parameter(
            float(spec["initial"]),
            bool(spec["positive"]),
            None if bounds is None else (float(bounds[0]), float(bounds[1])),
            float(spec["spread"]),
            bool(spec["learnable"]),
        )
    except ValueError as error:
        raise InputError(f"This description of a parameter is damaged: {error}") from error
