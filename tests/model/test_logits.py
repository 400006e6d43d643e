# SPDX-License-Identifier: Apache-2.0
"""phalanx-model logits as a user runs it: real processes, MPI ranks, files."""
import json
import os
import struct
import subprocess
from array import array
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin")) / "phalanx-model"
GOLDEN = ROOT / "tests/golden"


def read_npy(path):
    data = Path(path).read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    size = struct.unpack("<H", data[8:10])[0]
    assert (10 + size) % 64 == 0
    header = eval(data[10:10 + size].decode(), {"__builtins__": {}})  # a literal dict by the format
    assert header["descr"] == "<f4" and not header["fortran_order"]
    values = array("f", data[10 + size:])
    assert len(values) == header["shape"][0] * header["shape"][1]
    return header["shape"], values


def run(*args, code=0, env=None):
    done = subprocess.run([str(TOOL), "logits", *map(str, args)], capture_output=True, text=True,
                          timeout=120, env=env)
    assert done.returncode == code, done.stderr
    return done


def logits(tmp_path, case, *args):
    out = tmp_path / "out.npy"
    run(GOLDEN / case, "--tokens", GOLDEN / case / "tokens.json", "--out", out, *args)
    return read_npy(out)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    known = {}

    def get(case):
        if case not in known:
            known[case] = logits(tmp_path_factory.mktemp("single"), case, "--threads", 1)
        return known[case]

    return get


@pytest.mark.parametrize("case", sorted(p.name for p in GOLDEN.iterdir() if p.is_dir()))
def test_one_rank_agrees_with_transformers(single, case):
    shape, got = single(case)
    expected_shape, expected = read_npy(GOLDEN / case / "logits.npy")
    assert shape == expected_shape
    worst = max(abs(a - b) for a, b in zip(got, expected))
    assert worst / max(map(abs, expected)) < 1e-4
    columns = shape[1]
    for row in range(shape[0]):
        a, b = (list(x[row * columns:(row + 1) * columns]) for x in (got, expected))
        assert a.index(max(a)) == b.index(max(b))


@pytest.mark.parametrize("case,tp,pp,more", [
    ("gpt-oss-window-f32", 2, 2, []),
    ("gpt-oss-window-f32", 4, 1, ["--prefill-chunk", 7]),
    ("gpt-oss-long-window-bf16", 1, 2, ["--prefill-chunk", 1]),
    ("llama3-tied-bf16", 2, 2, ["--prefill-chunk", 9, "--isa", "ref"]),
    ("llama-linear-bias-f32", 2, 1, ["--comm", "mpi"]),
    ("llama3-untied-f16", 1, 4, ["--comm", "local"]),
])
def test_mpi_ranks_give_the_same_bits_as_one(tmp_path, single, case, tp, pp, more):
    assert logits(tmp_path, case, "--tp", tp, "--pp", pp, "--threads", 1, *more) == single(case)


@pytest.mark.parametrize("kv, most", [("bf16", 5e-2), ("int8", 5e-2), ("fp8", 0.2)])
def test_a_narrow_cache_is_close(tmp_path, single, kv, most):
    case = "llama-mha-f32"
    shape, exact = single(case)
    rounded_shape, rounded = logits(tmp_path, case, "--kv-dtype", kv)
    assert shape == rounded_shape
    worst = max(abs(a - b) for a, b in zip(exact, rounded))
    assert 0 < worst / max(map(abs, exact)) < most


@pytest.mark.parametrize("text,says", [
    ("[]", "list of 1 to"), ('{"a": 1}', "list of 1 to"), ("[1, -1]", "item 1"), ("[1, 2.5]", "item 1"),
    ("[1, 99999]", "outside the vocabulary"), ("[1,", "tokens.json"), ("[" + "1," * 999 + "1]", "positions"),
])
def test_bad_tokens_are_refused(tmp_path, text, says):
    tokens, out = tmp_path / "tokens.json", tmp_path / "out.npy"
    tokens.write_text(text)
    done = run(GOLDEN / "llama-mha-f32", "--tokens", tokens, "--out", out, code=1)
    assert says in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("args,code,says", [
    (["--tp", 3], 1, "3"),
    (["--pp", 99], 1, "99"),
    (["--tp", 0], 2, "--tp"),
    (["--compute", "int3"], 2, "--compute"),
    (["--isa", "mmx"], 1, "mmx"),
    (["--backend", "abacus"], 1, "abacus"),
    (["--kv-dtype", "f8"], 2, "--kv-dtype"),
    (["--comm", "pigeon"], 2, "--comm"),
    (["--unknown"], 2, "unknown"),
])
def test_bad_options_are_refused_by_name(tmp_path, args, code, says):
    case = GOLDEN / "llama-mha-f32"
    if "--tp" in args or "--pp" in args:
        args = args + ["--comm", "local"]
    done = run(case, "--tokens", case / "tokens.json", "--out", tmp_path / "out.npy", *args, code=code)
    assert says in done.stderr


def test_a_write_that_fails_leaves_no_file(tmp_path):
    case = GOLDEN / "llama-mha-f32"
    done = run(case, "--tokens", case / "tokens.json", "--out", tmp_path / "no" / "out.npy", code=1)
    assert "out.npy" in done.stderr


def test_the_engine_benchmark_reports_what_it_promises(tmp_path):
    bench = TOOL.with_name("phalanx-bench")
    done = subprocess.run(
        [str(bench), "engine", str(GOLDEN / "gpt-oss-window-f32"), "--prompt", "20", "--gen", "4",
         "--batch", "1,3", "--prefill-chunk", "8", "--threads", "1", "--tp", "2", "--reps", "1", "--json"],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["tp"] == 2 and facts["pp"] == 1
    for key in ("prefill_tokens_per_s", "decode_tokens_per_s", "ceiling_read_gb_s",
                "decode_read_fraction", "prefill_peak_fraction", "load_seconds", "load_gb_s",
                "resident_bytes", "slice_bytes"):
        assert facts[key] > 0, key
    assert [b["batch"] for b in facts["batch"]] == [1, 3]
    assert all(b["tokens_per_s"] > 0 for b in facts["batch"])
    assert all(b["min"] <= b["tokens_per_s"] <= b["max"] for b in facts["batch"])
    assert facts["resident_bytes"] > facts["weights_bytes"] > 0 and facts["kv_bytes"] > 0


def bench(*arguments, code=0):
    done = subprocess.run([str(TOOL.with_name("phalanx-bench")), *map(str, arguments)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done


def test_the_engine_benchmark_measures_what_is_asked_for_alone():
    case = GOLDEN / "gpt-oss-window-f32"
    common = ("engine", case, "--no-ceiling", "--threads", 1, "--reps", 2, "--json")
    prefill = json.loads(bench(*common, "--prompt", 8, "--gen", 0).stdout)
    assert prefill["prefill_min"] <= prefill["prefill_tokens_per_s"] <= prefill["prefill_max"]
    assert prefill["batch"] == [] and prefill["ceiling_read_gb_s"] == 0
    decode = json.loads(bench(*common, "--prompt", 0, "--gen", 6, "--context", 0, "--batch", "1,2").stdout)
    assert decode["prefill_tokens_per_s"] == 0 and [b["context"] for b in decode["batch"]] == [3, 3]
    bench(*common, "--prompt", 0, "--gen", 0, code=2)


def test_the_first_token_and_the_ceilings():
    case = GOLDEN / "gpt-oss-window-f32"
    first = json.loads(bench("first", case, "--prompt", 3, "--threads", 1, "--json").stdout)
    assert first["prompt"] == 3 and first["load_seconds"] > 0
    assert "first token" in bench("first", case, "--tp", 2, "--threads", 1).stdout
    bench("first", case, "--gen", 3, code=2)
    bench("ceiling", case, code=2)
    ceiling = json.loads(bench("ceiling", "--threads", 1, "--json").stdout)
    assert ceiling["threads"] == 1 and ceiling["read_gb_s"] > 0
    assert ceiling["amx_int8_gop_s"] > ceiling["amx_bf16_gflop_s"] or ceiling["amx_bf16_gflop_s"] == 0
