"""Claim: a net trained at all its levels answers easy inputs at a low one, for a part of the FLOPs.

    python benchmarks/elastic_parts/cascade.py [--quick]

A small residual net with batch norm on scikit-learn's digits with noise, a level drawn for each step. Level 0
answers, and the top where the largest probability is below the threshold. Accuracy on 797 images that were
not trained on, and FLOPs relative to asking the top about each; means over the seeds.
"""

import logging
import random
import statistics

import torch
from part import main
from sklearn.datasets import load_digits
from torch import nn

import greend_agent
from greend_agent.cascade import cascade

NOISE, THRESHOLDS = 0.35, (0.5, 0.7, 0.9)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.inner, self.outer = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.outer(self.second(torch.relu(self.inner(self.first(x))))))


def net():
    down = nn.Conv2d(16, 32, 3, 2, 1)
    blocks = [Block(16), Block(16), down, nn.BatchNorm2d(32), nn.ReLU(), Block(32), Block(32)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), *blocks, *head)


def digits(seed):
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order[:1000]], y[order[:1000]], x[order[1000:]], y[order[1000:]]


def run(seed, epochs):
    """Train with sampled levels; return accuracies (%) of level 0 and top, and what the cascades give."""
    torch.manual_seed(seed)
    x, y, unseen, truth = digits(seed)
    model, drawn, steps = net(), random.Random(seed), epochs * 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    agent = greend_agent.attach(model, optimizer)
    for _ in range(epochs):
        for part in torch.randperm(1000).split(100):
            noisy = x[part] + NOISE * torch.randn(len(part), 1, 8, 8)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(noisy), y[part]).backward()
            optimizer.step()
            schedule.step()
            agent.request(drawn.randrange(4))
    test = unseen + NOISE * torch.randn(unseen.shape, generator=torch.Generator().manual_seed(seed))
    rows = []
    for threshold in (0.0, *THRESHOLDS, 1.1):
        found = cascade(agent, test, threshold)
        accuracy = 100 * float((found.logits.argmax(1) == truth).float().mean())
        rows.append((accuracy, found.cost(agent)))
    agent.detach()
    return rows


def measure(quick):
    logging.getLogger("greend").setLevel(logging.ERROR)  # no daemon is wanted here
    torch.set_num_threads(1)
    seeds, epochs = (1, 4) if quick else (3, 12)
    runs = [run(seed, epochs) for seed in range(seeds)]
    accuracy, cost = (
        [statistics.mean(rows[which][kind] for rows in runs) for which in range(2 + len(THRESHOLDS))]
        for kind in (0, 1)
    )
    print(f"level 0 alone    {accuracy[0]:6.2f} %  {cost[0]:.3f} of the FLOPs")
    figures = {"cascade_level0": accuracy[0], "cascade_top": accuracy[-1]}
    for which, threshold in enumerate(THRESHOLDS, 1):
        print(f"threshold {threshold}    {accuracy[which]:6.2f} %  {cost[which]:.3f}")
        name = f"cascade_{round(100 * threshold)}"
        figures |= {name: accuracy[which], f"{name}_flops": cost[which]}
    print(f"top alone        {accuracy[-1]:6.2f} %  1.000")
    return {name: round(value, 3) for name, value in figures.items()}


if __name__ == "__main__":
    main(measure, __doc__)
