"""Claim: a process without torch does not notice that `greend run` has put a shim into its Python.

    python benchmarks/elastic_parts/start.py [--quick]

A Python that does nothing is started with the shim and without, in turn and in changing order; what is
counted is the CPU time of the ended children, the median of the differences within a pair. The same for a
Python that imports nothing but the standard library's usual part, as tools do.
"""

from __future__ import annotations

import os
import random
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from part import main

import greend_agent

SHIM = Path(greend_agent.__file__).parent / "shim"
PROGRAMS = {
    "interpreter_ms": "pass",
    "interpreter_usual_ms": "import argparse, json, logging, pathlib, subprocess",
}


def measure(quick: bool) -> dict[str, float]:
    """Return the CPU milliseconds that the shim adds to the start of a Python process."""
    pairs = 15 if quick else 60
    choose = random.Random(0)
    found: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(pairs):
        for name, program in PROGRAMS.items():
            cpu_s = {with_shim: _start(program, with_shim) for with_shim in choose.sample((True, False), 2)}
            found[name].append(1e3 * (cpu_s[True] - cpu_s[False]))
    return {name: statistics.median(differences) for name, differences in found.items()}


def _start(program: str, with_shim: bool) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GREEND_", "PYTHONPATH"))}
    if with_shim:
        environment |= {"PYTHONPATH": str(SHIM), "GREEND_JOB_ID": "j-000000"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


if __name__ == "__main__":
    main(measure, __doc__)
