"""The trees that index the order conditions."""

import pytest

from ude.methods.rooted_trees import density, elementary_weights, trees, vertices


def test_the_number_of_rooted_trees_is_the_published_one():
    # OEIS A000081.
    assert [len(trees(n)) for n in range(1, 11)] == [1, 1, 2, 4, 9, 20, 48, 115, 286, 719]


def test_no_tree_is_listed_twice_and_each_has_its_number_of_vertices():
    for n in range(1, 9):
        assert len(set(trees(n))) == len(trees(n))
        assert {vertices(tree) for tree in trees(n)} == {n}


@pytest.mark.parametrize(
    ("n", "densities"),
    [(1, [1]), (2, [2]), (3, [3, 6]), (4, [4, 8, 12, 24]), (5, [5, 10, 15, 20, 20, 30, 40, 60, 120])],
)
def test_densities_are_those_of_the_table(n, densities):
    # Hairer, Norsett & Wanner I, table II.2.2.
    assert sorted(map(density, trees(n))) == densities


def test_elementary_weights_are_the_products_of_the_table():
    # Kutta's method at order 4; from the same table: c^3, c A c, A c^2, A A c.
    a = [[], [1 / 2], [0.0, 1 / 2], [0.0, 0.0, 1.0]]
    leaf = ()
    branch = (leaf,)
    assert elementary_weights((leaf, leaf, leaf), a) == [0.0, 1 / 8, 1 / 8, 1.0]
    assert elementary_weights((branch, leaf), a) == [0.0, 0.0, 1 / 8, 1 / 2]
    assert elementary_weights(((leaf, leaf),), a) == [0.0, 0.0, 1 / 8, 1 / 4]
    assert elementary_weights((((leaf,),),), a) == [0.0, 0.0, 0.0, 1 / 4]
