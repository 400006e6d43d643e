#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and prints one JSON object: kernels, then the engine on a synthetic Llama-3.2-1B shape.

With --llama-bench PATH and --gguf FILE, llama.cpp's own tool runs in turns with ours (A B A B) on the same
shape.  Every figure stands beside the ceilings measured in the same run; only ratios mean anything.
"""
import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin"))


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr[-500:]}")
    return done.stdout


def engine(model, arguments):
    return json.loads(run(BIN / "phalanx-bench", "engine", model, "--prompt", arguments.prompt, "--gen",
                          arguments.gen, "--batch", arguments.batch, "--threads", arguments.threads,
                          "--json"))


def llama_bench(arguments):
    rows = json.loads(run(arguments.llama_bench, "-m", arguments.gguf, "-t", arguments.threads, "-p",
                          arguments.prompt, "-n", arguments.gen, "-r", "1", "-o", "json"))
    return {("prefill" if row["n_gen"] == 0 else "decode") + "_tokens_per_s": row["avg_ts"] for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint folder (default: a synthetic one, made and removed)")
    parser.add_argument("--preset", default="llama-3.2-1b")
    parser.add_argument("--prompt", default="512")
    parser.add_argument("--gen", default="64")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", default=str(os.cpu_count()))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--llama-bench", help="llama.cpp's llama-bench, measured in turns")
    parser.add_argument("--gguf", help="the model for it")
    arguments = parser.parse_args()
    folder = arguments.model or tempfile.mkdtemp(prefix="phalanx-bench.")
    commit = run("git", "-C", ROOT, "rev-parse", "HEAD").strip()
    report = {"commit": commit, "machine": platform.processor() or platform.machine(),
              "cores": os.cpu_count(), "model": arguments.model or arguments.preset, "rounds": []}
    try:
        if not arguments.model:
            run(BIN / "phalanx-model", "synth", "--preset", arguments.preset, folder)
        for _ in range(arguments.rounds):
            turn = {"phalanx": engine(folder, arguments)}
            if arguments.llama_bench:
                turn["llama.cpp"] = llama_bench(arguments)
            report["rounds"].append(turn)
    finally:
        if not arguments.model:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
