# SPDX-License-Identifier: Apache-2.0
"""Licences as users meet them: what a running daemon does with them, and what it refuses, with its rule."""
import json

import pytest
from licensor import Licensor
from mock_daemon import ask, make_key, wait_until
from moved_clock import DAY, HOUR, MovedClock


@pytest.fixture(scope="module")
def licensor(tmp_path_factory):
    made = Licensor(tmp_path_factory.mktemp("licensor"))
    made.key_set(1)
    return made


def limits(seats, overdraft_pct=0, indirect_users=0):
    return {"unit": "person-month", "seats": seats, "overdraft_pct": overdraft_pct, "indirect_users": indirect_users}


def show(daemon):
    return json.loads(daemon.run("license", "show", "--data", daemon.folder, "--json").stdout)


def install(daemon, file, *more, code=0):
    done = daemon.run("license", "install", "--data", daemon.folder, file, *more, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def expect(answer, status, rule=None):
    got, body, headers = answer
    assert (got, headers.get("x-phalanx-rule")) == (status, rule), body
    if rule is not None:
        assert rule in body["error"]["message"]
    return body


def rules_of(daemon, receipt):
    record = daemon.rows("SELECT record FROM audit WHERE receipt = ? AND kind = 'intent'", receipt)[0][0]
    return json.loads(record)["rules"]


def test_a_site_with_its_own_roots(licensor, make_daemon):
    daemon = make_daemon("data", f"license.roots={licensor.roots}")
    assert show(daemon)["state"] == "none" and not (daemon.folder / "license.json").exists()
    ann, bob = make_key(daemon, "acme", "ann"), make_key(daemon, "acme", "bob")
    small = licensor.issue("small", limits=limits(1))
    assert "key set" in install(daemon, small, code=1)
    with_keys = (small, "--key-set", licensor.folder / "keyset-1.json")
    before = daemon.rows("SELECT COUNT(*) FROM audit")
    assert "would install" in install(daemon, *with_keys, "--dry-run")
    assert (show(daemon)["state"], daemon.rows("SELECT COUNT(*) FROM audit")) == ("none", before)
    install(daemon, *with_keys, "--by", "alice")
    daemon.start()
    receipt = expect(ask(daemon, ann), 200)["receipt"]
    assert (rules_of(daemon, receipt)["licence_serial"], rules_of(daemon, receipt)["licence_state"]) == (7, "valid")
    expect(ask(daemon, bob), 429, "licence.seats")

    salted = licensor.issue("salted", serial=8, limits=limits(2))
    assert "second one" in install(daemon, salted, "--dry-run"), "ann would be counted twice"
    better = licensor.issue("better", serial=8, supersedes=7, limits=limits(2), renews=small)
    assert "second one" not in install(daemon, better, "--dry-run")
    assert "would install" in install(daemon, better, "--dry-run")
    expect(ask(daemon, bob), 429, "licence.seats")
    assert "next start" in install(daemon, better)
    assert daemon.stop() == 0
    daemon.start()
    assert "serial 8" in daemon.ready["licence"]
    assert rules_of(daemon, expect(ask(daemon, bob), 200)["receipt"])["licence_serial"] == 8
    assert rules_of(daemon, expect(ask(daemon, ann), 200)["receipt"])["licence_serial"] == 8

    assert "older than serial 8" in install(daemon, small, code=1)
    twin = licensor.issue("twin", serial=8, limits=limits(500))
    assert "another licence of serial 8" in install(daemon, twin, code=1)
    foreign = licensor.issue("foreign", serial=9, clusters=["0" * 64])
    fingerprint = show(daemon)["licence"]["clusters"]
    assert fingerprint == []
    assert "other clusters" in install(daemon, foreign, code=1)
    ended = licensor.issue("ended", serial=9, issued_at="2026-01-02T00:00:00Z", not_after="2026-02-01T00:00:00Z")
    assert "ended" in install(daemon, ended, "--dry-run", code=1)
    # rolled back by hand: the installed one serves, and says so
    (daemon.folder / "license.json").write_bytes(small.read_bytes())
    assert daemon.stop() == 0
    daemon.start()
    assert show(daemon)["licence"]["serial"] == 8 and "older than serial 8" in show(daemon)["problem"]
    expect(ask(daemon, bob), 200)
    leaves = [json.loads(r)["by"] for (r,) in daemon.rows("SELECT record FROM audit WHERE kind = 'licence'")]
    assert "alice" in leaves
    assert daemon.stop() == 0
    daemon.verify()


def test_the_31st_person(make_daemon):
    daemon = make_daemon()
    people = [make_key(daemon, "acme", f"person-{i}") for i in range(31)]
    programs = [make_key(daemon, "acme", f"program-{i}", "--service") for i in range(6)]
    daemon.start()
    receipts = [expect(ask(daemon, key), 200)["receipt"] for key in people[:30]]
    answers = [rules_of(daemon, receipt)["admission"] for receipt in receipts]
    assert answers == ["allow"] * 25 + ["overdraft"] * 5
    expect(ask(daemon, people[30]), 429, "licence.seats")
    for key in programs[:5]:
        expect(ask(daemon, key), 200)
    expect(ask(daemon, programs[5]), 429, "licence.indirect")
    second_device = make_key(daemon, "acme", "person-0")
    wait_until(lambda: ask(daemon, second_device)[0] == 200, 3)  # keys are known within a second
    for key in (people[0], people[29], programs[0], second_device):
        expect(ask(daemon, key), 200)
    assert daemon.stop() == 0
    daemon.start()
    expect(ask(daemon, people[30]), 429, "licence.seats")
    expect(ask(daemon, people[3]), 200)
    seats = json.loads(daemon.run("license", "seats", "--data", daemon.folder, "--json").stdout)
    assert (seats["people"], seats["overdraft"], seats["indirect"], seats["seats"]) == (30, 5, 5, 25)
    refused = daemon.rows("SELECT record FROM audit WHERE kind = 'refusal'")
    assert [json.loads(r)["rule"] for (r,) in refused] == ["licence.seats", "licence.indirect", "licence.seats"]
    assert daemon.stop() == 0
    daemon.verify()


def test_a_truncated_licence_file(make_daemon):
    daemon = make_daemon()
    file = daemon.folder / "license.json"
    file.write_bytes(file.read_bytes()[:-30])
    daemon.start()
    expect(ask(daemon), 200)
    assert "serial 1" in daemon.ready["licence"] and "license.problem" in daemon.log()
    now = show(daemon)
    assert (now["state"], now["licence"]["serial"]) == ("valid", 1) and "license.json" in now["problem"]
    assert daemon.stop() == 0


def test_the_states_after_the_end(licensor, make_daemon, tmp_path):
    """The wall clock alone ends nothing and extends nothing; two people who accept it do."""
    clock = MovedClock(tmp_path)
    daemon = make_daemon("data", f"license.roots={licensor.roots}", environment=clock.environment)
    known, new_in_grace, new, intensive = (make_key(daemon, tenant, user) for tenant, user in
                                           (("acme", "ann"), ("acme", "bob"), ("acme", "carol"), ("icu", "dan")))
    file = licensor.issue("short", limits=limits(100), not_after=clock.format(HOUR), warn_days=1, grace_days=1,
                          continuity_days=1, exempt_tenants=["icu"], exempt_cap_pct=1)
    install(daemon, file, "--key-set", licensor.folder / "keyset-1.json")
    daemon.start()
    assert rules_of(daemon, expect(ask(daemon, known), 200)["receipt"])["licence_state"] == "expiring"

    def clock_state():
        return json.loads(daemon.run("clock", "show", "--data", daemon.folder, "--json").stdout)["state"]

    def follows(state):
        """The daemon has seen it, too."""
        def seen():
            ask(daemon, known)
            states = [line for line in daemon.log().splitlines() if '"clock.state"' in line]
            return states and f'"state":"{state}"' in states[-1]
        wait_until(seen)

    def accept():
        follows("suspect")
        daemon.run("clock", "accept", "--data", daemon.folder, "--by", "ann", "--approved-by", "bob")
        assert clock_state() == "ok"
        ask(daemon, known)
        assert '"state":"ok"' in [x for x in daemon.log().splitlines() if '"clock.state"' in x][-1], "it has waited"

    clock.move(3 * HOUR)
    assert clock_state() == "suspect" and show(daemon)["state"] == "expiring"
    assert rules_of(daemon, expect(ask(daemon, known), 200)["receipt"])["licence_state"] == "expiring"
    one = daemon.run("clock", "accept", "--data", daemon.folder, "--by", "ann", "--approved-by", "ANN", check=False)
    assert one.returncode == 2 and clock_state() == "suspect"
    accept()
    assert show(daemon)["state"] == "grace"
    assert rules_of(daemon, expect(ask(daemon, known), 200)["receipt"])["licence_state"] == "grace"
    expect(ask(daemon, new_in_grace), 200)

    clock.move(DAY)
    accept()
    assert show(daemon)["state"] == "continuity"
    expect(ask(daemon, known), 200)
    expect(ask(daemon, new_in_grace), 200)
    expect(ask(daemon, new), 402, "licence.continuity")

    clock.move(DAY)
    accept()
    assert show(daemon)["state"] == "expired"
    expect(ask(daemon, known), 402, "licence.expired")
    expect(ask(daemon, intensive), 200)

    clock.move(-10 * DAY)
    assert clock_state() == "back" and show(daemon)["state"] == "expired", "turning back gains nothing"
    expect(ask(daemon, known), 402, "licence.expired")
    assert daemon.stop() == 0
    daemon.start()
    expect(ask(daemon, known), 402, "licence.expired")
    daemon.run("usage", "report", "--data", daemon.folder, "--period", clock.format(form="%Y-%m"))
    longer = licensor.issue("longer", serial=8, limits=limits(100), renews=file)
    install(daemon, longer)
    assert daemon.stop() == 0
    daemon.start()
    expect(ask(daemon, known), 200)
    events = [json.loads(r)["event"] for (r,) in daemon.rows("SELECT record FROM audit WHERE kind = 'clock'")]
    assert events.count("clock.accept") == 3 and "clock.back" in events and "clock.suspect" in events
    assert daemon.stop() == 0
    daemon.verify()
