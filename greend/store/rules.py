"""The policy rules that were set by command; those of the settings file are not here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from greend.store import schema

_PUT = insert(schema.policy_rule)
_PUT = _PUT.on_conflict_do_update(index_elements=["name"], set_={"body": _PUT.excluded.body})


def rules(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return the keys of each rule by its name."""
    rows = connection.execute(select(schema.policy_rule).order_by(schema.policy_rule.c.name))
    return {row.name: json.loads(row.body) for row in rows}


def save_rule(connection: Connection, name: str, body: Mapping[str, Any] | None) -> None:
    """Set a rule in place of one of the same name; None takes it away."""
    if body is None:
        connection.execute(delete(schema.policy_rule).where(schema.policy_rule.c.name == name))
    else:
        connection.execute(_PUT, {"name": name, "body": json.dumps(dict(body))})
