#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch at the shape of a Llama, bf16 and random weights, eager and compiled: prefill and decode of some sequences.

A plain model as its users write one: torch.nn.functional's linear, rms_norm, silu and scaled_dot_product_attention over a
cache of fixed size; the best token is chosen on the device.  Decoding replays a CUDA graph when compiled
(mode="reduce-overhead").  The last line of the output is one JSON object with the points of tests/gpu/benchmark.
"""
import argparse
import json
import sys
import time
from statistics import median
from types import SimpleNamespace

import torch
import torch._dynamo
import torch.nn.functional as F

PRESETS = {
    "llama-3.1-8b": SimpleNamespace(dim=4096, layers=32, heads=32, kv=8, head=128, ffn=14336, vocab=128256),
    "toy": SimpleNamespace(dim=64, layers=2, heads=4, kv=2, head=16, ffn=96, vocab=256),
}
THETA = 500000.0


def stay(t):
    """A graph reads it where it is; else it would be copied before every replay."""
    torch._dynamo.mark_static_address(t)
    return t


def random_weights(s, device):
    def weight(*shape, middle=0.0):
        return stay(torch.randn(*shape, device=device, dtype=torch.bfloat16) * 0.02 + middle)

    layers = [SimpleNamespace(norm1=weight(s.dim, middle=1.0), norm2=weight(s.dim, middle=1.0),
                              qkv=weight((s.heads + 2 * s.kv) * s.head, s.dim), out=weight(s.dim, s.heads * s.head),
                              up=weight(2 * s.ffn, s.dim), down=weight(s.dim, s.ffn))
              for _ in range(s.layers)]
    return SimpleNamespace(layers=layers, embed=weight(s.vocab, s.dim), norm=weight(s.dim, middle=1.0), lm=weight(s.vocab, s.dim))


class Cache:
    """Keys and values of `batch` sequences and `length` positions, all layers."""

    def __init__(self, s, batch, length, device):
        shape = (batch, s.kv, length, s.head)
        self.k = [stay(torch.zeros(shape, device=device, dtype=torch.bfloat16)) for _ in range(s.layers)]
        self.v = [stay(torch.zeros(shape, device=device, dtype=torch.bfloat16)) for _ in range(s.layers)]


def rotate(x, cos, sin):
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


def tables(s, length, device):
    angle = torch.outer(torch.arange(length, device=device).float(),
                        THETA ** (-torch.arange(0, s.head, 2, device=device).float() / s.head))
    return angle.cos(), angle.sin()


def forward(s, w, cache, cos, sin, ids, pos, mask):
    """ids [batch, n] at the positions pos [n]; the best id behind the last of them."""
    batch, n = ids.shape
    x = F.embedding(ids, w.embed)
    c, r = cos[pos], sin[pos]
    for i, l in enumerate(w.layers):
        h = F.linear(F.rms_norm(x, (s.dim,), l.norm1, 1e-5), l.qkv).view(batch, n, -1, s.head).transpose(1, 2)
        q, k, v = h.split((s.heads, s.kv, s.kv), 1)
        cache.k[i].index_copy_(2, pos, rotate(k, c, r))
        cache.v[i].index_copy_(2, pos, v)
        a = F.scaled_dot_product_attention(rotate(q, c, r), cache.k[i], cache.v[i], attn_mask=mask, enable_gqa=True)
        x = x + F.linear(a.transpose(1, 2).reshape(batch, n, -1), l.out)
        gate, up = F.linear(F.rms_norm(x, (s.dim,), l.norm2, 1e-5), l.up).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, l.down)
    return F.linear(F.rms_norm(x[:, -1], (s.dim,), w.norm, 1e-5), w.lm).argmax(-1)


class Bench:
    def __init__(self, o, device):
        self.o, self.s, self.device = o, PRESETS[o.preset], device
        self.w = random_weights(self.s, device)
        self.points = []

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def rates(self, tokens, work):
        seen = []
        for rep in range(self.o.reps + 1):
            self.wait()
            start = time.monotonic()
            work()
            self.wait()
            if rep > 0:
                seen.append(tokens / (time.monotonic() - start))
        return median(seen)

    def note(self, how, what, rows, context, rate):
        self.points.append({"how": how, "what": what, "rows": rows, "context": context, "tokens_per_s": rate})
        print(f"{how} {what} {rows}: {rate:.1f} tokens/s", file=sys.stderr)

    def masks(self, length):
        return torch.ones(length, length, dtype=torch.bool, device=self.device).tril()

    def decode(self, how, step, batch):
        o, s = self.o, self.s
        length = o.context + o.gen
        cache, (cos, sin), all_masks = Cache(s, batch, length, self.device), tables(s, length, self.device), self.masks(length)
        ids = torch.randint(0, s.vocab, (length, batch, 1), device=self.device)
        chosen = torch.zeros(batch, dtype=torch.long, device=self.device)

        def work():
            for at in range(o.context, length):
                pos = torch.tensor([at], device=self.device)
                chosen.copy_(step(s, self.w, cache, cos, sin, ids[at], pos, all_masks[pos]))
        for _ in range(2):  # compiling and recording
            work()
        self.note(how, "decode", batch, o.context + o.gen // 2, self.rates(batch * o.gen, work))

    def prefill(self, how, step, chunk):
        o, s = self.o, self.s
        cache, (cos, sin) = Cache(s, 1, o.prompt, self.device), tables(s, o.prompt, self.device)
        all_masks = self.masks(o.prompt)
        ids = torch.randint(0, s.vocab, (1, o.prompt), device=self.device)

        def work():
            for at in range(0, o.prompt, chunk):
                pos = torch.arange(at, min(at + chunk, o.prompt), device=self.device)
                step(s, self.w, cache, cos, sin, ids[:, at:at + chunk], pos, all_masks[pos])
        work()
        self.note(how, "prefill", chunk, o.prompt, self.rates(o.prompt, work))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--preset", choices=PRESETS, required=True)
    p.add_argument("--batch", default="1")
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--prompt", type=int, default=0)
    p.add_argument("--chunk", type=int, default=2048)
    p.add_argument("--gen", type=int, default=64)
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--eager-only", action="store_true")
    o = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(1)
    with torch.inference_mode():
        b = Bench(o, device)
        ways = {"eager": forward}
        if not o.eager_only:
            ways["compiled"] = torch.compile(forward, mode="reduce-overhead", dynamic=False)
        for how, step in ways.items():
            for batch in (int(n) for n in o.batch.split(",")):
                b.decode(how, step, batch)
            if o.prompt > 0:
                b.prefill(how, step, o.chunk)
    print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
                      "preset": o.preset, "points": b.points}))


if __name__ == "__main__":
    main()
