"""What happens during a solve besides its vector field: events, times to stop at, projections, domains."""

from ude.solve.events.event import (
    ContinuousEvent,
    DiscreteEvent,
    Event,
    ManifoldProjection,
    Periodic,
    PositiveDomain,
    PresetTimes,
    SteadyState,
)
from ude.solve.events.handler import Handler, Happening
from ude.solve.events.schedule import schedule

__all__ = [
    "ContinuousEvent",
    "DiscreteEvent",
    "Event",
    "Handler",
    "Happening",
    "ManifoldProjection",
    "Periodic",
    "PositiveDomain",
    "PresetTimes",
    "SteadyState",
    "schedule",
]
