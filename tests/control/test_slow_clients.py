# SPDX-License-Identifier: Apache-2.0
"""Clients that read slowly, or not at all: merged frames, bounded memory, and nobody else notices."""
import json
import socket

from licensor import Licensor
from mock_daemon import Client, ask, wait_until

TOKENS = 3000


def send(daemon, receive_bytes=4096, **body):
    """A stream that was asked for and not read yet."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    s.connect(daemon.address)
    text = json.dumps({"model": "demo", "prompt": "hello", "seed": 1, "stream": True, "ignore_eos": True, **body})
    s.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {daemon.key}\r\nContent-Type: application/json\r\n"
               f"Content-Length: {len(text)}\r\n\r\n{text}").encode())
    s.settimeout(20)
    return s


def read_frames(s):
    """The JSON frames of a chunked stream, to its end."""
    raw = b""
    while not raw.endswith(b"0\r\n\r\n"):
        piece = s.recv(65536)
        assert piece, "the stream was cut"
        raw += piece
    head, raw = raw.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200")
    body = b""
    while True:
        size, raw = raw.split(b"\r\n", 1)
        n = int(size, 16)
        if n == 0:
            break
        body += raw[:n]
        assert raw[n:n + 2] == b"\r\n"
        raw = raw[n + 2:]
    lines = [line[6:] for line in body.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def text_of(frames, index=0):
    return "".join(c["text"] for f in frames for c in f["choices"] if c["index"] == index)


def ends(daemon, n):
    rows = daemon.rows("SELECT output FROM ledger WHERE kind = 'commit' ORDER BY rowid")
    return rows if len(rows) >= n else None


def test_who_is_behind_gets_all_text_in_few_frames(make_daemon):
    daemon = make_daemon().start()
    whole = ask(daemon, max_tokens=TOKENS, ignore_eos=True)[1]["choices"][0]["text"]
    behind = send(daemon, max_tokens=TOKENS, stream_options={"include_usage": True})
    wait_until(lambda: ends(daemon, 2))  # generated and settled while nothing was read
    frames = read_frames(behind)
    assert text_of(frames) == whole
    assert frames[-1]["usage"]["completion_tokens"] == TOKENS
    texts = [f for f in frames if f["choices"] and f["choices"][0]["text"]]
    assert 1 < len(texts) < TOKENS / 2 and max(len(f["choices"][0]["text"]) for f in texts) > 100
    assert [f["choices"][0]["finish_reason"] for f in frames if f["choices"]] == [None] * (len(frames) - 2) + ["length"]
    behind.close()
    daemon.stop()


def test_choices_and_logprobs_survive_the_merging(make_daemon):
    daemon = make_daemon().start()
    whole = ask(daemon, max_tokens=800, ignore_eos=True, n=3, logprobs=1)[1]["choices"]
    behind = send(daemon, max_tokens=800, n=3, logprobs=1)
    wait_until(lambda: ends(daemon, 2))
    frames = read_frames(behind)
    for choice in whole:
        mine = [c for f in frames for c in f["choices"] if c["index"] == choice["index"]]
        assert "".join(c["text"] for c in mine) == choice["text"]
        assert sum((c["logprobs"]["tokens"] for c in mine if c["logprobs"]), []) == choice["logprobs"]["tokens"]
    daemon.stop()


def test_who_reads_nothing_is_dropped_and_charged_for_what_was_made(make_daemon):
    daemon = make_daemon("data", "http.pending_max_bytes=4096", environment={"MOCK_STEP_US": "500"}).start()
    behind = send(daemon, max_tokens=4000)
    wait_until(lambda: ends(daemon, 1))
    (output,), = ends(daemon, 1)
    assert 100 < output < 4000
    assert "unread" in daemon.log()
    assert ask(daemon)[0] == 200
    behind.close()
    daemon.stop()


def memory_mb(daemon):
    with open(f"/proc/{daemon.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


def test_thousands_of_idle_and_slow_connections(make_daemon, tmp_path):
    """2,000 idle keep-alive connections and 200 clients that do not read, while others are served."""
    licensor = Licensor(tmp_path / "licensor")
    licence = licensor.issue("many", limits={"unit": "person-month", "seats": None, "indirect_users": None, "concurrent": None})
    settings = [f"license.roots={licensor.roots}", "http.connections_max=3000", "engine.max_seqs=512", "limits.active=1024", "limits.active_per_tenant=1024"]
    daemon = make_daemon("data", *settings, environment={"MOCK_STEP_US": "1000"})
    daemon.run("license", "install", "--data", daemon.folder, licence, "--key-set", licensor.key_set(1))
    daemon.start()
    assert ask(daemon)[0] == 200
    before = memory_mb(daemon)
    idle = []
    for i in range(2000):
        s = socket.create_connection(daemon.address, timeout=20)
        idle.append(s)
        if i % 2 == 0:  # half of them have been used, half never said a word
            s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    for s in idle[::2]:
        assert s.recv(4096).startswith(b"HTTP/1.1 200")
    slow = [send(daemon, max_tokens=1500) for _ in range(200)]
    normal = Client(daemon)
    for _ in range(20):
        status, body, _ = normal.post({"model": "demo", "prompt": "hello", "max_tokens": 20, "ignore_eos": True, "seed": 1})
        assert status == 200 and body["usage"]["completion_tokens"] == 20
    wait_until(lambda: daemon.rows("SELECT COUNT(*) FROM ledger WHERE kind = 'commit'")[0][0] == 221, 60)
    used = memory_mb(daemon) - before
    assert used < 120, f"{used:.0f} MiB for 2,000 idle and 200 slow connections"
    first = text_of(read_frames(slow[0]))
    assert len(first) > 1000 and all(text_of(read_frames(s)) == first for s in slow[1:20])
    for s in idle[::2]:
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    for s in idle[::2]:
        assert s.recv(4096).startswith(b"HTTP/1.1 200"), "idle connections live on"
    for s in idle + slow:
        s.close()
    normal.close()
    assert daemon.stop() == 0


def test_more_connections_than_allowed_are_refused_by_name(make_daemon):
    daemon = make_daemon("data", "http.connections_max=20").start()
    idle = [socket.create_connection(daemon.address, timeout=20) for _ in range(20)]

    def is_refused():
        with socket.create_connection(daemon.address, timeout=20) as s:
            s.settimeout(0.3)
            try:
                return b"http.connections_max: 20" in s.recv(4096)
            except TimeoutError:
                return False
    wait_until(is_refused)
    idle[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert idle[0].recv(4096).startswith(b"HTTP/1.1 200"), "who is in stays in"
    for s in idle[:10]:
        s.close()
    wait_until(lambda: not is_refused())
    assert ask(daemon)[0] == 200
    for _ in range(100):  # many that come and go are not many at once
        with socket.create_connection(daemon.address, timeout=20):
            pass
    wait_until(lambda: not is_refused())
    assert daemon.stop() == 0


def test_more_requests_than_allowed_are_refused_by_name(make_daemon):
    daemon = make_daemon("data", "http.requests_max=3", environment={"MOCK_STEP_US": "20000"}).start()
    held = [send(daemon, max_tokens=2000) for _ in range(3)]
    for s in held:
        assert s.recv(1)
    status, body, _ = ask(daemon)
    assert status == 503 and "http.requests_max" in body["error"]["message"]
    for s in held:
        s.close()
    wait_until(lambda: ask(daemon)[0] == 200)
    daemon.stop()
