"""What people set by command is there again after a restart, and gone when taken away."""

from dataclasses import replace

import pytest

from greend.errors import StoreError
from greend.store import budgets, leases, rules
from greend.store.writes import Batch
from greend.types import Lease, Limits
from store.making import job, put

LEASE = Lease("h-1", "j-1", 0, "a quiet hour", "ana", 1000, 42, 5, until_mono_ns=7)


def test_a_period_has_the_limits_it_was_given_last(store):
    with store.write() as connection:
        budgets.save(connection, "day", Limits(energy_j=7.2e6))
        budgets.save(connection, "month", Limits(carbon_g=9e3))
        budgets.save(connection, "day", Limits(energy_j=3.6e6, cost=2.0))

    with store.read() as connection:
        assert budgets.periods(connection) == {
            "day": Limits(energy_j=3.6e6, cost=2.0),
            "month": Limits(carbon_g=9e3),
        }


def test_limits_that_are_taken_away_are_gone_and_taking_them_away_twice_is_no_error(store):
    with store.write() as connection:
        budgets.save(connection, "day", Limits(energy_j=1.0))
        budgets.save(connection, "day", None)
        budgets.save(connection, "day", None)

    with store.read() as connection:
        assert budgets.periods(connection) == {}


def test_a_rule_comes_back_with_its_keys_by_name(store):
    with store.write() as connection:
        rules.save_rule(connection, "night", {"mode": "act"})
        rules.save_rule(connection, "day", {"power": "40 W", "jobs": ["train*"]})
        rules.save_rule(connection, "night", {"mode": "advise"})
        rules.save_rule(connection, "gone", {"mode": "act"})
        rules.save_rule(connection, "gone", None)

    with store.read() as connection:
        assert rules.rules(connection) == {
            "day": {"power": "40 W", "jobs": ["train*"]},
            "night": {"mode": "advise"},
        }


def test_a_lease_comes_back_until_it_is_dropped(store):
    put(store, Batch(jobs={"j-1": job()}))
    later = replace(LEASE, id="h-0", since_wall_ns=6)
    with store.write() as connection:
        leases.save(connection, later)
        leases.save(connection, LEASE)

    with store.read() as connection:
        assert leases.leases(connection) == [LEASE, later]
    with store.write() as connection:
        leases.drop(connection, ["h-1", "h-unknown"])
    with store.read() as connection:
        assert leases.leases(connection) == [later]


def test_a_lease_of_an_unknown_job_is_refused(store):
    with pytest.raises(StoreError, match="FOREIGN KEY"), store.write() as connection:
        leases.save(connection, LEASE)
