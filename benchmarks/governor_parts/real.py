"""Claim: a live job under `greend run --budget` makes all its steps and ends within 2 % under its budget.

    python benchmarks/governor_parts/real.py [--quick]

`examples/digits.py`, an ordinary PyTorch script, runs on this machine: once as it is, then with 60 % of what
that used as its budget, under a daemon in a process of its own. Joules are those of the best meter that the
machine has; without one they are modelled from CPU time, as `greend doctor` says. Then `greend why` says for
each level of the run why it was in force. `--quick` makes fewer steps; the fewer, the more a second counts.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from part import main

DIGITS = Path(__file__).parents[2] / "examples" / "digits.py"
GREEND = (sys.executable, "-m", "greend")
SHARE = 0.6
BATCH = 256
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Two threads spin while they wait for each other: with other work on two cores a step took 3 s for 40 ms."""
START_S = 30.0


def measure(quick):
    """Return how much of its budget the held run has used, and how many of its steps it has made."""
    steps = 600 if quick else 1500
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder)) as environment:
        free = run(environment, "free", steps)
        budget_j = SHARE * free["energy_j"]
        held = run(environment, "held", steps, "--budget", f"{budget_j:.1f}J", "--steps", str(steps))
        budget_j = held["budget_j"]
        explained = why(environment, held)
    used = held["energy_j"] / budget_j
    met = 0.98 <= used <= 1.0 and held["steps_done"] == steps
    print(f"free {free['energy_j']:9.1f} J  {free['steps_done']} steps")
    print(f"held {held['energy_j']:9.1f} J  {held['steps_done']} steps, budget {budget_j:.1f} J")
    print(f"{used:.2%} of the budget used; to be 98 to 100 %, with all steps: {'met' if met else 'MISSED'}")
    return {
        "real_used": used,
        "real_steps_done": held["steps_done"] / steps,
        "real_levels": len(explained),
        "real_explained": sum(explained.values()) / max(len(explained), 1),
    }


def run(environment, name, steps, *options):
    """Run the script as a job and return what the daemon has stored of it."""
    script = [sys.executable, str(DIGITS), "--steps", str(steps), "--batch", str(BATCH)]
    words = [*GREEND, "run", "--name", name, "--json", *options, "--", *script]
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    *lines, answer = done.stdout.strip().splitlines()
    print(f"{name}: {lines[-1]}", flush=True)
    return json.loads(answer)["job"]


def why(environment, job):
    """Show why each level was in force; return which levels there were, and whether each has a reason."""
    subprocess.run([*GREEND, "why", job["id"]], env=environment, check=True)
    words = [*GREEND, "why", job["id"], "--json"]
    answer = json.loads(subprocess.run(words, env=environment, check=True, capture_output=True).stdout)
    reasons = {}
    for decision in answer["decisions"]:
        reasons.setdefault(decision["level"], []).append(decision["reason"])
    return {level: all(said) for level, said in reasons.items()}


@contextlib.contextmanager
def daemon(folder):
    """Inside, a daemon with a history of its own runs; gives the environment in which it is found."""
    socket, database = folder / "greend.sock", folder / "greend.db"
    environment = {**os.environ, **ONE_THREAD, "GREEND_SOCKET": str(socket), "GREEND_DB": str(database)}
    words = [*GREEND, "daemon", "--socket", str(socket), "--db", str(database)]
    log = folder / "daemon.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(words, stderr=stderr)
    try:
        deadline = time.monotonic() + START_S
        while subprocess.run([*GREEND, "status"], env=environment, capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"real: the daemon does not answer: {log.read_text()}")
            time.sleep(0.2)
        yield environment
    finally:
        process.terminate()
        process.wait(timeout=20)


if __name__ == "__main__":
    main(measure, __doc__)
