#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that docs/benchmarks/cpu.md and cpu.svg say what the data files say."""
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main():
    status = 0
    for script in ("report.py", "plot.py"):
        done = subprocess.run([sys.executable, ROOT / "tests/bench" / script, "--check"])
        status = max(status, done.returncode)
    if status == 0:
        print("benchmarks: the document and the picture are those of the data")
    return status


if __name__ == "__main__":
    sys.exit(main())
