"""Claim: a job is held to joules, watts or nothing it cannot keep, told early, at little loss of quality.

    python benchmarks/governor.py [--quick] [PART ...]

Each part is a program of its own in `governor_parts/` and says there what it measures; the first ones run
a simulated job (`greend.simulation`), the last ones this machine. Here they are put together, beside what
they are held to.
"""

from pathlib import Path

from elastic import AT_LEAST, AT_MOST, main

ORDER = ("energy", "cap", "infeasible", "unknown", "cost", "reaction", "real")
HELD_TO = {
    "steps_done": (AT_LEAST, 1.0),
    "overrun_steps_max": (AT_MOST, 1.0),
    "quality_mean": (AT_LEAST, 0.985),
    "quality_worst": (AT_LEAST, 0.97),
    "switches": (AT_MOST, 50),
    "cap_error": (AT_MOST, 0.005),
    "cap_over_bound": (AT_MOST, 0.0),
    "cap_back_s": (AT_MOST, 10.0),
    "infeasible_steps": (AT_MOST, 50),
    "infeasible_coverage": (AT_LEAST, 0.9),
    "infeasible_wrongly": (AT_MOST, 0),
    "unknown_n_steps": (AT_LEAST, 0.98),
    "decision_us": (AT_MOST, 200.0),
    "signal_beyond_step_p99_ms": (AT_MOST, 20.0),
    "real_used": (AT_LEAST, 0.98),
    "real_steps_done": (AT_LEAST, 1.0),
}

if __name__ == "__main__":
    main(__doc__, Path(__file__).parent / "governor_parts", ORDER, HELD_TO)
