"""How long a directive holds when the daemon falls silent."""

import pytest

from greend.clock import NS
from greend.wire import Directive
from greend_agent.lease import Lease
from greend_agent.link import FIRST_RETRY_S, LONGEST_RETRY_S, retry_s
from greend_agent.signals import TOP


@pytest.mark.parametrize(
    ("on_loss", "silent_s", "level"),
    [
        ("top", 0, 1),
        ("top", 30, 1),
        ("top", 30.1, TOP),
        ("hold", 30.1, 1),
        ("hold", 1e6, 1),
        ("new word", 31, TOP),
    ],
)
def test_a_directive_holds_for_its_ttl_and_then_gives_the_level_back_unless_it_was_given_by_hand(
    on_loss, silent_s, level
):
    lease = Lease()
    lease.heard(0, Directive(1, 1, "why", 30.0, on_loss))

    assert lease.order(round(silent_s * NS)).level == level


def test_a_ping_renews_the_lease():
    lease = Lease()
    lease.heard(0, Directive(1, 1, "why", 30.0))
    lease.heard(29 * NS)

    assert lease.order(58 * NS).level == 1
    assert lease.order(60 * NS).level == TOP


def test_where_nothing_was_ever_asked_nothing_is_wanted():
    lease = Lease()
    lease.heard(0)

    assert lease.order(10**12) is None
    assert lease.ttl_s is None


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, FIRST_RETRY_S), (1, 0.5), (2, 1.0), (3, 2.0), (9, LONGEST_RETRY_S), (999, 10.0)],
)
def test_tries_grow_rarer_up_to_a_limit(failures, seconds):
    assert retry_s(failures) == seconds
