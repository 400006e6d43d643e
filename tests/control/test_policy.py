# SPDX-License-Identifier: Apache-2.0
"""Tenants: what they signed, how much of their requests is kept, and who may read or erase it."""
import hashlib
import json

import pytest
from licensor import Licensor
from mock_daemon import ask, make_key
from moved_clock import DAY, MovedClock


def tenant(daemon, *arguments, code=0):
    done = daemon.run("tenant", *arguments, "--data", daemon.folder, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def content(daemon, *arguments, code=0):
    done = daemon.run("content", *arguments, "--data", daemon.folder, check=False)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return json.loads(done.stdout) if code == 0 else done.stderr


def read(daemon, receipt, code=0):
    return content(daemon, "read", receipt, "--by", "ann", "--approved-by", "bob", "--why", "complaint 7", "--json", code=code)


def refused(answer, status, rule):
    assert (answer[0], answer[2]["x-phalanx-rule"]) == (status, rule), answer[1]
    assert rule in answer[1]["error"]["message"]


def leaves(daemon, kind):
    return [json.loads(r) for (r,) in daemon.rows("SELECT record FROM audit WHERE kind = ? ORDER BY leaf", kind)]


def test_the_signed_text_and_the_purpose(make_daemon, tmp_path):
    text, other = tmp_path / "aup.txt", tmp_path / "other.txt"
    text.write_text("be kind\n")
    other.write_text("be quick\n")
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    licensor = Licensor(tmp_path / "licensor")
    daemon = make_daemon("data", f"policy.aup_sha256={digest}", "policy.purpose_required=true",
                         f"license.roots={licensor.roots}")
    licence = licensor.issue("a", models=[{"manifest_root": "*", "policy": "p", "denied_purposes": ["bio-weapon"]}])
    daemon.run("license", "install", "--data", daemon.folder, licence, "--key-set", licensor.key_set(1))
    key = make_key(daemon, "acme", "ann")
    daemon.start()
    good = {"x-phalanx-purpose": "support"}
    refused(ask(daemon, key, good), 403, "policy.aup")
    tenant(daemon, "sign-aup", "acme", "--file", other, "--by", "Ann Example")
    refused(ask(daemon, key, good), 403, "policy.aup")
    signed = json.loads(tenant(daemon, "sign-aup", "acme", "--file", text, "--by", "Ann Example", "--json"))
    assert (signed["aup_hash"], signed["aup_by"]) == (digest, "Ann Example")
    assert ask(daemon, key, good)[0] == 200
    refused(ask(daemon, key), 403, "policy.purpose")
    refused(ask(daemon, key, {"x-phalanx-purpose": "bio-weapon"}), 403, "licence.purpose")
    for bad in ("Bio Weapon", "x" * 65, "a/b"):
        assert ask(daemon, key, {"x-phalanx-purpose": bad})[0] == 400, bad
    assert leaves(daemon, "intent")[-1]["who"]["aup_hash"] == digest
    assert [r["rule"] for r in leaves(daemon, "refusal")] == ["policy.aup", "policy.aup", "policy.purpose", "licence.purpose"]
    assert json.loads(tenant(daemon, "show", "acme", "--json"))["aup_hash"] == digest
    assert "signed" in tenant(daemon, "list")
    (tmp_path / "empty").write_text("")
    tenant(daemon, "sign-aup", "acme", "--file", tmp_path / "empty", "--by", "a", code=2)
    tenant(daemon, "sign-aup", "acme", "--file", tmp_path / "none", "--by", "a", code=1)
    tenant(daemon, "set", "acme", "--privacy", "open", code=2)
    tenant(daemon, "set", "acme", "--retention", "one-day", code=2)
    tenant(daemon, "set", "a/b", "--privacy", "clear", code=2)


@pytest.mark.parametrize("mode", ["commit-only", "encrypted", "clear"])
def test_what_is_kept(shared, mode):
    name = "t-" + mode
    tenant(shared, "set", name, "--privacy", mode, "--by", "dpo")
    key = make_key(shared, name, "ann")
    answer = None
    while answer is None or answer[0] == 401:  # keys are known within a second
        answer = ask(shared, key, prompt="geheim", max_tokens=8)
    assert answer[0] == 200, answer[1]
    receipt = answer[1]["receipt"]
    kept = read(shared, receipt)
    assert kept["has_text"] == (mode != "commit-only") and len(kept["salt"]) == 64
    if mode != "commit-only":
        assert kept["request"]["prompt"] == list(b"geheim")
        assert sum(len(c) for c in kept["response"]["choices"]) == answer[1]["usage"]["completion_tokens"]
    told = leaves(shared, "read")[-1]
    assert told["by"] == "ann, approved by bob" and receipt in json.dumps(told)
    for arguments in (("--by", "ann", "--approved-by", "Ann", "--why", "x"), ("--by", "ann", "--why", "x"),
                      ("--by", "ann", "--approved-by", "bob")):
        content(shared, "read", receipt, *arguments, code=2)

    content(shared, "hold", "open", "case-" + mode, "--tenant", name, "--why", "court", "--by", "legal", "--json")
    assert "case-" + mode in content(shared, "shred", receipt, code=1)
    holds = content(shared, "hold", "list", "--json")["holds"]
    assert [h for h in holds if h["name"] == "case-" + mode][0]["reason"] == "court"
    content(shared, "hold", "close", "case-" + mode, "--by", "legal", "--json")
    assert content(shared, "shred", receipt, "--json") == {"shredded": 1}
    read(shared, receipt, code=1)
    content(shared, "shred", receipt, code=1)
    content(shared, "shred", "rcpt_" + "0" * 32, code=1)


def test_content_expires(make_daemon, tmp_path):
    clock = MovedClock(tmp_path)
    daemon = make_daemon(environment=clock.environment)
    keys = {}
    for name, retention in (("short", "standard"), ("held", "standard"), ("long", "year-1")):
        tenant(daemon, "set", name, "--privacy", "encrypted", "--retention", retention)
        keys[name] = make_key(daemon, name, "ann")
    daemon.start()
    receipts = {name: ask(daemon, key)[1]["receipt"] for name, key in keys.items()}
    content(daemon, "hold", "open", "case", "--tenant", "held", "--user", "ann", "--why", "court", "--json")
    assert content(daemon, "expire", "--json") == {"shredded": 0}
    clock.move(185 * DAY)
    assert content(daemon, "expire", "--json") == {"shredded": 0}, "the wall clock alone erases nothing"
    daemon.run("clock", "accept", "--data", daemon.folder, "--by", "ann", "--approved-by", "bob")
    assert content(daemon, "expire", "--json") == {"shredded": 1}
    read(daemon, receipts["short"], code=1)
    assert read(daemon, receipts["held"])["has_text"] and read(daemon, receipts["long"])["has_text"]
    content(daemon, "hold", "close", "case", "--json")
    assert content(daemon, "expire", "--json") == {"shredded": 1}
    assert read(daemon, receipts["long"])["has_text"]
    month = clock.format(-185 * DAY, "%Y-%m")
    assert content(daemon, "shred", "--tenant", "long", "--period", month, "--json") == {"shredded": 1}
    read(daemon, receipts["long"], code=1)
    assert daemon.stop() == 0
    daemon.verify()
