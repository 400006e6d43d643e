#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The front end alone, over ranks without a model: prints one JSON object.

`phalanx bench http` makes the load; what the daemon used is read from /proc, so that figures are per second of the
daemon's processor time (all its threads), whatever else runs on the machine.  `events` are stream frames with text, as
a client sees them; one may carry several tokens when the daemon is behind.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/mock"))
from licensor import Licensor  # noqa: E402
from mock_daemon import BIN, Daemon, ask  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
PHASES = {
    # name: (arguments of bench http, microseconds of a step)
    "stream_8": (["-c", "8", "--output-tokens", "1000", "--prompt-tokens", "16"], 0),
    "stream_64": (["-c", "64", "--output-tokens", "1000", "--prompt-tokens", "16"], 0),
    "stream_256": (["-c", "256", "--output-tokens", "1000", "--prompt-tokens", "16"], 0),
    "paced_256": (["-c", "256", "--output-tokens", "500", "--prompt-tokens", "16"], 20000),
    "chat_stream_64": (["-c", "64", "--output-tokens", "500", "--prompt-tokens", "100", "--chat"], 0),
    "whole_64": (["-c", "64", "--output-tokens", "1", "--prompt-tokens", "16", "--no-stream"], 0),
    "whole_256": (["-c", "256", "--output-tokens", "1", "--prompt-tokens", "16", "--no-stream"], 0),
    "prompt_3700": (["-c", "16", "--output-tokens", "1", "--prompt-tokens", "1000", "--no-stream", "--chat"], 0),
}


def cpu_seconds(pid):
    """{thread name: seconds} of a process."""
    out = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            text = (task / "stat").read_text()
        except OSError:
            continue
        name, fields = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
        out[name] = out.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / TICK
    return out


def memory_mb(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    return None


def run_phase(daemon, arguments, seconds):
    before = cpu_seconds(daemon.process.pid)
    done = subprocess.run([BIN / "phalanx", "bench", "http", "--data", daemon.folder, "--duration", str(seconds), "--json", *arguments],
                          capture_output=True, text=True, timeout=seconds + 120)
    if done.returncode != 0:
        raise SystemExit(done.stderr + daemon.log()[-2000:])
    client = json.loads(done.stdout)
    threads = {name: round(value - before.get(name, 0.0), 3) for name, value in cpu_seconds(daemon.process.pid).items()}
    used = max(sum(threads.values()), 1.0 / TICK)
    return {"tokens_per_cpu_s": round(client["output_tokens"] / used), "events_per_cpu_s": round(client["events"] / used),
            "requests_per_cpu_s": round(client["answered"] / used),
            "tokens_per_event": round(client["output_tokens"] / max(client["events"], 1), 2), "cpu_s": round(used, 3),
            "cpu_s_by_thread": {k: v for k, v in threads.items() if v > 0.02}, "memory_mb": memory_mb(daemon.process.pid),
            "client": client}


def prepare(folder, environment):
    licensor = Licensor(folder / "licensor")
    licence = licensor.issue("bench", limits={"unit": "person-month", "seats": None, "indirect_users": None, "concurrent": None})
    daemon = Daemon(folder / "data", [f"license.roots={licensor.roots}", "limits.active=4096", "limits.active_per_tenant=4096",
                                      "http.body_max_bytes=8388608"], environment)
    daemon.prepare()
    daemon.run("license", "install", "--data", daemon.folder, licence, "--key-set", licensor.key_set(1))
    return daemon


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--hold", action="store_true", help="start the daemon, print its pid and wait for a line on stdin")
    parser.add_argument("--folder", help="where the database lies (default: the temporary folder)")
    arguments = parser.parse_args()
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    report = {"benchmark": "front", "commit": commit, "cores": os.cpu_count(), "load_before": os.getloadavg()[0], "phases": {}}
    with tempfile.TemporaryDirectory(prefix="phalanx-bench.", dir=arguments.folder) as name:
        daemon = prepare(Path(name), {})
        for phase in arguments.phases.split(","):
            options, step_us = PHASES[phase]
            daemon.start({"MOCK_STEP_US": str(step_us)})
            assert ask(daemon, max_tokens=1)[0] == 200
            if arguments.hold:
                print(daemon.process.pid, daemon.folder, flush=True)
                sys.stdin.readline()
            report["phases"][phase] = run_phase(daemon, options, arguments.seconds)
            daemon.stop()
    report["load_after"] = os.getloadavg()[0]
    print(json.dumps(report))


if __name__ == "__main__":
    main()
