"""The mix of two levels in turn: one change per block, each block closing its own books."""

from __future__ import annotations

from dataclasses import dataclass, replace

from greend.governor.hull import Mix

BLOCKS = 24
"""A job is cut into so many blocks..."""
SWITCH_TIMES = 20.0
"""...of at least so many times what a change of level takes."""
CLEARLY = 0.02
"""A block is dropped half-way when what a step may use is so far outside of its two levels."""


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of steps with an allowance in joules, made first at one level and then at the other."""

    low: int
    high: int
    low_first: bool
    start_step: float
    steps: float
    start_j: float
    """Joules that the job had used when it began."""
    allowed_j: float
    turned: bool = False

    @property
    def level(self) -> int:
        """The level to run at now."""
        return self.high if self.low_first == self.turned else self.low


@dataclass(frozen=True, slots=True)
class Stand:
    """Where the job stands."""

    done: float
    spent_j: float
    current: int
    """The level in force."""
    per_step_j: float
    """Joules that a step may use from here on."""


def block_steps(total: float, switch_s: float, step_s: tuple[float, ...] | None) -> float:
    """Return how long a block is, in steps: a part of the job, long against a change of level."""
    least = SWITCH_TIMES * switch_s / step_s[0] if step_s and step_s[0] > 0 else 1.0
    return max(total / BLOCKS, least, 1.0)


def follow(block: Block | None, mix: Mix, step_j: tuple[float, ...], stand: Stand, steps: float) -> Block:
    """Return the block under way, turned when it is time, or a new one of so many steps."""
    if block is None or _is_over(block, mix, step_j, stand):
        # A block begins with the level that is in force, so that there is one change in each.
        low_first = stand.current != mix.high
        block = Block(
            mix.low, mix.high, low_first, stand.done, steps, stand.spent_j, stand.per_step_j * steps
        )
    if block.turned or block.low == block.high:
        return block
    steps_left = block.start_step + block.steps - stand.done
    left_j = block.start_j + block.allowed_j - stand.spent_j
    # Low first, it turns to the higher level as soon as that can be paid to the block's end; high first,
    # to the lower one as soon as it must: what the steps really cost moves the turn by itself.
    if block.low_first:
        due = left_j >= steps_left * step_j[block.high]
    else:
        due = left_j <= steps_left * step_j[block.low]
    return replace(block, turned=True) if due else block


def _is_over(block: Block, mix: Mix, step_j: tuple[float, ...], stand: Stand) -> bool:
    if stand.done >= block.start_step + block.steps:
        return True
    if (mix.low, mix.high) == (block.low, block.high):
        return False
    below = stand.per_step_j < step_j[block.low] * (1 - CLEARLY)
    above = stand.per_step_j > step_j[block.high] * (1 + CLEARLY)
    return below or above
