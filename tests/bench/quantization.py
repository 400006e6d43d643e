#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the modes of arithmetic cost in quality: perplexity of the demo model on held-out conversations, and the error
of random models' logits against float32.  Prints the tables of docs/benchmarks/quantization.md.  The rows of Q8_0 need
numpy: the dense weights are rounded as that format does (blocks of 32, half-precision scale) and used as float32."""
import argparse
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy/demo"))
import data  # noqa: E402

MODES = [
    ("f32", "float32", ["--compute", "f32", "--kv-dtype", "f32"]),
    ("bf16", "bf16 (the default)", ["--compute", "bf16", "--kv-dtype", "bf16"]),
    ("int8", "int8 weights, else bf16", ["--dtype", "int8", "--compute", "bf16", "--kv-dtype", "bf16"]),
    ("kv8", "int8 cache, else bf16", ["--compute", "bf16", "--kv-dtype", "int8"]),
    ("kvf8", "fp8 cache, else bf16", ["--compute", "bf16", "--kv-dtype", "fp8"]),
    ("int8-kv8", "int8 weights and cache", ["--dtype", "int8", "--compute", "bf16", "--kv-dtype", "int8"]),
]
Q8_0 = ("q8_0", "Q8_0 weights, else float32", MODES[0][2])
KINDS = ("add", "sub", "count", "reverse", "sort", "capital", "talk")


class Tool:
    def __init__(self, binaries, scratch):
        self.path, self.scratch = Path(binaries) / "phalanx-model", Path(scratch)

    def run(self, *args):
        subprocess.run([str(self.path), *map(str, args)], check=True, stdout=subprocess.DEVNULL)

    def logits(self, folder, tokens, options):
        """Rows of float32, one per token."""
        file, out = self.scratch / "tokens.json", self.scratch / "out.npy"
        file.write_text(json.dumps(tokens))
        self.run("logits", folder, "--tokens", file, "--out", out, *options)
        raw = out.read_bytes()
        values = array("f", raw[10 + struct.unpack("<H", raw[8:10])[0]:])
        columns = len(values) // len(tokens)
        return [values[i * columns:(i + 1) * columns] for i in range(len(tokens))]


# ---- Q8_0 ------------------------------------------------------------------------

def is_dense(name, shape):
    return len(shape) == 2 and name.endswith(".weight") and "router" not in name


def round_q8_0(values, shape):
    import numpy as np
    rows, k = shape
    padded = np.zeros((rows, (k + 31) // 32 * 32), np.float32)
    padded[:, :k] = values.reshape(rows, k)
    blocks = padded.reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    inverse = np.divide(1, scale, where=scale > 0, out=np.zeros_like(scale))
    blocks = np.rint(blocks * inverse) * scale.astype(np.float16).astype(np.float32)
    return blocks.reshape(rows, -1)[:, :k]


def to_floats(raw, dtype):
    import numpy as np
    if dtype == "BF16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, {"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32)


def make_q8_0(source, new):
    """A float32 copy of a checkpoint of one file, its dense weights rounded."""
    shutil.copytree(source, new, ignore=shutil.ignore_patterns("model.sig"))
    [file] = new.glob("*.safetensors")
    raw = file.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, tensors, at = json.loads(raw[8:8 + size]), {}, 0
    for name, about in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in about["data_offsets"])
        dtype, part = about["dtype"], raw[begin:end]
        if is_dense(name, about["shape"]):
            dtype, part = "F32", round_q8_0(to_floats(part, dtype), about["shape"]).tobytes()
        tensors[name] = ({"dtype": dtype, "shape": about["shape"], "data_offsets": [at, at + len(part)]}, part)
        at += len(part)
    text = json.dumps({name: about for name, (about, _) in tensors.items()}).encode()
    for index in new.glob("*.index.json"):
        index.unlink()
    file.unlink()
    with open(new / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, part in tensors.values():
            f.write(part)
    return new


# ---- the demo model ----------------------------------------------------------------

def render(rng, question, analysis, answer):
    """(tokens, where the answer begins)."""
    prompt = data.encode(data.system(rng, False) + data.user(question) + "<|start|>assistant")
    return prompt + data.encode(data.answer_turn(analysis, answer)), len(prompt)


def known_tasks(count, seed):
    """Held out, but of the kinds that it was trained on: there is little left to be unsure of."""
    rng = random.Random(seed)
    return [render(rng, *data.task(rng, held=True, kind=KINDS[i % len(KINDS)])) for i in range(count)]


def longer_lists(count, seed):
    """Six or seven words to sort, where training had at most five."""
    rng, texts = random.Random(seed), []
    while len(texts) < count:
        words = rng.sample(data.WORDS, rng.choice([6, 7]))
        if len({w[:2] for w in words}) == len(words):
            lines = [" ".join(sorted(w[:2] for w in words[:i + 1])) for i in range(len(words))]
            question = rng.choice(data.SORT).format(l=", ".join(words))
            texts.append(render(rng, question, "\n".join(lines), ", ".join(sorted(words))))
    return texts


def log_of(row, token):
    top = max(row)
    return row[token] - top - math.log(sum(math.exp(v - top) for v in row))


def likeliest(row):
    return max(range(len(row)), key=row.__getitem__)


def perplexity(tool, folder, options, texts):
    total = tokens = exact = 0
    for text, begin in texts:
        rows = tool.logits(folder, text, options)
        chain = [log_of(rows[i - 1], text[i]) for i in range(begin, len(text))]
        exact += sum(likeliest(rows[i - 1]) == text[i] for i in range(begin, len(text)))
        total, tokens = total + sum(chain), tokens + len(chain)
    return math.exp(-total / tokens), exact


def demo_table(tool, title, texts, has_q8_0):
    folder = ROOT / "deploy/demo/model"
    answers = sum(len(text) - begin for text, begin in texts)
    print(f"\n{title}: {len(texts)} conversations, {answers} tokens of answers\n")
    print("| mode | perplexity | against float32 | tokens that are the likeliest |\n|---|---:|---:|---:|")
    base = None
    for name, title, options in MODES + [Q8_0] * has_q8_0:
        at = make_q8_0(folder, tool.scratch / "demo-q8_0") if name == "q8_0" else folder
        value, exact = perplexity(tool, at, options, texts)
        if at != folder:
            shutil.rmtree(at)
        base = base or value
        print(f"| {title} | {value:.6f} | {100 * (value / base - 1):+.4f} % | {exact} of {answers} |", flush=True)


# ---- random models --------------------------------------------------------------------

def random_models(tool, is_quick):
    golden = ROOT / "tests/golden"
    for case in ("llama-mha-f32", "llama3-tied-bf16", "llama-linear-bias-f32", "gpt-oss-window-f32",
                 "gpt-oss-dequantised-bf16"):
        yield case, golden / case, json.loads((golden / case / "tokens.json").read_text())
    if is_quick:
        return
    rng = random.Random(1)
    tokens = [rng.randrange(256) for _ in range(256)]
    for preset, layers in (("llama-3.2-1b", 4), ("gpt-oss-20b", 2)):
        folder = tool.scratch / preset
        tool.run("synth", "--preset", preset, "--layers", layers, "--vocab-small", folder)
        yield f"{preset}, {layers} layers, 288 tokens of vocabulary", folder, tokens
        shutil.rmtree(folder)


def compare(rows, exact):
    error = sum((a - b) ** 2 for x, y in zip(rows, exact) for a, b in zip(x, y))
    size = sum(b * b for y in exact for b in y)
    same = sum(likeliest(x) == likeliest(y) for x, y in zip(rows, exact))
    return math.sqrt(error / size), same / len(exact)


def random_table(tool, is_quick, has_q8_0):
    modes = MODES[1:] + [Q8_0] * has_q8_0
    print("\nRandom models, logits against float32: root of mean squares, and positions with the same likeliest token:\n")
    print("| model |" + "".join(f" {title} |" for _, title, _ in modes) + "\n|---|" + "---:|" * len(modes))
    for title, folder, tokens in random_models(tool, is_quick):
        exact, cells = tool.logits(folder, tokens, MODES[0][2]), []
        for name, _, options in modes:
            at = folder
            if name == "q8_0":
                at = make_q8_0(folder, tool.scratch / "random-q8_0")
            error, same = compare(tool.logits(at, tokens, options), exact)
            cells.append(f" {100 * error:.2f} %, {100 * same:.0f} % |")
            if at != folder:
                shutil.rmtree(at)
        print(f"| {title} |" + "".join(cells), flush=True)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--bin", default=os.environ.get("PHX_BIN", ROOT / "build/release/bin"))
    a.add_argument("--conversations", type=int, default=210)
    a.add_argument("--seed", type=int, default=11)
    a.add_argument("--quick", action="store_true", help="small models alone")
    a.add_argument("--q8-0", action="store_true", help="also weights rounded to Q8_0 (needs numpy)")
    args = a.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tool = Tool(args.bin, scratch)
        demo_table(tool, "Held-out tasks", known_tasks(args.conversations, args.seed), args.q8_0)
        demo_table(tool, "Longer lists than it was trained on", longer_lists(args.conversations // 3, args.seed), args.q8_0)
        random_table(tool, args.quick, args.q8_0)


if __name__ == "__main__":
    main()
