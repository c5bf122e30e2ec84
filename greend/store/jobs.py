"""Jobs, what they used, and the decisions about them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select

from greend.errors import NotFound
from greend.store import dimensions, documents, schema
from greend.store.cover import FOREVER_S
from greend.store.ledger import NOTHING, Energy, facts, summed
from greend.types import Action, Decision, Job, Meter, Quality
from greend.units import nearest

_JOB = schema.job.c
_NEWEST = (_JOB.started_wall_ns.desc(), _JOB.id.desc())


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job and what it used: the sum of the ledger's rows that name it as the consumer."""

    job: Job
    energy_j: float | None
    """Joules up to the last flush; None: nothing was recorded for it."""
    error: float | None
    """Relative error at 95 %, weighted by energy."""
    quality: Quality
    """The worst among the parts."""


def jobs(connection: Connection, limit: int = 20) -> list[JobSummary]:
    """Return the newest jobs by their start, newest first; at most `limit`, a negative one means all."""
    rows = connection.execute(select(schema.job).order_by(*_NEWEST).limit(limit))
    return _summaries(connection, [_job(row) for row in rows])


def job(connection: Connection, id_or_name: str) -> JobSummary:
    """Return the job of that id, else the newest of that name, else the only one whose id begins so.

    `j-` may be left off an id. Raises NotFound, naming what comes near.
    """
    for condition in (_JOB.id == id_or_name, _JOB.name == id_or_name):
        row = connection.execute(select(schema.job).where(condition).order_by(*_NEWEST)).first()
        if row is not None:
            return _summaries(connection, [_job(row)])[0]
    rows: list[Row[Any]] = []
    if id_or_name:
        starts = [func.substr(_JOB.id, 1, len(start)) == start for start in (id_or_name, f"j-{id_or_name}")]
        rows = list(
            connection.execute(select(schema.job).where(starts[0] | starts[1]).order_by(*_NEWEST).limit(5))
        )
    if len(rows) == 1:
        return _summaries(connection, [_job(rows[0])])[0]
    if rows:
        raise NotFound(f"find job {id_or_name!r}: several ids begin so: {', '.join(row.id for row in rows)}")
    known = connection.execute(select(_JOB.id, _JOB.name).order_by(*_NEWEST).limit(1000)).all()
    if not known:
        raise NotFound(f"find job {id_or_name!r}: there are no jobs yet; start one with `greend run`")
    hint = nearest(id_or_name, [word for pair in known for word in pair])
    raise NotFound(f"find job {id_or_name!r}: no such job{hint}; `greend jobs` lists them")


def open_jobs(connection: Connection) -> list[Job]:
    """Return the jobs that have not ended, oldest first: those to look for after a restart."""
    rows = connection.execute(
        select(schema.job).where(_JOB.ended_wall_ns.is_(None)).order_by(_JOB.started_wall_ns, _JOB.id)
    )
    return [_job(row) for row in rows]


def finished(connection: Connection, signature: str, limit: int = 20) -> list[Job]:
    """Return the jobs of that signature that ended well (exit code 0) and took steps, newest first."""
    rows = connection.execute(
        select(schema.job)
        .where(
            _JOB.signature == signature,
            _JOB.ended_wall_ns.is_not(None),
            _JOB.exit_code == 0,
            _JOB.steps_done > 0,
        )
        .order_by(*_NEWEST)
        .limit(limit)
    )
    return [_job(row) for row in rows]


def decisions(connection: Connection, job_id: str) -> list[Decision]:
    """Return the decisions about a job in the order in which they were made."""
    decision = schema.decision.c
    rows = connection.execute(select(schema.decision).where(decision.job_id == job_id).order_by(decision.id))
    return [_decision(row) for row in rows]


def last_decision(connection: Connection, job_id: str) -> Decision | None:
    """Return the newest decision about a job; None: there is none."""
    decision = schema.decision.c
    row = connection.execute(
        select(schema.decision).where(decision.job_id == job_id).order_by(decision.id.desc())
    ).first()
    return None if row is None else _decision(row)


def energy_of_jobs(connection: Connection, job_ids: Iterable[str]) -> dict[str, Energy]:
    """Return what each of these jobs used, over all time; one that used nothing known is absent."""
    consumer = schema.consumer.c
    names: dict[int, str] = {
        row.id: row.name
        for row in connection.execute(
            select(consumer.id, consumer.name).where(
                consumer.kind == "job",
                consumer.name.in_(
                    select(func.json_each(json.dumps(list(job_ids))).table_valued("value").c.value)
                ),
            )
        )
    }
    meters = dimensions.meters(connection)
    parts: dict[str, list[tuple[float, Meter]]] = defaultdict(list)
    seconds: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for fact in facts(connection, (0, FOREVER_S), consumers=names) if names else []:
        parts[names[fact.consumer_id]].append((fact.energy_j, meters[fact.meter_id]))
        seconds[names[fact.consumer_id]][fact.component_id] += fact.seconds
    return {name: summed(found, max(seconds[name].values())) for name, found in parts.items()}


def job_energy(connection: Connection, job_id: str) -> float:
    """Return the joules on record for a job; 0.0 when there are none yet."""
    return energy_of_jobs(connection, [job_id]).get(job_id, NOTHING).energy_j or 0.0


def _summaries(connection: Connection, found: list[Job]) -> list[JobSummary]:
    used = energy_of_jobs(connection, [job.id for job in found])
    return [
        JobSummary(job, energy.energy_j, energy.error, energy.quality)
        for job in found
        for energy in (used.get(job.id, NOTHING),)
    ]


def _job(row: Row[Any]) -> Job:
    fields = dict(row._mapping)
    for name in ("command", "costs", "report"):
        fields[name] = tuple(json.loads(fields[name]))
    fields["limits"] = documents.limits_of(fields["limits"])
    return Job(**fields)


def _decision(row: Row[Any]) -> Decision:
    return Decision(
        level=row.level,
        reason=row.reason,
        at_wall_ns=row.at_wall_ns,
        at_step=row.at_step,
        previous=row.previous,
        feasible=row.feasible,
        inputs=json.loads(row.inputs),
        pace=row.pace,
        power_w=row.power_w,
        burst_j=row.burst_j,
        action=Action(row.action),
        by=row.bound_by,
        bounds=documents.bounds_of(row.bounds),
        advised=row.advised,
    )
