# SPDX-License-Identifier: Apache-2.0
"""Each write, sync, rename and open of the daemon under its data folder fails once: never an answer whose record
is not durable, no crash, and a clean start afterwards."""
import os
import random
import time

import pytest
from mock_daemon import TESTS, Client, Daemon, Oracle

POINTS = int(os.environ.get("PHX_IO_POINTS", "24"))


def environment(daemon, at, how, log):
    return {"LD_PRELOAD": str(TESTS / "iofail.so"), "IOFAIL_PROGRAM": "phalanxd", "IOFAIL_DIR": str(daemon.folder),
            "IOFAIL_AT": str(at), "IOFAIL_HOW": how, "IOFAIL_LOG": str(log)}


def run_once(daemon, oracle, at, how, log):
    """Starts with the fault, sends requests, stops.  A refusal to start is fine; a crash is not."""
    try:
        daemon.start(environment(daemon, at, how, log))
    except AssertionError:
        assert daemon.process.wait() == 1, "it refused with a message"
        return
    client = Client(daemon)
    for i in range(8):
        status, answer, _ = client.post({"model": "demo", "prompt": f"question {i}", "max_tokens": 4, "seed": i})
        if status == 200:
            oracle.note(answer)
        else:
            assert status in (500, 503), answer
            assert answer["error"]["message"]
        time.sleep(0.01)
    client.close()
    assert daemon.stop() in (0, 1)


@pytest.mark.parametrize("how", ["EIO", "ENOSPC", "short"])
def test_every_call_fails_once(tmp_path, how):
    seed = int(os.environ.get("PHX_SEED", str(int(time.time()))))
    log = tmp_path / "calls.log"
    daemon, oracle = Daemon(tmp_path / "data").prepare(), Oracle()
    run_once(daemon, oracle, 0, how, log)  # counts the calls of a run in which nothing fails
    n_calls = len(log.read_text().splitlines())
    assert n_calls > 30
    points = range(1, n_calls + 1)
    if POINTS < n_calls:
        points = sorted(random.Random(seed).sample(points, POINTS))
    for at in points:
        run_once(daemon, oracle, at, how, log)
    daemon.start()
    assert daemon.stop() == 0, f"seed {seed}"
    oracle.check(daemon)
    daemon.verify(allowed=(0, 2))
