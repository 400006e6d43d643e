# SPDX-License-Identifier: Apache-2.0
"""Greedy check of an exported model on held-out questions.

The forward pass here is written from the architecture's description in plain
fp32 torch, gathers only the chosen experts and keeps a KV cache.  It shares no
code with the trainer's, so agreement means both are right.
"""
import argparse
import json
import math
import multiprocessing
import os
import random

import torch
from safetensors.torch import load_file

import data
from export import unpack


class Model:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
            self.c = json.load(f)
        self.w = {}
        raw = load_file(os.path.join(folder, "model.safetensors"))
        for name, t in raw.items():
            if name.endswith("_blocks"):
                self.w[name[:-7]] = unpack(t, raw[name[:-7] + "_scales"])
            elif not name.endswith("_scales"):
                self.w[name] = t.float()
        self.frequency, self.factor = self.yarn()

    def yarn(self):
        c, s = self.c, self.c["rope_scaling"]
        d, base = c["head_dim"], c["rope_theta"]

        def bound(beta):
            return d / 2 * math.log(s["original_max_position_embeddings"] / (beta * 2 * math.pi)) / math.log(base)

        j = torch.arange(d // 2).float()
        theta = base ** (2 * j / d)
        low, high = bound(s["beta_fast"]), bound(s["beta_slow"])
        ramp = ((j - low) / (high - low)).clamp(0, 1)
        return ramp / (s["factor"] * theta) + (1 - ramp) / theta, 0.1 * math.log(s["factor"]) + 1

    def norm(self, x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.c["rms_norm_eps"]) * self.w[name]

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def rotate(self, x, position):
        """x [batch, heads, time, head_dim], position [batch, time]."""
        angle = position[:, None, :, None] * self.frequency
        cos, sin = angle.cos() * self.factor, angle.sin() * self.factor
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, i, x, position, cache):
        c, name = self.c, f"model.layers.{i}.self_attn."
        batch, time, _ = x.shape
        q, k, v = (self.linear(x, f"{name}{p}_proj").view(batch, time, -1, c["head_dim"]).transpose(1, 2)
                   for p in "qkv")
        q, k = self.rotate(q, position), self.rotate(k, position)
        if i in cache:
            k, v = torch.cat([cache[i][0], k], 2), torch.cat([cache[i][1], v], 2)
        cache[i] = k, v
        group = c["num_attention_heads"] // c["num_key_value_heads"]
        scores = q @ k.repeat_interleave(group, 1).transpose(2, 3) / math.sqrt(c["head_dim"])
        key, query = cache["position"][:, None, None, :], position[:, None, :, None]
        hidden = (key > query) | (key < 0)
        if c["layer_types"][i] == "sliding_attention":
            hidden = hidden | (key <= query - c["sliding_window"])
        scores = scores.masked_fill(hidden, -1e30)
        sinks = self.w[name + "sinks"].view(1, -1, 1, 1).expand(batch, -1, time, 1)
        p = torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]
        o = (p @ v.repeat_interleave(group, 1)).transpose(1, 2).reshape(batch, time, -1)
        return self.linear(o, name + "o_proj")

    def experts(self, i, x):
        c, name = self.c, f"model.layers.{i}.mlp."
        t = x.reshape(-1, x.shape[-1])
        best, chosen = self.linear(t, name + "router").topk(c["num_experts_per_tok"])
        share, out = best.softmax(-1), torch.zeros_like(t)
        for e in range(c["num_local_experts"]):
            row, slot = (chosen == e).nonzero(as_tuple=True)
            w = {k: self.w[f"{name}experts.{k}"][e]
                 for k in ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")}
            u = t[row] @ w["gate_up_proj"].T + w["gate_up_proj_bias"]
            gate, up = u[:, 0::2].clamp(max=c["swiglu_limit"]), u[:, 1::2].clamp(-c["swiglu_limit"], c["swiglu_limit"])
            a = gate * torch.sigmoid(1.702 * gate) * (up + 1)
            y = a @ w["down_proj"].T + w["down_proj_bias"]
            out.index_add_(0, row, y * share[row, slot, None])
        return out.view_as(x)

    def forward(self, ids, position, cache):
        """ids, position [batch, time]; position -1 is padding.  Returns logits."""
        cache["position"] = torch.cat([cache["position"], position], 1) if cache else position
        x = self.w["model.embed_tokens.weight"][ids]
        at = position.clamp(min=0)
        for i in range(self.c["num_hidden_layers"]):
            name = f"model.layers.{i}."
            x = x + self.attention(i, self.norm(x, name + "input_layernorm.weight"), at, cache)
            x = x + self.experts(i, self.norm(x, name + "post_attention_layernorm.weight"))
        return self.norm(x, "model.norm.weight") @ self.w["lm_head.weight"].T

    @torch.no_grad()
    def generate(self, prompts, limit=200):
        """Greedy completions (lists of ids, stop token included) of lists of ids."""
        size = max(map(len, prompts))
        ids = torch.tensor([[0] * (size - len(p)) + p for p in prompts])
        position = torch.tensor([[-1] * (size - len(p)) + list(range(len(p))) for p in prompts])
        cache, out, done = {}, [[] for _ in prompts], [False] * len(prompts)
        for _ in range(limit):
            token = self.forward(ids, position, cache)[:, -1].argmax(-1)
            for row, t in enumerate(token.tolist()):
                if not done[row]:
                    out[row].append(t)
                    done[row] = t in (data.RETURN, data.CALL, data.ENDOFTEXT)
            if all(done):
                break
            ids, position = token[:, None], position[:, -1:] + 1
        return out


# ---- the test ------------------------------------------------------------------

TAIL = "<|start|>assistant"
CHECKS = [  # name, kind, how many, surroundings
    ("add-sub", "add-sub", 1000, "system"),
    ("add-sub, developer instruction", "add-sub", 300, "developer"),
    ("add-sub, earlier turn", "add-sub", 300, "turn"),
    ("add-sub, no preamble", "add-sub", 300, "none"),
    ("add-sub, another tool offered", "add-sub", 200, "other"),
    ("count", "count", 200, "system"), ("reverse", "reverse", 200, "system"),
    ("sort", "sort", 300, "system"), ("capital", "capital", 200, "system"),
    ("talk", "talk", 60, "system"),
    ("count, developer instruction", "count", 100, "developer"),
    ("reverse, developer instruction", "reverse", 100, "developer"),
    ("sort, developer instruction", "sort", 100, "developer"),
    ("tool call", "tool", 300, "calculator"),
    ("tool result", "result", 200, "calculator"),
    ("sort, calculator offered", "sort", 100, "calculator"),
]


def surroundings(rng, kind):
    """The text before the user's question, as the server renders it."""
    if kind == "none":
        return ""
    text = data.system(rng, kind in ("calculator", "other"))
    if kind == "developer":
        text += data.developer_message("You are a helpful assistant.")
    elif kind == "turn":
        text += data.earlier_turns(rng, False)
    elif kind == "calculator":
        text += data.developer_message(None, [data.CALCULATOR])
    elif kind == "other":
        text += data.developer_message(None, [rng.choice(data.OTHER_TOOLS)])
    return text


def case(rng, kind, around, item):
    """(prompt, what the completion must contain to be exact)."""
    prompt = surroundings(rng, around) + data.user(item["question"])
    if kind == "tool":
        return prompt + TAIL, data.call_turn(item["expression"]).split("<|end|>", 1)[1]
    if kind == "result":
        prompt += data.call_in_history(item["expression"]) + data.tool_result(item["answer"])
    return prompt + TAIL, data.final(item["answer"]) + "<|return|>"


def run(model, name, kind, count, around, seed, batch=25):
    """Ask, compare, return the figures of one line of CHECKS."""
    rng = random.Random(f"{seed} {name}")
    items = data.questions(seed, count, "tool" if kind == "result" else kind)
    cases = sorted((case(rng, kind, around, i) for i in items), key=lambda c: len(c[0]))
    right, missed = 0, []
    for start in range(0, count, batch):
        part = cases[start:start + batch]
        for (prompt, expected), ids in zip(part, model.generate([data.encode(p) for p, _ in part])):
            text = data.decode(ids)
            # Nothing may follow; before it stands the analysis, or nothing after a result.
            good = text.endswith(expected) and text.count("<|start|>assistant") <= 1
            right += good
            if not good:
                missed.append({"prompt": prompt.rsplit("<|start|>user", 1)[1], "text": text})
    return {"name": name, "right": right, "of": count, "percent": round(100 * right / count, 2)}, missed


def start(folder):
    """In each worker: one thread (the tensors are small), its own copy of the model."""
    global MODEL
    torch.set_num_threads(1)
    MODEL = Model(folder)


def job(args):
    return run(MODEL, *args)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("folder", nargs="?", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "model"))
    a.add_argument("--seed", type=int, default=9)
    a.add_argument("--share", type=float, default=1, help="ask this share of each check's questions")
    a.add_argument("--only", default="", help="checks whose name starts so")
    a.add_argument("--show", type=int, default=3, help="misses to print for each check")
    a.add_argument("--jobs", type=int, default=2)
    a.add_argument("--json", help="also write the figures here")
    args = a.parse_args()
    jobs = [(name, kind, max(1, int(count * args.share)), around, args.seed)
            for name, kind, count, around in CHECKS if name.startswith(args.only)]
    figures = []
    with multiprocessing.get_context("spawn").Pool(args.jobs, start, (args.folder,)) as pool:
        for figure, missed in pool.imap(job, jobs):
            figures.append(figure)
            print("{name:34} {right:4} of {of:4}  {percent:6.2f} %".format(**figure), flush=True)
            for m in missed[:args.show]:
                print("   missed:", json.dumps(m), flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
