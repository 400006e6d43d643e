# SPDX-License-Identifier: Apache-2.0
"""What breaks and what then happens: ranks killed and stopped, the daemon killed, clients that leave."""
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import openai
import pytest
from phalanx_cluster import BIN, DEMO, Cluster, ask, children_of

QUESTION = "What is 347 + 58?"


def long_stream(cluster, **kwargs):
    """A long generation that is easy to break: one token after the other, past the model's own stop."""
    return cluster.client().completions.create(
        model=cluster.model, prompt="the", max_tokens=3000, temperature=0, stream=True,
        extra_body={"ignore_eos": True}, **kwargs)


def text_of(stream, at=None, act=None):
    text, n = "", 0
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.text
            n += 1
            if n == at:
                act()
    return text


@pytest.mark.parametrize("which", [0, 1, 3])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_stream_survives_a_rank(own_cluster, which, how):
    # Without guessed tokens, so that the answer is long under way when the rank goes.
    cluster = own_cluster(2, 2, extra=("--set", "engine.speculate=off"))
    expected = text_of(long_stream(cluster))
    pid = cluster.ready["ranks"][which]["pid"]
    began = time.monotonic()
    got = text_of(long_stream(cluster), at=20, act=lambda: os.kill(pid, how))
    assert got == expected, "no token lost or doubled"
    assert cluster.process.poll() is None, "the daemon lives on"
    assert time.monotonic() - began < 60
    status = json.loads(cluster.run("cluster", "status", "--data", cluster.folder, "--json").stdout)
    assert status["replicas"][0]["restarts"] == 1
    assert ask(cluster, QUESTION).content == "405"
    assert cluster.stop() == 0


def ranks_of(cluster):
    found = []
    for pid in children_of(cluster.process.pid):
        try:
            if (Path(f"/proc/{pid}/comm").read_text().strip()) == "phalanx-rank":
                found.append(pid)
        except OSError:
            continue
    return found


def test_a_rank_killed_in_prefill(own_cluster):
    cluster = own_cluster(2, 1, extra=("--set", "engine.max_rows=64"))
    arguments = dict(model=cluster.model, prompt="the quick brown fox " * 150, max_tokens=8,
                     temperature=0)
    pid = cluster.ready["ranks"][1]["pid"]
    os.kill(pid, signal.SIGSTOP)  # so that the prefill cannot end before the kill
    timer = threading.Timer(0.5, lambda: os.kill(pid, signal.SIGKILL))
    timer.start()
    got = cluster.client().completions.create(**arguments).choices[0].text
    again = cluster.client().completions.create(**arguments).choices[0].text
    assert got == again
    status = json.loads(cluster.run("cluster", "status", "--data", cluster.folder, "--json").stdout)
    assert status["replicas"][0]["restarts"] == 1, "the rank died before the answer was there"
    assert cluster.stop() == 0


def test_a_rank_killed_while_loading(own_cluster):
    cluster = own_cluster(2, 1)
    before = set(ranks_of(cluster))
    cluster.run("cluster", "restart", "--data", cluster.folder)
    end, killed = time.monotonic() + 20, None
    while killed is None and time.monotonic() < end:
        new = set(ranks_of(cluster)) - before
        if new:
            killed = new.pop()
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.005)
    assert killed is not None
    assert ask(cluster, QUESTION).content == "405", "the replica comes back"
    assert cluster.stop() == 0


def test_a_body_over_the_limit_is_refused(cluster):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(cluster, "a" * (10 << 20))
    assert caught.value.status_code == 413


def test_invalid_utf8_is_refused(cluster):
    host, port = cluster.url.split("//")[1].split(":")
    body = b'{"model":"' + cluster.model.encode() + b'","prompt":"\xff\xfe"}'
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                           + cluster.key.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 400")


def test_ranks_end_when_the_daemon_is_killed(own_cluster):
    cluster = own_cluster(2, 1)
    pids = [r["pid"] for r in cluster.ready["ranks"]]
    cluster.process.kill()
    cluster.process.wait()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end, "ranks must exit by themselves within 10 s"
        time.sleep(0.1)


def test_records_survive_a_killed_daemon(own_cluster):
    cluster = own_cluster(1, 1)
    assert ask(cluster, QUESTION).content == "405"
    stream = long_stream(cluster)
    next(iter(stream))
    cluster.process.kill()
    cluster.process.wait()
    time.sleep(1)
    again = Cluster(cluster.folder).start()
    try:
        log = cluster.folder / "audit"
        cluster.run("audit", "verify", log, "--trust", log / "trust.json")
        report = json.loads(cluster.run("usage", "report", "--data", cluster.folder, "--period",
                                        time.strftime("%Y-%m", time.gmtime()), "--format",
                                        "json").stdout)
        assert sum(row["requests"] for row in report["rows"]) == 2
        assert ask(again, QUESTION).content == "405"
    finally:
        assert again.stop() == 0


def raw_request(cluster, body):
    host, port = cluster.url.split("//")[1].split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {cluster.key}\r\n"
                        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
    return connection


def running(cluster):
    status = json.loads(cluster.run("cluster", "status", "--data", cluster.folder, "--json").stdout)
    return sum(r["running"] + r["waiting"] for r in status["replicas"])


def wait_until_idle(cluster, seconds=10):
    end = time.monotonic() + seconds
    while running(cluster) > 0:
        assert time.monotonic() < end, "the generation of a client that left goes on"
        time.sleep(0.2)


LONG_BODY = json.dumps({"prompt": "the", "max_tokens": 3000, "ignore_eos": True, "stream": True})


def body_for(cluster):
    return LONG_BODY.replace('{"prompt"', '{"model": "%s", "prompt"' % cluster.model)


def test_a_client_that_leaves_is_cancelled(cluster):
    connection = raw_request(cluster, body_for(cluster))
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    connection.close()
    wait_until_idle(cluster)


def test_a_client_that_reads_a_byte_a_second_harms_nobody(cluster):
    slow = raw_request(cluster, body_for(cluster))
    done = threading.Event()

    def read_slowly():
        while not done.wait(1):
            slow.recv(1)

    thread = threading.Thread(target=read_slowly)
    thread.start()
    try:
        for _ in range(3):
            assert ask(cluster, QUESTION).content == "405"
    finally:
        done.set()
        thread.join()
        slow.close()
    wait_until_idle(cluster)


def test_a_port_in_use_is_named(cluster, tmp_path):
    address = cluster.url.split("//")[1]
    done = subprocess.run([BIN / "phalanx", "up", DEMO, "--listen", address, "--data", tmp_path / "d"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert address in done.stderr and "in use" in done.stderr


def test_no_mpirun_is_named(tmp_path):
    done = subprocess.run([BIN / "phalanx", "up", DEMO, "--tp", "2", "--listen", "127.0.0.1:0",
                           "--grpc", "127.0.0.1:0", "--data", tmp_path / "d"],
                          capture_output=True, text=True, timeout=60, env={"PATH": "/nonexistent"})
    assert done.returncode == 1
    assert "mpirun" in done.stderr


def test_a_missing_checkpoint_is_named(tmp_path):
    done = subprocess.run([BIN / "phalanx", "up", tmp_path / "none", "--listen", "127.0.0.1:0",
                           "--data", tmp_path / "d"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "none" in done.stderr
