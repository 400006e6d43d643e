#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Registers and spills of every CUDA kernel, from what ptxas said while it was built.

kernel_report.py BUILD             prints a table (CSV) of kernels and architectures
kernel_report.py BUILD --check F   compares with the recorded table F: a kernel that spills more, or needs more
                                   registers, is an error; so is one that F does not have and that spills
Another version of ptxas counts differently: the table names its version, and nothing is compared then.
"""
import argparse
import csv
import re
import subprocess
import sys
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")
COLUMNS = ("source", "kernel", "arch", "registers", "shared", "stack", "spill_stores", "spill_loads")
REGISTERS_MORE = 8  # a kernel may use this many more before somebody must look


def demangle(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    plain = (re.sub(r"\(anonymous namespace\)::|^void |\([^()]*\)$", "", line) for line in text.splitlines())
    return dict(zip(names, plain))


def read_report(path):
    rows, row = [], None
    for line in path.read_text().splitlines():
        if found := ENTRY.search(line):
            row = {"source": path.name.removesuffix(".o.ptxas"), "kernel": found[1], "arch": found[2]}
            rows.append(row)
        elif row is not None and (found := STACK.search(line)):
            row.update(zip(COLUMNS[5:], found.groups()))
        elif row is not None and (found := USED.search(line)):
            row["registers"], row["shared"] = found[1], found[2] or "0"
    return rows


def collect(build):
    rows = [row for path in sorted(build.rglob("*.ptxas")) for row in read_report(path)]
    names = demangle(sorted({row["kernel"] for row in rows})) if rows else {}
    for row in rows:
        row["kernel"] = names[row["kernel"]]
    return sorted(rows, key=lambda row: [row[c] for c in COLUMNS[:3]])


def ptxas_version(ptxas):
    text = subprocess.run([ptxas, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release [\d.]+, (V[\d.]+)", text)[1]


def compare(rows, recorded):
    known = {tuple(row[c] for c in COLUMNS[:3]): row for row in recorded}
    for row in rows:
        old = known.get(tuple(row[c] for c in COLUMNS[:3]))
        name = "{source} {kernel} {arch}".format(**row)
        if old is None:
            if int(row["spill_stores"]) + int(row["spill_loads"]) > 0:
                yield f"{name}: spills {row['spill_stores']} bytes and is not recorded"
            continue
        for column in ("spill_stores", "spill_loads"):
            if int(row[column]) > int(old[column]):
                yield f"{name}: {column} {row[column]} bytes, recorded {old[column]}"
        if int(row["registers"]) > int(old["registers"]) + REGISTERS_MORE:
            yield f"{name}: {row['registers']} registers, recorded {old['registers']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--check", type=Path)
    parser.add_argument("--ptxas", default="ptxas")
    args = parser.parse_args()
    rows = collect(args.build)
    if not rows:
        sys.exit(f"{args.build}: no *.ptxas: was the CUDA backend built?")
    version = ptxas_version(args.ptxas)
    if args.check is None:
        print(f"# ptxas {version}")
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return 0
    lines = args.check.read_text().splitlines()
    if lines[0] != f"# ptxas {version}":
        print(f"kernels: recorded with {lines[0][2:]}, this is {version}: not compared")
        return 0
    problems = list(compare(rows, list(csv.DictReader(lines[1:]))))
    print("\n".join(problems) if problems else f"kernels: {len(rows)} need no more than recorded")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
