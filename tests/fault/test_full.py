# SPDX-License-Identifier: Apache-2.0
"""A disk that is full or dead for a while: requests are refused with the reason, running ones end cleanly, and it goes
on without a restart when the disk is back."""
import http.client
import time

import pytest
from mock_daemon import TESTS, Client, Daemon, Oracle, wait_until


def ask(client, seed):
    return client.post({"model": "demo", "prompt": f"question {seed}", "max_tokens": 4, "seed": seed})


@pytest.mark.parametrize("how", ["ENOSPC", "EIO"])
def test_a_disk_comes_back(tmp_path, how):
    switch = tmp_path / "full"
    daemon, oracle = Daemon(tmp_path / "data").prepare(), Oracle()
    daemon.start({"LD_PRELOAD": str(TESTS / "iofail.so"), "IOFAIL_PROGRAM": "phalanxd", "IOFAIL_DIR":
                  str(daemon.folder), "IOFAIL_HOW": how, "IOFAIL_SWITCH": str(switch)})
    client = Client(daemon)
    status, answer, _ = ask(client, 1)
    assert status == 200
    oracle.note(answer)
    switch.touch()
    for seed in range(2, 12):
        status, answer, headers = ask(client, seed)
        assert status == 503 and headers["Retry-After"] == "1" and headers["x-phalanx-rule"] == "store.unavailable"
        assert "durable" in answer["error"]["message"]
    switch.unlink()

    def is_back():
        status, answer, _ = ask(client, int(time.monotonic_ns() % 1000000))
        if status == 200:
            oracle.note(answer)
        return status == 200

    wait_until(is_back)
    assert daemon.process.poll() is None
    client.close()
    assert daemon.stop() == 0
    oracle.check(daemon)
    assert daemon.rows("SELECT COUNT(*) FROM audit WHERE kind = 'gap'") == [(1,)]
    daemon.verify(allowed=(2,))  # the log itself says that it has a gap


def test_too_little_space_refuses_before_it_is_too_late(tmp_path):
    daemon = Daemon(tmp_path / "data", [f"audit.keep_free_bytes={1 << 60}"]).prepare()
    daemon.start()
    client = Client(daemon)
    status, answer, headers = ask(client, 1)
    assert status == 503 and headers["x-phalanx-rule"] == "audit.space" and "disk space" in answer["error"]["message"]
    client.close()
    connection = http.client.HTTPConnection(*daemon.address, timeout=10)
    connection.request("GET", "/metrics", headers={"Authorization": "Bearer " + daemon.key})
    assert b'phalanx_refusals_total{rule="audit.space"} 1' in connection.getresponse().read()
    connection.close()
    assert daemon.stop() == 0
