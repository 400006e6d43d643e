# SPDX-License-Identifier: Apache-2.0
"""What is kept of a row: one JSON object per line, the samples of every turn beside what follows from them."""
import json
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs/benchmarks/data"
CEILINGS = ("read_gb_s", "fma_gflop_s", "amx_bf16_gflop_s", "amx_int8_gop_s")


def spread(values):
    return {"median": median(values), "min": min(values), "max": max(values)}


def side_of(turns, side):
    samples = [turn[side] for turn in turns]
    return {"median": median(s["value"] for s in samples), "min": min(s["min"] for s in samples),
            "max": max(s["max"] for s in samples), "command": samples[0]["command"]}


def ratio_of(turns, is_lower_better):
    """Of the two sides of each turn: what drifts over the whole run then cancels."""
    pairs = [(t["ours"]["value"], t["theirs"]["value"]) for t in turns]
    return spread([theirs / ours if is_lower_better else ours / theirs for ours, theirs in pairs])


def reached(row, ours, theirs, ceilings):
    """Gigabytes or operations per second of both sides and their shares of the ceiling."""
    first, limit = ours["first"], ceilings[row.ceiling]
    key = "token_gb" if row.ceiling == "read_gb_s" else "token_gop"
    out = {"of": row.ceiling, "ceiling": limit, "ours": first[key] * ours["median"],
           "intensity": first["token_gop"] / first["token_gb"], "gop_s": first["token_gop"] * ours["median"]}
    if theirs is not None:
        gb = theirs["first"]["weights_gb"] / first["at_once"] + first["context_gb"]
        out["theirs"] = (gb if key == "token_gb" else first[key]) * theirs["median"]
        out["their_intensity"] = first["token_gop"] / gb
        out["their_gop_s"] = first["token_gop"] * theirs["median"]
    for side in ("ours", "theirs"):
        if side in out:
            out[side + "_share"] = out[side] / limit if limit > 0 else None
    return out


def summarise(row, turns, facts):
    """The record of a row from its turns: [{"ceiling", "ours", "theirs"?}], each sample with its foreign share."""
    record = {"benchmark": "cpu", "row": row.name, "title": row.title, "unit": row.unit, **facts}
    record["ours"] = side_of(turns, "ours")
    has_peer = all("theirs" in turn for turn in turns)
    ceilings = {key: median(t["ceiling"][key] for t in turns) for key in CEILINGS}
    record["ceilings"] = ceilings
    if has_peer:
        record["other"] = row.other
        record["theirs"] = side_of(turns, "theirs")
        record["ratio"] = ratio_of(turns, row.is_lower_better)
    if row.ceiling:
        ours = {**record["ours"], "first": turns[0]["ours"]}
        theirs = {**record["theirs"], "first": turns[0]["theirs"]} if has_peer else None
        record["reached"] = reached(row, ours, theirs, ceilings)
    shares = [turn[part]["foreign"] for turn in turns for part in ("ceiling", "ours", "theirs") if part in turn]
    record["foreign_max"] = max(shares)
    record["is_disturbed"] = max(shares) > facts["foreign_limit"]
    record["without"] = turns[0]["ours"].get("without", [])
    record["turns"] = turns
    return record


def part(row, turns, facts):
    """The record of a row whose figure is another name in the samples of these turns."""
    own = [{side: sample if side == "ceiling" else
            {"value": sample[row.key], "min": sample[row.key], "max": sample[row.key], "command": sample["command"],
             "foreign": sample["foreign"], "tries": sample["tries"]}
            for side, sample in turn.items()} for turn in turns]
    return summarise(row, own, facts)


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


def append(path, record):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps(rounded(record)) + "\n")


def load(paths=None):
    """All records of the files, oldest first; by default of every cpu-*.jsonl in the documents."""
    paths = sorted(DATA.glob("cpu-*.jsonl")) if paths is None else [Path(p) for p in paths]
    found = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines() if line]
    return sorted((r for r in found if r.get("benchmark") == "cpu"), key=lambda r: r["date"])


def blemish(record):
    """Why a record is no result; empty for one that is."""
    reasons = ("short", record["is_short"]), ("disturbed", record["is_disturbed"])
    return ", ".join(reason for reason, applies in reasons if applies)


def latest(records):
    """{row name: its newest record}; one that is no result only where there is no other."""
    out = {}
    for record in records:
        before = out.get(record["row"])
        if before is None or blemish(before) or not blemish(record):
            out[record["row"]] = record
    return out
