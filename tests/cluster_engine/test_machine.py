# SPDX-License-Identifier: Apache-2.0
"""What the machine is too small for is refused before loading; few cores change no answer."""
import os

import pytest

from engine import DEMO, run, start

REQUESTS = [{"id": 1, "tokens": list(range(5, 45)), "max_new": 6, "temperature": 1, "seed": 3}]


@pytest.mark.parametrize("tp", [1, 2])
def test_plan_larger_than_the_memory(tmp_path, tp):
    done = start(tmp_path, REQUESTS, DEMO, tp, 1, "--kv-memory", 1 << 42)
    assert done.returncode != 0
    assert f"GiB needed by {tp} rank" in done.stderr
    for word in ("weights ", "kv 128.00", "scratch ", "can be had", "lower kv_memory"):
        assert word in done.stderr, done.stderr


def test_cache_of_less_than_a_block(tmp_path):
    done = start(tmp_path, REQUESTS, DEMO, 1, 1, "--kv-memory", 1)
    assert done.returncode != 0
    assert "not one block" in done.stderr


def test_few_cores_change_nothing(tmp_path):
    cores = os.sched_getaffinity(0)
    expected = run(tmp_path, REQUESTS, DEMO).answers()
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert run(tmp_path, REQUESTS, DEMO, 1, 1, "--threads", 0).answers() == expected
        assert run(tmp_path, REQUESTS, DEMO, 1, 1, "--threads", 5).answers() == expected
        assert run(tmp_path, REQUESTS, DEMO, 2, 1, "--threads", 0).answers() == expected
    finally:
        os.sched_setaffinity(0, cores)


def test_share_is_checked(tmp_path):
    for share in ("2/2", "-1/2", "0/0", "1", "0/1x"):
        done = start(tmp_path, REQUESTS, DEMO, 1, 1, "--share", share)
        assert done.returncode == 2
        assert "is not I/N" in done.stderr
