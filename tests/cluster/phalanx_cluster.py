# SPDX-License-Identifier: Apache-2.0
"""Whole clusters of real processes: phalanxd, mpirun and ranks, driven by stock clients."""
import json
import os
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin"))
DEMO = ROOT / "deploy/demo/model"


def children_of(pid):
    """All descendants of a process, by /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    found, frontier = [], [pid]
    while frontier:
        frontier = [p for p, parent in parents.items() if parent in frontier]
        found += frontier
    return found


class Cluster:
    """One `phalanx up` in a folder of its own."""

    def __init__(self, folder, tp=1, pp=1, model=DEMO, extra=(), programs=BIN, backend="cpu"):
        self.folder = Path(folder)
        self.log_path = self.folder.parent / (self.folder.name + ".log")
        on = ["--threads", "1"] if backend == "cpu" else ["--backend", backend]
        self.command = [str(Path(programs) / "phalanx"), "up", str(model), "--tp", str(tp), "--pp", str(pp),
                        *on, "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
                        "--data", str(self.folder), "--json", *extra]
        self.process = None
        self.ready = None

    def start(self, timeout=90):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log)
        os.set_blocking(self.process.stdout.fileno(), False)
        line, end = b"", time.monotonic() + timeout
        while not line.endswith(b"\n"):
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"not ready: rc {self.process.poll()}\n" + self.log()[-3000:])
            line += self.process.stdout.read() or b""
            time.sleep(0.02)
        self.ready = json.loads(line)
        assert self.ready["event"] == "ready"
        return self

    def stop(self, timeout=30):
        """SIGTERM drains and exits 0, and leaves no rank behind."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else None
        ranks = [r["pid"] for r in self.ready["ranks"]]
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            for pid in children_of(self.process.pid) + [self.process.pid]:
                os.kill(pid, signal.SIGKILL)
            raise
        end = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in ranks):
            assert time.monotonic() < end, "ranks outlive the daemon"
            time.sleep(0.05)
        return code

    @property
    def url(self):
        return self.ready["url"]

    @property
    def key(self):
        return Path(self.ready["key_file"]).read_text().strip()

    def client(self, **kwargs):
        import openai

        return openai.OpenAI(base_url=self.url + "/v1", api_key=self.key, max_retries=0,
                             timeout=kwargs.pop("timeout", 120), **kwargs)

    @property
    def model(self):
        return self.ready["model"]

    def log(self):
        return self.log_path.read_text(errors="replace")

    def run(self, *arguments, check=True):
        """A `phalanx` subcommand; answers its standard output."""
        done = subprocess.run([str(BIN / "phalanx"), *map(str, arguments)], capture_output=True,
                              text=True, timeout=120)
        if check:
            assert done.returncode == 0, done.stderr
        return done


def ask(cluster, question, **kwargs):
    """One question at temperature 0; the message."""
    kwargs.setdefault("temperature", 0)
    answer = cluster.client().chat.completions.create(
        model=cluster.model, messages=[{"role": "user", "content": question}], **kwargs)
    return answer.choices[0].message


def questions(count, seed=1, kind=None):
    command = [str(ROOT / "deploy/demo/questions"), "--seed", str(seed), "--count", str(count)]
    if kind:
        command += ["--kind", kind]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]
