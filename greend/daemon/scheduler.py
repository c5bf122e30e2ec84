"""What is periodic and unhurried: roll-up and retention. The only importer of APScheduler.

The 1 Hz loop is not here: APScheduler 3 follows the wall clock, and a step of an hour backwards
stops its ticks for that hour.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

ROLL_UP_S = 60
RETAIN_S = 3600


class Scheduler:
    """Runs jobs one at a time on one thread, so that what writes never races itself."""

    def __init__(self, roll_up: Callable[[], None], retain: Callable[[], None]) -> None:
        # It logs two lines for each run.
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )
        self._scheduler.add_job(roll_up, "interval", seconds=ROLL_UP_S, id="roll-up")
        self._scheduler.add_job(retain, "interval", seconds=RETAIN_S, id="retention")

    def start(self) -> None:
        """Start the clock of all jobs."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop after the job that runs now."""
        self._scheduler.shutdown(wait=True)
