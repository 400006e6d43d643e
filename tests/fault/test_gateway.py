# SPDX-License-Identifier: Apache-2.0
"""An outside gateway, a stock grpcio client that learns the services by reflection, admits and settles through the
running daemon; leases survive lost connections and a killed daemon."""
import json
import time
import uuid

import grpc
import pytest
from mock_daemon import Daemon, wait_until
from mock_gateway import Gateway


def make_key(daemon, user, *more):
    made = daemon.run("key", "create", "--data", daemon.folder, "--tenant", "acme", "--user", user, "--json", *more)
    return json.loads(made.stdout)["key"]


@pytest.fixture
def daemon(tmp_path):
    d = Daemon(tmp_path / "data", ["lease.gateway_ttl_ms=1500"]).prepare()
    yield d
    if d.process.poll() is None:
        d.kill()


def refused(caught):
    metadata = dict(caught.value.trailing_metadata())
    return caught.value.code(), metadata.get("phalanx-rule"), metadata


def test_admit_renew_settle(daemon):
    key = make_key(daemon, "ann")
    daemon.start()
    gateway = Gateway(daemon, key)
    lease = gateway.admit(idempotency_key="one", session="gw-1")
    assert lease.decision == 1 and lease.lease_id.startswith("rcpt_") and lease.budget_left_tokens == -1
    again = gateway.admit(idempotency_key="one", session="gw-1")
    assert again.lease_id == lease.lease_id, "a re-connect re-attaches"
    assert again.expires_unix_ns >= lease.expires_unix_ns
    with pytest.raises(grpc.RpcError) as caught:
        gateway.admit(idempotency_key="one", request_digest=b"x" * 32)
    assert refused(caught)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "idempotency.conflict")
    so_far = {"input_tokens": 90, "output_tokens": 7}
    assert gateway.call("Admission", "Renew", lease_id=lease.lease_id, so_far=so_far).expires_unix_ns > 0
    with pytest.raises(grpc.RpcError) as caught:
        gateway.call("Admission", "Renew", lease_id=lease.lease_id, so_far={"output_tokens": 51})
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    usage = {"input_tokens": 90, "cached_input_tokens": 10, "output_tokens": 20, "reasoning_tokens": 5}
    done = {"lease_id": lease.lease_id, "usage": usage, "outcome": "stop"}
    receipt = gateway.call("Admission", "Settle", **done).receipt_id
    assert receipt == lease.lease_id
    assert gateway.call("Admission", "Settle", **done).receipt_id == receipt, "alike twice"
    with pytest.raises(grpc.RpcError) as caught:
        gateway.call("Admission", "Settle", **dict(done, usage=dict(usage, output_tokens=21)))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    replayed = gateway.admit(idempotency_key="one")
    assert replayed.decision == 3 and replayed.usage.output_tokens == 20
    gateway.close()
    rows = daemon.rows("SELECT kind, prompt, cached, output, reasoning FROM ledger WHERE lease = ? AND kind ="
                       " 'commit'", receipt)
    assert rows == [("commit", 90, 10, 20, 5)]


def test_metering_and_audit_over_grpc(daemon):
    ann, auditor = make_key(daemon, "ann"), make_key(daemon, "eve", "--roles", "auditor")
    daemon.start()
    gateway, audit = Gateway(daemon, ann), Gateway(daemon, auditor)
    lease = gateway.admit().lease_id
    gateway.call("Admission", "Settle", lease_id=lease, outcome="stop",
                 usage={"input_tokens": 10, "output_tokens": 4})
    query = gateway.call("Metering", "Query", filter={"from_unix_ns": 0}, group_by=["user"])
    assert [(r.group[0], r.totals.input_tokens, r.totals.output_tokens) for r in query.rows] == [("ann", 10, 4)]
    with pytest.raises(grpc.RpcError) as caught:
        gateway.call("Audit", "Get", receipt_id=lease)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    records = audit.call("Audit", "Get", receipt_id=lease).records
    assert sorted(r.kind for r in records) == ["intent", "result"]
    wait_until(lambda: audit.call("Audit", "Checkpoint").tree_size > max(r.index for r in records))
    proof = audit.call("Audit", "Prove", receipt_id=lease)
    assert proof.checkpoint and proof.record.leaf
    with pytest.raises(grpc.RpcError) as caught:
        audit.admit()
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    gateway.close()
    audit.close()


def test_a_lease_outlives_the_daemon_and_expires(daemon):
    key = make_key(daemon, "ann")
    daemon.start()
    gateway = Gateway(daemon, key)
    kept, dropped, nothing = (gateway.admit(idempotency_key=str(uuid.uuid4())).lease_id for _ in range(3))
    for lease in (kept, dropped):
        gateway.call("Admission", "Renew", lease_id=lease, so_far={"input_tokens": 100, "output_tokens": 9})
    gateway.call("Admission", "Cancel", lease_id=nothing, reason="the client left")
    gateway.close()
    daemon.kill()
    daemon.start()
    gateway = Gateway(daemon, key)
    gateway.call("Admission", "Renew", lease_id=kept, so_far={"input_tokens": 100, "output_tokens": 12})
    gateway.call("Admission", "Settle", lease_id=kept, outcome="stop",
                 usage={"input_tokens": 100, "output_tokens": 30})
    ended = "SELECT outcome, output, upper FROM ledger WHERE lease = ? AND kind IN ('commit', 'void')"
    wait_until(lambda: daemon.rows(ended, dropped))
    assert daemon.rows(ended, dropped) == [("crash", 9, 50)], "the proven lower bound, and the upper one"
    assert daemon.rows(ended, kept) == [("stop", 30, 30)]
    assert daemon.rows(ended, nothing)[0][0] == "the client left"
    with pytest.raises(grpc.RpcError) as caught:
        gateway.call("Admission", "Renew", lease_id=dropped, so_far={})
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    gateway.close()
    assert daemon.stop() == 0
    daemon.verify()


def test_refusals_name_their_rule(daemon):
    ann, bob = make_key(daemon, "ann"), make_key(daemon, "bob", "--roles", "auditor")
    daemon.run("budget", "set", "--data", daemon.folder, "--tenant", "acme", "--period", "day", "--tokens", "200")
    daemon.start()
    gateway = Gateway(daemon, ann)
    lease = gateway.admit().lease_id
    with pytest.raises(grpc.RpcError) as caught:
        gateway.admit()
    code, rule, metadata = refused(caught)
    assert (code, rule) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "budget.tenant")
    assert any("retry" in name for name in metadata), metadata
    for fields, code in (({"model": "other"}, grpc.StatusCode.NOT_FOUND),
                         ({"user": "carol"}, grpc.StatusCode.PERMISSION_DENIED),
                         ({"tenant": "umbrella"}, grpc.StatusCode.PERMISSION_DENIED),
                         ({"purpose": "Not A Code"}, grpc.StatusCode.INVALID_ARGUMENT),
                         ({"max_output_tokens": -1}, grpc.StatusCode.INVALID_ARGUMENT)):
        with pytest.raises(grpc.RpcError) as caught:
            gateway.admit(**fields)
        assert caught.value.code() == code, fields
    with pytest.raises(grpc.RpcError) as caught:
        Gateway(daemon, bob).call("Admission", "Settle", lease_id=lease, outcome="stop", usage={})
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.RpcError) as caught:
        Gateway(daemon, "phx_" + "a" * 43).admit()
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    gateway.close()
