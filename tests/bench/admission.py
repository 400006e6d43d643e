#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What admission costs, on ranks without a model: prints one JSON object.

Per phase: the latency that a client sees for a whole request of one token (open loop, timed from the moment it was
due), and from the daemon's own histograms what admission (request read -> seat, budget, reservation and intent leaf
durable) and settlement (answer ended -> record durable) took.  The engine starts while the intent is on its way to
the disk: `added` is what a first token waited for it, with an engine whose first token takes --step-us.
`fdatasync` is the disk in the same run.
"""
import argparse
import hashlib
import http.client
import json
import os
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/mock"))
from licensor import Licensor  # noqa: E402
from mock_daemon import BIN, Daemon, ask  # noqa: E402


def make_keys(daemon, names):
    """As `phalanx key create` does, but thousands at once."""
    keys = ["phx_" + secrets.token_hex(22)[:43] for _ in names]
    now = time.time_ns()
    db = sqlite3.connect(daemon.folder / "phalanx.db")
    with db:
        db.executemany("INSERT INTO api_key(key_id, digest, tenant, user, roles, created_ns) VALUES(?, ?, 'bench', ?, 1, ?)",
                       [(secrets.token_hex(8), hashlib.sha256(k.encode()).digest(), name, now) for k, name in zip(keys, names)])
        db.execute("UPDATE meta SET value = value + 1 WHERE name = 'key_generation'")
    db.close()
    return keys


def histogram(daemon, name):
    """{upper bound in ms: count so far}."""
    connection = http.client.HTTPConnection(*daemon.address, timeout=10)
    connection.request("GET", "/metrics", headers={"Authorization": "Bearer " + daemon.key})
    text = connection.getresponse().read().decode()
    connection.close()
    out = {}
    for line in text.splitlines():
        if line.startswith(name + "_bucket"):
            bound = line.split('le="')[1].split('"')[0]
            out[float("inf") if bound == "+Inf" else float(bound) * 1000] = int(line.rsplit(" ", 1)[1])
    return out


def quantile(counts, q):
    """Linear inside a bucket, as Prometheus does it."""
    total, low, below = counts[float("inf")], 0.0, 0
    for bound, n in sorted(counts.items()):
        if n >= q * total:
            return None if bound == float("inf") else round(low + (bound - low) * (q * total - below) / max(n - below, 1), 3)
        low, below = bound, n
    return None


def within(counts, ms):
    return round(counts[ms] / max(counts[float("inf")], 1), 5)


def run_phase(daemon, files, rate, new_every, seconds, connections):
    names = {"admission": "phalanx_admission_seconds", "added": "phalanx_admission_wait_seconds",
             "settlement": "phalanx_settlement_seconds"}
    before = {key: histogram(daemon, name) for key, name in names.items()}
    host, port = daemon.address
    done = subprocess.run([BIN / "http_load", host, str(port), files["known"], files["new"], str(new_every), str(rate), str(seconds),
                           str(connections), "demo"], capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0 or done.stderr:
        raise SystemExit(done.stderr)
    phase = {"rate": rate, "new_every": new_every, "connections": connections, "client": json.loads(done.stdout)}
    for key, name in names.items():
        after = histogram(daemon, name)
        counts = {bound: n - before[key].get(bound, 0) for bound, n in after.items()}
        phase[key] = {"n": counts[float("inf")], "p50_ms": quantile(counts, 0.5), "p99_ms": quantile(counts, 0.99),
                      "within_1_ms": within(counts, 1.0), "within_10_ms": within(counts, 10.0)}
    return phase


def measure_sync(folder, n=300):
    """Microseconds of write and fdatasync of 4 KiB where the database lies."""
    path, times = folder / "sync.probe", []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    for _ in range(n):
        began = time.monotonic_ns()
        os.write(fd, bytes(4096))
        os.fdatasync(fd)
        times.append((time.monotonic_ns() - began) / 1000)
    os.close(fd)
    path.unlink()
    times.sort()
    return {"p50_us": round(times[n // 2]), "p99_us": round(times[n * 99 // 100])}


def prepare(folder, n_new, step_us):
    licensor = Licensor(folder / "licensor")
    licence = licensor.issue("bench", limits={"unit": "person-month", "seats": None, "indirect_users": None, "concurrent": None})
    daemon = Daemon(folder / "data", [f"license.roots={licensor.roots}", "limits.active=4096", "limits.active_per_tenant=4096"],
                    {"MOCK_STEP_US": str(step_us)})
    daemon.prepare()
    daemon.run("license", "install", "--data", daemon.folder, licence, "--key-set", licensor.key_set(1))
    files = {"known": folder / "known.keys", "new": folder / "new.keys"}
    known = make_keys(daemon, [f"known-{i}" for i in range(100)])
    files["known"].write_text("\n".join(known) + "\n")
    new = make_keys(daemon, [f"new-{i}" for i in range(n_new)])
    daemon.start()
    for key in known:
        assert ask(daemon, key, max_tokens=1)[0] == 200
    return daemon, files, new


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--step-us", type=int, default=0, help="what a step of the engine takes")
    parser.add_argument("--folder", help="where the database lies (default: the temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="phalanx-bench.", dir=arguments.folder) as name:
        folder, seconds, rate = Path(name), arguments.seconds, arguments.rate
        plans = {"known": (rate, 0, 64), "one_in_ten_new": (rate, 10, 64), "all_new": (rate, 1, 64),
                 "most_known": (0, 0, 64), "most_known_256": (0, 0, 256), "most_one_in_ten_new": (0, 10, 64)}
        daemon, files, new = prepare(folder, 40000, arguments.step_us)
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        report = {"benchmark": "admission", "commit": commit, "cores": os.cpu_count(),
                  "step_us": arguments.step_us, "where": arguments.folder or tempfile.gettempdir(), "load_before": os.getloadavg()[0],
                  "fdatasync": measure_sync(folder), "phases": {}}
        for phase, (wanted, new_every, connections) in plans.items():
            n_new = 0 if new_every == 0 else (wanted or 6000) * seconds // new_every + 1
            files["new"].write_text("".join(key + "\n" for key in new[:n_new]))
            del new[:n_new]
            report["phases"][phase] = run_phase(daemon, files, wanted, new_every, seconds, connections)
        report["load_after"] = os.getloadavg()[0]
        daemon.stop()
        daemon.verify()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
