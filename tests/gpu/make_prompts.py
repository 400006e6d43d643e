#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/gpu/prompts.json: held-out questions to the demo model as token ids, and the ids of each exact end.

Answers are checked by their ids, so that a GPU host needs no tokenizer.
"""
import json
import random
import sys
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "deploy" / "demo"))
import data  # noqa: E402

COUNTS = {"add-sub": 12, "count": 6, "reverse": 6, "sort": 8, "capital": 4}


def main():
    rng, cases = random.Random(5), []
    for kind, count in COUNTS.items():
        for item in data.questions(11, count, kind):
            prompt = data.system(rng, False) + data.user(item["question"]) + "<|start|>assistant"
            end = data.final(item["answer"]) + "<|return|>"
            cases.append({"kind": kind, "prompt": data.encode(prompt), "end": data.encode(end)})
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    (HERE / "prompts.json").write_text("[\n" + lines + "\n]\n")


if __name__ == "__main__":
    main()
