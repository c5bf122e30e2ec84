"""Own convolutional nets, as found in scripts."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .family import Family, Inputs, batch_size, normal

SIDE = 16


def _conv(inside: int, outside: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False, **options)


class Basic(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inside, outside, kernel, stride=stride), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = _conv(outside, outside, kernel), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            shortcut = _conv(inside, outside, 1, stride=stride), nn.BatchNorm2d(outside)
            self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


class Bottleneck(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, kernel: int) -> None:
        super().__init__()
        middle = outside // 2
        self.conv1, self.bn1 = _conv(inside, middle, 1), nn.BatchNorm2d(middle)
        self.conv2, self.bn2 = _conv(middle, middle, kernel, stride=stride), nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = _conv(middle, outside, 1), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            shortcut = _conv(inside, outside, 1, stride=stride), nn.BatchNorm2d(outside)
            self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(
        self,
        block: type[nn.Module],
        widths: tuple[int, ...] = (32, 64),
        depth: int = 2,
        kernels: tuple[int, ...] = (3, 3),
    ) -> None:
        super().__init__()
        self.stem, self.bn = _conv(3, widths[0]), nn.BatchNorm2d(widths[0])
        blocks, inside = [], widths[0]
        for stage, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
            for k in range(depth):
                blocks.append(block(inside, width, 2 if stage and not k else 1, kernel))
                inside = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inside, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class VGG(nn.Module):
    """Plain convolutions, and a classifier that reads every place of every channel."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = 3
        for width in (32, 32, 64, 64):
            layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] if len(layers) % 5 else []
            inside = width
        self.features = nn.Sequential(*layers)
        places = int(torch.tensor(self.features(torch.zeros(1, 3, SIDE, SIDE)).shape[2:]).prod())
        self.classifier = nn.Sequential(
            nn.Linear(64 * places, 128), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(128, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(self.pool(x)))))


class InvertedResidual(nn.Module):
    def __init__(self, inside: int, outside: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * inside
        self.same = stride == 1 and inside == outside
        self.layers = nn.Sequential(
            _conv(inside, hidden, 1), nn.BatchNorm2d(hidden), nn.Hardswish(inplace=True),
            _conv(hidden, hidden, kernel, stride=stride, groups=hidden), nn.BatchNorm2d(hidden),
            nn.Hardswish(inplace=True), SqueezeExcite(hidden),
            _conv(hidden, outside, 1), nn.BatchNorm2d(outside),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.same else self.layers(x)


class MobileNet(nn.Module):
    """Inverted residuals with depthwise convolutions and squeeze-excite, as MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 16, stride=2), nn.BatchNorm2d(16), nn.Hardswish())
        self.blocks = nn.Sequential(
            InvertedResidual(16, 16, 3, 1), InvertedResidual(16, 24, 5, 2), InvertedResidual(24, 24, 5, 1)
        )
        self.head = nn.Sequential(nn.Linear(24, 64), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class DoubleConv(nn.Sequential):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(
            _conv(inside, outside), nn.BatchNorm2d(outside), nn.ReLU(inplace=True),
            _conv(outside, outside), nn.BatchNorm2d(outside), nn.ReLU(inplace=True),
        )  # fmt: skip


class UNet(nn.Module):
    """Down and up again, with concatenated skips; what lies within a pair of convolutions can narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = DoubleConv(3, 16), DoubleConv(16, 32), DoubleConv(32, 64)
        self.up2, self.up1 = nn.ConvTranspose2d(64, 32, 2, stride=2), nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.join2, self.join1 = DoubleConv(64, 32), DoubleConv(32, 16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.up2(self.middle(F.max_pool2d(two, 2)))
        x = self.up1(self.join2(torch.cat([two, x], 1)))
        return self.head(self.join1(torch.cat([one, x], 1)))


class DenseBlock(nn.Module):
    def __init__(self, inside: int, growth: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inside), _conv(inside, 4 * growth, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(4 * growth), _conv(4 * growth, growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(y)))], 1)


class DenseNet(nn.Module):
    """Each block adds its channels to those of all before it; the width inside a block can narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 16, stride=2)
        self.blocks = nn.Sequential(*(DenseBlock(16 + 8 * k, 8) for k in range(3)))
        self.bn, self.head = nn.BatchNorm2d(40), nn.Linear(40, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.bn(self.blocks(self.stem(x)))).mean((2, 3)))


class Sequence1d(nn.Module):
    """One-dimensional convolutions over a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(16, 48, 5, padding=2),
                nn.BatchNorm1d(48),
                nn.GELU(),
                nn.Conv1d(48, 16, 5, padding=2),
            )
            for _ in range(2)
        )
        self.stem, self.head = nn.Conv1d(4, 16, 7, padding=3), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean(-1))


def big_resnet() -> nn.Module:
    """Return the ResNet of 5x5 and 7x7 kernels on which kernel, depth and width come together."""
    return ResNet(Basic, (32, 64, 128), 4, (7, 7, 5))


def images(seed: int) -> Inputs:
    """Return a batch of pictures."""
    return (normal((batch_size(seed), 3, SIDE, SIDE), seed),), {}


def _signals(seed: int) -> Inputs:
    return (normal((batch_size(seed), 4, 40), seed),), {}


CHANNELS = frozenset({"channels"})

FAMILIES = (
    Family("ResNet, basic", lambda: ResNet(Basic), images, CHANNELS),
    Family("ResNet, bottleneck", lambda: ResNet(Bottleneck), images, CHANNELS),
    Family("ResNet, 5x5 and 7x7", lambda: ResNet(Basic, (16, 32), 1, (7, 5)), images, CHANNELS),
    Family("VGG, flatten", VGG, images, CHANNELS),
    Family("MobileNetV3, SE", MobileNet, images, CHANNELS),
    Family("U-Net", UNet, images, CHANNELS),
    Family("DenseNet", DenseNet, images, CHANNELS),
    Family("1-D ConvNet", Sequence1d, _signals, CHANNELS),
)
