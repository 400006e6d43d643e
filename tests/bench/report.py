#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the figures of docs/benchmarks/cpu.md from docs/benchmarks/data, between the markers of each part.

With --check it writes nothing and fails when the document says anything else than the data.
"""
import argparse
import sys
from pathlib import Path

import record
import rows

DOCUMENT = record.ROOT / "docs/benchmarks/cpu.md"
CEILING_NAMES = {"read_gb_s": "of read", "amx_bf16_gflop_s": "of AMX bf16", "amx_int8_gop_s": "of AMX int8",
                 "fma_gflop_s": "of FMA"}


def number(value):
    """Three figures, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def span(side):
    """A median with the smallest and largest of all samples."""
    return f"{number(side['median'])} [{number(side['min'])} to {number(side['max'])}]"


def reaches(row, found, target, share=None):
    if share is not None and "reached" in found:
        return (found["reached"]["ours_share"] or 0) >= share
    if row.is_limit:
        return found["ours"]["median"] <= target
    return "ratio" in found and found["ratio"]["median"] >= target


def verdict(row, found):
    if reaches(row, found, row.aim, row.aim_share):
        return "aim"
    return "floor" if reaches(row, found, row.floor) else "**below**"


def targets(row):
    unit = f" {row.unit}" if row.is_limit else "x"
    aim = f"{100 * row.aim_share:.0f} % of the ceiling" if row.aim_share is not None else f"{row.aim:g}{unit}"
    return f"{row.floor:g}{unit} / {aim}"


def shares(found):
    if "reached" not in found:
        return ""
    reached, texts = found["reached"], []
    for side in ("ours", "theirs"):
        if reached.get(side + "_share") is not None:
            texts.append(f"{100 * reached[side + '_share']:.1f} %")
    return " / ".join(texts) + " " + CEILING_NAMES[reached["of"]] if texts else ""


def figures(latest):
    lines = ["| figure | phalanx | llama.cpp, or as said | ratio | floor / aim | reached | share of the ceiling, ours / theirs |",
             "|---|---|---|---|---|---|---|"]
    for row in rows.ROWS:
        found = latest.get(row.name)
        title = f"{row.title}, {row.unit}"
        if found is None:
            lines.append(f"| {title} | not measured yet | | | {targets(row)} | | |")
            continue
        theirs = span(found["theirs"]) if "theirs" in found else ""
        if theirs and found["other"] != "llama.cpp":
            theirs = f"{found['other']}: {theirs}"
        ratio = f"{found['ratio']['median']:.2f} [{found['ratio']['min']:.2f} to {found['ratio']['max']:.2f}]" \
            if "ratio" in found else ""
        mark = f" (**no result: {record.blemish(found)}**)" if record.blemish(found) else ""
        lines.append(f"| {title}{mark} | {span(found['ours'])} | {theirs} | {ratio} | {targets(row)} | "
                     f"{verdict(row, found)} | {shares(found)} |")
    return lines


def ceilings(latest):
    lines = ["| ceiling, 1e9 per second | smallest and largest median over the rows |", "|---|---|"]
    names = {"read_gb_s": "read, bytes", "fma_gflop_s": "float32 multiply-add, operations",
             "amx_bf16_gflop_s": "AMX bf16, operations", "amx_int8_gop_s": "AMX int8, operations"}
    for key, name in names.items():
        values = [found["ceilings"][key] for found in latest.values()]
        if values:
            lines.append(f"| {name} | {number(min(values))} to {number(max(values))} |")
    return lines if len(lines) > 2 else ["Not measured yet."]


def machine(latest):
    if not latest:
        return ["Not measured yet."]
    seen = {}
    for found in latest.values():
        m = found["machine"]
        text = (f"{m['cpu']}, {m['cores']} cores{' (virtual)' if m['is_virtual'] else ''}, {m['memory_gb']:g} GB, "
                f"kernel {m['kernel']}, {' '.join(m['isa'])}; {found['threads']} threads; "
                f"{found.get('peer', 'no llama.cpp')}")
        seen.setdefault(text, []).append(found)
    lines = []
    for text, group in seen.items():
        dates = sorted(found["date"][:10] for found in group)
        others = max(found["foreign_max"] for found in group)
        lines.append(f"* {text}. {dates[0]}{' to ' + dates[-1] if dates[-1] != dates[0] else ''}. Others used at "
                     f"most {100 * others:.1f} % of the cores during a sample.")
    return lines


def commands(latest):
    lines = ["| figure | commands | turns x repetitions | commit |", "|---|---|---|---|"]
    for row in rows.ROWS:
        found = latest.get(row.name)
        if found is None:
            continue
        texts = [f"`{found[side]['command']}`" for side in ("ours", "theirs") if side in found]
        changed = " with changes" if found["is_changed"] else ""
        lines.append(f"| {row.name} | {'<br>'.join(texts)} | {found['rounds']} x {found['reps']} | "
                     f"{found['commit'][:12]}{changed} |")
    return lines if len(lines) > 2 else ["Not measured yet."]


PARTS = {"machine": machine, "figures": figures, "ceilings": ceilings, "commands": commands}


def fill(text, latest):
    """The document with every part written anew."""
    for name, write in PARTS.items():
        begin, end = f"<!-- {name}: written by tests/bench/report.py -->\n", f"<!-- {name}: end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"{DOCUMENT.name}: the markers of {name} must stand in it once")
        head, rest = text.split(begin)
        text = head + begin + "\n".join(write(latest)) + "\n" + end + rest.split(end, 1)[1]
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    parser.add_argument("data", nargs="*", help="files of JSON lines (all cpu-*.jsonl in docs/benchmarks/data)")
    arguments = parser.parse_args()
    text = arguments.document.read_text(encoding="utf-8")
    new = fill(text, record.latest(record.load(arguments.data or None)))
    if arguments.check:
        if new != text:
            sys.exit(f"{arguments.document}: other figures than in the data; run tests/bench/report.py")
    else:
        arguments.document.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
