#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what `tests/run gpu` measured: roofline.py RESULT.json > roofline.svg

RESULT.json is the line that tests/gpu/run or tests/gpu/benchmark prints.  Above, every point under the roof that the
device measured in the same run; below, tokens per second, the share of the device's best, and PyTorch where it ran.
"""
import json
import sys
from statistics import median

from plot import FAINT, GOAL, INK, OURS, THEIRS, WIDTH, Picture, scale

COLORS = ("#1f6fb2", "#b9782c", "#2a8c4a", "#8a4fa3", "#b03a48")
LEFT, RIGHT, TOP, BOTTOM = 80, 900, 60, 430


def runs_of(result):
    """The runs of either kind of line; [] when the benchmark did not run."""
    for part in result.get("parts", ()):
        if part["part"] == "benchmark":
            result = part.get("figures", {})
    return result.get("runs", [])


def measured(runs, who):
    return [r for r in runs if r["by"] == who and r["status"] == "passed"]


def device_of(runs):
    """The best of each ceiling over all runs: a stricter measure than the median."""
    seen = [r["figures"]["device"] for r in runs if "device" in r["figures"]]
    if not seen:
        return None
    best = {key: max(d[key] for d in seen) for key in ("copy_gb_s", "read_gb_s", "matmul_bf16_tflop_s")}
    return {**best, "launch_us": min(d["launch_us"] for d in seen), "name": seen[0]["name"]}


def draw_roof(p, device, points):
    bandwidth, peak = max(device["copy_gb_s"], device["read_gb_s"]) / 1e3, device["matmul_bf16_tflop_s"]
    values = [pt["tflop_s"] for _, pt in points if pt["tflop_s"] > 0]
    intensities = [pt["flop_per_byte"] for _, pt in points]
    knee = peak / bandwidth if peak > 0 else max(intensities)
    low_x, high_x = min([*intensities, knee]) / 3, max([*intensities, knee]) * 3
    low_y, high_y = min(values) / 3, max([peak, *values, bandwidth * low_x]) * 3
    x, y = scale(low_x, high_x, LEFT, RIGHT), scale(low_y, high_y, BOTTOM, TOP)
    p.line(LEFT, BOTTOM, RIGHT, BOTTOM)
    p.line(LEFT, BOTTOM, LEFT, TOP)
    decade = 10.0 ** -9
    while decade < high_x or decade < high_y:
        if low_x <= decade <= high_x:
            p.line(x(decade), BOTTOM, x(decade), TOP, FAINT)
            p.text(x(decade), BOTTOM + 16, f"{decade:g}", 11, "middle")
        if low_y <= decade <= high_y:
            p.line(LEFT, y(decade), RIGHT, y(decade), FAINT)
            p.text(LEFT - 6, y(decade) + 4, f"{decade:g}", 11, "end")
        decade *= 10
    p.text((LEFT + RIGHT) / 2, BOTTOM + 34, "floating-point operations per byte that must be read", 12, "middle")
    p.text(LEFT, TOP - 8, "TFLOP/s")
    p.line(x(low_x), y(bandwidth * low_x), x(knee), y(bandwidth * knee), INK, 2)
    p.text(x(low_x) + 8, y(bandwidth * low_x) - 12, f"{bandwidth * 1e3:,.0f} GB/s", 12)
    if peak > 0:
        p.line(x(knee), y(peak), RIGHT, y(peak), INK, 2)
        p.text(RIGHT, y(peak) - 8, f"bf16 {peak:,.1f} TFLOP/s (cuBLASLt)", 12, "end")
    names = sorted({name for name, _ in points})
    for i, name in enumerate(names):
        color = COLORS[i % len(COLORS)]
        p.dot(RIGHT - 190, BOTTOM - 20 - 18 * i, color, True)
        p.text(RIGHT - 178, BOTTOM - 16 - 18 * i, name)
    for name, pt in points:
        color = COLORS[names.index(name) % len(COLORS)]
        p.dot(x(pt["flop_per_byte"]), y(pt["tflop_s"]), color, pt["what"] == "decode")
        p.text(x(pt["flop_per_byte"]) + 8, y(pt["tflop_s"]) + 4, "prefill" if pt["what"] == "prefill" else str(pt["rows"]), 10)


def peer_rates(runs, name, pt):
    """Tokens per second of the others for that point, by who and how."""
    names, rates = {"torch": "PyTorch"}, {}
    for r in runs:
        if r["name"].split("-again")[0] != name:
            continue
        for other in r["figures"]["points"]:
            if (other["what"], other["rows"]) == (pt["what"], pt["rows"]):
                who = f"{names.get(r['by'], r['by'])} {other['how']}"
                rates.setdefault(who, []).append(other["tokens_per_s"])
    return {how: median(seen) for how, seen in rates.items()}


def draw_table(p, top, points, peers):
    p.text(LEFT, top, "tokens per second, and the share of the device's best", 14, weight="bold")
    bar = scale(0, 1, LEFT + 420, RIGHT, is_log=False)
    y = top + 26
    for name, pt in points:
        what = f"prefill in chunks of {pt['rows']}" if pt["what"] == "prefill" else f"decode, {pt['rows']} together"
        p.text(LEFT, y, f"{name}: {what}")
        p.text(LEFT + 405, y, f"{pt['tokens_per_s']:,.0f}", anchor="end")
        p.box(bar(0), y - 11, bar(min(pt["fraction"], 1)) - bar(0), 14, OURS)
        p.line(bar(1), y - 13, bar(1), y + 5, GOAL, 2)
        at = bar(min(pt["fraction"], 1)) + 6 if pt["fraction"] < 0.85 else bar(0) + 6
        p.text(at, y, f"{100 * pt['fraction']:.1f} %", 11, color=INK if pt["fraction"] < 0.85 else "#ffffff")
        for how, rate in peer_rates(peers, name, pt).items():
            y += 20
            p.text(LEFT + 20, y, how, color=THEIRS)
            p.text(LEFT + 405, y, f"{rate:,.0f}", anchor="end", color=THEIRS)
            share = pt["fraction"] * rate / pt["tokens_per_s"]
            p.box(bar(0), y - 11, bar(min(share, 1)) - bar(0), 14, THEIRS)
        y += 24
    return y


def draw_loads(p, y, runs):
    loads = [r for r in runs if "ttft_ms" in r["figures"]]
    if loads:
        p.text(LEFT, y + 14, "requests through the scheduler", 14, weight="bold")
        y += 14
    for r in loads:
        f = r["figures"]
        y += 22
        p.text(LEFT, y, f"{r['name']}: {f['input']} tokens in, {f['output']} out, {f['concurrency']} at a time")
        p.text(LEFT + 405, y, f"{f['output_tokens_per_s']:,.0f}", anchor="end")
        p.text(LEFT + 420, y, f"first token {f['ttft_ms']['p50']:,.1f} ms (p99 {f['ttft_ms']['p99']:,.1f}), "
                              f"then one in {f['itl_ms']['p50']:,.2f} ms (p99 {f['itl_ms']['p99']:,.2f})")
    return y + 24 if loads else y


def draw(result):
    runs = runs_of(result)
    ours, peers = measured(runs, "phalanx"), measured(runs, "torch") + measured(runs, "llama.cpp")
    device = device_of(ours)
    if device is None:
        raise SystemExit("roofline.py: no run in this result has measured a device")
    points = [(r["name"], pt) for r in ours for pt in r["figures"].get("points", ())]
    p = Picture("phalanx on a GPU")
    p.text(LEFT, 28, f"phalanx on {device['name']}", 16, weight="bold")
    p.text(RIGHT, 28, f"empty launch {device['launch_us']:.2f} us", 12, "end")
    draw_roof(p, device, points)
    height = draw_loads(p, draw_table(p, BOTTOM + 76, points, peers), ours) + 20
    missing = [f"{r['by']} {r['name']}: {r['status']} ({r['detail']})" for r in runs if r["status"] != "passed"]
    for i, words in enumerate(missing):
        p.text(LEFT, height + 18 * i, words[:140], 11)
    return p.svg(height + 18 * len(missing) + 20)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as f:
        lines = [line for line in f if line.startswith("{")]
    sys.stdout.write(draw(json.loads(lines[-1])))


if __name__ == "__main__":
    assert WIDTH > RIGHT
    main()
