# SPDX-License-Identifier: Apache-2.0
"""Both verifiers accept every clean log and no changed one."""
import json
import random

import pytest

import make_log
import verifiers
from make_log import Log, make_clean, to_json
from verifiers import both, c_verify, python_verify, run_c

OK, TAMPERED, INCOMPLETE, USAGE, UNKNOWN = range(5)


@pytest.fixture(scope="module")
def small():
    return make_clean(5, 300)


def two_epochs(size=40):
    """A log with one rotation in the middle and its cluster."""
    log = Log()
    cluster = make_log.Cluster(log, random.Random(9))
    cluster.start()
    while len(log.records) < size:
        cluster.result(cluster.intent())
        if len(log.records) >= size / 2 and log.epoch == 1:
            log.rotate()
    return log, cluster


# ---- no false alarms ----------------------------------------------------------------------------------------

def test_clean_logs(tmp_path):
    """1,000 logs of random size; the sizes around a tile's edge are always among them."""
    rng = random.Random(1)
    sizes = [1, 2, 255, 256, 257, 511, 512, 513, 2500] + [int(2 ** rng.uniform(0, 7)) for _ in range(991)]
    trust = tmp_path / "trust.json"
    for seed, size in enumerate(sizes):
        log, _ = make_clean(seed, size)
        files = log.files()
        code, report = python_verify(files, log.trust())
        assert code == OK, (seed, size, report.problems)
        make_log.write(files, tmp_path / str(seed))
    trust.write_bytes(log.trust())
    out = run_c("verify", "--json", "--trust", trust, *[tmp_path / str(i) for i in range(len(sizes))])
    reports = [json.loads(line) for line in out.stdout.splitlines()]
    assert len(reports) == len(sizes) and out.returncode == OK
    assert [r["problems"] for r in reports if r["exit"] != OK] == []


def test_edges(tmp_path):
    """Sizes where a level of tiles fills exactly, and a log without a record."""
    for size in (0, 255, 256, 257):
        log = Log()
        for i in range(size):
            log.add({"at_ns": i, "event": "x", "kind": "key", "receipt": f"r{i}", "v": 1})
        assert both(tmp_path, log.files(), log.trust()) == OK


def test_both_see_the_same(tmp_path, small):
    log, cluster = small
    _, report = python_verify(log.files(), log.trust())
    code, out = c_verify(tmp_path, log.files(), log.trust())
    assert code == OK
    for key in ("origin", "size", "root", "key_epochs", "requests", "open", "daemon_epoch", "records"):
        assert out[key] == report.facts[key], key
    assert out["root"] == make_log.merkle(log.hashes).hex()
    assert out["requests"] == len(cluster.rows) + len(cluster.open)


def test_script_runs(tmp_path, small):
    """The Python verifier as a program."""
    import subprocess
    import sys
    make_log.write(small[0].files(), tmp_path / "log")
    (tmp_path / "t").write_bytes(small[0].trust())
    out = subprocess.run([sys.executable, verifiers.SCRIPT, "verify", "--trust", tmp_path / "t", tmp_path / "log"],
                         capture_output=True, text=True)
    assert out.returncode == OK and "not checked" in out.stdout, out
    assert len(verifiers.SCRIPT.read_text().splitlines()) < 500


# ---- every bit ----------------------------------------------------------------------------------------------

def flip(files, name, bit):
    data = bytearray(files[name])
    data[bit // 8] ^= 1 << bit % 8
    return dict(files, **{name: bytes(data)})


def tiny():
    log = Log()
    log.add({"at_ns": 1, "epoch": 1, "event": "daemon.start", "kind": "admin", "receipt": "a", "v": 1})
    log.rotate()
    log.add({"at_ns": 2, "kind": "refusal", "receipt": "b", "rule": "r", "v": 1})
    return log


def check_flips(tmp_path, log, step):
    """C runs over many folders in one call; the unchanged files of each are links."""
    import os
    files, trust = log.files(), log.trust()
    make_log.write(files, tmp_path / "clean")
    (tmp_path / "trust.json").write_bytes(trust)
    folders, missed = [], []

    def run():
        out = run_c("verify", "--json", "--trust", tmp_path / "trust.json", *[folder for folder, _ in folders])
        lines = out.stdout.splitlines()
        assert len(lines) == len(folders)
        missed.extend(("C", what) for line, (_, what) in zip(lines, folders) if json.loads(line)["exit"] == OK)

    made = [tmp_path / str(i) for i in range(500)]
    for folder in made:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(tmp_path / "clean" / name, folder / name)
    count = 0
    for name in sorted(files):
        for bit in range(0, 8 * len(files[name]), step):
            changed = flip(files, name, bit)
            if python_verify(changed, trust)[0] == OK:
                missed.append(("Python", (name, bit)))
            folder = made[len(folders)]
            (folder / name).unlink()
            (folder / name).write_bytes(changed[name])
            folders.append((folder, (name, bit)))
            count += 1
            if len(folders) == len(made):
                run()
                for folder, (changed_name, _) in folders:
                    (folder / changed_name).unlink()
                    os.link(tmp_path / "clean" / changed_name, folder / changed_name)
                folders.clear()
    run()
    assert missed == []
    return count


def test_every_bit_of_a_tiny_log(tmp_path):
    assert check_flips(tmp_path, tiny(), 1) > 10000


def test_bits_of_a_small_log(tmp_path):
    log, _ = two_epochs(300)
    assert check_flips(tmp_path, log, 2503) > 400


# ---- changed records ----------------------------------------------------------------------------------------

def records(log):
    return [json.loads(r) for r in log.records]


def rebuilt(log, new_records):
    """The same log by somebody who holds all its keys, so that only the rules between records can tell."""
    out = Log(log.origin, log.seed)
    out.starts, out.closed = dict(log.starts), dict(log.closed)
    for r in new_records:
        out.add_raw(r) if isinstance(r, bytes) else out.add(r)
    return out


def first(log, kind, after=0):
    return next(i for i, r in enumerate(records(log)) if r["kind"] == kind and i >= after)


def without_keys(log, new_records):
    """By somebody who holds no key: entries and tiles anew, the old signatures."""
    out = log.files()
    for name in [n for n in out if n.startswith("tile/")]:
        del out[name]
    out.update(rebuilt(log, new_records).tiles())
    return out


@pytest.mark.parametrize("change", ["delete", "delete last", "swap", "insert", "append", "replace"])
def test_records_changed(tmp_path, change):
    log, _ = two_epochs()
    new = list(log.records)
    if change == "delete":
        del new[7]
    elif change == "delete last":
        del new[-1]
    elif change == "swap":
        new[3], new[5] = new[5], new[3]
    elif change == "insert":
        new.insert(4, to_json({"at_ns": 1, "kind": "key", "receipt": "x", "v": 1}))
    elif change == "append":
        new.append(to_json({"at_ns": make_log.START_NS, "kind": "key", "receipt": "x", "v": 1}))
    else:
        new[1] = new[1].replace(b'"tenant":"', b'"tenant":"x')
    assert new != log.records
    files = without_keys(log, new)
    if len(new) == len(log.records):
        assert both(tmp_path, files, log.trust()) == TAMPERED
        return
    # tiles of another width than the checkpoint says: none, or wider ones
    expected = {"delete": INCOMPLETE, "delete last": INCOMPLETE, "insert": TAMPERED, "append": OK}
    assert both(tmp_path, files, log.trust()) == expected[change]
    if change == "append":
        assert any("behind the checkpoint" in s for s in python_verify(files, log.trust())[1].skipped)
    for name in [n for n in files if n.endswith(f".p/{len(new)}")]:
        files[name.replace(f".p/{len(new)}", f".p/{len(log.records)}")] = files.pop(name)
    assert both(tmp_path, files, log.trust()) == TAMPERED


def rule_case(name, log):
    new = records(log)
    intent, result = first(log, "intent"), first(log, "result")
    if name == "result without intent":
        del new[intent]
    elif name == "second result":
        new.insert(result + 1, new[result])
    elif name == "second intent":
        new.insert(result + 1, new[intent])
    elif name == "result first":
        new[intent], new[result] = new[result], new[intent]
    elif name == "lost result":
        del new[result]
        new.append(dict(new[0], epoch=2, at_ns=new[-1]["at_ns"], receipt="z"))
    elif name == "epoch skipped":
        new.append(dict(new[0], epoch=3, at_ns=new[-1]["at_ns"], receipt="z"))
    elif name == "epoch again":
        new.append(dict(new[0], epoch=1, at_ns=new[-1]["at_ns"], receipt="z"))
    elif name == "stale intent":
        new.append(dict(new[0], epoch=2, at_ns=new[-1]["at_ns"], receipt="z"))
        new.append(dict(new[intent], at_ns=new[-1]["at_ns"], receipt="y"))
    elif name == "future result":
        new[result]["epoch"] = 2
    elif name == "time back":
        new[-1]["at_ns"] = new[-2]["at_ns"] - 121 * 10**9
    elif name == "time back a little":
        new[-1]["at_ns"] = new[-2]["at_ns"] - 110 * 10**9
    elif name == "gap":
        new.append({"at_ns": new[-1]["at_ns"], "event": "store.unavailable", "kind": "gap", "receipt": "g",
                    "subject": "17", "v": 1})
    elif name == "version 2":
        new[-1]["v"] = 2
    elif name == "version text":
        new[-1]["v"] = "1"
    elif name == "critical field":
        new[-1]["crit"] = "x"
    elif name == "unknown kind":
        new.append({"at_ns": new[-1]["at_ns"], "kind": "weather", "receipt": "w", "v": 1})
    elif name == "gateway over a start":
        new.append(dict(new[intent], receipt="gw", state=dict(new[intent]["state"], privacy="gateway")))
        new.append(dict(new[0], epoch=2, at_ns=new[-1]["at_ns"], receipt="z"))
        new.append(dict(new[result], receipt="gw", epoch=2, at_ns=new[-1]["at_ns"]))
    elif name == "no cost":
        del new[result]["cost"]["upper"]
    elif name == "no kind":
        del new[-1]["kind"]
    elif name == "kind is an object":
        new[-1]["kind"] = {}
    elif name == "who is text":
        new[intent]["who"] = "ann"
    return rebuilt(log, new)


RULES = {
    "result without intent": TAMPERED, "second result": TAMPERED, "second intent": TAMPERED,
    "result first": TAMPERED, "lost result": INCOMPLETE, "epoch skipped": TAMPERED, "epoch again": TAMPERED,
    "stale intent": TAMPERED, "future result": TAMPERED, "time back": INCOMPLETE, "time back a little": OK,
    "gap": INCOMPLETE, "version 2": UNKNOWN, "version text": UNKNOWN, "critical field": UNKNOWN,
    "unknown kind": OK, "gateway over a start": OK, "no cost": TAMPERED, "no kind": TAMPERED,
    "kind is an object": TAMPERED, "who is text": TAMPERED,
}


@pytest.mark.parametrize("name", RULES)
def test_rules_between_records(tmp_path, name):
    """Also the holder of all keys cannot write these."""
    log, _ = two_epochs()
    log.closed, log.starts = {}, {1: 0}
    changed = rule_case(name, log)
    assert both(tmp_path, changed.files(), log.trust()) == RULES[name]


SPELLINGS = [
    b'{"kind":"key","at_ns":1,"receipt":"r","v":1}', b'{"at_ns":1,"kind":"key","receipt":"r","v":1} ',
    b'{"at_ns": 1,"kind":"key","receipt":"r","v":1}', b'{"at_ns":1,"at_ns":1,"kind":"key","receipt":"r","v":1}',
    b'{"at_ns":1.0,"kind":"key","receipt":"r","v":1}', b'{"at_ns":1e3,"kind":"key","receipt":"r","v":1}',
    b'{"at_ns":-0,"kind":"key","receipt":"r","v":1}', b'{"at_ns":01,"kind":"key","receipt":"r","v":1}',
    b'{"at_ns":9223372036854775808,"kind":"key","receipt":"r","v":1}', b'{"a":true,"at_ns":1,"kind":"key",'
    b'"receipt":"r","v":1}', b'{"a":null,"at_ns":1,"kind":"key","receipt":"r","v":1}',
    b'{"a":[],"at_ns":1,"kind":"key","receipt":"r","v":1}', b'{"a":NaN,"at_ns":1,"kind":"key","receipt":"r","v":1}',
    b'{"at_ns":1,"kind":"k\\u0065y","receipt":"r","v":1}', b'{"at_ns":1,"kind":"key","receipt":"a\\/b","v":1}',
    b'{"at_ns":1,"kind":"key","receipt":"\\u000a","v":1}', b'{"at_ns":1,"kind":"key","receipt":"\\u001F","v":1}',
    b'{"at_ns":1,"kind":"key","receipt":"\x1f","v":1}', b'{"at_ns":1,"kind":"key","receipt":"\xff","v":1}',
    b'{"at_ns":1,"kind":"key","receipt":"\\ud800","v":1}', b'{"at_ns":1,"kind":"key","receipt":"\xed\xa0\x80","v":1}',
    b'\xef\xbb\xbf{"at_ns":1,"kind":"key","receipt":"r","v":1}', b'', b'{}', b'[]', b'1', b'{"a":' * 9 + b'1' + b'}' * 9,
    b'{"at_ns":1,"kind":"key","receipt":"r","v":1', b'{"at_ns":1,"kind":"key","receipt":"r","v":1}}',
    b'{"z":{"b":1,"a":1},"at_ns":1}', b'{"a":' * 4000 + b'1' + b'}' * 4000,
]
GOOD = [
    b'{"":"","at_ns":1,"kind":"key","n":-9223372036854775808,"receipt":"r","v":1}',
    b'{"\\"":0,"\\\\":1,"at_ns":9223372036854775807,"kind":"key","receipt":"\\u0000\\u001f\\b\\t\x7f","v":1}',
    '{"at_ns":1,"kind":"key","receipt":"r","v":1,"z":{"a":{},"é":{"ü":"\u2028\U0001f600"},"\uffff":1,"\U00010000":1}}'
    .encode(), b'{"\\u0001":1,"\\t":1,"\\n":1," ":1,"at_ns":1,"kind":"key","receipt":"r","v":1}',
    b'{"a":{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}},"at_ns":1,"kind":"key","receipt":"r","v":1}',
]


@pytest.mark.parametrize("raw", SPELLINGS, ids=range(len(SPELLINGS)))
def test_one_spelling(tmp_path, raw):
    log = Log()
    log.add_raw(raw)
    assert both(tmp_path, log.files(), log.trust()) in (TAMPERED, UNKNOWN)
    if raw not in (b"{}", b'{"a":' * 4000 + b'1' + b'}' * 4000):
        assert both(tmp_path, log.files(), log.trust()) == TAMPERED


@pytest.mark.parametrize("raw", GOOD, ids=range(len(GOOD)))
def test_odd_but_canonical(tmp_path, raw):
    log = Log()
    log.add_raw(raw)
    assert both(tmp_path, log.files(), log.trust()) == OK


def test_random_records(tmp_path):
    """Mutated records: the verifiers never disagree about what is a record."""
    rng, log = random.Random(3), Log()
    seeds = GOOD + [r for r in two_epochs()[0].records[:8]]
    cases = []
    for _ in range(1500):
        raw = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(len(raw))
            raw[at:at + rng.randrange(0, 2)] = rng.choice((b"", b"0", b'"', b"\\", b"{", b"}", b",", b" ", b"-", b"\xc3",
                                                           b"\\u0001", bytes([rng.randrange(256)])))
        cases.append(bytes(raw))
    folders = []
    for i, raw in enumerate(cases):
        log = Log()
        log.add_raw(raw)
        make_log.write(log.files(), tmp_path / str(i))
        folders.append(python_verify(log.files(), log.trust())[0])
    (tmp_path / "t").write_bytes(log.trust())
    out = run_c("verify", "--json", "--trust", tmp_path / "t", *[tmp_path / str(i) for i in range(len(cases))])
    by_c = [json.loads(line)["exit"] for line in out.stdout.splitlines()]
    assert [(cases[i], folders[i], by_c[i]) for i in range(len(cases)) if folders[i] != by_c[i]] == []
    assert OK in by_c and TAMPERED in by_c
