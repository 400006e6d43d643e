#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the rows of docs/benchmarks/cpu.md, ours and llama.cpp in turns (A B A B), and appends one JSON line each.

The ceilings of the machine are measured in every turn.  A sample during which others used more than --foreign of
the cores is repeated, up to --tries times; a row that never was quiet is recorded as disturbed (which flatters
ours: llama.cpp's threads wait for one another by spinning and fall to a tenth beside another program).  A row whose option
this build does not have is named and left out.  Then: tests/bench/report.py and tests/bench/plot.py.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import machine
import record
import rows
from ours import Failed, NotInThisBuild, Phalanx
from peer import FILES, LlamaCpp

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin"))


class Tools:
    def __init__(self, ours, peer, arguments):
        self.ours, self.peer, self.reps = ours, peer, arguments.reps
        self.lengths = rows.SHORT if arguments.short else rows.Lengths()


class Progress:
    """Lines on stderr: where in the whole a run is, and what it gave."""

    def __init__(self, n_rows, rounds):
        self.n_rows, self.rounds, self.began = n_rows, rounds, time.monotonic()
        self.n_failed = 0

    def say(self, text):
        print(f"[{time.monotonic() - self.began:6.0f} s] {text}", file=sys.stderr, flush=True)

    def fail(self, text):
        self.n_failed += 1
        self.say(text)

    def sample(self, index, row, turn, side, sample):
        self.say(f"row {index + 1}/{self.n_rows} {row.name}, turn {turn + 1}/{self.rounds}, {side}: "
                 f"{sample['value']:.4g} {row.unit} [{sample['min']:.4g} to {sample['max']:.4g}], "
                 f"others {100 * sample['foreign']:.1f} %, try {sample['tries']}")


def measure(fn, tools, arguments):
    """The least disturbed of at most --tries samples; the first quiet one ends it."""
    best = None
    for attempt in range(1, arguments.tries + 1):
        machine.wait_quiet(arguments.foreign, arguments.wait)
        with machine.Foreign() as others:
            sample = fn(tools)
        sample["foreign"] = others.share
        if best is None or sample["foreign"] < best["foreign"]:
            best = sample
        if best["foreign"] <= arguments.foreign:
            break
    return {**best, "tries": attempt}


def sides_of(row, tools):
    sides = [("ours", row.ours)]
    if row.theirs and (row.peer_file is None or tools.peer is not None):
        sides.append(("theirs", row.theirs))
    return sides


def run_row(index, row, tools, arguments, facts, progress):
    """The records of a row and of its parts; none with the reason said."""
    try:
        tools.ours.require(row.need)
        for model in row.models:
            tools.ours.make_model(model, progress.say)
        if row.peer_file and tools.peer and not tools.peer.has(row.peer_file, "llama-bench"):
            progress.say(f"{row.name}: no {FILES[row.peer_file]} or no llama-bench; ours is measured alone")
            row.theirs = None
        turns = []
        for number in range(arguments.rounds):
            turn = {"ceiling": measure(lambda t: t.ours.ceiling(), tools, arguments)}
            for side, fn in sides_of(row, tools):
                turn[side] = measure(fn, tools, arguments)
                progress.sample(index, row, number, "phalanx" if side == "ours" else row.other, turn[side])
            turns.append(turn)
    except NotInThisBuild as missing:
        progress.say(f"row {index + 1}/{progress.n_rows} {row.name}: not in this build ({missing})")
        return []
    except Failed as failure:
        progress.fail(f"row {index + 1}/{progress.n_rows} {row.name}: {failure}")
        return []
    result = record.summarise(row, turns, facts)
    for option in result["without"]:
        progress.say(f"{row.name}: measured without {option}, which is not in this build")
    return [result, *(record.part(part, turns, facts) for part in rows.parts_of(row))]


def git(*arguments):
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def facts_of(arguments, peer):
    facts = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "commit": git("rev-parse", "HEAD"),
             "is_changed": bool(git("status", "--porcelain", "--untracked-files=no")), "machine": machine.facts(),
             "threads": arguments.threads, "rounds": arguments.rounds, "reps": arguments.reps,
             "foreign_limit": arguments.foreign, "is_short": arguments.short}
    if peer is not None:
        facts["peer"] = arguments.llama_note or peer.version()
    return facts


def parse():
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="*", help="names, or beginnings with *, separated by commas (all)")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument("--models", help="folder of our synthetic models, made when missing (a temporary one)")
    parser.add_argument("--llama", help="folder of llama.cpp's programs; without it ours are measured alone")
    parser.add_argument("--gguf", help=f"folder of {', '.join(FILES.values())}")
    parser.add_argument("--llama-note", help="what is said of that build instead of its own version")
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each row (3)")
    parser.add_argument("--reps", type=int, default=3, help="repetitions inside a sample (3)")
    parser.add_argument("--short", action="store_true", help="a few tokens, to try the run; recorded as no result")
    parser.add_argument("--foreign", type=float, default=0.03, help="share of the cores that others may use (0.03)")
    parser.add_argument("--tries", type=int, default=4, help="samples until a quiet one (4)")
    parser.add_argument("--wait", type=float, default=60, help="seconds to wait for quiet before a sample (60)")
    parser.add_argument("--out", help="file of JSON lines (docs/benchmarks/data/cpu-CORES-cores.jsonl)")
    arguments = parser.parse_args()
    if (arguments.llama is None) != (arguments.gguf is None):
        parser.error("--llama and --gguf belong together")
    if min(arguments.threads, arguments.rounds, arguments.reps, arguments.tries) < 1:
        parser.error("--threads, --rounds, --reps and --tries must be 1 or more")
    if arguments.out is None:
        arguments.out = record.DATA / f"cpu-{cores}-cores.jsonl"
    return arguments


def main():
    arguments = parse()
    chosen = rows.pick(arguments.rows)
    if arguments.list:
        print("\n".join(f"{row.name:18} {row.title}" for row in chosen))
        return
    folder = arguments.models or tempfile.mkdtemp(prefix="phalanx-bench.")
    try:
        peer = LlamaCpp(arguments.llama, arguments.gguf, arguments.threads) if arguments.llama else None
        tools = Tools(Phalanx(BIN, folder, arguments.threads), peer, arguments)
        facts, progress = facts_of(arguments, peer), Progress(len(chosen), arguments.rounds)
        for index, row in enumerate(chosen):
            for result in run_row(index, row, tools, arguments, facts, progress):
                record.append(arguments.out, result)
                progress.say(f"row {index + 1}/{len(chosen)} {result['row']} done"
                             + (", " + record.blemish(result) if record.blemish(result) else "")
                             + (f": {result['ratio']['median']:.2f}x {result['other']}" if "ratio" in result else ""))
        if progress.n_failed > 0:
            sys.exit(f"{progress.n_failed} rows failed")
    finally:
        if arguments.models is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
