"""Claim: a step at a low level costs what a step of a physically small model costs.

    python benchmarks/elastic_parts/steps.py [--quick]

Widths at 25 %: MLP of 4 residual blocks 256-1024-256 on a batch of 32, GPT of 4 layers with d = 256 on 2x128
tokens, ResNet of 6 bottlenecks on 8 images of 16x16. CPU seconds on one thread of forward, backward and
optimizer step, variants in turn within one process, the ratio round by round, the median of the rounds; and
of that the median of five, as where a model happens to lie in memory makes up to 7 %.

step_ratio: windows put on and taken off at each step, full between steps, as the agent does it; compact: the
same windows left on, so that only the work of a step is compared. The windows are made by hand, for exactly
25 %. Slicing is what slimmable networks do: the forward slices full weights; measured after 1000 steps, when
the moments of what is switched off have decayed into denormal numbers, and stay there. Switching: windows on
and off again on 85 M parameters with all moments; a return to the top also makes up what these have missed.
"""

import logging
import statistics
import time

import torch
from part import main
from torch import nn
from torch.nn import functional as F

import greend_agent
from greend_agent.dial import spread
from greend_agent.knobs.width import Side, Width
from greend_agent.windows.window import WindowSet

PART, QUICK_ROUNDS = 0.25, 5
MADE = 5
"""So often each comparison is made anew, with models that lie elsewhere in memory."""


class FFN(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x))))


class SlicedFFN(FFN):
    """The ordinary way to make a width adjustable."""

    part = 1.0

    def forward(self, x):
        h = int(self.up.out_features * self.part)
        y = F.gelu(F.linear(self.norm(x), self.up.weight[:h], self.up.bias[:h]))
        return x + F.linear(y, self.down.weight[:, :h], self.down.bias)


class Attention(nn.Module):
    def __init__(self, width, heads, head):
        super().__init__()
        self.head, self.norm = head, nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, heads * head) for _ in range(3))
        self.o = nn.Linear(heads * head, width)

    def forward(self, x):
        b, t, _ = x.shape
        y = self.norm(x)
        q, k, v = (f(y).view(b, t, -1, self.head).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.o(y.transpose(1, 2).reshape(b, t, -1))


class GPT(nn.Module):
    def __init__(self, part=1.0, width=256, layers=4, head=32, vocab=256, length=128):
        super().__init__()
        heads, hidden = int(width // head * part), int(4 * width * part)
        self.token, self.place = nn.Embedding(vocab, width), nn.Embedding(length, width)
        layer = ((Attention(width, heads, head), FFN(width, hidden)) for _ in range(layers))
        self.blocks = nn.Sequential(*(block for pair in layer for block in pair))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)

    def forward(self, x):
        return self.out(self.norm(self.blocks(self.token(x) + self.place.weight[: x.shape[1]])))


class Bottleneck(nn.Module):
    def __init__(self, before, width, mid, stride):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, mid, 1, bias=False), nn.BatchNorm2d(mid)
        self.conv2, self.norm2 = nn.Conv2d(mid, mid, 3, stride, 1, bias=False), nn.BatchNorm2d(mid)
        self.conv3, self.norm3 = nn.Conv2d(mid, width, 1, bias=False), nn.BatchNorm2d(width)
        shortcut = nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential(*(shortcut if (before, stride) != (width, 1) else ()))

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


def mlp(part=1.0, block=FFN):
    blocks = (block(256, int(1024 * part)) for _ in range(4))
    return nn.Sequential(nn.Linear(256, 256), *blocks, nn.Linear(256, 10))


def resnet(part=1.0):
    sizes = [(128, 128, 1), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    blocks = (Bottleneck(before, width, int(width // 4 * part), stride) for before, width, stride in sizes)
    stem = nn.Conv2d(3, 128, 3, 1, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU()
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def widths(model):
    for name, m in model.named_modules():
        if isinstance(m, FFN):
            makes, reads = (Side(m.up.weight, 0), Side(m.up.bias, 0)), (Side(m.down.weight, 1),)
            yield Width("ffn", name, m.up.out_features, makes, reads, (m.down,))
        elif isinstance(m, Attention):
            makes = tuple(Side(t, 0, (m.head,)) for f in (m.q, m.k, m.v) for t in (f.weight, f.bias))
            reads = (Side(m.o.weight, 1, (m.head,)),)
            yield Width("heads", name, m.q.out_features // m.head, makes, reads, (m.o,))
        elif isinstance(m, Bottleneck):
            for conv, norm, reader in ((m.conv1, m.norm1, m.conv2), (m.conv2, m.norm2, m.conv3)):
                made = (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)
                makes, reads = tuple(Side(t, 0) for t in made), (Side(reader.weight, 1),)
                yield Width("channels", name, conv.out_channels, makes, reads, (reader,))


def windows_of(model, optimizer):
    found = list(widths(model))
    return WindowSet(spread(found, [[int(w.full * PART) for w in found], [w.full for w in found]]), optimizer)


MODELS = {
    "MLP 32": (mlp, lambda: (torch.randn(32, 256), torch.randint(10, (32,))), 10),
    "GPT 2x128": (GPT, lambda: (torch.randint(256, (2, 128)), torch.randint(256, (256,))), 3),
    "ResNet 8": (resnet, lambda: (torch.randn(8, 3, 16, 16), torch.randint(10, (8,))), 3),
}
OPTIMIZERS = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-4),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True),
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
}


class Job:
    """A model, its optimizer and a batch, and what is done about windows in each step."""

    def __init__(self, model, make, batch, *, windows=False, rest=True):
        self.model, self.optimizer = model, make(model.parameters())
        self.x, self.y = batch
        self.windows, self.rest = None, rest
        self.step()
        if windows:
            self.windows = windows_of(model, self.optimizer)

    def step(self):
        windows = self.windows
        self.optimizer.zero_grad()
        if windows is not None:
            windows.apply(0)
        F.cross_entropy(self.model(self.x).flatten(0, -2), self.y).backward()
        if windows is not None:
            windows.before_step((self.optimizer,), {})
        self.optimizer.step()
        if windows is not None:
            windows.stepped()
            if self.rest:
                windows.rest()

    def hold(self):
        """Be some steps into a level; without rest, its windows stay on from now on."""
        rest, self.rest = self.rest, True
        for _ in range(3):
            self.step()
        self.rest = rest
        return self


def in_turn(jobs, rounds, steps):
    """CPU seconds of a step of each job, in each round."""
    seconds = {name: [] for name in jobs}
    for name in jobs:
        jobs[name].step()
    for number in range(rounds):
        for name in list(jobs) if number % 2 else reversed(jobs):
            began = time.process_time()
            for _ in range(steps):
                jobs[name].step()
            seconds[name].append((time.process_time() - began) / steps)
    return seconds


def ratio(seconds, one, other):
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def sliced(make, batch, steps):
    """The MLP, sliced for so many steps after the first at full width."""
    job = Job(mlp(block=SlicedFFN), make, batch)
    for block in job.model[1:-1]:
        block.part = PART
    for _ in range(steps):
        job.step()
    return job


def compare(kind, optimizer, rounds, slices=0):
    """Ratios of one model and optimizer to the physically small one; `slices`: steps sliced before."""
    make_model, make_batch, steps = MODELS[kind]
    make, batch, found = OPTIMIZERS[optimizer], make_batch(), dict[str, list[float]]()
    quick = rounds <= QUICK_ROUNDS
    for _ in range(1 if quick else MADE):
        jobs = {
            "small": Job(make_model(PART), make, batch),
            "full": Job(make_model(), make, batch),
            "window": Job(make_model(), make, batch, windows=True).hold(),
            "compact": Job(make_model(), make, batch, windows=True, rest=False).hold(),
        }
        if slices:
            jobs["sliced"] = sliced(make, batch, slices)
        seconds = in_turn(jobs, rounds, max(1, steps // 3) if quick else steps)
        for name in jobs:
            found.setdefault(name, []).append(ratio(seconds, name, "small"))
        found.setdefault("of full", []).append(ratio(seconds, "window", "full"))
        found.setdefault("rest", []).append(ratio(seconds, "window", "compact") - 1)
    row = {name: statistics.median(ratios) for name, ratios in found.items() if name != "small"}
    small_ms = statistics.median(seconds["small"]) * 1e3
    shown = "  ".join(f"{name} {value:5.3f}" for name, value in row.items())
    print(f"{kind:<10} {optimizer:<13} small {small_ms:6.2f} ms  {shown}", flush=True)
    return row


def idle(rounds):
    """What an attached agent costs that is never asked for anything, on a step of 5 ms or more.

    Of two equal models one may be a percent faster, by where it lies in memory: so there are several pairs.
    """
    batch = MODELS["MLP 32"][1]()
    found = []
    for number in range(8):
        names = ("plain", "idle") if number % 2 else ("idle", "plain")
        jobs = {name: Job(mlp(), OPTIMIZERS["AdamW"], batch) for name in names}
        agent = greend_agent.attach(jobs["idle"].model, jobs["idle"].optimizer)
        seconds = in_turn(jobs, 1 + rounds // 4, 5)
        step_ms = statistics.median(seconds["plain"]) * 1e3
        found.append(ratio(seconds, "idle", "plain") - 1)
        agent.detach()
    print(f"idle agent: {statistics.median(found):+.2%} of a step of {step_ms:.1f} ms", flush=True)
    return statistics.median(found)


def switching(rounds):
    """Milliseconds to put the windows of a level on and off again, and to rise after a step there."""
    model = GPT(width=768, layers=12, head=64, length=16)
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    model(torch.zeros(1, 2, dtype=torch.long)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    windows, both, rises = windows_of(model, optimizer), [], []
    for _ in range(rounds):
        began = time.process_time()
        windows.apply(0)
        windows.restore()
        windows.apply(windows.top)
        both.append(time.process_time() - began)
    for _ in range(3):
        windows.apply(0)
        windows.stepped()
        windows.restore()
        began = time.process_time()
        windows.apply(windows.top)
        rises.append(time.process_time() - began)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    both_ms, rise_ms = (statistics.median(t) * 1e3 for t in (both, rises))
    print(
        f"switch: {len(windows.tensors)} windows on {millions:.0f} M parameters, on and off {both_ms:.2f} ms"
    )
    print(f"rise to the top after steps below, moments made up: {rise_ms:.0f} ms, once", flush=True)
    return both_ms


def measure(quick):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.getLogger("greend").setLevel(logging.ERROR)  # no daemon is wanted here
    rounds = QUICK_ROUNDS if quick else 13
    rows = {}
    for kind in MODELS:
        for optimizer in OPTIMIZERS:
            slices = (100 if quick else 1000) if (kind, optimizer) == ("MLP 32", "AdamW") else 0
            rows[kind, optimizer] = compare(kind, optimizer, rounds, slices)
    mlp_row, gpt_row = rows["MLP 32", "AdamW"], rows["GPT 2x128", "AdamW"]
    result = {
        "step_ratio_worst": max(row["window"] for row in rows.values()),
        "step_ratio_compact_worst": max(row["compact"] for row in rows.values()),
        "speedup_over_slicing": mlp_row["sliced"] / mlp_row["window"],
        "idle_overhead": idle(QUICK_ROUNDS if quick else 62),
        "rest_overhead": gpt_row["rest"],
        "switch_ms_85m": switching(5 if quick else 21),
    }
    return {name: round(value, 4) for name, value in result.items()}


if __name__ == "__main__":
    main(measure, __doc__)
