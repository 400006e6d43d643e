# SPDX-License-Identifier: Apache-2.0
"""prove, check, explain, consistency, reconcile, shred-proof."""
import json
import random

import pytest

import make_log
from make_log import make_clean, to_json, usage_csv
from test_verify import INCOMPLETE, OK, TAMPERED, UNKNOWN, USAGE, rebuilt, records
from verifiers import PR, PV, run_c


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("receipts")
    log, cluster = make_clean(11, 700)
    make_log.write(log.files(), tmp / "log")
    (tmp / "trust.json").write_bytes(log.trust())
    return tmp, log, cluster


def check_both(tmp, raw, trust):
    """The exit code of both checkers of a receipt."""
    (tmp / "receipt.json").write_bytes(raw)
    out = run_c("check", "--json", "--trust", tmp / "trust.json", tmp / "receipt.json")
    report = PR.check_receipt(raw, "receipt", PV.load_trust(trust, "t", PV.USAGE))
    assert out.returncode == PV.worst(report.codes), (out, report.problems)
    return out.returncode


def test_prove_and_check(world):
    tmp, log, cluster = world
    trust = ("--trust", tmp / "trust.json")
    for receipt in [row[0] for row in cluster.rows[::40]]:
        out = run_c("prove", *trust, tmp / "log", receipt)
        assert out.returncode == OK, out
        made = json.loads(out.stdout)
        assert out.stdout.strip().encode() == log.receipt(made["index"])  # byte for byte as the other writer
        assert json.loads(made["record"])["kind"] == "result"
        assert check_both(tmp, out.stdout.encode(), log.trust()) == OK
        intent = run_c("prove", *trust, "--intent", tmp / "log", receipt)
        assert json.loads(json.loads(intent.stdout)["record"])["kind"] == "intent"
        assert check_both(tmp, intent.stdout.encode(), log.trust()) == OK
    for index in (0, 1, 255, 256, 511, 512, len(log.records) - 1):
        out = run_c("prove", *trust, tmp / "log", index)
        assert out.stdout.strip().encode() == log.receipt(index), index
    assert run_c("prove", *trust, tmp / "log", len(log.records)).returncode == USAGE
    assert run_c("prove", *trust, tmp / "log", "rcpt_0").returncode == INCOMPLETE
    assert run_c("prove", *trust, tmp / "log", "7x").returncode == USAGE


def test_every_index_of_small_logs(tmp_path):
    for size in (1, 2, 3, 5, 8, 13):
        log, _ = make_clean(size, size)
        (tmp_path / "trust.json").write_bytes(log.trust())
        for index in range(len(log.records)):
            assert check_both(tmp_path, log.receipt(index), log.trust()) == OK


def test_bits_of_a_receipt(world):
    """In one program call each: changed receipts are never accepted."""
    tmp, log, _ = world
    raw = log.receipt(100)
    trust = PV.load_trust(log.trust(), "t", PV.USAGE)
    paths = []
    (tmp / "flips").mkdir()
    for i, bit in enumerate(range(0, 8 * len(raw), max(1, 8 * len(raw) // 1500))):
        data = bytearray(raw)
        data[bit // 8] ^= 1 << bit % 8
        report = PR.check_receipt(bytes(data), "r", trust)
        assert PV.worst(report.codes) != OK or json.loads(data) == json.loads(raw), bit
        paths.append(tmp / "flips" / str(i))
        paths[-1].write_bytes(data)
    out = run_c("check", "--json", "--trust", tmp / "trust.json", *paths)
    lines = [json.loads(line) for line in out.stdout.splitlines()]
    assert len(lines) == len(paths) > 1400
    assert [line["name"] for line in lines if line["exit"] == OK] == []


@pytest.mark.parametrize("change,expected", [
    (lambda r: r.update(index=r["index"] + 1), TAMPERED), (lambda r: r.update(index=-1), TAMPERED),
    (lambda r: r.update(index=10**12), TAMPERED), (lambda r: r["proof"].pop(), TAMPERED),
    (lambda r: r["proof"].append("0" * 64), TAMPERED), (lambda r: r["proof"].reverse(), TAMPERED),
    (lambda r: r["proof"].__setitem__(0, "zz"), TAMPERED), (lambda r: r.update(v=2), UNKNOWN),
    (lambda r: r.update(more=1), UNKNOWN), (lambda r: r.pop("proof"), TAMPERED), (lambda r: r.pop("v"), TAMPERED),
    (lambda r: r.update(origin="phalanx/evil"), TAMPERED), (lambda r: r["keys"].pop(), UNKNOWN),
    (lambda r: r["keys"].pop(0), TAMPERED), (lambda r: r.update(keys=[]), None),
    (lambda r: r.update(record=r["record"] + " "), TAMPERED), (lambda r: r.update(record=5), TAMPERED),
    (lambda r: r.update(record="\ud800"), TAMPERED), (lambda r: r.update(checkpoint=""), TAMPERED),
    (lambda r: r["keys"].__setitem__(0, 5), TAMPERED), (lambda r: r.update(index="7"), TAMPERED),
])
def test_changed_receipts(world, change, expected):
    tmp, log, _ = world
    receipt = json.loads(log.receipt(100))
    change(receipt)
    raw = json.dumps(receipt).encode()
    if expected is None:
        (tmp / "receipt.json").write_bytes(raw)
        assert run_c("check", "--trust", tmp / "trust.json", tmp / "receipt.json").returncode != OK
    else:
        assert check_both(tmp, raw, log.trust()) == expected


def test_receipt_with_another_trust(world):
    tmp, log, _ = world
    other = make_log.Log(seed="evil")
    (tmp / "other.json").write_bytes(other.trust())
    (tmp / "receipt.json").write_bytes(log.receipt(3))
    assert run_c("check", "--trust", tmp / "other.json", tmp / "receipt.json").returncode == UNKNOWN
    assert run_c("check", tmp / "receipt.json").returncode == USAGE
    assert run_c("check", "--trust", tmp / "trust.json", tmp / "none").returncode == USAGE


def test_prove_refuses_a_forged_tile(world, tmp_path):
    tmp, log, _ = world
    files = log.files()
    for name in files:
        if name.startswith("tile/0/"):
            files[name] = bytes(len(files[name]))
    make_log.write(files, tmp_path / "log")
    assert run_c("prove", "--trust", tmp / "trust.json", tmp_path / "log", 5).returncode == TAMPERED


def test_explain(world):
    tmp, log, cluster = world
    row = next(r for r in cluster.rows if "\n" in r[2])
    out = run_c("explain", "--trust", tmp / "trust.json", tmp / "log", row[0])
    assert out.returncode == OK, out
    for text in (row[0], "WHO", "WHICH WEIGHTS", "sha256:1111", "WHICH RULE", "WHAT IT COST", "HOW TO VERIFY", row[1],
                 f"prompt                  {row[3]}\n", 'çelik "q"?', "not checked"):
        assert text in out.stdout, text
    data = json.loads(run_c("explain", "--json", tmp / "log", row[0]).stdout)
    assert [r["record"]["kind"] for r in data["records"]] == ["intent", "result"]
    assert "trust was taken from the folder itself" in run_c("explain", tmp / "log", row[0]).stderr
    assert run_c("explain", tmp / "log", "rcpt_none").returncode == INCOMPLETE


def test_consistency(world, tmp_path):
    tmp, log, _ = world
    trust = ("--trust", tmp / "trust.json")

    def run(old, new, *rest):
        (tmp_path / "old").write_bytes(old)
        (tmp_path / "new").write_bytes(new)
        return run_c("consistency", *trust, tmp_path / "old", tmp_path / "new", *rest)

    def at(size):
        return log.checkpoint(size, max(e for e, start in log.starts.items() if start <= size))

    rng = random.Random(2)
    for _ in range(30):
        old, new = sorted(rng.randrange(1, len(log.records) + 1) for _ in range(2))
        assert run(at(old), at(new), tmp / "log").returncode == OK, (old, new)
    assert run(at(600), at(500), tmp / "log").returncode == TAMPERED
    assert run(at(500), at(600)).returncode == INCOMPLETE
    evil = rebuilt(log, records(log)[::-1])
    assert run(evil.checkpoint(epoch=1), log.checkpoint(epoch=1), tmp / "log").returncode == TAMPERED
    assert run(evil.checkpoint(len(log.records)), log.checkpoint(), tmp / "log").returncode == TAMPERED
    assert run(b"", log.checkpoint(), tmp / "log").returncode == TAMPERED


def test_reconcile(world):
    tmp, log, cluster = world

    def run(rows, text=None):
        (tmp / "usage.csv").write_bytes((text or usage_csv(rows)).encode())
        return run_c("reconcile", "--trust", tmp / "trust.json", tmp / "log", tmp / "usage.csv")

    rows = cluster.rows
    assert run(rows).returncode == OK, run(rows).stdout
    assert run(random.Random(1).sample(rows, len(rows))).returncode == OK
    in_order = sorted(rows, key=lambda r: next(i for i, raw in enumerate(log.records) if r[0].encode() in raw and
                                               b'"kind":"result"' in raw))
    assert run(in_order[5:40]).returncode == OK  # a part of the month
    assert run(in_order[5:20] + in_order[21:40]).returncode == TAMPERED
    assert run(rows + rows[:1]).returncode == TAMPERED
    assert run(rows + [("rcpt_x", *rows[0][1:])]).returncode == TAMPERED
    for column in range(1, 7):
        changed = list(rows[3])
        changed[column] = changed[column] + 1 if column > 2 else "someone"
        assert run(rows[:3] + [tuple(changed)] + rows[4:]).returncode == TAMPERED, column
    assert run(rows, usage_csv(rows).replace("receipt,", "recept,", 1)).returncode == USAGE
    assert run(rows, usage_csv(rows) + "a,b\r\n").returncode == USAGE
    assert run(rows, usage_csv(rows).replace(",commit,", ",commit,", 1) + "r,correct,t,u,m,1,1,1,1\r\n").returncode == OK


def test_pseudonyms(tmp_path):
    """The log may hold pseudonyms: each must be of one user of the file."""
    log = make_log.Log()
    cluster = make_log.Cluster(log, random.Random(4))
    cluster.run(60)
    new = [json.loads(raw.replace(b'"ann"', b'"' + b"a" * 64 + b'"').replace(b'"bob"', b'"' + b"b" * 64 + b'"'))
           for raw in log.records]
    log = rebuilt(log, new)
    make_log.write(log.files(), tmp_path / "log")
    (tmp_path / "usage.csv").write_text(usage_csv(cluster.rows))
    assert run_c("reconcile", tmp_path / "log", tmp_path / "usage.csv").returncode == OK
    mixed = [(*r[:2], "bob" if r[2] == "ann" and i % 2 else r[2], *r[3:]) for i, r in enumerate(cluster.rows)]
    (tmp_path / "usage.csv").write_text(usage_csv(mixed))
    assert run_c("reconcile", tmp_path / "log", tmp_path / "usage.csv").returncode == TAMPERED


def test_shred_proof(tmp_path):
    log, _ = make_clean(3, 40)
    log.add({"at_ns": make_log.START_NS * 2, "by": "root", "detail": "key destroyed", "event": "shred.receipt",
             "kind": "shred", "receipt": "rcpt_s", "subject": "rcpt_gone", "v": 1})
    make_log.write(log.files(), tmp_path / "log")
    out = run_c("shred-proof", tmp_path / "log", "rcpt_gone")
    assert out.returncode == OK and "key destroyed" in out.stdout and "root" in out.stdout, out
    assert run_c("shred-proof", tmp_path / "log", "rcpt_other").returncode == INCOMPLETE
    assert to_json({}) == b"{}"
