#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the include arrows between the folders.

kernels -> nothing; rpc -> nothing; shard -> kernels, rpc; daemon -> rpc; tests -> anything.
Across top-level folders only doors may be included.  Inside a folder a subfolder may be entered
through its door (the header named after it) or a header listed in EXTRA_DOORS; cycles are refused.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAY = {"kernels": set(), "rpc": set(), "shard": {"kernels", "rpc"}, "daemon": {"rpc"}}
OUTER_DOORS = {"kernels": {"kernels/backend.h", "kernels/exchange.h"}, "rpc": {"rpc/rpc.h", "rpc/control.h"}}
# headers of a subfolder, beside its door, that its neighbours may see; each with a reason
EXTRA_DOORS = {
    "shard/model/config.h": "what a checkpoint is; partition and tools need it without weights",
    "shard/comm/nccl.h": "which transport carries a comm's tensors; those who open a backend choose it",
    "daemon/config/limits.h": "the named limits of every input",
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def includes_of(path):
    return INCLUDE.findall(path.read_text(encoding="utf-8", errors="replace"))


def check_arrow(top, header, where):
    target = header.split("/")[0]
    if target == top or target not in MAY:
        return None
    if target not in MAY[top]:
        return f"{where}: {top}/ must not include {header} (arrows point down)"
    if header not in OUTER_DOORS.get(target, set()) and not header.startswith("rpc/base/"):
        return f"{where}: {header} is not a door of {target}/"
    return None


def check_inner(path, header, where):
    """A header of a sibling subfolder must be its door."""
    parts, own = header.split("/"), path.relative_to(ROOT).parts
    if parts[0] != own[0] or len(parts) < 3 or len(own) < 2:
        return None
    if parts[1] == own[1] or parts[:2] == ["rpc", "base"] or header in EXTRA_DOORS:
        return None
    if parts[-1] != f"{parts[1]}.h":
        return f"{where}: {header} is private to {parts[0]}/{parts[1]}/"
    return None


def find_cycle(graph):
    state = {}

    def visit(node, trail):
        state[node] = 1
        for target in graph.get(node, ()):
            if state.get(target) == 1:
                return trail + [node, target]
            if target not in state:
                found = visit(target, trail + [node])
                if found:
                    return found
        state[node] = 2
        return None

    for node in graph:
        if node not in state:
            found = visit(node, [])
            if found:
                return found
    return None


def main():
    problems, graph, n_files = [], {}, 0
    for top in MAY:
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix not in (".c", ".h", ".cu", ".cuh"):
                continue
            n_files += 1
            where = path.relative_to(ROOT)
            headers = includes_of(path)
            for header in headers:
                for problem in (check_arrow(top, header, where), check_inner(path, header, where)):
                    if problem:
                        problems.append(problem)
            if path.suffix == ".h":
                graph[str(where)] = [h for h in headers if (ROOT / h).exists()]
    cycle = find_cycle(graph)
    if cycle:
        problems.append("include cycle: " + " -> ".join(cycle))
    print("\n".join(problems) if problems else f"includes: {n_files} files, arrows point down")
    return 1 if problems or n_files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
