"""A daemon on a socket of its own, and a thread in it that publishes directives at random instants.

    python benchmarks/governor_parts/publisher.py SOCKET COUNT PAUSE_S

Everything is as `greend daemon` has it, with a simulated counter. A directive's number is the instant of
CLOCK_BOOTTIME at which it was published, which every process of the machine can compare with its own.
"""

import random
import sys
import threading
import time
from pathlib import Path

import msgspec

from greend.clock import mono_ns
from greend.config import Config
from greend.daemon.main import Daemon
from greend.wire import Directive, encode


def settings(socket):
    raw = {
        "daemon": {"socket": str(socket), "database": str(socket.with_suffix(".db"))},
        "sources": {"enabled": ["host", "fake"], "fake_power_w": 40.0},
    }
    return msgspec.convert(raw, Config)


def publish(daemon, count, pause_s):
    """Have the one job change its level so many times, never to the level that it has."""
    dice = random.Random(0)
    while not (jobs := daemon.jobs.live()) or jobs[0].top == 0 or not daemon.hub.listeners(jobs[0].job.id):
        time.sleep(0.05)
    job, level = jobs[0].job.id, jobs[0].top
    for _ in range(count):
        time.sleep(dice.uniform(0.5, 1.5) * pause_s)
        level = dice.choice([k for k in range(jobs[0].top + 1) if k != level])
        directive = Directive(mono_ns(), level, "to see how soon it is obeyed", ttl_s=30.0)
        daemon.hub.publish(job, encode(directive).decode())


if __name__ == "__main__":
    daemon = Daemon(settings(Path(sys.argv[1])))
    arguments = daemon, int(sys.argv[2]), float(sys.argv[3])
    threading.Thread(target=publish, args=arguments, daemon=True).start()
    daemon.run()
