# SPDX-License-Identifier: Apache-2.0
"""Wide and deep layouts, a bf16 cache, repeated prompts, and what happens when a rank dies or cannot start."""
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from engine import BIN, DEMO, MPIRUN, run, start
from test_engine import MODELS, make_requests


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The answers of one rank, by model and by the type of its cache."""
    known = {}

    def get(model, kv):
        if (model, kv) not in known:
            known[model, kv] = run(tmp_path_factory.mktemp("reference"), make_requests(), model, 1, 1,
                                   "--kv-dtype", kv)
        return known[model, kv]

    return get


@pytest.mark.parametrize("layout", [(4, 1), (1, 4)], ids=lambda v: f"{v[0]}x{v[1]}")
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_four_ranks_in_a_row_agree_bit_for_bit(reference, tmp_path, model, layout):
    assert run(tmp_path, make_requests(), model, *layout).answers() == reference(model, "f32").answers()


@pytest.mark.parametrize("extra", [(2, 2), (1, 1, "--max-rows", 7), (1, 1, "--no-prefix-cache")], ids=str)
@pytest.mark.parametrize("kv", ["bf16", "int8", "fp8"])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_a_narrow_cache_gives_one_answer_everywhere(reference, tmp_path, model, kv, extra):
    narrow = run(tmp_path, make_requests(), model, *extra, "--kv-dtype", kv)
    assert narrow.answers() == reference(model, kv).answers()
    assert narrow.answers() != reference(model, "f32").answers()  # it is another cache: the option works


def test_the_seed_alone_tells_answers_apart(tmp_path):
    request = {"tokens": [1, 2, 3], "max_new": 24, "temperature": 1, "ignore_eos": True}
    done = run(tmp_path, [dict(request, id=1, seed=5), dict(request, id=2, seed=6), dict(request, id=3, seed=5)],
               MODELS[0])
    assert done.answer(1) != done.answer(2)
    assert [dict(e, id=1) for e in done.answer(3)] == done.answer(1)


@pytest.mark.parametrize("layout", [(1, 1), (2, 2)], ids=lambda v: f"{v[0]}x{v[1]}")
def test_a_prompt_that_comes_again_is_found_and_answered_alike(tmp_path, layout):
    request = {"tokens": list(range(50)), "max_new": 6, "temperature": 1, "seed": 3, "logprobs": 2,
               "ignore_eos": True}
    done = run(tmp_path, [dict(request, id=1), dict(request, id=2, after=20)], MODELS[0], *layout)
    assert [done.events[i][0]["cached"] for i in (1, 2)] == [0, 48]
    assert [dict(e, id=1) for e in done.answer(2)] == done.answer(1)


def children(pid):
    """Every process below pid."""
    own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(p) for p in own] + [q for p in own for q in children(p)]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("victim", [0, 3], ids=["head", "last"])
def test_a_killed_rank_takes_all_ranks_down(tmp_path, victim):
    script = tmp_path / "requests.jsonl"
    line = '{"id":%d,"tokens":[1,2,3],"max_new":16000,"ignore_eos":true}\n'
    script.write_text("".join(line % i for i in range(1, 9)))
    command = [*MPIRUN, "-np", "4", str(BIN / "phalanx-rank"), "--model", str(DEMO), "--script", str(script),
               "--tp", "2", "--pp", "2", "--threads", "1", "--log-level", "error"]
    ranks = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as job:
        try:
            for _ in range(100):  # tokens come out: all four are in the middle of it
                assert job.stdout.readline()
            ranks = [p for p in children(job.pid) if "phalanx-rank" in Path(f"/proc/{p}/comm").read_text()]
            assert len(ranks) == 4
            rank_of = {int(e.split(b"=")[1]): p for p in ranks for e in
                       Path(f"/proc/{p}/environ").read_bytes().split(b"\0")
                       if e.startswith(b"OMPI_COMM_WORLD_RANK=")}
            os.kill(rank_of[victim], signal.SIGKILL)
            died = time.monotonic()
            os.set_blocking(job.stdout.fileno(), False)  # to see the end of ranks that hang
            while any(map(is_alive, ranks)) and time.monotonic() - died < 10:
                job.stdout.read1(1 << 20)
                time.sleep(0.01)
            assert not any(map(is_alive, ranks))
            assert job.wait(10) != 0
        finally:
            job.kill()
            for pid in filter(is_alive, ranks):
                os.kill(pid, signal.SIGKILL)


def test_a_folder_without_a_model_is_named(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        done = start(tmp_path, [{"id": 1, "tokens": [1]}], folder)
        assert done.returncode == 1 and done.stdout == ""
        assert str(folder) in done.stderr and "phalanx-rank: " in done.stderr


def test_a_folder_without_a_model_stops_all_ranks(tmp_path):
    done = start(tmp_path, [{"id": 1, "tokens": [1]}], tmp_path / "nowhere", 2, 2)
    assert done.returncode != 0 and "nowhere" in done.stderr
