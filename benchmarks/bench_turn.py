"""Claim: the meter is not the load: CPU per second at 1 Hz, and memory, of a whole daemon.

    python benchmarks/bench_turn.py [--quick]

Starts a real daemon with its default sources and reads its CPU time and memory from /proc.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from greend.client import Client
from greend.errors import GreendError

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def rss_mb(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    seconds = 20 if parser.parse_args().quick else 120
    with tempfile.TemporaryDirectory() as folder:
        sock = Path(folder) / "greend.sock"
        words = ["daemon", "--socket", str(sock), "--db", f"{folder}/greend.db"]
        began = time.monotonic()
        daemon = subprocess.Popen([sys.executable, "-m", "greend", *words], stderr=subprocess.DEVNULL)
        while True:
            try:
                if Client(sock).get("/status")["power_w"] is not None:
                    break
            except GreendError:
                time.sleep(0.05)
        start_s = time.monotonic() - began
        before, began = cpu_s(daemon.pid), time.monotonic()
        time.sleep(seconds)
        used, took = cpu_s(daemon.pid) - before, time.monotonic() - began
        memory = rss_mb(daemon.pid)
        threads = sum(1 for _ in Path(f"/proc/{daemon.pid}/task").iterdir())
        daemon.terminate()
        daemon.wait()
    result = {
        "cpu_ms_per_s": round(used / took * 1e3, 2),
        "rss_mb": round(memory, 1),
        "threads": threads,
        "first_figure_s": round(start_s, 2),
        "seconds": round(took),
    }
    for name, value in result.items():
        print(f"{name:<16} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
