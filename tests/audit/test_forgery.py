# SPDX-License-Identifier: Apache-2.0
"""What somebody may do who holds some keys, an old copy of the folder, or only a file manager."""
import pytest

import make_log
from make_log import Log, make_clean, to_json
from test_verify import INCOMPLETE, OK, TAMPERED, UNKNOWN, USAGE, rebuilt, records, two_epochs
from verifiers import both, c_verify, python_verify, run_c


def forged(log):
    """The same log with another first request."""
    new = records(log)
    new[1]["who"]["user"] = "mallory"
    return rebuilt(log, new)


# ---- keys ---------------------------------------------------------------------------------------------------

def test_old_entries_sealed_with_a_later_key(tmp_path):
    """The holder of the newest key cannot write anew what an older key has closed."""
    log, _ = two_epochs()
    evil = forged(log)
    files = evil.files()
    assert both(tmp_path, files, log.trust()) == OK  # with all keys it could: what follows takes them away
    files["closing/1"] = log.files()["closing/1"]
    assert both(tmp_path, files, log.trust()) == TAMPERED
    files["closing/1"] = evil.checkpoint(log.closed[1], epoch=1, signer=2)
    assert both(tmp_path, files, log.trust()) == TAMPERED
    files["closing/1"] = evil.checkpoint(log.closed[1], epoch=2)
    assert both(tmp_path, files, log.trust()) == TAMPERED
    del files["closing/1"]
    assert both(tmp_path, files, log.trust()) == INCOMPLETE


def test_closing_is_where_the_next_key_starts(tmp_path):
    log, _ = two_epochs()
    files = dict(log.files(), **{"closing/1": log.checkpoint(10, 1)})
    assert both(tmp_path, files, log.trust()) == TAMPERED


@pytest.mark.parametrize("epoch,signer,expected", [(1, 1, TAMPERED), (2, 1, TAMPERED), (1, 2, TAMPERED),
                                                   (3, 3, UNKNOWN), (2, 3, TAMPERED), (0, 0, UNKNOWN)])
def test_checkpoint_by_another_key(tmp_path, epoch, signer, expected):
    log, _ = two_epochs()
    files = log.files()
    files["checkpoint"] = log.checkpoint(epoch=epoch, signer=signer)
    assert both(tmp_path, files, log.trust()) == expected


def test_two_log_keys_on_a_checkpoint(tmp_path):
    log, _ = two_epochs()
    files = log.files()
    files["checkpoint"] = log.checkpoint(witnesses=[(f"{log.origin}/1", log.key(1))])
    assert both(tmp_path, files, log.trust()) == TAMPERED
    files["checkpoint"] = log.checkpoint(witnesses=[(f"{log.origin}/2", log.key(2))])
    assert both(tmp_path, files, log.trust()) == TAMPERED


def test_key_not_handed_over(tmp_path):
    """keys/2 must be signed by key 1 and by itself."""
    log, _ = two_epochs()
    files = log.files()
    text = files["keys/2"].decode().split("\n\n")[0] + "\n"
    names = [(f"{log.origin}/{e}", log.key(e)) for e in (1, 2)]
    for signers in ([names[0]], [names[1]], names + [("w", make_log.key_of("w"))], names + names[:1]):
        assert both(tmp_path, dict(files, **{"keys/2": make_log.sign(text, signers)}), log.trust()) == TAMPERED
    assert both(tmp_path, dict(files, **{"keys/2": make_log.sign(text, names[::-1])}), log.trust()) == OK


@pytest.mark.parametrize("line,value", [(0, "phalanx log keys"), (1, "phalanx/other"), (2, "3"), (3, "0"), (3, "020"),
                                        (4, "AAAA"), (4, None)])
def test_key_text(tmp_path, line, value):
    log, _ = two_epochs()
    files = log.files()
    lines = files["keys/2"].decode().split("\n\n")[0].split("\n")
    if value is None:
        lines.append("more")
    else:
        lines[line] = value
    files["keys/2"] = make_log.sign("\n".join(lines) + "\n", [(f"{log.origin}/{e}", log.key(e)) for e in (1, 2)])
    assert both(tmp_path, files, log.trust()) == TAMPERED


def test_another_cluster(tmp_path):
    """A log of other keys, under the same and another name, with its own trust.json inside."""
    log, _ = make_clean(3, 40)
    for other in (Log(seed="evil"), Log("phalanx/evil")):
        make_log.Cluster(other, __import__("random").Random(3)).run(40)
        assert both(tmp_path, other.files(), log.trust()) == UNKNOWN


def test_wrong_origin(tmp_path):
    log, _ = two_epochs()
    other = Log("phalanx/evil")
    other.records, other.hashes, other.starts, other.closed = log.records, log.hashes, log.starts, log.closed
    for name in ("checkpoint", "closing/1", "keys/1", "keys/2", "trust.json"):
        files = dict(log.files(), **{name: other.files()[name]})
        assert both(tmp_path, files, log.trust()) == TAMPERED, name


# ---- trust --------------------------------------------------------------------------------------------------

def test_trust(tmp_path):
    log, _ = two_epochs()
    files = log.files()
    assert both(tmp_path, files, None) == INCOMPLETE
    _, report = python_verify(files, None)
    _, out = c_verify(tmp_path, files, None)
    assert "TRUST WAS TAKEN FROM THE FOLDER" in report.problems[0] and "FOLDER ITSELF" in out["problems"][0]
    assert both(tmp_path, files, log.trust([2])) == OK
    assert both(tmp_path, files, log.trust([1, 2])) == OK
    assert both(tmp_path, files, log.trust([3])) == UNKNOWN
    assert both(tmp_path, files, b"{}") == USAGE
    assert both(tmp_path, files, log.trust().replace(b'"v":1', b'"v":2')) == UNKNOWN
    assert both(tmp_path, files, log.trust().replace(b'"v":1', b'"v":1,"x":1')) == UNKNOWN
    assert both(tmp_path, files, log.trust().replace(b'"v":1', b'"v":1,"v":1')) == USAGE
    assert both(tmp_path, files, log.trust().replace(b",", b", ")) == OK
    assert both(tmp_path, dict(files, **{"trust.json": log.trust().replace(b",", b", ")}), log.trust()) == TAMPERED
    del files["trust.json"]
    assert both(tmp_path, files, log.trust()) == OK
    assert both(tmp_path, files, None) == INCOMPLETE


# ---- older copies and forks ---------------------------------------------------------------------------------

def test_rollback(tmp_path):
    log, _ = two_epochs()
    kept = log.checkpoint()
    old = Log()
    for raw in log.records[:30]:
        old.add_raw(raw)
    old.starts, old.closed = dict(log.starts), dict(log.closed)
    assert both(tmp_path, old.files(), log.trust()) == OK
    assert both(tmp_path, old.files(), log.trust(), kept=[kept]) == TAMPERED
    assert both(tmp_path, log.files(), log.trust(), kept=[kept, old.checkpoint(), log.checkpoint(20, 1)]) == OK
    assert both(tmp_path, dict(log.files(), checkpoint=log.checkpoint(log.closed[1], 1)), log.trust()) == INCOMPLETE
    assert both(tmp_path, dict(log.files(), checkpoint=log.checkpoint(10, 1)), log.trust()) == INCOMPLETE


def test_rollback_over_an_epoch(tmp_path):
    """A copy from before the rotation does not know the key of the kept checkpoint."""
    log, _ = two_epochs()
    old = Log()
    for raw in log.records[:20]:
        old.add_raw(raw)
    assert both(tmp_path, old.files(), log.trust(), kept=[log.checkpoint()]) == UNKNOWN


def test_fork(tmp_path):
    log, _ = two_epochs()
    evil = forged(log)
    assert both(tmp_path, evil.files(), log.trust(), kept=[log.checkpoint()]) == TAMPERED
    assert both(tmp_path, evil.files(), log.trust(), kept=[log.checkpoint(10, 1)]) == TAMPERED
    assert both(tmp_path, log.files(), log.trust(), kept=[log.checkpoint(10, 2)]) == TAMPERED
    assert both(tmp_path, log.files(), log.trust(), kept=[b"x"]) == TAMPERED


# ---- witnesses ----------------------------------------------------------------------------------------------

def test_witness(tmp_path):
    log, _ = two_epochs()
    keys = {name: make_log.key_of(name) for name in ("w1.example", "w2.example")}
    log.witnesses = list(keys.items())[:1]
    vkeys = [make_log.vkey(name, key) for name, key in keys.items()]
    files = log.files()
    assert both(tmp_path, files, log.trust()) == OK
    assert any("w1.example" in s for s in python_verify(files, log.trust())[1].skipped)
    assert any("w1.example" in s for s in c_verify(tmp_path, files, log.trust())[1]["not_checked"])
    assert both(tmp_path, files, log.trust(), witnesses=vkeys[:1]) == OK
    assert both(tmp_path, files, log.trust(), witnesses=vkeys) == INCOMPLETE
    both_keys = tmp_path / "witnesses"
    both_keys.write_text("\n".join(vkeys) + "\n")
    assert both(tmp_path, files, log.trust(), witnesses=[f"{both_keys}:1"]) == OK
    assert both(tmp_path, files, log.trust(), witnesses=[f"{both_keys}:2"]) == INCOMPLETE
    assert both(tmp_path, files, log.trust(), witnesses=[str(both_keys)]) == INCOMPLETE
    assert both(tmp_path, files, log.trust(), witnesses=[vkeys[0].replace("+", "x+", 1)]) == UNKNOWN
    lines = files["checkpoint"].decode().splitlines(keepends=True)
    other = log.checkpoint(10, 2, witnesses=log.witnesses).decode().splitlines(keepends=True)
    files["checkpoint"] = "".join(lines[:-1] + other[-1:]).encode()
    assert both(tmp_path, files, log.trust(), witnesses=vkeys[:1]) == TAMPERED


# ---- files --------------------------------------------------------------------------------------------------

def test_missing_files(tmp_path):
    log, _ = two_epochs(600)
    files = log.files()
    for name in files:
        if name != "trust.json":
            less = {n: data for n, data in files.items() if n != name}
            assert both(tmp_path, less, log.trust()) in (INCOMPLETE, UNKNOWN), name


def test_trailing_bytes(tmp_path):
    log, _ = two_epochs(600)
    files = log.files()
    for name, data in files.items():
        if name == "trust.json":
            continue
        for changed in (data + b"\n", data + b"\0", data[:-1], b"", data + data):
            code = both(tmp_path, dict(files, **{name: changed}), log.trust())
            # twice a checkpoint is one of unknown lines
            assert code == (UNKNOWN if changed == data + data and name[0] == "c" else TAMPERED), (name, changed[-9:])


def test_old_partial_tiles(tmp_path):
    """Older partial files may stay, when they are true."""
    log, _ = two_epochs(600)
    files = log.files()
    old = rebuilt(log, log.records[:100])
    both_sizes = dict(files, **{n: data for n, data in old.tiles().items()})
    assert both(tmp_path, both_sizes, log.trust()) == OK
    for name in old.tiles():
        data = bytearray(old.tiles()[name])
        data[5] ^= 1
        assert both(tmp_path, dict(both_sizes, **{name: bytes(data)}), log.trust()) == TAMPERED
        assert both(tmp_path, dict(both_sizes, **{name: bytes(data)[:-1]}), log.trust()) == TAMPERED


def test_strange_files(tmp_path):
    log, _ = two_epochs()
    files = dict(log.files(), **{"README": b"x", "tile/0/000.p/300": b"x", "tile/9/000": b"x", "keys/01": b"x"})
    assert both(tmp_path, files, log.trust()) == OK
    _, report = python_verify(files, log.trust())
    _, out = c_verify(tmp_path, files, log.trust())
    for name in ("README", "tile/0/000.p/300", "tile/9/000", "keys/01"):
        assert any(name in s for s in report.skipped) and any(name in s for s in out["not_checked"]), name


def test_records_behind_the_checkpoint(tmp_path):
    """The folder of a running daemon: more tiles than the checkpoint covers, with and without the old ones."""
    log, _ = two_epochs(600)
    for more in (log.records[:1], log.records):
        longer = rebuilt(log, log.records + more)
        for files in (dict(log.files(), **longer.tiles()), dict(longer.files(), checkpoint=log.checkpoint())):
            assert both(tmp_path, files, log.trust()) == OK
            assert any("behind the checkpoint" in s for s in python_verify(files, log.trust())[1].skipped)
            assert any("behind the checkpoint" in s for s in c_verify(tmp_path, files, log.trust())[1]["not_checked"])


def test_checkpoint_text(tmp_path):
    log, _ = make_clean(3, 40)
    files = log.files()
    text = files["checkpoint"].decode().split("\n\n")[0] + "\n"
    signer = [(f"{log.origin}/{log.epoch}", log.key(log.epoch))]

    def signed(changed):
        return both(tmp_path, dict(files, checkpoint=make_log.sign(changed, signer)), log.trust())

    assert signed(text) == OK
    assert signed(text + "more\n") == UNKNOWN
    assert signed(text.replace("epoch", "epochs")) == TAMPERED
    assert signed(text.replace("\n40\n", "\n040\n").replace("\n41\n", "\n041\n")) == TAMPERED
    assert signed(text.replace("epoch 1", "epoch 01")) == TAMPERED
    assert signed("\n".join(text.split("\n")[:3]) + "\n") == TAMPERED


def test_usage_errors(tmp_path):
    make_log.write(make_clean(3, 10)[0].files(), tmp_path / "log")
    for args in ([], ["verify"], ["fly"], ["verify", tmp_path / "none"], ["verify", "--trust", tmp_path / "none", "x"],
                 ["check", tmp_path / "log/checkpoint"], ["prove", tmp_path / "log"]):
        assert run_c(*args).returncode == USAGE, args


def test_huge_size_is_no_hang(tmp_path):
    """A checkpoint over more records than are there ends at the first missing file."""
    log, _ = make_clean(3, 10)
    text = log.checkpoint().decode().split("\n\n")[0].split("\n")
    text[1] = str(10**17)
    files = log.files()
    files["checkpoint"] = make_log.sign("\n".join(text) + "\n", [(f"{log.origin}/1", log.key(1))])
    assert both(tmp_path, files, log.trust()) in (INCOMPLETE, TAMPERED)
    assert to_json({"a": 1}) == b'{"a":1}'
