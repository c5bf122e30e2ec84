"""A residual network on scikit-learn's handwritten digits: an ordinary training script.

    python examples/digits.py [--steps 1500]

About a minute on two cores. Nothing in it knows of greend.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Net(nn.Module):
    def __init__(self, pixels=64, width=192, hidden=1024, depth=4, classes=10):
        super().__init__()
        self.embed = nn.Linear(pixels, width)
        self.blocks = nn.Sequential(*(Block(width, hidden) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x):
        return self.head(self.blocks(self.embed(x)))


def shifted(images):
    """Move each batch by up to a pixel and add noise, so that the net cannot learn the images by heart."""
    dx, dy = torch.randint(-1, 2, (2,)).tolist()
    images = torch.roll(images.view(-1, 8, 8), (dy, dx), (1, 2)).flatten(1)
    return images + 0.1 * torch.randn_like(images)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=512)
    args = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32, device=device) / 16
    labels = torch.tensor(digits.target, device=device)
    order = torch.randperm(len(images), device=device)
    train, test = order[:1437], order[1437:]

    model = Net().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    began = time.monotonic()
    for step in range(1, args.steps + 1):
        batch = train[torch.randint(len(train), (args.batch,), device=device)]
        loss = F.cross_entropy(model(shifted(images[batch])), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"step {step:5}  loss {loss.item():.4f}  {time.monotonic() - began:5.1f} s", flush=True)

    model.eval()
    with torch.no_grad():
        right = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
    print(f"accuracy {right * 100:.1f} % on {len(test)} unseen digits")


if __name__ == "__main__":
    main()
