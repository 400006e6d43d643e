#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws where a decoding step's time goes on a GPU, launch by launch: timeline.py RESULT.json > timeline.svg

RESULT.json is the line that tests/gpu/run or tests/gpu/benchmark prints.  Times are between events behind every op of a step
that is not replayed from a graph, so the gaps between launches count to the op behind them.
"""
import json
import sys
from html import escape

from plot import INK, OURS, WIDTH, Picture, scale
from roofline import COLORS, LEFT, RIGHT, device_of, measured, runs_of

STRIP, TABLE = 26, 18
KINDS = ("matmul", "attention", "mixture", "add_norm", "rope")


def color_of(op):
    for kind, color in zip(KINDS, COLORS):
        if op.startswith(kind):
            return color
    return "#888888"


def lines_of(runs):
    """(name, batch, calls in their order), where a run has any."""
    for run in runs:
        calls = run["figures"].get("timeline", [])
        for batch in dict.fromkeys(call["batch"] for call in calls):
            yield run["name"], batch, [call for call in calls if call["batch"] == batch]


def draw_strip(p, y, calls, total):
    x, at = scale(0, total, LEFT, RIGHT, is_log=False), 0.0
    for call in calls:
        title = escape(f'{call["op"]}, {call["columns"]} wide, {call["us"]:.2f} us')
        p.parts.append(f'<g><title>{title}</title>')
        p.box(x(at), y, x(at + call["us"]) - x(at), STRIP, color_of(call["op"]))
        p.parts.append("</g>")
        at += call["us"]
    for share in (0, 0.25, 0.5, 0.75, 1):
        p.text(x(total * share), y + STRIP + 13, f"{total * share:,.0f} us", 10, "middle")


def draw_table(p, y, calls, total):
    """The widest ops of the step, the longest first."""
    sums = {}
    for call in calls:
        found = sums.setdefault((call["op"], call["columns"]), [0, 0.0])
        found[0] += 1
        found[1] += call["us"]
    bar = scale(0, 1, LEFT + 420, RIGHT, is_log=False)
    for (op, columns), (n, us) in sorted(sums.items(), key=lambda item: -item[1][1]):
        p.box(LEFT, y - 9, 10, 10, color_of(op))
        p.text(LEFT + 16, y, f"{op}, {columns} wide")
        p.text(LEFT + 300, y, f"{n} x", anchor="end")
        p.text(LEFT + 405, y, f"{us:,.1f} us", anchor="end")
        p.box(bar(0), y - 10, bar(us / total) - bar(0), 12, OURS)
        p.text(bar(us / total) + 6, y, f"{100 * us / total:.1f} %", 11, color=INK)
        y += TABLE
    return y


def draw(result):
    runs = measured(runs_of(result), "phalanx")
    device = device_of(runs)
    if device is None:
        raise SystemExit("timeline.py: no run in this result has measured a device")
    p = Picture("a decoding step of phalanx on a GPU")
    p.text(LEFT, 28, f"One decoding step of phalanx on {device['name']}, op by op", 16, weight="bold")
    y = 60
    for name, batch, calls in lines_of(runs):
        total = sum(call["us"] for call in calls)
        if total <= 0:
            continue
        p.text(LEFT, y, f"{name}, {batch} together: {len(calls)} ops, {total:,.1f} us", 13, weight="bold")
        draw_strip(p, y + 8, calls, total)
        y = draw_table(p, y + 8 + STRIP + 34, calls, total) + 24
    return p.svg(y)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as f:
        lines = [line for line in f if line.startswith("{")]
    sys.stdout.write(draw(json.loads(lines[-1])))


if __name__ == "__main__":
    assert WIDTH > RIGHT
    main()
