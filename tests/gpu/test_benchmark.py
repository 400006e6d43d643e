# SPDX-License-Identifier: Apache-2.0
"""The GPU benchmark from its first command to its picture, at toy shapes on the emulated device: no figure means anything."""
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as Tree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin"))


def benchmark(folder, bin_folder, **environment):
    return subprocess.run([ROOT / "tests/gpu/benchmark", bin_folder, folder / "log", "200"], capture_output=True, text=True,
                          timeout=250, env={**os.environ, "PHX_GPU_MEMORY_MB": "1000", **environment})


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The program beside the emulated device."""
    folder = tmp_path_factory.mktemp("bin")
    shutil.copy(BIN / "phalanx-bench", folder)
    shutil.copy(BIN.parent / "tests/phalanx_cuda.so", folder)
    return folder


@pytest.fixture(scope="module")
def result(programs, tmp_path_factory):
    done = benchmark(tmp_path_factory.mktemp("toy"), programs, PHX_GPU_TOY="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def engine_runs(result):
    return [run for run in result["runs"] if run["by"] == "phalanx" and "points" in run.get("figures", ())]


def test_requests_pass_the_scheduler(result):
    loads = {run["name"]: run for run in result["runs"] if run["by"] == "phalanx" and run not in engine_runs(result)}
    assert list(loads) == ["gpt-oss-20b-first-token", "gpt-oss-20b-load"]
    for run in loads.values():
        assert run["status"] == "passed", run
    alone, busy = (run["figures"] for run in loads.values())
    assert (alone["concurrency"], alone["output_tokens"]) == (1, 2 * 3)
    assert (busy["concurrency"], busy["output_tokens"]) == (3, 6 * 4)
    assert alone["ttft_ms"]["p50"] > 0 and busy["output_tokens_per_s"] > 0


def test_every_run_measures_the_device_and_itself(result):
    ours = engine_runs(result)
    assert [run["name"] for run in ours] == ["gpt-oss-20b", "llama-3.1-8b"]
    for run in ours:
        assert run["status"] == "passed", run
        figures = run["figures"]
        assert figures["backend"] == "cuda" and figures["device"]["name"] == "emulated device"
        assert figures["device"]["launches"] == "overlapped"
        for key in ("copy_gb_s", "read_gb_s", "matmul_bf16_tflop_s", "launch_us"):
            assert figures["device"][key] > 0
        assert [(p["what"], p["rows"]) for p in figures["points"]] == [("prefill", 16), ("decode", 1), ("decode", 2)]
        for point in figures["points"]:
            assert point["tokens_per_s"] > 0 and point["ceiling_tokens_per_s"] > 0
            assert point["fraction"] == pytest.approx(point["tokens_per_s"] / point["ceiling_tokens_per_s"], rel=1e-3)


def test_a_step_is_told_op_by_op(result):
    for run in engine_runs(result):
        ops = run["figures"]["ops"]
        for batch in (1, 2):
            mine = [op for op in ops if op["batch"] == batch]
            assert {"matmul", "attention"} <= {op["op"] for op in mine}
            assert sum(op["share"] for op in mine) == pytest.approx(1, abs=0.01)
            assert all(op["us"] >= 0 and op["calls"] > 0 for op in mine)


def test_the_time_line_has_every_launch_of_a_step(result):
    for run in engine_runs(result):
        for batch in (1, 2):
            line = [call for call in run["figures"]["timeline"] if call["batch"] == batch]
            ops = {(op["op"], op["columns"]): op for op in run["figures"]["ops"] if op["batch"] == batch}
            for (name, columns), op in ops.items():
                mine = [call["us"] for call in line if (call["op"], call["columns"]) == (name, columns)]
                assert len(mine) == op["calls"] and sum(mine) == pytest.approx(op["us"], rel=1e-3)
            assert "matmul_add_norm" in {call["op"] for call in line}  # ops that are one are timed as one
            assert "add" not in {call["op"] for call in line}


def test_the_ceiling_is_the_arithmetic_of_the_shapes(result):
    """tiny-llama, one sequence: every weight and the keys and values of nine positions are read once."""
    figures = next(run["figures"] for run in result["runs"] if run["name"] == "llama-3.1-8b")
    point, device = figures["points"][1], figures["device"]
    bandwidth, peak = max(device["copy_gb_s"], device["read_gb_s"]) * 1e9, device["matmul_bf16_tflop_s"] * 1e12
    read = figures["token_bytes"] + figures["context_bytes"] * point["context"]
    flop = point["flop_per_byte"] * read
    assert flop > 2 * figures["token_macs"]
    assert point["ceiling_tokens_per_s"] == pytest.approx(1 / max(read / bandwidth, flop / peak), rel=1e-3)


def test_the_picture_has_every_point(result, tmp_path):
    (tmp_path / "result.json").write_text("noise\n" + json.dumps({"parts": [{"part": "benchmark", "figures": result}]}) + "\n")
    drawn = draw("roofline.py", tmp_path / "result.json")
    assert drawn.returncode == 0, drawn.stderr
    root = Tree.fromstring(drawn.stdout)
    dots = [e for e in root.iter() if e.tag.endswith("circle")]
    words = " ".join(e.text or "" for e in root.iter() if e.tag.endswith("text"))
    assert len(dots) == 2 * 3 + 2 # points and their names
    assert "emulated device" in words and "llama-3.1-8b: decode, 2 together" in words
    assert "gpt-oss-20b-load: 16 tokens in, 4 out, 3 at a time" in words


def draw(name, path):
    return subprocess.run([sys.executable, ROOT / "tests/bench" / name, path], capture_output=True, text=True, timeout=60)


def test_the_time_line_is_drawn_in_its_order(result, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(result) + "\n")
    drawn = draw("timeline.py", tmp_path / "result.json")
    assert drawn.returncode == 0, drawn.stderr
    root = Tree.fromstring(drawn.stdout)
    titles = [e.text for e in root.iter() if e.tag.endswith("title")][1:]
    calls = [call["op"] for run in engine_runs(result) for call in run["figures"]["timeline"]]
    assert [title.split(",")[0] for title in titles] == calls
    assert any("gpt-oss-20b, 2 together" in (e.text or "") for e in root.iter())


@pytest.mark.parametrize("name", ["roofline.py", "timeline.py"])
def test_a_result_without_a_run_is_refused(name, tmp_path):
    (tmp_path / "result.json").write_text('{"parts": [{"part": "benchmark", "status": "not run"}]}\n')
    drawn = draw(name, tmp_path / "result.json")
    assert drawn.returncode == 1 and "no run in this result" in drawn.stderr


BENCH = """#!/usr/bin/env python3
import json, sys
if "--version" in sys.argv:
    print("version: 1 (abc)")
elif sys.argv[0].endswith("batched-bench"):
    print(json.dumps({"speed_tg": 50.0 * int(sys.argv[sys.argv.index("-npl") + 1])}))
else:
    print(json.dumps([{"samples_ts": [100.0 if "-d" in sys.argv else 1000.0]}]))
"""


def test_llama_cpp_is_measured_where_it_is_given(programs, tmp_path):
    for name in ("llama-bench", "llama-batched-bench"):
        (tmp_path / name).write_text(BENCH)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "gpt-oss-20b.gguf").write_text("")
    done = benchmark(tmp_path, programs, PHX_GPU_TOY="1", PHX_LLAMA_CPP=str(tmp_path), PHX_LLAMA_GGUF=str(tmp_path))
    assert done.returncode == 0, done.stderr
    there, missing = (run for run in json.loads(done.stdout)["runs"] if run["by"] == "llama.cpp")
    assert there["status"] == "passed" and there["figures"]["version"] == "1 (abc)"
    assert [(p["what"], p["rows"], p["tokens_per_s"]) for p in there["figures"]["points"]] == [
        ("prefill", 16, 1000.0), ("decode", 1, 100.0), ("decode", 2, 100.0)]
    assert missing["status"] == "not run" and "no llama-3.1-8b.gguf" in missing["detail"]
    (tmp_path / "result.json").write_text(done.stdout)
    drawn = draw("roofline.py", tmp_path / "result.json")
    assert drawn.returncode == 0 and drawn.stdout.count("llama.cpp CUDA") == 3


def test_what_cannot_run_is_said(programs, tmp_path):
    done = benchmark(tmp_path, programs)  # true shapes, and 1000 MB
    assert done.returncode == 0
    runs = json.loads(done.stdout)["runs"]
    assert {run["status"] for run in runs} == {"not run"}
    assert any("76000 MB" in run["detail"] for run in runs)


def test_a_run_that_fails_fails_the_benchmark(tmp_path):
    alone = tmp_path / "bin"
    alone.mkdir()
    shutil.copy(BIN / "phalanx-bench", alone)  # without a module
    done = benchmark(tmp_path, alone, PHX_GPU_TOY="1")
    assert done.returncode == 1
    runs = [run for run in json.loads(done.stdout)["runs"] if run["by"] == "phalanx"]
    assert len(runs) == 4 and all(run["status"] == "failed" and "phalanx_cuda.so was not found" in run["detail"] for run in runs)
