# SPDX-License-Identifier: Apache-2.0
"""Many requests with duplicates, reordering and clients that leave in mid-stream, over three replicas: the ledger
equals what the clients counted, to the token, and no budget is exceeded."""
import collections
import http.client
import json
import os
import random
import threading
import time

from mock_daemon import Client, Daemon, Oracle

REQUESTS = int(os.environ.get("PHX_METERING_REQUESTS", "6000"))
THREADS = 8


class Totals:
    def __init__(self):
        self.lock = threading.Lock()
        self.count = collections.Counter()

    def add(self, **counts):
        with self.lock:
            self.count.update(counts)


def make_requests(seed):
    """(key, body, is_cut): every tenth appears twice, every twentieth is out of its place, each hundredth is cut."""
    random_ = random.Random(seed)
    requests = []
    for i in range(REQUESTS):
        body = {"model": "demo", "prompt": "q" * random_.randint(1, 40) + str(i), "seed": i,
                "max_tokens": random_.randint(1, 16)}
        requests.append((f"key-{i}", body, i % 100 == 99))
        if i % 10 == 0:
            requests.append((f"key-{i}", body, False))
    for i in range(0, len(requests) - 50, 20):
        j = i + random_.randint(1, 49)
        requests[i], requests[j] = requests[j], requests[i]
    return requests


def cut(daemon, key, idempotency_key, body):
    """Leaves after the first bytes of the stream."""
    connection = http.client.HTTPConnection(*daemon.address, timeout=30)
    connection.request("POST", "/v1/completions", json.dumps(dict(body, stream=True)),
                       {"Authorization": "Bearer " + key, "Idempotency-Key": idempotency_key})
    answer = connection.getresponse()
    if answer.status == 200:
        answer.read(20)
    status = answer.status
    connection.close()
    return status


def work(daemon, keys, requests, oracle, totals):
    clients = [Client(daemon, key) for key in keys]
    for number, (idempotency_key, body, is_cut) in requests:
        which = number % len(keys)
        if is_cut:
            status = cut(daemon, keys[which], idempotency_key, body)
            totals.add(**{f"cut {status}": 1})
            continue
        status, answer, headers = clients[which].post(body, {"Idempotency-Key": idempotency_key})
        totals.add(**{f"{status} {headers.get('x-phalanx-rule', '')}": 1})
        if status == 200:
            oracle.note(answer)
    for client in clients:
        client.close()


def test_the_ledger_is_what_the_clients_counted(tmp_path, capsys):
    seed = int(os.environ.get("PHX_SEED", str(int(time.time()))))
    daemon = Daemon(tmp_path / "data", ["cluster.replicas=3", "limits.active=1024"]).prepare()
    keys = []
    for tenant in ("north", "south"):  # one tenant per key: idempotency keys are a tenant's own
        made = daemon.run("key", "create", "--data", daemon.folder, "--tenant", tenant, "--user", "u", "--json")
        keys.append(json.loads(made.stdout)["key"])
    daemon.run("budget", "set", "--data", daemon.folder, "--tenant", "south", "--period", "total",
               "--tokens", REQUESTS * 8)
    daemon.start()
    oracle, totals = Oracle(), Totals()
    requests = list(enumerate(make_requests(seed)))
    # duplicates must meet the same tenant: the key's number decides
    requests = [(int(r[0].split("-")[1]), r) for _, r in requests]
    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(daemon, keys, requests[t::THREADS], oracle, totals))
               for t in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    assert daemon.stop() == 0
    commits = oracle.check(daemon)
    n_keys = daemon.rows("SELECT COUNT(*) FROM idempotency")[0][0]
    n_leases = daemon.rows("SELECT COUNT(DISTINCT lease) FROM ledger")[0][0]
    assert n_keys == n_leases, "one lease per key"
    spent = daemon.rows("SELECT COALESCE(SUM(prompt + output), 0) FROM ledger WHERE kind = 'commit' AND"
                        " tenant = 'south'")[0][0]
    assert spent <= REQUESTS * 8, "a budget was exceeded"
    assert totals.count["409 idempotency.replayed"] > 0
    report = json.loads(daemon.run("usage", "report", "--data", daemon.folder, "--period",
                                   time.strftime("%Y-%m", time.gmtime()), "--format", "json").stdout)
    assert report["total"]["output_tokens"] == sum(output for _, output in commits.values())
    assert report["total"]["prompt_tokens"] == sum(prompt for prompt, _ in commits.values())
    daemon.verify()
    with capsys.disabled():
        print(f"\n{len(requests)} requests (seed {seed}) in {seconds:.1f} s: {dict(totals.count)}")
