# SPDX-License-Identifier: Apache-2.0
"""A phalanxd over ranks without a model, and a client that keeps its own count of what it was told."""
import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin"))
TESTS = BIN.parent / "tests"
DEMO = ROOT / "deploy/demo/model"


class Daemon:
    """phalanxd on a folder of its own; it can be killed and started again on the same folder."""

    def __init__(self, folder, settings=(), environment=None):
        self.folder = Path(folder)
        self.log_path = self.folder.parent / (self.folder.name + ".log")
        self.environment = dict(os.environ, **(environment or {}))
        self.process = None
        self.ready = None
        self.settings = ["launcher.rank_program=" + str(TESTS / "mock-rank"), "cluster.replicas=1",
                         "restart.backoff_min_ms=10", *settings]

    def prepare(self):
        """Writes configuration, certificates and keys by `phalanx up`, and stops at once."""
        command = [str(BIN / "phalanx"), "up", str(DEMO), "--listen", "127.0.0.1:0", "--grpc",
                   "127.0.0.1:0", "--data", str(self.folder), "--json"]
        for setting in self.settings:
            command += ["--set", setting]
        self.launch(command)
        assert self.stop() == 0
        shutil.copy(self.folder / "audit/trust.json", self.trust)  # as an auditor does on the first day
        return self

    @property
    def trust(self):
        return self.folder.parent / (self.folder.name + ".trust.json")

    def verify(self, allowed=(0,)):
        """The log as an auditor sees it, with the trust of the first day.  2: it tells of a gap itself."""
        done = self.run("audit", "verify", self.folder / "audit", "--trust", self.trust, check=False)
        assert done.returncode in allowed, done.stdout + done.stderr

    def start(self, environment=None):
        self.launch([str(BIN / "phalanxd"), "-c", str(self.folder / "phalanxd.yaml"), "--json"], environment)
        return self

    def launch(self, command, environment=None, timeout=60):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log,
                                            env=dict(self.environment, **(environment or {})))
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"not ready: rc {self.process.wait(timeout)}\n{self.log()[-3000:]}")
        self.ready = json.loads(line)

    def stop(self, timeout=30):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        finally:
            self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def log(self):
        return self.log_path.read_text(errors="replace")

    @property
    def address(self):
        host, port = self.ready["url"].removeprefix("http://").rsplit(":", 1)
        return host, int(port)

    @property
    def key(self):
        return (self.folder / "keys/admin.key").read_text().strip()

    def run(self, *arguments, check=True):
        done = subprocess.run([str(BIN / "phalanx"), *map(str, arguments)], capture_output=True,
                              encoding="utf-8", errors="surrogateescape", timeout=120, env=self.environment)
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def rows(self, sql, *values):
        """What the database holds, read beside the daemon."""
        with sqlite3.connect(f"file:{self.folder}/phalanx.db?mode=ro", uri=True) as db:
            return db.execute(sql, values).fetchall()


class Client:
    """One connection.  `post` answers (status, body, headers); it raises OSError when the daemon is gone."""

    def __init__(self, daemon, key=None, timeout=30):
        self.daemon, self.key, self.timeout = daemon, key or daemon.key, timeout
        self.connection = None

    def post(self, body, headers=None):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(*self.daemon.address, timeout=self.timeout)
        try:
            self.connection.request("POST", "/v1/completions", json.dumps(body),
                                    {"Authorization": "Bearer " + self.key,
                                     "Content-Type": "application/json", **(headers or {})})
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise OSError(str(error)) from error
        return answer.status, json.loads(text), answer.headers

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def make_key(daemon, tenant, user, *more):
    made = daemon.run("key", "create", "--data", daemon.folder, "--tenant", tenant, "--user", user, "--json", *more)
    return json.loads(made.stdout)["key"]


def ask(daemon, key=None, headers=None, **body):
    """One small request over a connection of its own."""
    client = Client(daemon, key)
    try:
        return client.post({"model": "demo", "prompt": "hello", "max_tokens": 4, "seed": 1, **body}, headers)
    finally:
        client.close()


class Oracle:
    """What clients were told, by receipt."""

    def __init__(self):
        self.lock = threading.Lock()
        self.told = {}

    def note(self, body):
        usage = body["usage"]
        entry = (usage["prompt_tokens"], usage["completion_tokens"])
        with self.lock:
            assert body["receipt"] not in self.told, "a receipt was given twice"
            self.told[body["receipt"]] = entry

    def check(self, daemon):
        """Every acknowledged request is in the ledger once, with these very numbers."""
        commits = {}
        for lease, prompt, output in daemon.rows("SELECT lease, prompt, output FROM ledger WHERE kind = 'commit'"):
            assert lease not in commits, f"{lease} was committed twice"
            commits[lease] = (prompt, output)
        for receipt, numbers in self.told.items():
            assert commits.get(receipt) == numbers, f"{receipt}: told {numbers}, recorded {commits.get(receipt)}"
        ends = dict(daemon.rows("SELECT lease, COUNT(*) FROM ledger WHERE kind IN ('commit', 'void') GROUP BY lease"))
        begins = dict(daemon.rows("SELECT lease, COUNT(*) FROM ledger WHERE kind = 'reserve' GROUP BY lease"))
        assert ends == begins, "each reservation has one end"
        leaves = dict(daemon.rows("SELECT kind, COUNT(*) FROM audit WHERE kind IN ('intent', 'result') GROUP BY kind"))
        assert leaves.get("intent", 0) == leaves.get("result", 0) == len(begins)
        return commits


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)
