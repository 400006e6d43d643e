# SPDX-License-Identifier: Apache-2.0
"""Large prompts are tokenized by threads: the same tokens, an end to the queue, and clients that leave meanwhile."""
import json
import socket
import threading

from mock_daemon import Client, ask, wait_until

BIG = "the quick brown fox. " * 45000  # about a megabyte: far more than the context, refused when it was counted


def test_a_thread_counts_the_same_tokens(make_daemon):
    text = "one two three four " * 90
    counts = []
    for inline in (0, 1 << 20):
        daemon = make_daemon(f"data{inline}", f"text.inline_bytes={inline}").start()
        for _ in range(2):  # the second one from the cache
            status, body, _ = ask(daemon, prompt=text)
            assert status == 200
            counts.append((body["usage"]["prompt_tokens"], body["choices"][0]["text"]))
        status, body, _ = ask(daemon, prompt="x\udcff" + text)
        assert status == 400
        daemon.stop()
    assert len(set(counts)) == 1 and counts[0][0] > 300


def test_small_requests_are_served_while_large_ones_are_tokenized(make_daemon):
    daemon = make_daemon("data", "http.body_max_bytes=4194304", "text.queue=64").start()
    answers = []

    def large(i):
        client = Client(daemon)
        answers.append(client.post({"model": "demo", "prompt": str(i) + BIG, "max_tokens": 1}))
        client.close()

    threads = [threading.Thread(target=large, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    served = 0
    while any(t.is_alive() for t in threads):
        assert ask(daemon)[0] == 200
        served += 1
    for t in threads:
        t.join()
    assert served > 3
    assert all(status == 400 and "context" in body["error"]["message"] for status, body, _ in answers), answers
    daemon.stop()


def test_a_full_queue_is_refused_by_name_and_who_leaves_is_forgotten(make_daemon):
    daemon = make_daemon("data", "http.body_max_bytes=4194304", "text.queue=1", "text.threads=1").start()
    body = json.dumps({"model": "demo", "prompt": BIG + BIG, "max_tokens": 1})
    request = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {daemon.key}\r\n"
               f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()
    seen = []

    def refused():
        with socket.create_connection(daemon.address) as leaving:
            leaving.sendall(request)
            status, answer, headers = ask(daemon, prompt=BIG)
        seen.append((status, answer["error"]["message"], headers.get("Retry-After")))
        return status == 503

    wait_until(refused)
    assert "text.queue" in seen[-1][1] and seen[-1][2] is not None
    assert ask(daemon)[0] == 200, "small prompts need no queue"
    wait_until(lambda: ask(daemon, prompt=BIG)[0] == 400)  # its turn came, and it is too long
    assert daemon.stop() == 0


def test_stopping_ends_what_is_being_tokenized(make_daemon):
    daemon = make_daemon("data", "http.body_max_bytes=4194304", "timeouts.drain_ms=0").start()
    answers = []

    def large():
        try:
            answers.append(Client(daemon).post({"model": "demo", "prompt": BIG})[0])
        except OSError:
            answers.append(None)  # it was not read yet when the daemon left

    threads = [threading.Thread(target=large) for _ in range(4)]
    for t in threads:
        t.start()
    assert daemon.stop() == 0
    for t in threads:
        t.join()
    assert set(answers) <= {None, 400, 503}
