# SPDX-License-Identifier: Apache-2.0
"""Budgets, reports, corrections and exports, from the command line, beside what the answers themselves said."""
import base64
import collections
import csv
import hashlib
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from mock_daemon import Client, ask, make_key
from moved_clock import DAY, MovedClock


def budget(daemon, *arguments, code=0):
    done = daemon.run("budget", *arguments, "--data", daemon.folder, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def report(daemon, form, *more, period=None):
    return daemon.run("usage", "report", "--data", daemon.folder, "--period", period or
                      time.strftime("%Y-%m", time.gmtime()), "--format", form, *more).stdout


# ---- budgets ----------------------------------------------------------------------------------------------------


def test_a_budget_refuses_and_is_lifted(shared):
    ann, bob = make_key(shared, "b1", "ann"), make_key(shared, "b1", "bob")
    time.sleep(1)  # keys are known within a second
    assert "12 tokens (day)" in budget(shared, "set", "--user", "b1/ann", "--period", "day", "--tokens", "12")
    answer = ask(shared, ann, prompt="12345678", max_tokens=4)
    assert answer[0] == 200, "a reservation of 12 fits into 12"
    usage = answer[1]["usage"]
    status, body, headers = ask(shared, ann, prompt="12345678", max_tokens=4)
    assert (status, headers["x-phalanx-rule"]) == (429, "budget.user"), body
    midnight = 86400 - time.time() % 86400
    assert abs(int(headers["Retry-After"]) - midnight) < 5
    assert body["error"]["type"] == "rate_limit_error" and "budget.user" in body["error"]["message"]
    assert ask(shared, bob)[0] == 200, "it is ann's"
    row = [b for b in json.loads(budget(shared, "list", "--json")) if b["name"] == "b1/ann"][0]
    assert (row["scope"], row["period"], row["tokens"], row["pending"]) == ("user", "day", 12, 0)
    assert row["posted"] == usage["total_tokens"]
    budget(shared, "set", "--user", "b1/ann", "--period", "day", "--tokens", "24")
    assert ask(shared, ann, prompt="12345678", max_tokens=4)[0] == 200
    gone = json.loads(budget(shared, "remove", "--user", "b1/ann", "--period", "day", "--json"))
    assert (gone["name"], gone["tokens"]) == ("b1/ann", None)
    for _ in range(4):
        assert ask(shared, ann, prompt="12345678", max_tokens=4)[0] == 200
    assert "no day budget" in budget(shared, "remove", "--user", "b1/ann", "--period", "day", code=1)
    budget(shared, "set", "--tenant", "b1", "--tokens", "0", "--period", "total")
    status, body, headers = ask(shared, ann)
    assert (status, headers["x-phalanx-rule"], headers["Retry-After"]) == (429, "budget.tenant", None), "never again"
    leaves = [json.loads(r) for (r,) in shared.rows("SELECT record FROM audit WHERE kind = 'admin'")]
    assert [x["event"] for x in leaves if x.get("subject") == "user b1/ann"] == ["budget.set", "budget.set",
                                                                                "budget.remove"]


def test_eight_clients_never_exceed_a_budget(shared):
    limit, spent, refused, lock = 900, [0], [0], threading.Lock()
    keys = [make_key(shared, "b2", f"user-{i % 3}") for i in range(8)]
    key_id = [k["id"] for k in json.loads(shared.run("key", "list", "--data", shared.folder, "--json").stdout)["keys"]
              if k["tenant"] == "b2"][0]
    budget(shared, "set", "--tenant", "b2", "--tokens", str(limit))
    budget(shared, "set", "--user", "b2/user-1", "--tokens", "150", "--period", "day")
    budget(shared, "set", "--key", key_id, "--tokens", "60", "--period", "total")
    time.sleep(1)

    def work(key, seed):
        client = Client(shared, key)
        for i in range(60):
            status, body, headers = client.post({"model": "demo", "prompt": "q" * (i % 7 + 1), "max_tokens": i % 9 + 1,
                                                 "seed": seed + i})
            with lock:
                if status == 200:
                    spent[0] += body["usage"]["total_tokens"]
                else:
                    assert (status, headers["x-phalanx-rule"].split(".")[0]) == (429, "budget"), body
                    refused[0] += 1
        client.close()

    with ThreadPoolExecutor(len(keys)) as pool:
        list(pool.map(work, keys, range(0, 1000 * len(keys), 1000)))
    budgets = {(b["scope"], b["name"]): b for b in json.loads(budget(shared, "list", "--json"))}
    assert refused[0] > 0 and budgets["tenant", "b2"]["posted"] == spent[0]
    for scope, name, tokens in (("tenant", "b2", limit), ("user", "b2/user-1", 150), ("key", key_id, 60)):
        assert budgets[scope, name]["posted"] <= tokens and budgets[scope, name]["pending"] == 0
    assert spent[0] > limit - 20, "what was reserved and not used came back"


# ---- reports ----------------------------------------------------------------------------------------------------


def sums_of_json(text):
    total = json.loads(text)["total"]
    return total["requests"], total["prompt_tokens"], total["output_tokens"]


def sums_of_csv(text):
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    return (sum(r["kind"] == "commit" for r in rows), sum(int(r["prompt_tokens"]) for r in rows),
            sum(int(r["output_tokens"]) for r in rows))


def sums_of_events(text):
    data = [json.loads(line)["data"] for line in text.splitlines()]
    return (sum(d["kind"] == "commit" for d in data), sum(d["prompt_tokens"] for d in data),
            sum(d["output_tokens"] for d in data))


def sums_of_focus(text):
    meters, requests = collections.Counter(), 0
    for row in csv.DictReader(io.StringIO(text, newline="")):
        meters[row["SkuMeter"]] += int(row["ConsumedQuantity"])
        requests += int(row["x_Requests"] or 0)
    return (requests, meters["uncached_prompt_tokens"] + meters["cached_prompt_tokens"], meters["output_tokens"])


def check_all(daemon, expected, period=None):
    sums = {"json": sums_of_json, "csv": sums_of_csv, "cloudevents": sums_of_events, "focus": sums_of_focus}
    for form, read in sums.items():
        assert read(report(daemon, form, period=period)) == expected, form
    assert f"{expected[2]}" in report(daemon, "table", period=period)


def test_reports_corrections_and_export(make_daemon, tmp_path):
    clock = MovedClock(tmp_path)
    daemon = make_daemon(environment=clock.environment)
    period = clock.format(form="%Y-%m")
    keys = [make_key(daemon, "acme", "ann", "--cost-centre", "lab"), make_key(daemon, "umbrella", "bob")]
    daemon.start()
    told = [0, 0, 0]
    for i in range(20):
        status, body, _ = ask(daemon, keys[i % 2], prompt="p" * (i + 1), max_tokens=i % 5 + 1, seed=i)
        assert status == 200
        told = [told[0] + 1, told[1] + body["usage"]["prompt_tokens"], told[2] + body["usage"]["completion_tokens"]]
    check_all(daemon, tuple(told), period)
    by_user = json.loads(report(daemon, "json", "--by", "user,cost_centre", period=period))["rows"]
    assert sorted((r["user"], r["cost_centre"], r["requests"]) for r in by_user) == [("ann", "lab", 10), ("bob", "", 10)]
    out = tmp_path / "usage.csv"
    daemon.run("usage", "report", "--data", daemon.folder, "--period", period, "--format", "csv", "--out", out)
    assert (tmp_path / "usage.csv.sha256").read_text().split() == [hashlib.sha256(out.read_bytes()).hexdigest(),
                                                                  "usage.csv"]
    assert daemon.stop() == 0
    daemon.start()
    check_all(daemon, tuple(told), period)

    receipt, output = body["receipt"], body["usage"]["completion_tokens"]
    correct = ("usage", "correct", "--data", daemon.folder, "--receipt", receipt, "--reason", "answered, twice", "--by", "ann")
    for more, code in ((("--output", "-1"), 2), (("--output", "-1", "--approved-by", "Ann"), 2),
                       (("--output", "0", "--approved-by", "bob"), 2), (("--output", "x", "--approved-by", "bob"), 2),
                       (("--output", f"-{output + 1}", "--approved-by", "bob"), 2)):
        assert daemon.run(*correct, *more, check=False).returncode == code, more
    done = json.loads(daemon.run(*correct, "--output", "-1", "--approved-by", "bob", "--json").stdout)
    assert done["receipt"] == receipt and done["ledger_id"] > 0
    told[2] -= 1
    check_all(daemon, tuple(told), period)
    missing = daemon.run("usage", "correct", "--data", daemon.folder, "--receipt", "rcpt_" + "0" * 32, "--reason", "x", "--by",
                         "a", "--approved-by", "b", "--output", "1", check=False)
    assert missing.returncode == 1

    export = ("usage", "export", "--data", daemon.folder, "--period", period, "--message")
    early = daemon.run(*export, "CHG-1", check=False)
    assert early.returncode == 1 and "is not over" in early.stderr
    clock.move(32 * DAY)
    still = daemon.run(*export, "CHG-1", check=False)
    assert still.returncode == 1, "the wall clock alone ends no month"
    daemon.run("clock", "accept", "--data", daemon.folder, "--by", "ann", "--approved-by", "bob")
    first = open_export(daemon, daemon.run(*export, "CHG-1").stdout)
    assert (first["requests"], first["corrections"], first["message"]) == (20, 1, "CHG-1")
    model = first["models"][0]
    assert (model["prompt_tokens"], model["output_tokens"]) == (told[1], told[2])
    assert first["seats"] == {"people": 2, "overdraft": 0, "indirect": 0, "exempt": 0}
    for secret in ("ann", "bob", "acme", "umbrella", "lab"):
        assert secret not in json.dumps({**first, "message": ""})
    assert daemon.stop() == 0
    daemon.start()
    assert ask(daemon, keys[0])[0] == 200
    again = open_export(daemon, daemon.run(*export, "CHG-1").stdout)
    assert again == first, "the same file, however much was added since"
    assert daemon.stop() == 0
    daemon.verify()


# ---- a second implementation of what an export promises ------------------------------------------------------------


def open_export(daemon, text):
    """DSSE, by hand; the roots in it against the leaves in the database, by RFC 6962."""
    envelope = json.loads(text)
    payload, kind = base64.b64decode(envelope["payload"], validate=True), envelope["payloadType"]
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    public = (daemon.folder / "keys/report.pub").read_text().strip().removeprefix("phalanx-public-key:ed25519:")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    said = json.loads(payload)
    leaves = [hashlib.sha256(b"\0" + r.encode()).digest() for (r,) in daemon.rows("SELECT record FROM audit ORDER BY leaf")]
    for which in ("before", "now"):
        origin, size, root = said["log"][which].split("\n")[:3]
        assert origin == "phalanx/" + said["cluster"]
        assert tree_root(leaves[:int(size)]) == base64.b64decode(root), which
    return said


def tree_root(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + tree_root(leaves[:split]) + tree_root(leaves[split:])).digest()
