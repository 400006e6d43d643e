# SPDX-License-Identifier: Apache-2.0
"""The machine a benchmark runs on: what it is, and how much of it others used meanwhile."""
import os
import platform
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal; guest time is inside user


def field(path, key):
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return ""


def facts():
    flags = set(field("/proc/cpuinfo", "flags").split())
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")
    return {"cpu": field("/proc/cpuinfo", "model name"), "cores": len(os.sched_getaffinity(0)),
            "isa": [name for name in known if name in flags],
            "memory_gb": round(int(field("/proc/meminfo", "MemTotal").split()[0]) / 1e6, 1),
            "kernel": ".".join(platform.release().split(".")[:2]), "is_virtual": "hypervisor" in flags}


def busy_seconds():
    """Processor time that all cores spent on anything since boot, what the host took away included."""
    columns = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(columns[i]) for i in BUSY) / TICKS


def own_seconds():
    """Of this process and of its ended children and theirs."""
    return sum(os.times()[:4])


class Foreign:
    """with Foreign() as f: ...; f.share is then what others used of all cores, 0 to 1."""

    def __enter__(self):
        self.wall, self.busy, self.own = time.monotonic(), busy_seconds(), own_seconds()
        return self

    def __exit__(self, *_):
        wall = max(time.monotonic() - self.wall, 1e-9)
        foreign = busy_seconds() - self.busy - (own_seconds() - self.own)
        self.share = round(min(max(foreign / (wall * os.cpu_count()), 0.0), 1.0), 4)


def wait_quiet(limit, seconds):
    """Returns once others used less than `limit` for a second, or after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        with Foreign() as now:
            time.sleep(1)
        if now.share <= limit or time.monotonic() >= end:
            return
