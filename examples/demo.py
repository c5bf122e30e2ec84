"""The main job from end to end: a training run as it is, then again within 60 % of its energy.

    make demo            (or: python examples/demo.py digits|charlm)

Starts a daemon in user mode where none runs, and leaves the history behind for you to ask.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

SHARE = 0.6
EXAMPLES = Path(__file__).parent


def say(text=""):
    print(f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text, flush=True)


def show(*words):
    """Print a command as a user would type it, and run it."""
    say(f"\n$ {' '.join(words)}")
    subprocess.run(words, check=True)


def ask(*words):
    """Return the JSON answer of a greend command."""
    return json.loads(subprocess.run([*words, "--json"], check=True, capture_output=True, text=True).stdout)


def daemon_runs():
    return subprocess.run(["greend", "status", "--json"], capture_output=True).returncode == 0


def start_daemon():
    """Start a daemon and wait until it answers; returns the process."""
    daemon = subprocess.Popen(["greend", "daemon"], stderr=subprocess.PIPE, text=True)
    for _ in range(100):
        if daemon.poll() is not None:
            sys.exit(daemon.stderr.read())
        if daemon_runs():
            return daemon
        time.sleep(0.2)
    sys.exit("the daemon did not answer within 20 s")


def train(script, name, *options):
    """Run a script as a job, its output passed on; returns its last line, which says how good it got."""
    words = ["greend", "run", "--name", name, *options, "--", sys.executable, str(script)]
    say(f"\n$ greend run --name {name} {' '.join(options)} -- python {script.name}".replace("  ", " "))
    lines = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            print(line, end="", flush=True)
            lines.append(line.strip())
    if run.returncode:
        sys.exit(run.returncode)
    return lines[-1]


def main():
    example = sys.argv[1] if len(sys.argv) > 1 else "digits"
    script = EXAMPLES / f"{example}.py"
    if not script.exists():
        sys.exit(f"demo: there is no {script}; try digits or charlm")
    daemon = None if daemon_runs() else start_daemon()
    try:
        free_name, held_name = f"{example}-free", f"{example}-held"
        free_result = train(script, free_name)
        free = ask("greend", "jobs", free_name)["job"]
        budget_j = free["energy_j"] * SHARE
        # With the steps known nothing need be kept back for a run that turns out longer than the last.
        options = "--budget", f"{budget_j:.1f}J", "--steps", str(free["steps_done"])
        held_result = train(script, held_name, *options)
        answer = ask("greend", "jobs", held_name)
        held, decisions = answer["job"], answer["decisions"]
        budget_j = held["budget_j"]
        changes = sum(d["previous"] not in (None, d["level"]) for d in decisions)

        show("greend", "why", held["id"])
        show("greend", "jobs", "--limit", "2")
        show("greend", "history", "--by", "consumer", "--since", "10m")
        used = held["energy_j"] / budget_j
        over_steps = (held["energy_j"] - budget_j) / (held["energy_j"] / held["steps_done"])
        met = used >= 0.97 and over_steps <= 1
        say("\nWhat happened")
        print(f"  free     {free['energy_j']:8.1f} J   {free['steps_done']} steps   {free_result}")
        print(f"  held     {held['energy_j']:8.1f} J   {held['steps_done']} steps   {held_result}")
        print(
            f"  budget   {budget_j:8.1f} J   {used * 100:.1f} % used, {'met' if met else 'NOT met'}; "
            f"{held['steps_done']} of {free['steps_done']} steps, {changes} changes of level"
        )
        history = ask("greend", "status")["daemon"]["database"]
        print(f"\n  The history lies in {history}. Ask it, with or without a daemon:")
        print("    greend history --by minute     greend jobs     greend doctor     greend daemon &")
    finally:
        if daemon is not None:
            daemon.terminate()
            daemon.wait(timeout=20)
    sys.exit(0 if met and held["steps_done"] == free["steps_done"] and changes >= 2 else 1)


if __name__ == "__main__":
    main()
