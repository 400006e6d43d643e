#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws docs/benchmarks/cpu.svg from docs/benchmarks/data: ratios, shares of the ceilings, and a roofline."""
import argparse
import math
import sys
from html import escape
from pathlib import Path
from statistics import median

import record
import rows

PICTURE = record.ROOT / "docs/benchmarks/cpu.svg"
WIDTH, LEFT, RIGHT, LINE = 960, 330, 40, 24
OURS, THEIRS, INK, FAINT, GOAL = "#1f6fb2", "#b9782c", "#222222", "#c8c8c8", "#2a8c4a"


class Picture:
    """SVG elements, in the order they are drawn."""

    def __init__(self, title="phalanx on a CPU"):
        self.title = title
        self.parts = []

    def text(self, x, y, words, size=12, anchor="start", color=INK, weight="normal"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}" '
                          f'font-weight="{weight}">{escape(words)}</text>')

    def line(self, x1, y1, x2, y2, color=INK, width=1.0, dash=""):
        style = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
                          f'stroke-width="{width}"{style}/>')

    def box(self, x, y, width, height, color):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" '
                          f'fill="{color}"/>')

    def dot(self, x, y, color, is_filled):
        fill = color if is_filled else "#ffffff"
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{color}" stroke-width="2"/>')

    def svg(self, height):
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
                f'height="{height:.0f}" font-family="sans-serif">')
        return "\n".join([head, f'<title>{escape(self.title)}</title>',
                          f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>', *self.parts, "</svg>", ""])


def scale(low, high, first, last, is_log=True):
    """A value's place between first and last; values outside stay on the rim."""
    f = math.log if is_log else float

    def place(value):
        value = min(max(value, low), high)
        return first + (f(value) - f(low)) / (f(high) - f(low)) * (last - first)
    return place


def label(p, y, found):
    mark = f" ({record.blemish(found)})" if record.blemish(found) else ""
    p.text(LEFT - 10, y + LINE / 2 + 4, found["row"] + mark, anchor="end")


def draw_ratios(p, y, found):
    """Bars of ours against the other side, with the spread of the turns and the goals."""
    p.text(20, y, "Times as fast as llama.cpp (tp2: as one process of two threads)", 15, weight="bold")
    goals = {row.name: row for row in rows.ROWS}
    chosen = [f for f in found if "ratio" in f and not goals[f["row"]].is_limit]
    y += 14
    x = scale(0.25, 32, LEFT, WIDTH - RIGHT)
    bottom = y + LINE * len(chosen)
    for tick in (0.25, 0.5, 1, 2, 4, 8, 16, 32):
        p.line(x(tick), y, x(tick), bottom, INK if tick == 1 else FAINT)
        p.text(x(tick), bottom + 15, f"{tick:g}x", 11, "middle")
    for f in chosen:
        ratio, row = f["ratio"], goals[f["row"]]
        label(p, y, f)
        start, end = sorted((x(1), x(ratio["median"])))
        p.box(start, y + 5, end - start, LINE - 10, OURS)
        p.line(x(ratio["min"]), y + LINE / 2, x(ratio["max"]), y + LINE / 2, INK, 1.5)
        for goal, dash in ((row.floor, "2,2"), (row.aim, "")):
            p.line(x(goal), y + 2, x(goal), y + LINE - 2, GOAL, 2.5, dash)
        p.text(max(end, x(ratio["max"]), x(row.aim)) + 6, y + LINE / 2 + 4, f"{ratio['median']:.2f}x", 11)
        y += LINE
    p.text(LEFT, bottom + 32, "bar: median of the turns; thin line: their spread; green: floor (dotted) and aim", 11)
    return bottom + 62


def draw_shares(p, y, found):
    p.text(20, y, "Share of the machine's ceiling measured in the same run", 15, weight="bold")
    chosen = [f for f in found if (f.get("reached") or {}).get("ours_share") is not None]
    y += 14
    x = scale(0, 1, LEFT, WIDTH - RIGHT, is_log=False)
    bottom = y + LINE * len(chosen)
    for tick in range(0, 101, 10):
        p.line(x(tick / 100), y, x(tick / 100), bottom, FAINT)
        p.text(x(tick / 100), bottom + 15, f"{tick} %", 11, "middle")
    names = {"read_gb_s": "read", "amx_bf16_gflop_s": "AMX bf16", "amx_int8_gop_s": "AMX int8"}
    for f in chosen:
        r = f["reached"]
        label(p, y, f)
        p.box(x(0), y + 4, x(r["ours_share"]) - x(0), LINE / 2 - 4, OURS)
        if r.get("theirs_share") is not None:
            p.box(x(0), y + LINE / 2, x(r["theirs_share"]) - x(0), LINE / 2 - 4, THEIRS)
        p.text(x(max(r["ours_share"], r.get("theirs_share") or 0)) + 6, y + LINE / 2 + 4,
               f"{100 * r['ours_share']:.0f} % of {names.get(r['of'], r['of'])}", 11)
        y += LINE
    p.box(LEFT, bottom + 24, 12, 10, OURS)
    p.text(LEFT + 18, bottom + 33, "phalanx", 11)
    p.box(LEFT + 90, bottom + 24, 12, 10, THEIRS)
    p.text(LEFT + 108, bottom + 33, "llama.cpp", 11)
    return bottom + 62


def draw_roofs(p, x, y, found, rim):
    """The machine's limits: memory bound on the left, arithmetic on the right."""
    roofs = {key: median(f["ceilings"][key] for f in found) for key in record.CEILINGS}
    left, right = rim
    for key, name in (("amx_int8_gop_s", "AMX int8"), ("amx_bf16_gflop_s", "AMX bf16"), ("fma_gflop_s", "float32 FMA")):
        if roofs[key] > 0 and roofs["read_gb_s"] > 0:
            knee = min(max(roofs[key] / roofs["read_gb_s"], left), right)
            p.line(x(knee), y(roofs[key]), x(right), y(roofs[key]), INK, 1.5)
            p.text(x(right), y(roofs[key]) - 5, f"{name} {roofs[key]:,.0f}", 11, "end")
    top = max(roofs[key] for key in record.CEILINGS[1:])
    if top > 0 and roofs["read_gb_s"] > 0:
        end = min(top / roofs["read_gb_s"], right)
        p.line(x(left), y(left * roofs["read_gb_s"]), x(end), y(end * roofs["read_gb_s"]), INK, 1.5)
        p.text(x(6) - 8, y(6 * roofs["read_gb_s"]) - 8, f"read {roofs['read_gb_s']:.1f} GB/s", 11, "end")


def draw_roofline(p, top, found):
    p.text(20, top, "Roofline: operations per second over operations per byte of weights and cache", 15, weight="bold")
    chosen = [f for f in found if f.get("reached")]
    left, right, low, high = 0.5, 4096, 5, 20000
    first, last, bottom = 80, WIDTH - RIGHT, top + 400
    x, y = scale(left, right, first, last), scale(low, high, bottom, top + 20)
    for power in range(-1, 13):
        p.line(x(2.0 ** power), bottom, x(2.0 ** power), top + 20, FAINT)
        p.text(x(2.0 ** power), bottom + 15, f"{2.0 ** power:g}", 11, "middle")
    for tick in (10, 100, 1000, 10000):
        p.line(first, y(tick), last, y(tick), FAINT)
        p.text(first - 6, y(tick) + 4, f"{tick:,}", 11, "end")
    p.text(first, bottom + 32, "operations per byte; numbers name the rows below; filled: phalanx, hollow: llama.cpp", 11)
    p.text(first - 60, top + 14, "1e9 operations/s", 11)
    if chosen:
        draw_roofs(p, x, y, chosen, (left, right))
    for n, f in enumerate(chosen, 1):
        r = f["reached"]
        if "their_gop_s" in r:
            p.dot(x(r["their_intensity"]), y(r["their_gop_s"]), THEIRS, False)
        p.dot(x(r["intensity"]), y(r["gop_s"]), OURS, True)
        p.text(x(r["intensity"]) + 8, y(r["gop_s"]) - 6, str(n), 11)
        p.text(first + (n - 1) % 4 * 215, bottom + 52 + (n - 1) // 4 * 18, f"{n}  {f['row']}", 11)
    return bottom + 70 + (len(chosen) + 3) // 4 * 18


def draw(records):
    newest = record.latest(records)
    found = [newest[row.name] for row in rows.ROWS if row.name in newest]
    p = Picture()
    if not found:
        p.text(20, 40, "not measured yet", 15)
        return p.svg(70)
    y = draw_ratios(p, 34, found)
    y = draw_shares(p, y, found)
    return p.svg(draw_roofline(p, y, found))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only fail when the picture is not that of the data")
    parser.add_argument("--out", type=Path, default=PICTURE)
    parser.add_argument("data", nargs="*", help="files of JSON lines (all cpu-*.jsonl in docs/benchmarks/data)")
    arguments = parser.parse_args()
    text = draw(record.load(arguments.data or None))
    if arguments.check:
        if not arguments.out.exists() or arguments.out.read_text(encoding="utf-8") != text:
            sys.exit(f"{arguments.out}: not the picture of the data; run tests/bench/plot.py")
    else:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
