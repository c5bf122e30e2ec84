"""`greend help TOPIC`: what no single command's --help can say."""

from __future__ import annotations

import click

EXIT_CODES = """\
  0    ok
  1    failed
  2    usage: the words on the command line are off (an unknown unit or option)
  3    the daemon is not running
  4    permission denied
  5    not supported on this machine
  6    a configuration file does not fit
  7    the database is damaged, or newer than this greend
  125  run: greend itself failed, the command was not started
  126  run: the command cannot be executed
  127  run: the command was not found
  128+n  run: signal n ended the command; 130: Ctrl-C
  otherwise, run ends with the command's own exit code"""

ENVIRONMENT = """\
  GREEND_SOCKET    the daemon's socket
  GREEND_DB        the history file to read
  GREEND_DISABLED  1: the agent does nothing
  GREEND_REQUIRED  1: no daemon is an error instead of a line on stderr
  GREEND_JOB_ID    set by `greend run` for the command it runs
  GREEND_LEVELS    set by `greend run`: how many resource levels, or their costs, as 0.25,0.5,1
  GREEND_KNOBS     set by `greend run`: what may be turned down, as ffn,heads
  NO_COLOR         no colours"""

TOPICS = {"exit-codes": EXIT_CODES, "environment": ENVIRONMENT}


@click.command()
@click.argument("topic", type=click.Choice(list(TOPICS)))
def command(topic: str) -> int:
    """Explain a topic."""
    print(TOPICS[topic])
    return 0
