# SPDX-License-Identifier: Apache-2.0
"""`phalanx-bench throughput`: every request gets its tokens through the scheduler, alone or on several ranks."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin"))
SHAPE = ("--random", "tiny-gpt-oss", "--threads", 1)


def throughput(*arguments, program=BIN / "phalanx-bench", code=0):
    done = subprocess.run([program, "throughput", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done


def measure(*arguments, **how):
    return json.loads(throughput(*SHAPE, "--json", *arguments, **how).stdout)


def check(found, n_requests, n_input, n_output):
    assert found["requests"] == n_requests
    assert (found["input_tokens"], found["output_tokens"]) == (n_requests * n_input, n_requests * n_output)
    assert found["output_tokens_per_s"] == pytest.approx(found["output_tokens"] / found["seconds"], rel=1e-3)
    for times in (found["ttft_ms"], found["itl_ms"]):
        assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
        assert times["mean"] <= times["max"]


@pytest.mark.parametrize("ranks", [(), ("--tp", 2, "--comm", "local"), ("--pp", 2, "--comm", "local"), ("--tp", 2, "--pp", 2)])
def test_every_request_gets_its_tokens(ranks):
    found = measure("--input", 40, "--output", 9, "--concurrency", 3, "--requests", 7, *ranks)
    check(found, 7, 40, 9)
    assert found["concurrency"] == 3 and found["preempted"] == 0
    assert found["steps"] >= 3 * 9  # three turns of three, none shorter than its answer


def test_prompts_share_steps_up_to_the_rows_of_one():
    wide, narrow = (measure("--input", 64, "--output", 4, "--concurrency", 4, "--requests", 4, "--rows", rows)
                    for rows in (256, 16))
    check(wide, 4, 64, 4)
    check(narrow, 4, 64, 4)
    assert wide["steps"] == 4  # all prompts in the first
    assert narrow["steps"] >= 16  # 16 rows at a time
    assert narrow["rows"] == 16


def test_lengths_are_drawn_within_their_spread():
    found = measure("--input", 100, "--output", 20, "--spread", 50, "--concurrency", 8, "--requests", 64)
    assert 64 * 50 <= found["input_tokens"] <= 64 * 150 and found["input_tokens"] != 6400
    assert 64 * 10 <= found["output_tokens"] <= 64 * 30 and found["output_tokens"] != 64 * 20
    again = measure("--input", 100, "--output", 20, "--spread", 50, "--concurrency", 8, "--requests", 64)
    assert [again[key] for key in ("input_tokens", "output_tokens")] == [found[key] for key in ("input_tokens", "output_tokens")]


def test_a_checkpoint_and_an_emulated_device_do_as_well(tmp_path):
    case = ROOT / "tests/golden/gpt-oss-window-f32"
    text = throughput(case, "--input", 8, "--output", 4, "--concurrency", 2, "--threads", 1).stdout
    assert "requests  4, 2 at a time" in text and "ttft" in text
    program = tmp_path / "phalanx-bench"
    shutil.copy(BIN / "phalanx-bench", program)
    shutil.copy(BIN.parent / "tests/phalanx_cuda.so", tmp_path)
    found = json.loads(throughput("--random", "tiny-gpt-oss", "--backend", "cuda", "--compute", "bf16", "--kv-dtype", "bf16",
                                  "--input", 20, "--output", 5, "--concurrency", 2, "--requests", 3, "--json", program=program).stdout)
    check(found, 3, 20, 5)
    assert found["rows"] == 2048


@pytest.mark.parametrize("arguments, words", [
    ((), "DIR or --random NAME is needed"),
    (("--random", "tiny-llama", "--layers", 1, "--spread", 91), "--spread"),
    (("--random", "tiny-llama", "--temperature", "hot"), "--temperature must be a number"),
    (("--random", "tiny-llama", "--concurrency", 0), "--concurrency"),
    (("some/folder", "--layers", 2), "--layers needs --random"),
])
def test_what_it_does_not_take_is_refused(arguments, words):
    assert words in throughput(*arguments, code=2).stderr


def test_more_positions_than_the_model_has_are_refused():
    assert "the model has 4096" in throughput(*SHAPE, "--input", 4000, "--output", 200, code=1).stderr
