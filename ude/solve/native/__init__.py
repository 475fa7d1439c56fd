"""The whole solve as one piece of machine code, made from the operations of an attempt on one sample."""

from ude.solve.native.engine import begin_natively

__all__ = ["begin_natively"]
