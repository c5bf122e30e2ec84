"""Claim: with levels drawn at random for each step, batch norm serves every level, and the top is not harmed.

    python benchmarks/elastic_parts/norms.py [--quick]

A small ResNet learns 1,000 of scikit-learn's digits in 150 steps; accuracy in percent on the other 797, mean
of 5 seeds (one with --quick). "As trained" are the statistics that training leaves; "calibrated" are those of
the 1,000 training images, one pass without labels. In a dip the lowest level runs from 50 to 90 % of the
steps. "Shared", not with --quick, is what a level has when all of them share one set of statistics.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from part import main
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import greend_agent

LEVELS, EPOCHS, BATCH, TRAINED_ON, SEEDS = 4, 15, 100, 1000, 5
Wanted = Callable[[int, int, random.Random], int]
"""From a step, how many there are, and random numbers to the level that is asked for."""


class Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Block(16, 16, 1),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 32, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class Digits:
    """The images in two parts, drawn anew for each seed."""

    def __init__(self, seed: int) -> None:
        data: Any = load_digits()
        order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))
        images = torch.tensor(data.data, dtype=torch.float32).view(-1, 1, 8, 8)[order] / 16
        labels = torch.tensor(data.target)[order]
        self.train = images[:TRAINED_ON], labels[:TRAINED_ON]
        self.test = images[TRAINED_ON:], labels[TRAINED_ON:]

    def epoch(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for which in torch.randperm(TRAINED_ON).split(BATCH):
            yield self.train[0][which], self.train[1][which]

    def accuracy(self, model: nn.Module) -> float:
        model.eval()
        with torch.no_grad():
            right = (model(self.test[0]).argmax(1) == self.test[1]).float().mean()
        model.train()
        return 100 * float(right)


def sampled(step: int, steps: int, numbers: random.Random) -> int:
    return numbers.randrange(LEVELS)


def dipped(step: int, steps: int, numbers: random.Random) -> int:
    return 0 if 0.5 * steps <= step < 0.9 * steps else LEVELS - 1


def trained(wanted: Wanted, seed: int) -> tuple[nn.Module, greend_agent.Agent, Digits]:
    """Train with the level asked for at each step, from the first step for which there are levels."""
    torch.manual_seed(seed)
    digits, numbers, model = Digits(seed), random.Random(seed), resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    agent = greend_agent.attach(model, optimizer, levels=LEVELS, knobs=["channels"])
    steps = EPOCHS * TRAINED_ON // BATCH
    for _ in range(EPOCHS):
        for x, y in digits.epoch():
            agent.request(wanted(agent.step_count, steps, numbers))
            optimizer.param_groups[0]["lr"] = 0.05 * (1 - agent.step_count / steps)
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
    if len(agent.costs) != LEVELS:
        raise RuntimeError(f"{LEVELS} levels were expected: {agent.report()}")
    return model, agent, digits


def evaluated(model: nn.Module, agent: greend_agent.Agent, digits: Digits) -> list[float]:
    """Return the accuracy at each level."""
    found = []
    for level in range(LEVELS):
        with agent.at(level):
            found.append(digits.accuracy(model))
    return found


def run(wanted: Wanted, seed: int) -> tuple[list[float], list[float]]:
    """Return the accuracy at each level as trained, and calibrated."""
    model, agent, digits = trained(wanted, seed)
    before = evaluated(model, agent, digits)
    agent.calibrate(digits.train[0].split(BATCH))
    after = evaluated(model, agent, digits)
    agent.detach()
    return before, after


@contextlib.contextmanager
def _shared() -> Iterator[None]:
    """Inside, an agent has no statistics for a level: those of the top are cut as weights are."""
    from greend_agent.norm import banks

    original, banks.tracking_layers = banks.tracking_layers, lambda model: {}
    try:
        yield
    finally:
        banks.tracking_layers = original


def measure(quick: bool) -> dict[str, float]:
    """Print the table; return the figures."""
    logging.disable(logging.WARNING)
    os.environ["GREEND_SOCKET"] = "/nonexistent"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seeds = range(1 if quick else SEEDS)
    means: dict[str, tuple[list[float], list[float]]] = {}
    for name, wanted in {"sampled": sampled, "dip": dipped}.items():
        runs = [run(wanted, seed) for seed in seeds]
        means[name] = _mean([r[0] for r in runs]), _mean([r[1] for r in runs])
        columns = {"as trained": means[name][0], "calibrated": means[name][1]}
        if not quick:
            with _shared():
                columns["shared"] = _mean([run(wanted, seed)[0] for seed in seeds])
        print(f"{name:8} level  {'  '.join(columns)}")
        for level in reversed(range(LEVELS)):
            row = "  ".join(f"{column[level]:{len(head)}.2f}" for head, column in columns.items())
            print(f"{'':8} {level:5}  {row}", flush=True)
    torch.set_num_threads(threads)
    logging.disable(logging.NOTSET)
    before, after = means["sampled"]
    return {
        "bn_level0": round(before[0], 2),
        "bn_top": round(before[-1], 2),
        "bn_level0_calibrated": round(after[0], 2),
        "bn_top_calibrated": round(after[-1], 2),
        "bn_top_after_dip": round(means["dip"][1][-1], 2),
    }


def _mean(rows: list[list[float]]) -> list[float]:
    return [statistics.mean(column) for column in zip(*rows, strict=True)]


if __name__ == "__main__":
    main(measure, __doc__)
