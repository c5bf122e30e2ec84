"""How a job is to be held: its constraints, the rules of changing levels, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from greend.clock import Instant
from greend.governor.constraint import Constraint, Memory
from greend.types import Decision


@dataclass(frozen=True, slots=True)
class Policy:
    """What binds one job."""

    constraints: tuple[Constraint, ...] = ()
    """They act."""
    advisers: tuple[Constraint, ...] = ()
    """They only say what they would do, and are named in each decision."""
    down_s: float = 2.0
    """The least time between a change and a fall, unless it is urgent: two turns, so that one whole turn has
    measured the level that is left."""
    up_s: float = 5.0
    """The least time between a change and a rise; a change that takes long makes it longer."""
    warmup_s: float = 2.0
    """Time at the top before the first change, to measure what a step costs."""


@dataclass(frozen=True, slots=True)
class State:
    """What the governor remembers of a job from one turn to the next."""

    decision: Decision | None = None
    changed: Instant | None = None
    """When the level last changed..."""
    changed_step: float = 0.0
    """...and after how many steps."""
    decided: Instant | None = None
    """When the last decision was made."""
    memory: Mapping[str, Memory] = field(default_factory=dict)
    """What each constraint remembers, by its name."""
