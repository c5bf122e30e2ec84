"""Claim: an unmodified model gets resource levels, each at the cost of a model of its size.

    python benchmarks/elastic.py [--quick] [PART ...]

Each part is a program of its own in `elastic_parts/` and says there what it measures; each runs in a process
of its own, one after the other, and ends with its figures as one line of JSON. Here they are put together,
beside what they are held to.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ORDER = ("steps", "start", "families", "ranks", "compiled", "norms", "knobs", "cascade")

AT_MOST, AT_LEAST = "<=", ">="
HELD_TO = {
    "step_ratio_worst": (AT_MOST, 1.05),
    "step_ratio_compact_worst": (AT_MOST, 1.02),
    "speedup_over_slicing": (AT_LEAST, 2.5),
    "idle_overhead": (AT_MOST, 0.01),
    "rest_overhead": (AT_MOST, 0.02),
    "switch_ms_85m": (AT_MOST, 3.0),
    "interpreter_ms": (AT_MOST, 5.0),
    "families": (AT_LEAST, 16),
    "plan_s_worst": (AT_MOST, 2.0),
    "false_accepts": (AT_MOST, 0),
    "llama_flops": (AT_MOST, 0.30),
    "resnet_flops": (AT_MOST, 0.15),
    "ranks_difference": (AT_MOST, 0.0),
    "ranks_vs_one": (AT_MOST, 1e-4),
    "ddp_switch_ms": (AT_MOST, 10.0),
    "ddp_bytes": (AT_MOST, 0.35),
    "agreement_overhead": (AT_MOST, 0.01),
    "recompiles": (AT_MOST, 0),
    "bn_level0": (AT_LEAST, 97.0),
    "bn_top": (AT_LEAST, 98.0),
    "bn_level0_calibrated": (AT_LEAST, 98.0),
    "bn_top_calibrated": (AT_LEAST, 98.5),
    "bn_top_after_dip": (AT_LEAST, 97.0),
    "cascade_70_flops": (AT_MOST, 0.65),
}


def figures_of(script, quick):
    """Run a part, show what it prints, and return its figures."""
    print(f"== {script.stem}", flush=True)
    began = time.perf_counter()
    command = [sys.executable, str(script), *(["--quick"] if quick else [])]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("{"):
                last = line
            else:
                print(line, end="", flush=True)
    if process.returncode:
        raise SystemExit(f"{script.stem}: it ended with code {process.returncode}")
    print(f"   {time.perf_counter() - began:.0f} s\n", flush=True)
    return json.loads(last)


def main(doc, folder, order, held_to):
    """Run the parts that the command line names; print all figures beside what they are held to."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and seeds")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(order)}; all without one")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(order):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(order)}")

    figures = {}
    for part in args.parts or order:
        figures |= figures_of(folder / f"{part}.py", args.quick)
    for name, value in figures.items():
        sign, bound = held_to.get(name, ("", None))
        met = bound is None or (value <= bound if sign == AT_MOST else value >= bound)
        beside = "" if bound is None else f"{sign} {bound}"
        print(f"{name:<26}{value:>12.4g}   {beside:<10}{'' if met else '  MISSED'}".rstrip())
    print(json.dumps(figures))


if __name__ == "__main__":
    main(__doc__, Path(__file__).parent / "elastic_parts", ORDER, HELD_TO)
