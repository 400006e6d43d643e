#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch at the shape of a Llama or a gpt-oss (peer_models.py), bf16 and random weights, eager and compiled: prefill and
decode of some sequences.

Decoding replays a CUDA graph when compiled (mode="reduce-overhead").  Experts are bf16 here, four times the bytes of MXFP4.
The last line of the output is one JSON object with the points of tests/gpu/benchmark.
"""
import argparse
import json
import sys
import time
from statistics import median

import torch

from peer_models import PRESETS, Cache, forward, masks, random_weights, tables


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

    def decode(self, how, step, batch):
        o, s = self.o, self.s
        length = o.context + o.gen
        cache, (cos, sin) = Cache(s, batch, length, self.device), tables(s, length, self.device)
        all_masks = masks(s, length, self.device)
        ids = torch.randint(0, s.vocab, (length, batch, 1), device=self.device)
        chosen = torch.zeros(batch, dtype=torch.long, device=self.device)

        def work():
            for at in range(o.context, length):
                pos = torch.tensor([at], device=self.device)
                chosen.copy_(step(s, self.w, cache, cos, sin, ids[at], pos, [seen[pos] for seen in all_masks]))
        for _ in range(2):  # compiling and recording
            work()
        self.note(how, "decode", batch, o.context + o.gen // 2, self.rates(batch * o.gen, work))

    def prefill(self, how, step, chunk):
        o, s = self.o, self.s
        cache, (cos, sin) = Cache(s, 1, o.prompt, self.device), tables(s, o.prompt, self.device)
        all_masks = masks(s, o.prompt, self.device)
        ids = torch.randint(0, s.vocab, (1, o.prompt), device=self.device)

        def work():
            for at in range(0, o.prompt, chunk):
                pos = torch.arange(at, min(at + chunk, o.prompt), device=self.device)
                step(s, self.w, cache, cos, sin, ids[:, at:at + chunk], pos, [seen[pos] for seen in all_masks])
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
