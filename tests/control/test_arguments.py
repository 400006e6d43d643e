# SPDX-License-Identifier: Apache-2.0
"""Exit codes 0, 1 and 2, JSON, help, and arguments that mean no good."""
import json
import os
import subprocess

import pytest
from mock_daemon import BIN, ask

COMMANDS = ("ask", "audit", "bench", "budget", "chat", "clock", "cluster", "content", "key", "license", "model", "tenant",
            "up", "usage", "user")


def phalanx(*arguments, code=None, **more):
    done = subprocess.run([os.fsencode(str(a)) if not isinstance(a, bytes) else a for a in (BIN / "phalanx", *arguments)],
                          capture_output=True, timeout=30, **more)
    assert done.returncode in (0, 1, 2), (arguments, done)
    if code is not None:
        assert done.returncode == code, (arguments, done)
    return done


def test_help():
    listed = phalanx("--help", code=0).stdout.decode()
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("  ")] and \
        {line.split()[0] for line in listed.splitlines() if line.startswith("  ")} == set(COMMANDS)
    for command in COMMANDS:
        said = phalanx(command, "--help", code=0)
        assert len(said.stdout) > 100 and not said.stderr, command
    for name in ("phalanxd", "phalanx-audit", "phalanx-model", "phalanx-bench"):
        done = subprocess.run([BIN / name, "--help"], capture_output=True, timeout=30)
        assert done.returncode == 0 and len(done.stdout) > 100, name
    assert phalanx("--version", code=0).stdout.startswith(b"phalanx ")


def test_usage_errors_are_2(tmp_path):
    phalanx(code=2)
    phalanx("no-such", code=2)
    for command in ("budget", "clock", "cluster", "content", "key", "license", "tenant", "usage", "user"):
        for arguments in ((), ("no-such", "--data", tmp_path), ("--no-such-option",), ("show", "x", "y", "z", "--data")):
            done = phalanx(command, *arguments, code=2)
            assert done.stderr and not done.stdout, (command, arguments)
    for arguments in (("budget", "set", "--data", "x", "--tenant", "a", "--tokens", "-1"),
                      ("budget", "set", "--data", "x", "--tenant", "a", "--tokens", "1e3"),
                      ("budget", "set", "--data", "x", "--tenant", "a", "--tokens", "9" * 30),
                      ("budget", "set", "--data", "x", "--tenant", "a", "--user", "a/b", "--tokens", "1"),
                      ("budget", "set", "--data", "x", "--tenant", "a", "--tokens", "1", "--period", "year"),
                      ("budget", "list", "--data", "x", "--tokens", "1"),
                      ("budget", "set", "--data", "x", "--tenant", "a b", "--tokens", "1"),
                      ("budget", "set", "--data", "x", "--user", "ann", "--tokens", "1"),
                      ("budget", "set", "--data", "x", "--user", "/ann", "--tokens", "1"),
                      ("key", "create", "--data", "x", "--tenant", "a"),
                      ("key", "create", "--data", "x", "--tenant", "a", "--user", "b", "--expires-days", "0"),
                      ("clock", "accept", "--data", "x", "--by", "a"),
                      ("content", "read", "x", "--data", "x"),
                      ("content", "hold", "open", "--data", "x"),
                      ("tenant", "set", "a", "--data", "x"),
                      ("usage", "report", "--data", "x"),
                      ("usage", "report", "--data", "x", "--period", "2026-11", "--format", "xml"),
                      ("usage", "export", "--data", "x", "--period", "2026-10"),
                      ("user", "cert", "--data", "x", "--tenant", "a", "--user", "b", "--service", "c", "--out", "y")):
        phalanx(*arguments, code=2)


def test_a_wrong_folder_is_1_and_stays_as_it_is(tmp_path):
    for command in (("budget", "list"), ("budget", "set", "--tenant", "a", "--tokens", "1"), ("clock", "show"),
                    ("content", "expire"), ("content", "hold", "list"), ("key", "list"),
                    ("key", "create", "--tenant", "a", "--user", "b"), ("license", "show"), ("license", "seats"),
                    ("tenant", "list"), ("usage", "report", "--period", "2026-10"),
                    ("user", "cert", "--tenant", "a", "--user", "b", "--out", tmp_path / "b"), ("cluster", "status")):
        done = phalanx(*command, "--data", tmp_path, code=1)
        assert str(tmp_path).encode() in done.stderr and not done.stdout, command
        assert list(tmp_path.iterdir()) == [], command
        phalanx(*command, "--data", tmp_path / "none", code=1)


def test_json_is_one_object_of_each_command(shared, tmp_path):
    receipt = ask(shared)[1]["receipt"]
    text = tmp_path / "aup.txt"
    text.write_text("be kind")
    for command in (("budget", "set", "--tenant", "j", "--tokens", "5"), ("budget", "list"),
                    ("budget", "remove", "--tenant", "j"), ("clock", "show"), ("cluster", "status"), ("cluster", "nodes"),
                    ("content", "read", receipt, "--by", "a", "--approved-by", "b", "--why", "c"),
                    ("content", "hold", "open", "j", "--tenant", "j", "--why", "c"), ("content", "hold", "close", "j"),
                    ("content", "hold", "list"), ("content", "expire"), ("content", "shred", receipt),
                    ("key", "create", "--tenant", "j", "--user", "u"), ("key", "list"), ("license", "show"),
                    ("license", "seats"), ("tenant", "set", "j", "--privacy", "clear"), ("tenant", "show", "j"),
                    ("tenant", "sign-aup", "j", "--file", text, "--by", "a"), ("tenant", "list"),
                    ("usage", "report", "--period", "2026-10"),
                    ("usage", "correct", "--receipt", receipt, "--prompt", "1", "--reason", "r", "--by", "a",
                     "--approved-by", "b"),
                    ("user", "cert", "--tenant", "j", "--user", "u", "--out", tmp_path / "u")):
        done = phalanx(*command, "--data", shared.folder, "--json", code=0)
        assert isinstance(json.loads(done.stdout), (dict, list)), command
        assert done.stdout.count(b"\n") == 1 and not done.stderr, (command, done)


HOSTILE = [b"\xff\xfe", b"a\x1b[2Jb", b"a\nb\rc", "\u009b2J".encode(), b"'; DROP TABLE seat; --", b"../../etc/passwd", b"%s%n",
           b"", b" ", b"=cmd()", b"a" * 5000, "\u202egnp".encode(), b"{\"a\":1}", b"a/b/c", b"-", b"0"]


@pytest.mark.parametrize("name", HOSTILE, ids=[ascii(n.decode(errors="replace"))[:20] for n in HOSTILE])
def test_hostile_names(shared, name, tmp_path):
    data = ("--data", shared.folder)
    for command in (("budget", "set", b"--tenant=" + name, "--tokens", "1", *data),
                    ("budget", "set", b"--user=t/" + name, "--tokens", "1", *data),
                    ("budget", "set", b"--key=" + name, "--tokens", "1", *data),
                    ("budget", "set", "--tenant", "h", "--tokens", "1", b"--by=" + name, *data),
                    ("key", "create", b"--tenant=" + name, "--user", "u", *data),
                    ("key", "create", "--tenant", "h", b"--user=" + name, *data),
                    ("key", "create", "--tenant", "h", "--user", "u", b"--cost-centre=" + name, *data),
                    ("key", "revoke", *data, b"--", name),
                    ("tenant", "set", "--privacy", "clear", *data, b"--", name),
                    ("tenant", "set", "h", "--privacy", "clear", b"--by=" + name, *data),
                    ("tenant", "set", "h", b"--retention=" + name, *data),
                    ("content", "hold", "open", "--tenant", "h", "--why", "w", *data, b"--", name),
                    ("content", "hold", "open", "h1", b"--tenant=" + name, "--why", "w", *data),
                    ("content", "hold", "open", "h2", "--tenant", "h", b"--why=" + name, *data),
                    ("content", "shred", *data, b"--", name),
                    ("content", "read", "--by", "a", "--approved-by", "b", b"--why=" + name, *data, b"--", name),
                    ("usage", "report", b"--period=" + name, *data),
                    ("usage", "report", "--period", "2026-10", b"--by=" + name, *data),
                    ("usage", "report", "--period", "2026-10", "--format", "focus", b"--firm=" + name, *data),
                    ("usage", "correct", b"--receipt=" + name, "--output", "1", b"--reason=" + name, b"--by=" + name,
                     "--approved-by", "b", *data),
                    ("user", "cert", b"--tenant=" + name, "--user", "u", "--out", tmp_path / "x", *data),
                    ("clock", "accept", b"--by=" + name, "--approved-by", "b", *data),
                    ("license", "seats", b"--period=" + name, *data),
                    ("license", "install", *data, b"--", name)):
        done = phalanx(*command, cwd=tmp_path)
        for stream in (done.stdout, done.stderr):
            text = stream.decode()  # what is shown is text, and steers no terminal
            assert not any(ord(c) < 32 and c not in "\r\n" or 127 <= ord(c) < 160 for c in text), (command, text)
            assert len(text) < 20000
    for listing in (("budget", "list"), ("key", "list"), ("tenant", "list"), ("content", "hold", "list")):
        json.loads(phalanx(*listing, *data, "--json", code=0).stdout)
        phalanx(*listing, *data, code=0).stdout.decode()
    for name_, in shared.rows("SELECT name FROM budget"):
        shared.run("budget", "remove", *data, *(("--user", name_) if "/" in name_ else ("--tenant", name_)), check=False)
    assert ask(shared)[0] == 200


def test_a_full_standard_output_is_1(shared):
    with open("/dev/full", "w") as full:
        for command in (("key", "list"), ("usage", "report", "--period", "2026-10", "--format", "json"), ("license", "show")):
            done = subprocess.run([BIN / "phalanx", *command, "--data", shared.folder], stdout=full, stderr=subprocess.PIPE,
                                  timeout=30)
            assert done.returncode == 1 and done.stderr, command


def test_the_log_still_verifies(shared, tmp_path):
    """After all of the above: what was written is canonical, and both listings and the log can be read."""
    copy = shared.folder / "audit"
    for _ in range(50):
        done = phalanx("audit", "verify", copy, "--trust", shared.trust)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    records = [r for (r,) in shared.rows("SELECT record FROM audit")]
    assert all(json.loads(r) for r in records) and len(records) > 20
