# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed at random instants under load and started again on the same data folder."""
import os
import random
import threading
import time

from mock_daemon import Client, Daemon, Oracle

CYCLES = int(os.environ.get("PHX_KILL_CYCLES", "60"))


def load(daemon, oracle, stop, seed):
    client, random_ = Client(daemon), random.Random(seed)
    while not stop.is_set():
        body = {"model": "demo", "prompt": "x" * random_.randint(1, 60), "max_tokens": random_.randint(1, 24),
                "seed": random_.randrange(1 << 30)}
        try:
            status, answer, _ = client.post(body)
        except OSError:
            return  # the daemon is gone: nothing was acknowledged
        if status == 200:
            oracle.note(answer)
    client.close()


def test_nothing_acknowledged_is_lost_or_doubled(tmp_path, capsys):
    seed = int(os.environ.get("PHX_SEED", str(int(time.time()))))
    random_ = random.Random(seed)
    daemon, oracle, restarts = Daemon(tmp_path / "data").prepare(), Oracle(), []
    for cycle in range(CYCLES):
        began = time.monotonic()
        daemon.start()
        restarts.append(time.monotonic() - began)
        stop = threading.Event()
        threads = [threading.Thread(target=load, args=(daemon, oracle, stop, random_.random())) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(random_.uniform(0.0, 0.25))
        daemon.kill()
        stop.set()
        for thread in threads:
            thread.join()
    daemon.start()
    assert daemon.stop() == 0
    oracle.check(daemon)
    assert len(oracle.told) > CYCLES, "there was load"
    crashes = daemon.rows("SELECT COUNT(*) FROM ledger WHERE outcome = 'crash' AND output <= upper")[0][0]
    daemon.verify()
    restarts.sort()
    with capsys.disabled():
        print(f"\n{CYCLES} kills (seed {seed}): {len(oracle.told)} acknowledged, {crashes} settled as crash; restart "
              f"median {restarts[len(restarts) // 2]:.2f} s, p99 {restarts[int(len(restarts) * 0.99)]:.2f} s")
