"""A small GPT that learns to write Python, byte by byte, from Python's own standard library.

    python examples/charlm.py [--steps 600]

About a minute on two cores. Nothing in it knows of greend.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

CONTEXT = 64


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, c))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, width=192, heads=6, depth=4):
        super().__init__()
        self.bytes = nn.Embedding(256, width)
        self.places = nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 256))

    def forward(self, x):
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.blocks(self.bytes(x) + self.places(places)))


def read_text():
    """Return the source of the standard library's top-level modules as bytes in one tensor."""
    folder = Path(argparse.__file__).parent
    text = b"\n".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def batch(text, size):
    starts = torch.randint(len(text) - CONTEXT - 1, (size,))
    rows = torch.stack([text[s : s + CONTEXT + 1] for s in starts])
    return rows[:, :-1], rows[:, 1:]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    text = read_text()
    train, test = text[: int(len(text) * 0.95)], text[int(len(text) * 0.95) :]

    model = GPT().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    began = time.monotonic()
    for step in range(1, args.steps + 1):
        x, y = (t.to(device) for t in batch(train, args.batch))
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step:5}  loss {loss.item():.4f}  {time.monotonic() - began:5.1f} s", flush=True)

    model.eval()
    torch.manual_seed(1)
    with torch.no_grad():
        x, y = (t.to(device) for t in batch(test, 128))
        bits = F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item() / 0.6931
    print(f"{bits:.3f} bits per byte on unseen source")


if __name__ == "__main__":
    main()
