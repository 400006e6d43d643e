# SPDX-License-Identifier: Apache-2.0
"""A licensor with roots and an issuer of its own, over the command line."""
import json
import os
import subprocess
from pathlib import Path

PHALANX = Path(os.environ.get("PHX_BIN", Path(__file__).resolve().parents[2] / "build/release/bin")) / "phalanx"


def phalanx(*args, code=0):
    done = subprocess.run([PHALANX, *map(str, args)], capture_output=True, text=True, timeout=30)
    assert done.returncode == code, (args, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr


def license_(*args, code=0):
    return phalanx("license", *args, code=code)


class Licensor:
    def __init__(self, folder):
        self.folder = folder
        self.keys = {name: json.loads(license_("keygen", "--out", folder, "--name", name, "--json"))
                     for name in ("root-1", "root-2", "root-3", "issuer")}
        self.roots = folder / "roots.pub"
        self.roots.write_text("threshold 2\n" + "".join(self.keys[f"root-{i}"]["public_key"] + "\n" for i in (1, 2, 3)))

    def payload(self, **changes):
        return {
            "schema": "licence/1", "licence_id": "01J", "serial": 7, "supersedes": None,
            "licensee": {"legal_name": "Acme plc", "id": "LEI:1", "class": "commercial"}, "attestation": None,
            "models": [{"manifest_root": "*", "policy": "any"}],
            "limits": {"unit": "person-month", "seats": 500, "overdraft_pct": 10},
            "clusters": [], "not_before": "2026-01-01T00:00:00Z", "not_after": "2099-01-01T00:00:00Z",
            "warn_days": 30, "grace_days": 14, "continuity_days": 60, "enforce": "hard", "key_set_min_version": 1,
            **changes}

    def issue(self, name, code=0, renews=None, **changes):
        source, out = self.folder / f"{name}.payload", self.folder / f"{name}.json"
        source.write_text(json.dumps(self.payload(**changes)))
        text = license_("issue", "--payload", source, "--key", self.folder / "issuer.secret", "--out", out,
                        *(("--renews", renews) if renews else ()), code=code)
        return out if code == 0 else text

    def key_set(self, version, signers=("root-1", "root-2"), **changes):
        source, out = self.folder / f"keyset-{version}.payload", self.folder / f"keyset-{version}.json"
        source.write_text(json.dumps({
            "schema": "keyset/1", "version": version, "issued_at": "2026-01-01T00:00:00Z",
            "issuers": [{**self.keys["issuer"], "not_before": "2026-01-01T00:00:00Z", "not_after": "2099-01-01T00:00:00Z"}],
            "revoked_serials": [], **changes}))
        keys = [part for name in signers for part in ("--key", self.folder / f"{name}.secret")]
        license_("keyset", "--payload", source, *keys, "--out", out)
        return out
