"""`greend daemon`: the foreground process that systemd runs, or a user starts."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click
import msgspec

from greend import config


@click.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings, in TOML.")
@click.option("--system", is_flag=True, help="Use the machine's folders: /etc, /run and /var/lib.")
@click.option("--socket", "socket_path", type=click.Path(path_type=Path), help="Listen here instead.")
@click.option("--db", "database", type=click.Path(path_type=Path), help="Keep the history here instead.")
def command(config_path: Path | None, system: bool, socket_path: Path | None, database: Path | None) -> int:
    """Sample this machine's counters, keep them, and answer on a Unix socket.

    Without --system it needs no root: state lies in the XDG folders of the user.
    """
    mode: config.Mode = "system" if system else "user"
    settings = config.load(config_path, mode)
    changes = {"socket": str(socket_path or ""), "database": str(database or "")}
    daemon = msgspec.structs.replace(settings.daemon, **{k: v for k, v in changes.items() if v})
    settings = msgspec.structs.replace(settings, daemon=daemon)
    log_to_stderr()

    from greend.daemon.main import Daemon

    Daemon(settings, mode).run()
    return 0


def log_to_stderr() -> None:
    """Log to stderr; under systemd with the level as a prefix, which the journal understands."""
    handler = logging.StreamHandler(sys.stderr)
    plain = "%(levelname).1s %(message)s" if sys.stderr.isatty() else "%(message)s"
    handler.setFormatter(
        _Journal("%(message)s") if os.environ.get("JOURNAL_STREAM") else logging.Formatter(plain)
    )
    logger = logging.getLogger("greend")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


class _Journal(logging.Formatter):
    """Puts syslog's `<n>` before each line."""

    def format(self, record: logging.LogRecord) -> str:
        level = 3 if record.levelno >= logging.ERROR else 4 if record.levelno >= logging.WARNING else 6
        return f"<{level}>" + super().format(record).replace("\n", f"\n<{level}>")
