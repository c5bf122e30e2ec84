"""How far each resolution has been rolled up, and from where on it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from greend.store.schema import SECOND, TIERS, Tier, rollup


@dataclass(slots=True)
class Marks:
    """Two instants per tier, in seconds since 1970.

    A tier answers for [kept, done): whatever lies there is whole. The finest tier has no end.
    """

    done: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)

    def done_until(self, tier: Tier) -> int | None:
        """Return the end of what the tier holds; None: it holds all there is."""
        return None if tier is SECOND else self.done.get(tier.name, 0)

    def kept_from(self, tier: Tier) -> int:
        """Return the start of what the tier still holds; 0: nothing was forgotten."""
        return self.kept.get(tier.name, 0)

    def holds(self, tier: Tier, start_s: int) -> bool:
        """Say whether a row that starts then belongs into the tier's table now, not at the next roll-up."""
        done = self.done_until(tier)
        return start_s >= self.kept_from(tier) and (done is None or start_s < done)


def read_marks(connection: Connection) -> Marks:
    """Return the marks as of this transaction."""
    marks = Marks()
    for row in connection.execute(select(rollup)):
        marks.done[row.tier] = row.done_until_s
        marks.kept[row.tier] = row.kept_from_s
    return marks


def save_marks(connection: Connection, marks: Marks) -> None:
    """Write the marks, in the transaction that made them true."""
    statement = insert(rollup)
    statement = statement.on_conflict_do_update(
        index_elements=["tier"],
        set_={
            "done_until_s": statement.excluded.done_until_s,
            "kept_from_s": statement.excluded.kept_from_s,
        },
    )
    connection.execute(
        statement,
        [
            {
                "tier": tier.name,
                "done_until_s": marks.done.get(tier.name, 0),
                "kept_from_s": marks.kept_from(tier),
            }
            for tier in TIERS
        ],
    )
