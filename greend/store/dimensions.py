"""The numbers under which components, consumers, meters and counters are filed."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from sqlalchemy import Connection, Table, and_, insert, select, update

from greend.store import schema
from greend.types import Component, Consumer, CounterKey, Meter, Quality

_KEPT = "greend.ids"


def forget(connection: Connection) -> None:
    """Drop the numbers remembered for this connection: those of an undone transaction do not exist."""
    connection.info.pop(_KEPT, None)


def _remembered(connection: Connection, noun: Hashable, find: Callable[[], int]) -> int:
    """Look a noun up once per connection; nothing is ever removed from these tables."""
    known: dict[Hashable, int] = connection.info.setdefault(_KEPT, {})
    number = known.get(noun)
    if number is None:
        number = known[noun] = find()
    return number


def component_id(connection: Connection, component: Component) -> int:
    """Return the number of a component, filing it if it is new."""
    return _remembered(
        connection,
        component,
        lambda: _file(connection, schema.component, kind=component.kind, device=component.device),
    )


def consumer_id(connection: Connection, consumer: Consumer) -> int:
    """Return the number of a consumer, filing it if it is new."""
    return _remembered(
        connection,
        consumer,
        lambda: _file(connection, schema.consumer, kind=consumer.kind, name=consumer.name),
    )


def meter_id(connection: Connection, meter: Meter) -> int:
    """Return the number of a meter, filing it if it is new."""
    return _remembered(
        connection,
        meter,
        lambda: _file(
            connection,
            schema.meter,
            name=meter.name,
            source=meter.source,
            quality=meter.quality.value,
            error=meter.error,
            coefficients=meter.table,
        ),
    )


def counter_id(connection: Connection, key: CounterKey, unit: str | None = None) -> int:
    """Return the number of a counter, filing it if it is new; `unit` is noted when it is known."""

    def find() -> int:
        number = _file(
            connection,
            schema.counter,
            defaults={"unit": ""},
            source=key.source,
            device=key.device,
            counter=key.counter,
        )
        if unit is not None:
            table = schema.counter
            connection.execute(update(table).where(table.c.id == number).values(unit=unit))
        return number

    return _remembered(connection, (key, unit), find)


def _file(
    connection: Connection, table: Table, defaults: dict[str, str] | None = None, **values: str | float
) -> int:
    found: int | None = connection.scalar(
        select(table.c.id).where(and_(*(table.c[name] == value for name, value in values.items())))
    )
    if found is None:
        key = connection.execute(insert(table).values(**values, **(defaults or {}))).inserted_primary_key
        assert key is not None
        found = key[0]
    return int(found)


def components(connection: Connection) -> dict[int, Component]:
    """Return every component by its number."""
    return {row.id: Component(row.kind, row.device) for row in connection.execute(select(schema.component))}


def consumers(connection: Connection) -> dict[int, Consumer]:
    """Return every consumer by its number."""
    return {row.id: Consumer(row.kind, row.name) for row in connection.execute(select(schema.consumer))}


def meters(connection: Connection) -> dict[int, Meter]:
    """Return every meter by its number."""
    return {
        row.id: Meter(row.name, row.source, Quality(row.quality), row.error, row.coefficients)
        for row in connection.execute(select(schema.meter))
    }
