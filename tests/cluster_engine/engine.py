# SPDX-License-Identifier: Apache-2.0
"""Runs phalanx-rank with a script of requests, without a daemon, at any TP x PP."""
import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin"))
GOLDEN = ROOT / "tests/golden"
DEMO = ROOT / "deploy/demo/model"
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "pml", "ob1",
          "--mca", "btl", "self,vader", "--mca", "odls_base_sigkill_timeout", "0"]


class Run:
    """What came out: per request its events, and the totals of the scheduler."""

    def __init__(self, text):
        lines = text.splitlines()
        self.total = json.loads(lines[-1])
        self.events = defaultdict(list)
        for line in lines[:-1]:
            event = json.loads(line, parse_float=str)  # bits, not numbers: floats stay text
            self.events[event["id"]].append(event)

    def answer(self, request):
        """Everything about a request but how much of its prompt was found in the cache."""
        return [{k: v for k, v in e.items() if k != "cached"} for e in self.events[request]]

    def answers(self):
        return {request: self.answer(request) for request in sorted(self.events)}

    def tokens(self, request):
        return [e["token"] for e in self.events[request] if e["token"] >= 0]

    def finish(self, request):
        return self.events[request][-1]["finish"]


def start(folder, requests, model, tp=1, pp=1, *extra):
    script = Path(folder) / "requests.jsonl"
    script.write_text("".join(json.dumps(r) + "\n" for r in requests))
    command = [str(BIN / "phalanx-rank"), "--model", str(model), "--script", str(script), "--tp", str(tp),
               "--pp", str(pp), "--threads", "1", "--log-level", "error", *map(str, extra)]
    if tp * pp > 1:
        command = MPIRUN + ["-np", str(tp * pp)] + command
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def run(folder, requests, model, tp=1, pp=1, *extra):
    done = start(folder, requests, model, tp, pp, *extra)
    assert done.returncode == 0, done.stderr[-2000:]
    return Run(done.stdout)
