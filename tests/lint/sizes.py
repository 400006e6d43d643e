#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks file and function sizes, the licence line, and a few forbidden words.

Files above 600 lines and functions above 80 are refused; the exceptions below may only get fewer.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("kernels", "shard", "rpc", "daemon", "tests")
FILE_LINES, FUNCTION_LINES = 600, 80
LONG_FILES = {}      # path: reason
LONG_FUNCTIONS = {}  # path:function: reason
MALLOC_FILES = {"rpc/base/mem.c", "kernels/cpu/memory.c", "tests/fuzz/replay.c"}
MALLOC = re.compile(r"(?<![\w.>])(malloc|calloc|realloc|alloca|strdup|aligned_alloc)\s*\(")


def functions_of(lines):
    """(name, first line, length) of each function: a brace in column 0 behind a header."""
    start, name = None, None
    for number, line in enumerate(lines):
        if line.startswith("{") and start is None:
            header = " ".join(lines[max(0, number - 6):number])
            found = re.findall(r"\b(\w+)\s*\(", header)
            start, name = number, found[-1] if found else "?"
        elif line.startswith("}") and start is not None:
            yield name, start + 1, number - start + 1
            start = None


def strip_comments(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r'"(\\.|[^"\\])*"', '""', text)
    return re.sub(r"//[^\n]*", "", text)


def check_file(path):
    where = str(path.relative_to(ROOT))
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    problems = []
    if "SPDX-License-Identifier: Apache-2.0" not in "\n".join(lines[:5]):
        problems.append(f"{where}: no SPDX licence line")
    if len(lines) - 1 > FILE_LINES and where not in LONG_FILES:
        problems.append(f"{where}: {len(lines) - 1} lines (limit {FILE_LINES})")
    if path.suffix in (".c", ".cu"):
        for name, line, length in functions_of(lines):
            if length > FUNCTION_LINES and f"{where}:{name}" not in LONG_FUNCTIONS:
                problems.append(f"{where}:{line}: {name} has {length} lines (limit {FUNCTION_LINES})")
    if not where.startswith("tests/") and where not in MALLOC_FILES:
        for found in MALLOC.finditer(strip_comments(text)):
            problems.append(f"{where}: {found.group(1)}() outside the memory module")
    if re.search(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))", text):
        problems.append(f"{where}: a TODO without an issue number")
    return problems


def main():
    problems, n_files = [], 0
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".c", ".h", ".cu", ".cuh", ".proto"):
                n_files += 1
                problems += check_file(path)
    print("\n".join(problems) if problems else f"sizes: {n_files} files within the limits")
    return 1 if problems or n_files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
