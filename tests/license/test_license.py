# SPDX-License-Identifier: Apache-2.0
"""`phalanx license` from both sides: a licensor makes keys, a key set and licences; a site installs them."""
import base64
import json
from pathlib import Path

import pytest
from licensor import Licensor, license_
from mock_daemon import Daemon

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def licensor(tmp_path_factory):
    return Licensor(tmp_path_factory.mktemp("licensor"))


@pytest.fixture
def site(tmp_path, licensor):
    """A data folder as `phalanx up` makes it, with the licensor's roots."""
    return Daemon(tmp_path / "data", [f"license.roots={licensor.roots}"]).prepare().folder


def show(site):
    return json.loads(license_("show", "--data", site, "--json"))


def test_keys_are_private_and_never_overwritten(licensor):
    assert (licensor.folder / "issuer.secret").stat().st_mode & 0o777 == 0o600
    before = (licensor.folder / "issuer.secret").read_bytes()
    assert "never overwritten" in license_("keygen", "--out", licensor.folder, "--name", "issuer", code=1)
    assert (licensor.folder / "issuer.secret").read_bytes() == before


def test_issue_fills_in_and_refuses_what_a_site_would(licensor):
    envelope = json.loads(licensor.issue("a").read_text())
    payload = json.loads(base64.b64decode(envelope["payload"]))
    assert len(base64.b64decode(payload["seat_salt"])) == 32
    assert payload["issuer_kid"] == licensor.keys["issuer"]["kid"]
    assert "grace_weeks" in licensor.issue("b", code=2, grace_weeks=2)
    assert not (licensor.folder / "b.json").exists()


def test_show_files_verifies(licensor, tmp_path):
    license_file, key_set = licensor.issue("c"), licensor.key_set(1)
    assert "500" in license_("show", license_file, key_set, "--roots", licensor.roots)
    assert "key set" in license_("show", license_file, "--roots", licensor.roots, code=1)
    license_("show", license_file, key_set, code=1)  # the roots compiled in are others
    one = licensor.key_set(2, signers=("root-1",))
    license_("show", one, "--roots", licensor.roots, code=1)
    bent = tmp_path / "bent.json"
    bent.write_text(license_file.read_text().replace('"sig":"', '"sig":"A', 1))
    license_("show", bent, key_set, "--roots", licensor.roots, code=1)


def test_install_by_the_rules(licensor, site):
    first, key_set = licensor.issue("d"), licensor.key_set(3)
    assert show(site)["state"] == "none"
    dry = json.loads(license_("install", "--data", site, first, "--key-set", key_set, "--dry-run", "--json"))
    assert (dry["serial"], dry["state"], dry["same"]) == (7, "valid", False)
    assert show(site)["state"] == "none" and not (site / "license.json").exists()
    license_("install", "--data", site, first, "--key-set", key_set, "--by", "alice")
    now = show(site)
    assert (now["state"], now["licence"]["serial"], now["key_set_version"], now["problem"]) == ("valid", 7, 3, "")
    assert (site / "license.json").read_bytes() == first.read_bytes()
    again = json.loads(license_("install", "--data", site, first, "--json"))
    assert again["same"]
    assert "older" in license_("install", "--data", site, licensor.issue("e", serial=6), code=1)
    assert "older" in license_("install", "--data", site, licensor.issue("f", serial=8), "--key-set",
                               licensor.key_set(2), code=1)
    assert "other clusters" in license_("install", "--data", site, licensor.issue("g", serial=8, clusters=["a" * 64]), code=1)
    assert "in force from" in license_("install", "--data", site,
                                       licensor.issue("h", serial=8, not_before="2098-01-01T00:00:00Z"), code=1)
    license_("install", "--data", site, licensor.issue("i", serial=8, supersedes=7))
    assert show(site)["licence"]["serial"] == 8
    revoking = licensor.key_set(4, revoked_serials=[9])
    assert "revoked" in license_("install", "--data", site, licensor.issue("j", serial=9), "--key-set", revoking, code=1)
    (site / "license.json").write_text("broken")
    now = show(site)
    assert now["licence"]["serial"] == 8 and "license.json" in now["problem"]


def test_seats_of_a_month(licensor, site):
    license_("install", "--data", site, licensor.issue("k"), "--key-set", licensor.key_set(1))
    seats = json.loads(license_("seats", "--data", site, "--period", "2026-10", "--json"))
    assert (seats["people"], seats["seats"], seats["overdraft_seats"], seats["indirect_users"]) == (0, 500, 50, None)
    license_("seats", "--data", site, "--period", "2026-13", code=2)


@pytest.mark.parametrize("args", [[], ["bogus"], ["install", "x"], ["issue", "--out", "x"], ["keygen"], ["show"],
                                  ["keygen", "--out", "x", "y"]])
def test_usage_errors(args):
    license_(*args, code=2)


def test_the_bundled_evaluation_licence():
    folder = ROOT / "deploy/license"
    out = license_("show", folder / "evaluation.json", folder / "evaluation-keyset.json", "--json").splitlines()
    key_set, licence = map(json.loads, out)
    assert key_set["key_set_version"] == 1
    assert (licence["class"], licence["enforce"], licence["clusters"]) == ("evaluation", "hard", [])
    assert licence["limits"] == {"seats": 25, "overdraft_pct": 20, "indirect_users": 5, "concurrent": 64, "nodes": None,
                                 "gpus": None, "tokens_per_month": None}
    assert (licence["not_before"][:10], licence["not_after"][:10]) == ("2026-01-01", "2036-01-01")
