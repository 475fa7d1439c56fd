"""The whole solve as one piece of machine code, made from the operations of an attempt on one sample.

From top to bottom: `engine` decides whether a solve is made this way. `bound` finds its `program`, the graph of an
attempt that the front end of `torch.compile` has traced and guards, and the tensors it is to work on. `libraries` has
the code written and compiled; `kernel` calls it and its way back. Code is written by `forwards` and `backwards`, which
fill the loops in `code/` with the statements that `emitter`, `rules`, `products` and `operations` make of a graph whose
tensors are `values`. `source` names what the code reads and returns, `build` turns it into a library on disk, and
`separate` tries out whether samples depend on each other.
"""

from ude.solve.native.engine import begin_natively

__all__ = ["begin_natively"]
