"""Claim: a windowed step costs what a physically small model costs, and an idle agent next to nothing.

    python benchmarks/bench_window.py [--quick]

Variants run in turn within one process, ratios are taken round by round, medians are printed. One thread.
"""

import argparse
import json
import logging
import statistics
import time

import torch
from torch import nn

import greend_agent


class Block(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.norm, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.Linear(hidden, width),
        )

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def model(hidden, width=256, depth=4):
    torch.manual_seed(0)
    return nn.Sequential(*(Block(width, hidden) for _ in range(depth)), nn.Linear(width, 10))


class Job:
    """A model, its optimizer, and one step of training."""

    def __init__(self, hidden, batch):
        self.model = model(hidden)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.x, self.y = torch.randn(batch, 256), torch.randint(10, (batch,))

    def step(self):
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.x), self.y).backward()
        self.optimizer.step()

    def seconds(self, steps):
        began = time.process_time()
        for _ in range(steps):
            self.step()
        return (time.process_time() - began) / steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, steps, batch = (9, 10, 128) if quick else (31, 20, 128)
    torch.set_num_threads(1)
    logging.getLogger("greend").setLevel(logging.ERROR)  # no daemon is wanted here

    plain, idle, low = (Job(1024, batch) for _ in range(3))
    idle_agent = greend_agent.attach(idle.model, idle.optimizer, levels=4)
    low_agent = greend_agent.attach(low.model, low.optimizer, levels=4)
    for job in (plain, idle, low):
        job.seconds(3)
    low_agent.request(0)
    widths = []
    hook = low.model[0].up.register_forward_hook(lambda m, a, o: widths.append(m.weight.shape[0]))
    low.step()
    hook.remove()
    small = Job(widths[-1], batch)
    small.seconds(3)

    jobs = {"plain": plain, "idle": idle, "low": low, "small": small}
    times = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(job.seconds(steps))

    def ratio(a, b):
        return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))

    result = {
        "windowed_to_small_ratio": round(ratio("low", "small"), 3),
        "idle_to_plain_ratio": round(ratio("idle", "plain"), 4),
        "low_to_full_ratio": round(ratio("low", "plain"), 3),
        "full_step_ms": round(statistics.median(times["plain"]) * 1e3, 2),
        "level_0_width": widths[-1],
        "costs": [round(c, 3) for c in idle_agent.costs],
    }
    for name, value in result.items():
        print(f"{name:<26} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
