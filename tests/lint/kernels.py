#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every kernel waits for the launch before it, once and before it may return (docs/internals/cuda.md, "Launches that overlap"); what
others have written is not read through __ldg."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAIT = re.compile(r"\bphx_(begin|wait_previous)\(\);")
WEIGHTS = "weight.cuh"  # what no launch writes


def body_of(text, start):
    first = at = text.index("{", start)
    depth = 0
    while True:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            return text[first:at]


def check(path):
    text = path.read_text()
    for found in re.finditer(r"__global__ void(?: __launch_bounds__\((?:[^()]|\([^()]*\))*\))?\s+(\w+)\(", text):
        body = body_of(text, found.end())
        waits = list(WAIT.finditer(body))
        if len(waits) != 1 or re.search(r"\breturn\b", body[: waits[0].start()]):
            yield f"{path.relative_to(ROOT)}: {found[1]}: one phx_begin() or phx_wait_previous() before anything returns"
    if path.name != WEIGHTS and "__ldg(" in text:
        yield f"{path.relative_to(ROOT)}: __ldg is for weights; use a plain load or __ldca"
    if text.count("__global__") != len(re.findall(r"__global__ void", text)):
        yield f"{path.relative_to(ROOT)}: a kernel that this check does not understand"


def main():
    files = sorted((ROOT / "kernels/cuda").glob("*.cu*"))
    wrong = [line for path in files for line in check(path)]
    print("\n".join(wrong) or f"kernels: those of {len(files)} files wait for the launch before")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
