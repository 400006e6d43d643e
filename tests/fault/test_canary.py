# SPDX-License-Identifier: Apache-2.0
"""A string sent in a prompt is found nowhere on disk, in no log and no metric, unless the tenant chose `clear`."""
import http.client
import json

from mock_daemon import Client, Daemon

CANARY = "kanarienvogel-4711-unmistakable"


def traces(daemon):
    """Files that hold the canary: as text, or as the token ids of a kept request (the demo's are bytes)."""
    ids = ",".join(str(b) for b in CANARY.encode()).encode()
    found = []
    for path in [*daemon.folder.rglob("*"), daemon.log_path]:
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if CANARY.encode() in data or ids in data:
                found.append(path.name)
    return found


def metrics(daemon):
    connection = http.client.HTTPConnection(*daemon.address, timeout=10)
    connection.request("GET", "/metrics", headers={"Authorization": "Bearer " + daemon.key})
    return connection.getresponse().read()


def make_tenant(daemon, privacy):
    """A tenant of that privacy; the key of its one user."""
    tenant = "tenant-" + privacy
    made = daemon.run("key", "create", "--data", daemon.folder, "--tenant", tenant, "--user", "u", "--json")
    daemon.run("tenant", "set", tenant, "--data", daemon.folder, "--privacy", privacy, "--by", "test")
    return json.loads(made.stdout)["key"]


def ask(daemon, key):
    """Three answers and two refusals."""
    client = Client(daemon, key)
    for body, expected in (({"prompt": CANARY}, 200), ({"prompt": CANARY, "stop": ["x" + CANARY[:9]]}, 200),
                           ({"prompt": list(CANARY.encode()), "user": "u"}, 200),
                           ({"prompt": CANARY, "max_tokens": -1}, 400),
                           ({"prompt": CANARY, "no_such_field": CANARY}, 400)):
        status, answer, _ = client.post({"model": "demo", "max_tokens": 8, "seed": 1, **body})
        assert status == expected, answer
    client.close()


def test_prompts_leave_no_trace(tmp_path):
    daemon = Daemon(tmp_path / "data", ["log.level=trace"]).prepare()
    keys = [make_tenant(daemon, privacy) for privacy in ("commit-only", "encrypted")]
    daemon.start()
    for key in keys:
        ask(daemon, key)
    assert CANARY.encode() not in metrics(daemon)
    assert traces(daemon) == []
    assert daemon.stop() == 0
    assert traces(daemon) == []
    assert daemon.rows("SELECT COUNT(*) FROM content WHERE mode = 'encrypted' AND length(request) > 20")[0][0] == 3


def test_clear_is_kept_and_gone_after_shredding(tmp_path):
    daemon = Daemon(tmp_path / "data").prepare()
    key = make_tenant(daemon, "clear")
    daemon.start()
    ask(daemon, key)
    assert daemon.stop() == 0
    assert traces(daemon) != [], "this tenant wanted it kept: the search finds what is there"
    receipts = [r for (r,) in daemon.rows("SELECT receipt FROM content WHERE tenant = 'tenant-clear'")]
    assert len(receipts) == 3
    for receipt in receipts:
        daemon.run("content", "shred", receipt, "--data", daemon.folder, "--by", "test")
    daemon.start()
    assert daemon.stop() == 0  # the journal is folded into the database
    assert traces(daemon) == []
    daemon.verify()
