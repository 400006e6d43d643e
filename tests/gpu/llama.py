#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp on the GPU, from a folder that holds a build of it with CUDA: llama.py FOLDER MODEL.gguf [options]

Prefill and decode of one sequence by llama-bench, of several by llama-batched-bench; all layers on the GPU, with flash attention.
The last line of the output is one JSON object with the points of tests/gpu/benchmark.
"""
import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median


def said(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"llama.py: {Path(command[0]).name}: status {done.returncode}: {done.stderr[-300:]}")
    return done.stdout


def version(folder):
    done = subprocess.run([folder / "llama-bench", "--version"], capture_output=True, text=True)
    found = re.search(r"version:\s*(.+)", done.stdout + done.stderr)
    return found.group(1) if found else "unknown"


def of_one(o):
    """Prefill of the prompt, and decode of one sequence behind the context."""
    common = [o.folder / "llama-bench", "-m", o.model, "-ngl", "99", "-fa", "1", "-ub", str(o.chunk), "-b", str(o.chunk), "-r",
              str(o.reps), "-o", "json"]
    points = []
    if o.prompt > 0:
        rows = json.loads(said([*common, "-p", str(o.prompt), "-n", "0"]))
        points.append({"what": "prefill", "rows": o.chunk, "context": o.prompt, "tokens_per_s": median(rows[0]["samples_ts"])})
    rows = json.loads(said([*common, "-p", "0", "-n", str(o.gen), "-d", str(o.context)]))
    points.append({"what": "decode", "rows": 1, "context": o.context + o.gen // 2, "tokens_per_s": median(rows[0]["samples_ts"])})
    return points


def of_many(o, n):
    text = said([o.folder / "llama-batched-bench", "-m", o.model, "-ngl", "99", "-fa", "1", "-c", str((o.context + o.gen) * n), "-b",
                 str(o.chunk), "-ub", str(o.chunk), "-npp", str(o.context), "-ntg", str(o.gen), "-npl", str(n),
                 "--output-format", "jsonl"])
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    if not rows:
        raise SystemExit(f"llama.py: llama-batched-bench printed no result: {text[-300:]}")
    return {"what": "decode", "rows": n, "context": o.context + o.gen // 2, "tokens_per_s": rows[-1]["speed_tg"]}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("folder", type=Path)
    p.add_argument("model", type=Path)
    p.add_argument("--batch", default="1")
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--prompt", type=int, default=0)
    p.add_argument("--chunk", type=int, default=2048)
    p.add_argument("--gen", type=int, default=64)
    p.add_argument("--reps", type=int, default=3)
    o = p.parse_args()
    batches = [int(n) for n in o.batch.split(",")]
    points = (of_one(o) if 1 in batches else []) + [of_many(o, n) for n in batches if n > 1]
    for point in points:
        print(f"{point['what']} {point['rows']}: {point['tokens_per_s']:.1f} tokens/s", file=sys.stderr)
    print(json.dumps({"version": version(o.folder), "model": o.model.name,
                      "points": [{"how": "CUDA", **point} for point in points]}))


if __name__ == "__main__":
    main()
