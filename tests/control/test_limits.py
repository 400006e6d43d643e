# SPDX-License-Identifier: Apache-2.0
"""Idempotency keys, rate limits, and data folders that phalanxd must not serve from."""
import http.client
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mock_daemon import BIN, Client, ask, make_key


def refused(answer, status, rule):
    assert (answer[0], answer[2]["x-phalanx-rule"]) == (status, rule), answer[1]
    return answer[2]


def test_idempotency_keys(make_daemon):
    daemon = make_daemon()
    ann, other = make_key(daemon, "acme", "ann"), make_key(daemon, "umbrella", "ann")
    daemon.start()
    key = {"Idempotency-Key": "order-1"}
    first = ask(daemon, ann, key)
    assert first[0] == 200 and first[2]["x-phalanx-receipt"] == first[1]["receipt"]
    for _ in range(2):
        headers = refused(ask(daemon, ann, key), 409, "idempotency.replayed")
        assert headers["x-phalanx-receipt"] == first[1]["receipt"]
    headers = refused(ask(daemon, ann, key, prompt="another"), 409, "idempotency.conflict")
    assert ask(daemon, other, key)[0] == 200, "keys are a tenant's own"
    assert ask(daemon, ann, {"Idempotency-Key": "x" * 5000})[0] == 400
    daemon.kill()
    daemon.start()
    headers = refused(ask(daemon, ann, key), 409, "idempotency.replayed")
    assert headers["x-phalanx-receipt"] == first[1]["receipt"], "a key is kept for the life of the ledger"
    assert daemon.rows("SELECT COUNT(*) FROM ledger WHERE kind = 'commit' AND tenant = 'acme'") == [(1,)]
    # two at once: one of them is the request, the other one is told so
    clients = [Client(daemon, ann) for _ in range(8)]
    body = {"model": "demo", "prompt": "race", "max_tokens": 4, "seed": 1}
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(lambda client: client.post(body, {"Idempotency-Key": "race"}), clients))
    assert sorted(a[0] for a in answers) == [200] + [409] * 7
    receipt = [a[1]["receipt"] for a in answers if a[0] == 200][0]
    assert {a[2]["x-phalanx-receipt"] for a in answers} == {receipt}
    for client in clients:
        client.close()


def test_rates(make_daemon):
    daemon = make_daemon("data", "rate.requests_per_minute=5", "rate.tokens_per_minute=100")
    ann, bob = make_key(daemon, "acme", "ann"), make_key(daemon, "acme", "bob")
    daemon.start()
    for _ in range(5):
        assert ask(daemon, ann)[0] == 200
    headers = refused(ask(daemon, ann), 429, "rate.requests")
    assert 1 <= int(headers["Retry-After"]) <= 13, "one of five a minute is there again in 12 s"
    headers = refused(ask(daemon, bob, prompt="x" * 60, max_tokens=60), 429, "rate.tokens")
    assert headers["Retry-After"] is None, "120 never fit into 100"
    assert ask(daemon, bob, prompt="x" * 60, max_tokens=30)[0] == 200, "bob has a rate of his own"
    headers = refused(ask(daemon, bob, prompt="x" * 60, max_tokens=30), 429, "rate.tokens")
    assert 1 <= int(headers["Retry-After"]) <= 60
    rules = [json.loads(r)["rule"] for (r,) in daemon.rows("SELECT record FROM audit WHERE kind = 'refusal'")]
    assert rules == ["rate.requests", "rate.tokens", "rate.tokens"]


def run_phalanxd(folder, user=None):
    return subprocess.run([BIN / "phalanxd", "-c", folder / "phalanxd.yaml", "--json"], capture_output=True, text=True,
                          timeout=30, user=user, cwd="/")


def test_a_second_daemon_on_one_folder(make_daemon):
    daemon = make_daemon().start()
    second = run_phalanxd(daemon.folder)
    assert second.returncode == 1 and "another phalanxd" in second.stderr, second.stderr
    up = daemon.run("up", Path(__file__).resolve().parents[2] / "deploy/demo/model", "--data", daemon.folder, check=False)
    assert up.returncode == 1
    assert ask(daemon)[0] == 200
    assert daemon.stop() == 0
    daemon.verify()


def test_a_database_of_a_newer_version(make_daemon):
    daemon = make_daemon()
    db = sqlite3.connect(daemon.folder / "phalanx.db")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.execute(f"PRAGMA user_version = {version + 1}")
    db.close()
    before = (daemon.folder / "phalanx.db").read_bytes()
    done = run_phalanxd(daemon.folder)
    assert done.returncode == 1 and "newer" in done.stderr, done.stderr
    for command in (("budget", "list"), ("key", "list"), ("license", "show"), ("usage", "report", "--period", "2026-10")):
        cli = daemon.run(*command, "--data", daemon.folder, check=False)
        assert cli.returncode == 1 and "newer" in cli.stderr, cli.stderr
    assert (daemon.folder / "phalanx.db").read_bytes() == before


def test_a_database_that_is_none(make_daemon):
    daemon = make_daemon()
    (daemon.folder / "phalanx.db").write_bytes(b"not a database" * 100)
    for end in ("-wal", "-shm"):
        (daemon.folder / ("phalanx.db" + end)).unlink(missing_ok=True)
    done = run_phalanxd(daemon.folder)
    assert done.returncode == 1 and "phalanx.db" in done.stderr, done.stderr
    assert daemon.run("key", "list", "--data", daemon.folder, check=False).returncode == 1


def test_a_read_only_folder(make_daemon):
    """As an unprivileged user, since nothing is read-only for root."""
    daemon = make_daemon().start()
    assert ask(daemon)[0] == 200
    assert daemon.stop() == 0
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    user = 65534 if os.geteuid() == 0 else None
    try:
        shutil.copytree(daemon.folder, place / "data", ignore=shutil.ignore_patterns("run"))
        config = place / "data/phalanxd.yaml"
        config.write_text(config.read_text().replace(str(daemon.folder), str(place / "data")))
        shutil.copy(daemon.trust, place / "trust.json")
        for path in [place, place / "trust.json", place / "data", *(place / "data").rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            done = run_phalanxd(place / "data", user)
        except PermissionError:
            pytest.skip("an unprivileged user cannot reach the programs here")
        assert done.returncode == 1 and done.stderr.strip(), "a clear message, no crash"
        assert any(word in done.stderr for word in ("Permission denied", "readonly", "Read-only", "read-only")), done.stderr

        def cli(*arguments):
            return subprocess.run([BIN / "phalanx", *map(str, arguments)], capture_output=True, text=True, timeout=30,
                                  user=user, cwd="/")

        wrote = cli("budget", "set", "--data", place / "data", "--tenant", "acme", "--tokens", "1")
        assert wrote.returncode == 1 and "phalanx.db" in wrote.stderr
        proven = cli("audit", "verify", place / "data/audit", "--trust", place / "trust.json")
        assert proven.returncode == 0, proven.stdout + proven.stderr
    finally:
        for path in [place, *place.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(place)


def test_a_stopped_daemon_leaves_nothing(make_daemon):
    daemon = make_daemon().start()
    began = time.monotonic()
    assert daemon.stop() == 0 and time.monotonic() - began < 5
    status = daemon.run("cluster", "status", "--data", daemon.folder, check=False)
    assert status.returncode == 1 and "no cluster is running" in status.stderr
    asked = daemon.run("ask", "hello", "--data", daemon.folder, check=False)
    assert asked.returncode == 1 and "no cluster is running" in asked.stderr


def metric(daemon, name):
    connection = http.client.HTTPConnection(*daemon.address, timeout=10)
    connection.request("GET", "/metrics", headers={"Authorization": "Bearer " + daemon.key})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_what_is_refused_late_leaves_nothing(make_daemon):
    """The engine starts while the transaction is under way; a refusal by it must not let a token out."""
    daemon = make_daemon("data", environment={"MOCK_STEP_US": "150000"})
    ann = make_key(daemon, "acme", "ann")
    daemon.run("budget", "set", "--data", daemon.folder, "--tenant", "acme", "--tokens", "50")
    daemon.start()
    assert ask(daemon, ann, max_tokens=1)[0] == 200
    for stream in (False, True):
        refused(ask(daemon, ann, max_tokens=60, stream=stream), 429, "budget.tenant")
    deadline = time.monotonic() + 10
    while metric(daemon, "phalanx_sequences{") > 0:
        assert time.monotonic() < deadline, "the engine still works for a refused request"
        time.sleep(0.02)
    assert metric(daemon, 'phalanx_tokens_total{kind="output"}') == 1
    assert metric(daemon, "phalanx_admissions_active") == 0
    assert daemon.rows("SELECT kind, COUNT(*) FROM ledger GROUP BY kind ORDER BY kind") == [("commit", 1), ("reserve", 1)]
    assert ask(daemon, ann, max_tokens=1)[0] == 200
    assert daemon.stop() == 0
    daemon.verify()
