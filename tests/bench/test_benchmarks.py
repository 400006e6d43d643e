# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of the benchmarks' records and of what is written from them; nothing is timed."""
import json
import re
import xml.etree.ElementTree as Tree
from types import SimpleNamespace

import machine
import ours
import plot
import pytest
import record
import report
import rows

CEILING = {"read_gb_s": 30.0, "fma_gflop_s": 400.0, "amx_bf16_gflop_s": 6000.0, "amx_int8_gop_s": 12000.0, "foreign": 0.0}


def sample(value, **more):
    return {"value": value, "min": value * 0.9, "max": value * 1.1, "command": "c", "foreign": 0.01, "tries": 1, **more}


def our_sample(value, **more):
    return sample(value, without=[], token_gop=2.0, token_gb=2.5, context_gb=0.5, at_once=1, **more)


def facts(**more):
    return {"date": "2026-01-02T03:04:05+00:00", "commit": "0123456789abcdef", "is_changed": False, "threads": 2,
            "rounds": 3, "reps": 3, "foreign_limit": 0.03, "is_short": False, "peer": "llama.cpp x",
            "machine": {"cpu": "a", "cores": 2, "isa": ["avx2"], "memory_gb": 8.0, "kernel": "6.1", "is_virtual": True}, **more}


def row_named(name):
    return next(row for row in rows.ROWS if row.name == name)


def make_record(name="decode-bf16", pairs=((10, 5), (12, 8), (20, 4)), foreign=0.01, **more):
    turns = [{"ceiling": CEILING, "ours": our_sample(a), "theirs": sample(b, weights_gb=2.0)} for a, b in pairs]
    turns[-1]["theirs"]["foreign"] = foreign
    return record.summarise(row_named(name), turns, facts(**more))


def test_a_record_takes_medians_and_ratios_turn_by_turn():
    r = make_record()
    assert r["ours"] == {"median": 12, "min": 9.0, "max": 22.0, "command": "c"}
    assert r["theirs"]["median"] == 5
    assert r["ratio"] == {"median": 2.0, "min": 1.5, "max": 5.0}  # not 12 / 5
    assert r["reached"]["ours"] == pytest.approx(30.0) and r["reached"]["ours_share"] == pytest.approx(1.0)
    assert r["reached"]["theirs"] == pytest.approx(12.5)  # (2.0 + 0.5) GB at 5 a second
    assert r["reached"]["intensity"] == pytest.approx(0.8) and not record.blemish(r)


def test_lower_is_better_turns_the_ratio_round():
    r = make_record("memory-bf16", pairs=((100, 200), (100, 300), (100, 50)))
    assert r["ratio"]["median"] == 2.0
    assert report.verdict(row_named("memory-bf16"), r) == "aim"


def test_a_part_has_the_samples_of_its_whole():
    part = row_named("http-ttft")
    turns = [{"ceiling": CEILING, "ours": our_sample(9, ttft_ms=a), "theirs": sample(3, ttft_ms=b)}
             for a, b in ((10, 50), (20, 60), (5, 40))]
    r = record.part(part, turns, facts())
    assert part in rows.parts_of(row_named("http"))
    assert (r["row"], r["unit"], r["ours"]["median"], r["theirs"]["median"]) == ("http-ttft", "ms", 10, 50)
    assert r["ratio"]["median"] == 5 and report.verdict(part, r) == "floor" and r["foreign_max"] == 0.01


def test_disturbed_and_short_runs_are_no_results():
    good, bad = make_record(), make_record(foreign=0.2, date="2026-02-01T00:00:00+00:00")
    short = make_record(is_short=True, date="2026-03-01T00:00:00+00:00")
    assert record.blemish(bad) == "disturbed" and record.blemish(short) == "short"
    assert record.latest([good, bad, short])["decode-bf16"] is good
    assert record.latest([good, make_record(pairs=((1, 1),) * 3)])["decode-bf16"]["ours"]["median"] == 1
    assert record.latest([bad, short])["decode-bf16"] is short
    assert "no result: short" in "\n".join(report.figures({"decode-bf16": short}))


def test_verdicts():
    prefill = row_named("prefill-mxfp4")
    for ratio, word in ((3.9, "below"), (4.0, "floor"), (12.0, "aim")):
        r = make_record("prefill-mxfp4", pairs=((ratio, 1),) * 3)
        assert word in report.verdict(prefill, r)
    shared = make_record("decode-bf16", pairs=((11, 1),) * 3)  # 11 times as fast, 92 % of read: not yet the aim
    assert report.verdict(row_named("decode-bf16"), shared) == "floor"


def test_files_keep_records_and_the_document_follows_them(tmp_path):
    path = tmp_path / "cpu-2-cores.jsonl"
    record.append(path, make_record())
    record.append(path, make_record("memory-bf16"))
    latest = record.latest(record.load([path]))
    assert set(latest) == {"decode-bf16", "memory-bf16"}
    marked = "".join(f"<!-- {p}: written by tests/bench/report.py -->\nold\n<!-- {p}: end -->\ntext\n" for p in report.PARTS)
    text = report.fill(marked, latest)
    assert "old" not in text and text.count("text\n") == len(report.PARTS) and report.fill(text, latest) == text
    assert "2.00 [1.50 to 5.00]" in text and "not measured yet" in text
    latest["decode-bf16"]["ratio"]["median"] = 7.0
    assert report.fill(text, latest) != text
    with pytest.raises(SystemExit):
        report.fill(text + "<!-- figures: end -->", latest)


def test_the_picture_is_well_formed_and_the_same_each_time():
    for records in ([], [make_record()], [make_record(row.name) for row in rows.ROWS]):
        text = plot.draw(json.loads(json.dumps(records)))
        assert text == plot.draw(records)
        assert Tree.fromstring(text).tag.endswith("svg")
    assert "decode-bf16" in text and "nan" not in text


def test_rows_are_picked_by_name_and_beginning():
    assert [r.name for r in rows.pick("decode-bf16, memory-*")] == ["decode-bf16", "memory-bf16", "memory-int8", "memory-tp2"]
    assert rows.pick("*") == [r for r in rows.ROWS if r.part_of is None] and len(set(rows.row_names())) == len(rows.ROWS)
    assert [r.name for r in rows.pick("http-ttft")] == ["http"] == [r.name for r in rows.pick("http*")]
    with pytest.raises(SystemExit, match="nothing-such"):
        rows.pick("decode-bf16,nothing-such")


def test_a_build_is_asked_for_its_options():
    build = ours.Phalanx.__new__(ours.Phalanx)
    build.help = "      --compute=f32|bf16   arithmetic\n      --kv-dtype=f32|bf16   storage\n      --prompt=N\n"
    assert build.knows("--compute", "bf16") and not build.knows("--compute", "int8") and build.knows("--prompt", "7")
    assert build.known([("--compute", "bf16"), ("--dtype", "int8")]) == (["--compute", "bf16"], ["--dtype int8"])
    with pytest.raises(ours.NotInThisBuild, match="--dtype int8"):
        build.require(rows.INT8)


def test_foreign_use_counts_others_alone(monkeypatch):
    clock = SimpleNamespace(wall=0.0, busy=0.0, own=0.0)
    monkeypatch.setattr(machine.time, "monotonic", lambda: clock.wall)
    monkeypatch.setattr(machine, "busy_seconds", lambda: clock.busy)
    monkeypatch.setattr(machine, "own_seconds", lambda: clock.own)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    with machine.Foreign() as others:
        clock.wall, clock.busy, clock.own = 10.0, 15.0, 14.0
    assert others.share == 0.05
    with machine.Foreign() as others:
        clock.wall, clock.own = 20.0, 20.0
    assert others.share == 0.0


def test_commands_name_no_folder():
    assert not re.search(r"/\w+/", ours.shorten(["/a/b/phalanx-bench", "engine", "/m/x/llama", "--threads", 2]))
