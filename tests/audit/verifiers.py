# SPDX-License-Identifier: Apache-2.0
"""Both verifiers, for tests: the Python one in this process, the C one as the program that ships."""
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import make_log

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy/verify/phalanx_verify.py"
BIN = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin")) / "phalanx-audit"


sys.path.insert(0, str(SCRIPT.parent))
PV = importlib.import_module("phalanx_verify")
PR = importlib.import_module("phalanx_receipt")


class Files(PV.Folder):
    """A folder that is a dictionary."""

    def __init__(self, files):
        super().__init__("")
        self.files = files

    def read(self, name, most):
        data = self.files.get(name)
        if data is not None and len(data) > most:
            raise PV.Stop(PV.TAMPERED, f"{name}: larger than {most} bytes")
        return data

    def names(self, folder=""):
        return [name for name in self.files if name.startswith(folder)]


def python_verify(files, trust, kept=(), witnesses=()):
    """(exit code, report)."""
    try:
        trust = PV.load_trust(trust, "--trust", PV.USAGE) if trust else None
        kept = [PV.Checkpoint(data, "kept") for data in kept]
        witnesses = [PV.load_witness(text) for text in witnesses]
    except PV.Stop as stop:
        return stop.args[0], None
    report = PV.Verify(Files(files), "folder", trust, kept, witnesses).run()
    return PV.worst(report.codes), report


def run_c(*args):
    return subprocess.run([str(BIN), *map(str, args)], capture_output=True, text=True, timeout=120)


def c_verify(tmp, files, trust, kept=(), witnesses=()):
    """(exit code, JSON report or None)."""
    folder = Path(tmp) / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_log.write(files, folder)
    args = ["verify", "--json"]
    if trust:
        (Path(tmp) / "trust.json").write_bytes(trust)
        args += ["--trust", Path(tmp) / "trust.json"]
    for i, data in enumerate(kept):
        (Path(tmp) / f"kept{i}").write_bytes(data)
        args += ["--from", Path(tmp) / f"kept{i}"]
    for text in witnesses:
        args += ["--witness", text]
    out = run_c(*args, folder)
    return out.returncode, json.loads(out.stdout) if out.stdout else out.stderr


def both(tmp, files, trust, **options):
    """The exit code on which both agree; fails when they do not."""
    by_python, report = python_verify(files, trust, **options)
    by_c, text = c_verify(tmp, files, trust, **options)
    assert by_python == by_c, (by_python, report and report.problems, by_c, text)
    return by_c
