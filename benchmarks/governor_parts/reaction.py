"""Claim: a decision that is announced is in force in the model within one step and 20 ms.

    python benchmarks/governor_parts/reaction.py [--quick]

A daemon in a process of its own (real sampler, database, server and hub) publishes directives at random
instants to a training loop that keeps two threads of torch busy, so that cores and interpreter lock are
contended for as on a machine that works. Measured from the call of `Hub.publish` to the instant at which the
windows of that level are on and the model's forward begins, on the clock that both processes share.

A directive published during a step can be obeyed at the next step's beginning at the earliest: in steps, 1 is
the least. What counts is how much later than that step's length it is in force, and that is the length of the
step that was under way: on a machine that does other things as well, some are stalled. A directive that is
overtaken by the next before it was obeyed is not counted.
"""

import bisect
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from part import main
from torch import nn

import greend_agent
from greend.clock import NS, mono_ns

HERE = Path(__file__).parent
THREADS = 2
WIDTH, HIDDEN, BLOCKS, BATCH = 192, 768, 4, 192
PAUSE_S = 0.1
SLACK_MS = 20.0


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Job:
    """A training loop that notes when each step began, and by which directive."""

    def __init__(self, socket):
        torch.manual_seed(0)
        self.model = nn.Sequential(*(Block() for _ in range(BLOCKS)), nn.Linear(WIDTH, 10))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.agent = greend_agent.attach(self.model, self.optimizer, socket=socket)
        # Called after the agent's own, which puts the windows on.
        self.model.register_forward_pre_hook(self._began)
        # The daemon's own decisions have smaller numbers than any instant from here on.
        self.began_ns, self.number, self.obeyed = [], mono_ns(), {}

    def _began(self, *_):
        now_ns, number = mono_ns(), self.agent._loop.orders.pace.order.seq
        self.began_ns.append(now_ns)
        if number > self.number:
            self.number = number
            self.obeyed[number] = now_ns

    def train(self, seconds):
        """Train for so long."""
        until_ns = mono_ns() + round(seconds * NS)
        while mono_ns() < until_ns:
            self.optimizer.zero_grad()
            x, y = torch.randn(BATCH, WIDTH), torch.randint(10, (BATCH,))
            nn.functional.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()


def measure(quick):
    """Return how long directives take to be obeyed, in milliseconds and in steps."""
    count = 60 if quick else 1000
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "greend.sock"
        command = [sys.executable, str(HERE / "publisher.py"), str(socket), str(count), str(PAUSE_S)]
        with subprocess.Popen(command) as daemon:
            try:
                job = _attached(daemon, socket)
                while not job.obeyed and daemon.poll() is None:
                    job.train(0.5)
                job.train(1.1 * count * PAUSE_S)
                job.agent.detach()
            finally:
                daemon.terminate()
                daemon.wait()
    torch.set_num_threads(threads)
    return _figures(job, count)


def _attached(daemon, socket):
    while not socket.exists():
        if daemon.poll() is not None:
            raise SystemExit("reaction: the daemon did not start")
        time.sleep(0.05)
    job = Job(socket)
    job.train(1.0)
    return job


def _figures(job, count):
    begun = job.began_ns
    taken_ms, steps, over_ms = [], [], []
    for number, at_ns in job.obeyed.items():
        under_way = bisect.bisect(begun, number)
        taken_ms.append((at_ns - number) / 1e6)
        steps.append(bisect.bisect(begun, at_ns) - under_way)
        over_ms.append((at_ns - number - (begun[under_way] - begun[under_way - 1])) / 1e6)
    first = bisect.bisect(begun, min(job.obeyed))
    step_ms = [(after - at) / 1e6 for at, after in itertools.pairwise(begun[first:])]
    print(f"{len(taken_ms)} of {count} directives obeyed before the next came, {len(begun)} steps")
    print(f"{'':<8}{'ms':>8}{'steps':>8}{'beyond its step, ms':>22}{'a step, ms':>13}")
    for name, share in (("p50", 0.50), ("p90", 0.90), ("p99", 0.99), ("worst", 1.0)):
        row = (_percentile(values, share) for values in (taken_ms, steps, over_ms, step_ms))
        print("{:<8}{:>8.1f}{:>8.0f}{:>22.1f}{:>13.1f}".format(name, *row))
    beyond_ms = _percentile(over_ms, 0.99)
    met = "met" if beyond_ms <= SLACK_MS else "MISSED"
    print(f"p99 beyond the step under way {beyond_ms:.1f} ms; to be at most {SLACK_MS:.0f} ms: {met}")
    return {
        "signal_p50_ms": _percentile(taken_ms, 0.50),
        "signal_p99_ms": _percentile(taken_ms, 0.99),
        "signal_beyond_step_p99_ms": beyond_ms,
        "signal_p99_steps": _percentile(steps, 0.99),
        "step_ms": _percentile(step_ms, 0.50),
        "step_p99_ms": _percentile(step_ms, 0.99),
    }


def _percentile(values, share):
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))])


if __name__ == "__main__":
    main(measure, __doc__)
