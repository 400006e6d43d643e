# SPDX-License-Identifier: Apache-2.0
"""A Llama and a gpt-oss of random weights in bf16 as users of PyTorch write them: torch.nn.functional's linear, rms_norm,
silu and scaled_dot_product_attention over a cache of fixed size; experts by grouped_mm over tokens sorted by expert, as
transformers computes them.  The best token is chosen on the device.
"""
from types import SimpleNamespace

import torch
import torch._dynamo
import torch.nn.functional as F

PRESETS = {
    "llama-3.1-8b": SimpleNamespace(dim=4096, layers=32, heads=32, kv=8, head=128, ffn=14336, vocab=128256, experts=0,
                                    theta=500000.0),
    "gpt-oss-20b": SimpleNamespace(dim=2880, layers=24, heads=64, kv=8, head=64, ffn=2880, vocab=201088, experts=32, active=4,
                                   window=128, theta=150000.0),
    "toy": SimpleNamespace(dim=64, layers=2, heads=4, kv=2, head=16, ffn=96, vocab=256, experts=0, theta=500000.0),
    "toy-gpt-oss": SimpleNamespace(dim=64, layers=2, heads=4, kv=2, head=16, ffn=96, vocab=256, experts=8, active=4, window=8,
                                   theta=150000.0),
}
SWIGLU_ALPHA, SWIGLU_LIMIT = 1.702, 7.0


def stay(t):
    """A graph reads it where it is; else it would be copied before every replay."""
    torch._dynamo.mark_static_address(t)
    return t


def random_weights(s, device):
    def weight(*shape, middle=0.0):
        return stay(torch.randn(*shape, device=device, dtype=torch.bfloat16) * 0.02 + middle)

    def layer():
        rows = (s.heads + 2 * s.kv) * s.head
        l = SimpleNamespace(norm1=weight(s.dim, middle=1.0), norm2=weight(s.dim, middle=1.0), qkv=weight(rows, s.dim),
                            out=weight(s.dim, s.heads * s.head), qkv_bias=None, out_bias=None)
        if s.experts == 0:
            l.up, l.down = weight(2 * s.ffn, s.dim), weight(s.dim, s.ffn)
            return l
        l.qkv_bias, l.out_bias, l.sinks = weight(rows), weight(s.dim), weight(s.heads)
        l.router, l.router_bias = weight(s.experts, s.dim), weight(s.experts)
        l.up, l.up_bias = weight(s.experts, 2 * s.ffn, s.dim), weight(s.experts, 2 * s.ffn)
        l.down, l.down_bias = weight(s.experts, s.dim, s.ffn), weight(s.experts, s.dim)
        return l

    return SimpleNamespace(layers=[layer() for _ in range(s.layers)], embed=weight(s.vocab, s.dim), norm=weight(s.dim, middle=1.0),
                           lm=weight(s.vocab, s.dim))


class Cache:
    """Keys and values of `batch` sequences and `length` positions, all layers.  Where heads have sinks, one position more,
    whose key and value stay 0: the mask gives it the sink's score."""

    def __init__(self, s, batch, length, device):
        shape = (batch, s.kv, length + (s.experts > 0), s.head)
        self.k = [stay(torch.zeros(shape, device=device, dtype=torch.bfloat16)) for _ in range(s.layers)]
        self.v = [stay(torch.zeros(shape, device=device, dtype=torch.bfloat16)) for _ in range(s.layers)]


def tables(s, length, device):
    angle = torch.outer(torch.arange(length, device=device).float(),
                        s.theta ** (-torch.arange(0, s.head, 2, device=device).float() / s.head))
    return angle.cos(), angle.sin()


def masks(s, length, device):
    """What a position sees, one matrix for each kind of layer: [all] of a Llama, [window, all] of a gpt-oss."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    if s.experts == 0:
        return [seen]
    kinds = [seen & ~seen.tril(-s.window), seen]
    return [torch.zeros(length, length + 1, device=device, dtype=torch.bfloat16).masked_fill_(
        F.pad(~kind, (0, 1)), float("-inf")) for kind in kinds]


def rotate(x, cos, sin):
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


def attend(s, l, cache, i, h, pos, cos, sin, mask):
    q, k, v = h.split((s.heads, s.kv, s.kv), 1)
    cache.k[i].index_copy_(2, pos, rotate(k, cos, sin))
    cache.v[i].index_copy_(2, pos, v)
    if s.experts > 0:
        sinks = l.sinks[:, None, None].expand(-1, mask.shape[0], 1)
        mask = torch.cat((mask[:, :-1].expand(s.heads, -1, -1), sinks), -1)
    return F.scaled_dot_product_attention(rotate(q, cos, sin), cache.k[i], cache.v[i], attn_mask=mask, enable_gqa=True)


def mixture(s, l, x):
    gates, ids = F.linear(x, l.router, l.router_bias).topk(s.active, -1)
    order = ids.flatten().argsort()
    expert, row = ids.flatten()[order], order // s.active
    ends = F.one_hot(expert, s.experts).sum(0).cumsum(0).to(torch.int32)
    both = F.grouped_mm(x[row], l.up.transpose(1, 2), offs=ends) + l.up_bias[expert]
    gate, up = both[:, ::2].clamp(max=SWIGLU_LIMIT), both[:, 1::2].clamp(-SWIGLU_LIMIT, SWIGLU_LIMIT)
    y = F.grouped_mm(gate * torch.sigmoid(gate * SWIGLU_ALPHA) * (up + 1), l.down.transpose(1, 2), offs=ends) + l.down_bias[expert]
    return torch.zeros_like(x).index_add_(0, row, y * gates.softmax(-1).flatten()[order, None])


def feed(s, l, x):
    if s.experts > 0:
        return mixture(s, l, x.flatten(0, 1)).view_as(x)
    gate, up = F.linear(x, l.up).chunk(2, -1)
    return F.linear(F.silu(gate) * up, l.down)


def forward(s, w, cache, cos, sin, ids, pos, seen):
    """ids [batch, n] at the positions pos [n], `seen` the rows of masks() there; the best id behind the last of them."""
    batch, n = ids.shape
    x = F.embedding(ids, w.embed)
    c, r = cos[pos], sin[pos]
    for i, l in enumerate(w.layers):
        h = F.linear(F.rms_norm(x, (s.dim,), l.norm1, 1e-5), l.qkv, l.qkv_bias).view(batch, n, -1, s.head).transpose(1, 2)
        a = attend(s, l, cache, i, h, pos, c, r, seen[i % len(seen)])
        x = x + F.linear(a.transpose(1, 2).reshape(batch, n, -1), l.out, l.out_bias)
        x = x + feed(s, l, F.rms_norm(x, (s.dim,), l.norm2, 1e-5))
    return F.linear(F.rms_norm(x[:, -1], (s.dim,), w.norm, 1e-5), w.lm).argmax(-1)
