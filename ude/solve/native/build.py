"""From C++ to a function that Python can call."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
import tempfile
from pathlib import Path

FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-w",
)
"""No flag that lets the compiler assume there is no NaN, or reorder sums beyond those marked as reductions."""


class NoCompiler(RuntimeError):
    """There is no C++ compiler, or it does not take the code."""


def load(source: str) -> ctypes.CDLL:
    """Compile and load a source, or load what an earlier process has made of it.

    Raises:
        NoCompiler: If that fails.
    """
    from torch._inductor.codecache import cache_dir

    compiler = _compiler()
    key = hashlib.sha256("\n".join((source, *compiler, *FLAGS, _processor())).encode()).hexdigest()[:32]
    folder = Path(cache_dir()) / "ude"
    library = folder / f"{key}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            code, made = Path(scratch) / "code.cpp", Path(scratch) / "code.so"
            code.write_text(source)
            command = [*compiler, *FLAGS, str(code), "-o", str(made), *_libraries()]
            run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            if run.returncode:
                raise NoCompiler(f"{compiler[0]} refused the generated code: {run.stderr[:2000]}")
            made.replace(library)
    return ctypes.CDLL(str(library))


@functools.cache
def _compiler() -> tuple[str, ...]:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return (get_cpp_compiler(),)
    except Exception as error:
        raise NoCompiler(f"No C++ compiler was found: {error}") from error


@functools.cache
def _processor() -> str:
    """Return what the code is made for: a cache may be shared by machines."""
    run = subprocess.run(  # noqa: S603
        [*_compiler(), "-march=native", "-Q", "--help=target"], capture_output=True, text=True, check=False
    )
    return run.stdout


def _libraries() -> tuple[str, ...]:
    return ("-lm",)
