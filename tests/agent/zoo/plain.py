"""Own nets of linear layers and attention, as found in scripts."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from .family import Family, Inputs, batch_size, integers, normal

WIDTH, HIDDEN, HEADS, VOCAB, LENGTH = 64, 256, 4, 96, 24


class ResidualMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.ups = nn.ModuleList(nn.Linear(WIDTH, HIDDEN) for _ in range(3))
        self.downs = nn.ModuleList(nn.Linear(HIDDEN, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, up, down in zip(self.norms, self.ups, self.downs, strict=True):
            x = x + down(F.gelu(up(norm(x))))
        return self.head(x)


class Encoder(nn.Module):
    """torch's own encoder over learned embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(ids)).mean(1))


class AttentionNet(nn.Module):
    """torch's MultiheadAttention between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.ffn = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        attended, _ = self.attention(x, x, x, need_weights=False)
        x = self.norm(x + attended)
        return self.head((x + self.ffn(x)).mean(1))


class SelfAttention(nn.Module):
    """Causal attention with one fused projection."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head, self.n_embd = HEADS, WIDTH
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        q, k, v = self.qkv(x).split(self.n_embd, dim=2)
        q, k, v = (t.view(batch, time, self.n_head, width // self.n_head).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.drop(self.proj(y.transpose(1, 2).contiguous().view(batch, time, width)))


class SeparateAttention(nn.Module):
    """Attention written out, with three projections and the size of a head as the constant."""

    def __init__(self) -> None:
        super().__init__()
        self.size = WIDTH // HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for m in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-2, -1) / math.sqrt(self.size)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class GPT(nn.Module):
    def __init__(self, attention: type[nn.Module]) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCAB, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.attentions = nn.ModuleList(attention() for _ in range(2))
        self.ffns = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH), nn.Dropout(0.1))
            for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(5))
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for k, (attention, ffn) in enumerate(zip(self.attentions, self.ffns, strict=True)):
            x = x + attention(self.norms[2 * k](x))
            x = x + ffn(self.norms[2 * k + 1](x))
        return self.head(self.norms[4](x))


class LSTMClassifier(nn.Module):
    """The recurrent part stays whole; the classifier behind it has a hidden width."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Dropout(0.2), nn.Linear(HIDDEN, 10))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embed(ids))
        return self.head(states[:, -1])


class Mixer(nn.Module):
    """MLPs over places and over features in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))
        self.places = nn.ModuleList(self._mlp(LENGTH, 2 * LENGTH) for _ in range(2))
        self.features = nn.ModuleList(self._mlp(WIDTH, HIDDEN) for _ in range(2))
        self.head = nn.Linear(WIDTH, 10)

    @staticmethod
    def _mlp(width: int, hidden: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for k in range(2):
            x = x + self.places[k](self.norms[2 * k](x).transpose(1, 2)).transpose(1, 2)
            x = x + self.features[k](self.norms[2 * k + 1](x))
        return self.head(x.mean(1))


def _vectors(seed: int) -> Inputs:
    return (normal((batch_size(seed), WIDTH), seed),), {}


def _sequences(seed: int) -> Inputs:
    return (normal((batch_size(seed), LENGTH, WIDTH), seed),), {}


def _words(seed: int) -> Inputs:
    return (integers(VOCAB, (batch_size(seed), LENGTH), seed),), {}


FFN, BOTH = frozenset({"ffn"}), frozenset({"ffn", "heads"})

FAMILIES = (
    Family("residual MLP", ResidualMLP, _vectors, FFN),
    Family("nn.TransformerEncoder", Encoder, _words, FFN),
    Family("nn.MultiheadAttention", AttentionNet, _sequences, FFN),
    Family("GPT, fused qkv", lambda: GPT(SelfAttention), _words, BOTH),
    Family("GPT, separate qkv", lambda: GPT(SeparateAttention), _words, BOTH),
    Family("LSTM classifier", LSTMClassifier, _words, FFN),
    Family("MLP-Mixer", Mixer, _sequences, FFN),
)
