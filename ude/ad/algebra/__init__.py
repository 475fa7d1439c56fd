"""Algebras of truncated derivatives: what a jet carries."""

from ude.ad.algebra.base import Algebra, StructureConstant
from ude.ad.algebra.blocks import Blocks
from ude.ad.algebra.directions import Directions
from ude.ad.algebra.product import Product
from ude.ad.algebra.symbol import Operator, Symbol
from ude.ad.algebra.univariate import Univariate

__all__ = ["Algebra", "Blocks", "Directions", "Operator", "Product", "StructureConstant", "Symbol", "Univariate"]
