"""Policy rules of the settings and of the command: which count, and what is there after a restart."""

import pytest

from greend import wire
from greend.client import Client
from greend.daemon.main import Daemon
from greend.daemon.rulebook import RuleBook
from greend.errors import ConfigError, GreendError, NotFound, ProtocolError, StoreError

from .conftest import settings, stop

FILE = {"night": {"mode": "act", "when": "22:00-06:00", "level": 1}}


def book(kept: dict[str, object] | None = None) -> RuleBook:
    saved: dict[str, object] = {} if kept is None else kept
    rules = RuleBook(FILE, lambda name, body: saved.update({name: body}))
    rules.restore({})
    return rules


def test_a_rule_set_by_command_replaces_the_one_of_the_settings_until_it_is_taken_away():
    rules = book()
    rules.set("night", {"level": 0})
    assert rules.all() == [wire.RuleNow("night", {"level": 0}, "command")]
    assert [(rule.mode, rule.level) for rule in rules.rules] == [("advise", 0)]

    rules.set("night", None)
    assert rules.all() == [wire.RuleNow("night", FILE["night"], "settings")]
    assert [(rule.mode, rule.level) for rule in rules.rules] == [("act", 1)]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [("night", ProtocolError, "stands in the settings file"), ("noon", NotFound, "policy list")],
)
def test_a_rule_that_was_not_set_by_command_cannot_be_taken_away_by_it(name, error, words):
    with pytest.raises(error, match=words):
        book().set(name, None)


def test_a_rule_that_makes_no_sense_is_neither_kept_nor_in_force():
    kept: dict[str, object] = {}
    rules = book(kept)
    with pytest.raises(ConfigError, match="levle"):
        rules.set("noon", {"levle": 0})

    assert kept == {}
    assert [rule.name for rule in rules.rules] == ["night"]


def test_a_rule_that_cannot_be_kept_is_not_in_force():
    def full(name: str, body: object) -> None:
        raise StoreError("write history: the disk is full")

    rules = RuleBook({}, full)
    with pytest.raises(StoreError):
        rules.set("noon", {"level": 0})
    assert rules.all() == []


def test_a_kept_rule_that_this_version_cannot_read_is_said_and_left_out(caplog):
    rules = RuleBook(FILE, lambda name, body: None)
    rules.restore({"odd": {"of_tomorrow": 1}, "noon": {"level": 0}})

    assert [rule.name for rule in rules.rules] == ["night", "noon"]
    assert "of_tomorrow" in caplog.text


def test_rules_set_over_the_socket_are_there_after_a_restart(tmp_path, clock):
    config = settings(tmp_path, more={"policies": FILE})
    daemon = Daemon(config, clock=clock)
    daemon.server.start()
    client = Client(daemon.socket_path)
    client.post("/policies", wire.RuleRequest("quiet", {"cpu_stalled_above": "40%"}))
    with pytest.raises(GreendError, match="modus"):
        client.post("/policies", wire.RuleRequest("odd", {"modus": "act"}))
    stop(daemon)

    again = Daemon(config, clock=clock)
    again.server.start()
    assert [(rule["name"], rule["origin"]) for rule in Client(again.socket_path).get("/policies")] == [
        ("night", "settings"),
        ("quiet", "command"),
    ]
    assert [rule.name for rule in again.terms.rules.rules] == ["night", "quiet"]
    stop(again)


def test_a_rule_of_the_settings_that_makes_no_sense_is_said_at_the_start(tmp_path, clock):
    with pytest.raises(ConfigError, match=r"night.*modus"):
        Daemon(settings(tmp_path, more={"policies": {"night": {"modus": "act"}}}), clock=clock)
    assert not (tmp_path / "greend.sock").exists()
