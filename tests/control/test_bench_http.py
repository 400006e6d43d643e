# SPDX-License-Identifier: Apache-2.0
"""`phalanx bench http` counts what the ledger counts."""
import json
import socket
import subprocess
import threading

import pytest
from mock_daemon import BIN


def bench(daemon, *arguments, code=0):
    done = subprocess.run([BIN / "phalanx", "bench", "http", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if code == 0 and "--json" in arguments else done.stdout + done.stderr


def load(daemon, *arguments):
    return bench(daemon, "--data", daemon.folder, "--json", *arguments)


@pytest.mark.parametrize("kind", [[], ["--no-stream"], ["--chat"], ["--chat", "--no-stream"]])
def test_counts_are_those_of_the_ledger(shared, kind):
    before = shared.rows("SELECT COUNT(*), TOTAL(prompt), TOTAL(output) FROM ledger WHERE kind = 'commit'")[0]
    told = load(shared, "-c", 4, "--requests", 20, "--output-tokens", 17, "--prompt-tokens", 9, *kind)
    after = shared.rows("SELECT COUNT(*), TOTAL(prompt), TOTAL(output) FROM ledger WHERE kind = 'commit'")[0]
    assert (told["answered"], told["errors"], told["output_tokens"]) == (20, 0, 20 * 17)
    assert [told["answered"], told["prompt_tokens"], told["output_tokens"]] == [a - b for a, b in zip(after, before)]
    assert told["request_ms"]["n"] == 20 and 0 < told["request_ms"]["p50"] <= told["request_ms"]["p99"] <= told["request_ms"]["max"] * 1.02
    if "--no-stream" in kind:
        assert told["events"] == 0 and told["ttft_ms"]["n"] == 0
    else:
        assert told["ttft_ms"]["n"] == 20 and told["inter_token_ms"]["n"] == told["events"] - 20
    if "--chat" not in kind:
        assert told["prompt_tokens"] == 20 * 9


def test_open_loop_sends_at_its_rate(shared):
    told = load(shared, "--rate", 40, "--duration", 1, "--output-tokens", 2)
    assert told["sent"] == told["answered"] == 40 and told["concurrency"] == 1024


def test_failures_are_counted_and_named(shared):
    bad = bench(shared, "--data", shared.folder, "--requests", 3, "--output-tokens", 100000, code=1)
    assert "no request was answered" in bad and "max_tokens" in bad
    assert "http://" in bench(shared, "--url", "ftp://x", "--model", "m", code=1)
    assert "--rate" in bench(shared, "--rate", "many", code=2)
    assert "refused" in bench(shared, "--url", "http://127.0.0.1:9", "--model", "m", code=1).lower()


def test_table_for_people(shared):
    text = bench(shared, "--data", shared.folder, "--requests", 2, "--output-tokens", 3)
    assert "time to first token" in text and "requests" in text


def serve_and_close(listener, per_connection):
    """Answers so many requests on each connection and closes it without a word, as servers do with idle ones."""
    answer = json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}).encode()
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            for _ in range(per_connection):
                size = 0
                while (line := lines.readline()) not in (b"\r\n", b""):
                    size = int(line.split(b":")[1]) if line.lower().startswith(b"content-length") else size
                lines.read(size)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
            lines.readline()  # the next request has begun: nobody answers it


def test_a_request_on_a_closed_connection_goes_out_again():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve_and_close, args=(listener, 2), daemon=True).start()
        url = "http://127.0.0.1:%d" % listener.getsockname()[1]
        told = bench(None, url, "--model", "m", "--no-stream", "-c", 1, "--requests", 7, "--json")
    assert (told["sent"], told["answered"], told["errors"], told["output_tokens"]) == (7, 7, 0, 14)
