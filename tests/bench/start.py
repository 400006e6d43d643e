#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long `phalanx up` takes to its first token, by phases, and what its ranks hold beyond weights and cache.

Prints one JSON object: medians over the runs.  The first run also warms the page cache and is left out.
"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin"))


def events_of(log, start):
    """Seconds after the start at which an event was first logged."""
    found = {}
    for line in log.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line[line.index("{"):])
            at = datetime.fromisoformat(event["ts"].replace("Z", "+00:00")).timestamp() - start
        except (ValueError, KeyError):
            continue
        found.setdefault(event["event"], round(at, 3))
        if event["event"] == "step.memory":
            found["plan"] = event
    return found


def rollup(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}


def first_token(ready):
    body = {"model": ready["model"], "prompt": "The capital of France is", "max_tokens": 1}
    key = Path(ready["key_file"]).read_text().strip()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key}
    request = urllib.request.Request(ready["url"] + "/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def run(arguments, folder):
    log = Path(folder) / "log"
    start = time.time()
    with open(log, "wb") as err:
        process = subprocess.Popen(
            [BIN / "phalanx", "up", arguments.model, "--tp", str(arguments.tp), "--data", f"{folder}/data",
             "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--json", *arguments.extra.split()],
            stdout=subprocess.PIPE, stderr=err, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(log.read_text(errors="replace")[-2000:])
        ready = json.loads(line)
        turn = {"ready": round(time.time() - start, 3)}
        first_token(ready)
        turn["first_token"] = round(time.time() - start, 3)
        sums = [rollup(r["pid"]) for r in ready["ranks"]]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    found = events_of(log, start)
    turn["events"] = {k: v for k, v in found.items() if isinstance(v, float)}
    plan = found.get("plan", {})
    pss, anonymous = sum(s["Pss"] for s in sums), sum(s["Anonymous"] for s in sums)
    turn["ranks_pss_mb"] = pss / 1e6
    turn["huge_share"] = sum(s["AnonHugePages"] for s in sums) / max(1, anonymous)
    if plan:
        turn["weights_mb"] = int(plan["weights"]) / 1e6
        turn["beyond_weights_mb"] = turn["ranks_pss_mb"] - turn["weights_mb"]
    return turn


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--extra", default="", help="further arguments of phalanx up")
    arguments = parser.parse_args()
    turns = []
    for i in range(arguments.runs + 1):
        with tempfile.TemporaryDirectory(prefix="phalanx-start.") as folder:
            turn = run(arguments, folder)
        if i > 0:
            turns.append(turn)
    medians = {key: statistics.median(t[key] for t in turns) for key in turns[0] if key != "events"}
    print(json.dumps({"model": arguments.model, "tp": arguments.tp, "medians": medians, "runs": turns}, indent=1))


if __name__ == "__main__":
    main()
