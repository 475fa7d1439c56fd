"""Attributes of a user's object that are others for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def replaced(target: object, attributes: Mapping[str, object]) -> Iterator[None]:
    """Set attributes, and leave the object at the end as it was.

    Raises:
        AttributeError, TypeError: If the object takes none.
    """
    own = {name: vars(target)[name] for name in attributes if name in vars(target)}
    for name, value in attributes.items():
        setattr(target, name, value)
    try:
        yield
    finally:
        for name in attributes:
            if name in own:
                setattr(target, name, own[name])
            else:
                delattr(target, name)
