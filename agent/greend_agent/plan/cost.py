"""What the parts of a step cost, and by which dials each falls."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from greend_agent.dial import Dial
from greend_agent.levels import Work
from greend_agent.plan.graph import Trace


def work_of(seen: Trace, dials: Sequence[Dial]) -> list[Work]:
    """Return the FLOPs of each module whose work falls with a dial or several."""
    touching: dict[nn.Module, list[int]] = {}
    for which, dial in enumerate(dials):
        for part in dial.parts:
            touching.setdefault(part, []).append(which)
    return [
        Work(flops, part, tuple(touching[part]))
        for part, flops in seen.own_flops.items()
        if flops and part in touching
    ]
