"""Claim: under torch.compile a level is one graph, changing levels compiles nothing, and a level costs what
a model of that size costs that was compiled.

    python benchmarks/elastic_parts/compiled.py [--quick]

With inductor where there is a C++ compiler, else with aot_eager. Graphs are counted as they are handed to the
backend. Compiled steps at level 0 and compiled steps of a physically small model run in turn, in random
order; CPU time on one thread, the ratio within a round, its median.
"""

from __future__ import annotations

import logging
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch._dynamo
from part import at_socket, main
from torch import nn

import greend_agent

WIDTH, HIDDEN, BATCH, LEVELS = 256, 1024, 256, 4


class Block(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, hidden), nn.Linear(hidden, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Net(nn.Module):
    def __init__(self, hidden: int, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(hidden) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Backend:
    """Hands each graph on to a backend of torch's, and counts."""

    def __init__(self) -> None:
        self.name = "inductor" if any(map(shutil.which, ("g++", "clang++", "c++"))) else "aot_eager"
        self.graphs = 0

    def __call__(self, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        compiled: Callable[..., Any] = torch._dynamo.lookup_backend(self.name)(graph, inputs)
        return compiled


class Job:
    """A compiled model, its optimizer, and one step of training."""

    def __init__(self, hidden: int, backend: Backend) -> None:
        torch.manual_seed(0)
        self.model = torch.compile(Net(hidden), backend=backend, fullgraph=True)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.x = torch.randn(BATCH, WIDTH)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(self.x).square().mean().backward()
        self.optimizer.step()

    def cpu_s(self, steps: int) -> float:
        began = time.process_time()
        for _ in range(steps):
            self.step()
        return (time.process_time() - began) / steps


def measure(quick: bool) -> dict[str, float]:
    """Return graphs compiled in 24 random switches after warming, and the cost of a compiled level 0."""
    rounds, steps = (5, 3) if quick else (21, 8)
    with _alone():
        backend = Backend()
        job = Job(HIDDEN, backend)
        agent = greend_agent.attach(job.model, job.optimizer, levels=LEVELS)
        for _ in range(2):
            job.step()
        agent.warm()
        began = time.perf_counter()
        job.step()
        warm_s = time.perf_counter() - began
        graphs, choose = backend.graphs, random.Random(0)
        for _ in range(24):
            agent.request(choose.randrange(LEVELS))
            job.step()
        recompiles = backend.graphs - graphs

        agent.request(0)
        job.model(job.x).sum().backward()
        small = Job(job.model.blocks[0].up.weight.shape[0], backend)  # in mid-step it shows its width
        job.optimizer.step()
        jobs = (job, small)
        for one in jobs:
            one.cpu_s(3)
        ratios = []
        for _ in range(rounds):
            cpu_s = {one: one.cpu_s(steps) for one in choose.sample(jobs, 2)}
            ratios.append(cpu_s[job] / cpu_s[small])
        assert agent.level == 0, agent.report()
        agent.detach()
    return {
        "recompiles": float(recompiles),
        "compiled_ratio": statistics.median(ratios),
        "compiled_graphs_per_level": graphs / LEVELS,
        "compiled_warm_s": warm_s,
    }


@contextmanager
def _alone() -> Iterator[None]:
    """One thread, no daemon, and a compiler that has nothing in store from an earlier run."""
    threads = torch.get_num_threads()
    logging.getLogger("greend").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch._dynamo.reset()
    with tempfile.TemporaryDirectory() as folder, at_socket(f"{folder}/nobody.sock"):
        try:
            yield
        finally:
            torch.set_num_threads(threads)


if __name__ == "__main__":
    main(measure, __doc__)
