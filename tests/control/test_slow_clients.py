# SPDX-License-Identifier: Apache-2.0
"""Clients that read slowly, or not at all: merged frames, bounded memory, and nobody else notices."""
import json
import socket
import time

from mock_daemon import ask, wait_until

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
    assert 1 < len(texts) < TOKENS / 2 and max(len(f["choices"][0]["text"]) for f in texts) > 1000
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
