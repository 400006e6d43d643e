# SPDX-License-Identifier: Apache-2.0
"""Stock gRPC clients (grpcio, health checking, reflection) against the C transport."""
import os
import queue
import subprocess
import threading
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin")).parent / "tests/rpc_serve"


class Server:
    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen([PROGRAM, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        self.target = f"localhost:{int(self.process.stdout.readline())}"

    def tell(self, line):
        """Sends a command; returns (requests seen, cancellations seen)."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return tuple(map(int, self.process.stdout.readline().split()))

    def channel(self, with_certificate=True, options=()):
        read = lambda name: (self.folder / name).read_bytes()
        pair = (read("client.key"), read("client.pem")) if with_certificate else (None, None)
        credentials = grpc.ssl_channel_credentials(read("ca.pem"), *pair)
        return grpc.secure_channel(self.target, credentials, options=options)

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0


@pytest.fixture
def server(tmp_path):
    s = Server(tmp_path)
    yield s
    s.stop()


class Api:
    """Calls made from what reflection tells, as grpcurl does."""

    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def method(self, service, name):
        return self.pool.FindServiceByName(service).methods_by_name[name]

    def message(self, service, name, **fields):
        return message_factory.GetMessageClass(self.method(service, name).input_type)(**fields)

    def call(self, service, name, kind="unary_unary"):
        answer = message_factory.GetMessageClass(self.method(service, name).output_type)
        return getattr(self.channel, kind)(f"/{service}/{name}",
                                           request_serializer=lambda m: m.SerializeToString(),
                                           response_deserializer=answer.FromString)


def test_health_check_and_watch(server):
    with server.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="no.Such"), timeout=5)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        seen = queue.Queue()
        stream = stub.Watch(health_pb2.HealthCheckRequest())

        def watch():
            try:
                for answer in stream:
                    seen.put(answer.status)
            except grpc.RpcError as error:
                seen.put(error.code())

        thread = threading.Thread(target=watch)
        thread.start()
        assert seen.get(timeout=5) == health_pb2.HealthCheckResponse.SERVING
        server.tell("draining")
        assert seen.get(timeout=5) == health_pb2.HealthCheckResponse.NOT_SERVING
        server.tell("serving")
        assert seen.get(timeout=5) == health_pb2.HealthCheckResponse.SERVING
        stream.cancel()
        assert seen.get(timeout=5) == grpc.StatusCode.CANCELLED
        thread.join()


def test_reflection_describes_every_service(server):
    with server.channel() as channel:
        api = Api(channel)
        services = set(api.database.get_services())
        assert {"phalanx.v1." + s for s in ("RankLink", "Cluster", "Inference", "Admission", "License", "Metering",
                                            "Audit")} <= services
        assert {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection"} <= services
        for service in services:
            assert api.pool.FindServiceByName(service).methods
        hello = api.pool.FindMessageTypeByName("phalanx.v1.Hello")
        assert hello.fields_by_name["join_token"].number == 4
        with pytest.raises(KeyError):
            api.pool.FindMessageTypeByName("phalanx.v1.NoSuch")


def test_a_unary_call_and_its_refusal(server):
    with server.channel() as channel:
        api = Api(channel)
        answer = api.call("phalanx.v1.Cluster", "Get")(api.message("phalanx.v1.Cluster", "Get"), timeout=5)
        assert answer.state.cluster_id == "test-cluster" and answer.state.is_ready
        request = api.message("phalanx.v1.Cluster", "Restart", replica_id="r9")
        with pytest.raises(grpc.RpcError) as caught:
            api.call("phalanx.v1.Cluster", "Restart")(request, timeout=5)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "no replica is called r9"
        trailing = dict(caught.value.trailing_metadata())
        assert trailing["phalanx-error"] == "STATE"
        assert trailing["grpc-retry-pushback-ms"] == "1500"


def test_unserved_and_unknown_methods_say_so(server):
    with server.channel() as channel:
        api = Api(channel)
        request = api.message("phalanx.v1.Cluster", "LoadAdapter")
        for path in ("/phalanx.v1.Cluster/LoadAdapter", "/no.Such/Method"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path, request_serializer=lambda m: m.SerializeToString())(request, timeout=5)
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert path in caught.value.details()


def test_a_stream_and_leaving_it(server):
    with server.channel() as channel:
        api = Api(channel)
        request = api.message("phalanx.v1.Inference", "Generate", model="demo", prompt="hi")
        generate = api.call("phalanx.v1.Inference", "Generate", "unary_stream")
        assert [m.text for m in generate(request, timeout=5)] == ["piece"] * 5
        server.tell("hold")
        stream = generate(request)
        while server.tell("hold")[0] < 2:
            pass
        stream.cancel()
        for _ in range(1000):
            if server.tell("hold")[1] == 1:
                break
        assert server.tell("hold")[1] == 1


@pytest.mark.parametrize("fields, says", [
    ({"model": "demo"}, "either messages or prompt"),
    ({"prompt": "x"}, "GenerateRequest.model"),
    ({"model": "demo", "prompt": "x", "sampling": {"temperature": float("nan")}}, "Sampling.temperature"),
    ({"model": "demo", "prompt": "x", "sampling": {"top_p": -1.0}}, "Sampling.top_p"),
    ({"model": "demo", "prompt": "x", "stops": ["s"] * 17}, "GenerateRequest.stops has 17 items (limit 16)"),
    ({"model": "d" * 257, "prompt": "x"}, "GenerateRequest.model has 257 bytes (limit 256)"),
    ({"model": "a\0b", "prompt": "x"}, "GenerateRequest.model has a NUL byte"),
    ({"model": "demo", "prompt": "x", "max_new": -1}, "GenerateRequest.max_new"),
])
def test_bad_arguments_are_named(server, fields, says):
    with server.channel() as channel:
        api = Api(channel)
        request = api.message("phalanx.v1.Inference", "Generate", **fields)
        with pytest.raises(grpc.RpcError) as caught:
            list(api.call("phalanx.v1.Inference", "Generate", "unary_stream")(request, timeout=5))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert says in caught.value.details()


def ask(api, service, name, metadata=None, **fields):
    service = "phalanx.v1." + service
    return api.call(service, name)(api.message(service, name, **fields), timeout=5, metadata=metadata)


def test_admission_from_a_stock_client(server):
    with server.channel() as channel:
        api = Api(channel)
        answer = ask(api, "Admission", "Admit", model="demo", user="ninth", idempotency_key="k-1", session="gw-1",
                     request_digest=b"d" * 32, max_input_tokens=30, max_output_tokens=12)
        assert (answer.decision, answer.lease_id, answer.seat_id) == (1, "gw-1", "k-1")
        assert (answer.expires_unix_ns, answer.budget_left_tokens) == (32, 42)
        assert list(answer.warnings) == ["90 % of the seats are used"]
        usage = {"input_tokens": 30, "output_tokens": 12}
        assert ask(api, "Admission", "Renew", lease_id="l", so_far=usage).expires_unix_ns == 12
        assert ask(api, "Admission", "Settle", lease_id="l", usage=usage, outcome="stop").receipt_id == "stop"
        ask(api, "Admission", "Cancel", lease_id="l", reason="not needed")


@pytest.mark.parametrize("user, code, rule, retry", [
    ("eleventh", grpc.StatusCode.FAILED_PRECONDITION, "licence.seats", None),
    ("hasty", grpc.StatusCode.RESOURCE_EXHAUSTED, "rate", "2000"),
])
def test_a_refusal_names_its_rule(server, user, code, rule, retry):
    with server.channel() as channel:
        with pytest.raises(grpc.RpcError) as caught:
            ask(Api(channel), "Admission", "Admit", model="demo", user=user)
        assert caught.value.code() == code
        trailing = dict(caught.value.trailing_metadata())
        assert trailing["phalanx-rule"] == rule
        assert trailing.get("grpc-retry-pushback-ms") == retry


def test_metering_licence_and_audit_from_a_stock_client(server):
    with server.channel() as channel:
        api = Api(channel)
        answer = ask(api, "Metering", "Query", group_by=["tenant", "day"])
        assert list(answer.rows[0].group) == ["tenant", "day"] and answer.ledger_index == 42
        assert answer.rows[0].totals.kv_block_seconds == 8
        request = api.message("phalanx.v1.Metering", "Export", format=2, from_index=3, to_index=8)
        parts = list(api.call("phalanx.v1.Metering", "Export", "unary_stream")(request, timeout=5))
        assert [p.next_index for p in parts] == [4, 5, 6, 7, 8] and parts[0].data == b"a,b\r\n"
        assert ask(api, "License", "Get").facts.seats == -1
        assert ask(api, "License", "Install", envelope=b"{}", is_dry_run=True).is_dry_run
        assert ask(api, "License", "ListSeats", period="2026-11").seats[0].is_indirect
        assert ask(api, "License", "AcceptClock", by="a", approved_by="b").clock_state == "b"
        assert ask(api, "Audit", "Get", index=0).records[0].kind == "intent"
        proof = ask(api, "Audit", "Prove", index=7, tree_size=9)
        assert (proof.index, proof.tree_size, len(proof.hashes[0])) == (7, 9, 32)
        assert ask(api, "Audit", "Checkpoint").checkpoint == b"note"
        assert ask(api, "Audit", "Search", kind="intent").next_page_token == "8"
        verdict = ask(api, "Audit", "Replay", receipt_id="rcpt_1")
        assert verdict.is_equal and verdict.first_difference == -1 and getattr(verdict, "class") == "A"


@pytest.mark.parametrize("service, name, fields, says", [
    ("Admission", "Admit", {"user": "u"}, "AdmitRequest.model is missing"),
    ("Admission", "Admit", {"model": "m", "request_digest": b"x" * 31}, "request_digest has 31 bytes"),
    ("Admission", "Admit", {"model": "m", "idempotency_key": "k" * 129}, "idempotency_key has 129 bytes (limit 128)"),
    ("Admission", "Admit", {"model": "m", "max_output_tokens": -1}, "AdmitRequest.max_output_tokens is -1"),
    ("Admission", "Settle", {"lease_id": "l", "outcome": "stop"}, "SettleRequest.usage is missing"),
    ("License", "Install", {"envelope": b"x" * 65537}, "envelope has 65537 bytes (limit 65536)"),
    ("License", "ListSeats", {"page_size": 1001}, "ListSeatsRequest.page_size is 1001"),
    ("Metering", "Query", {"group_by": ["day"] * 5}, "QueryUsageRequest.group_by has 5 items (limit 4)"),
    ("Metering", "Query", {"filter": {"from_unix_ns": 2, "to_unix_ns": 1}}, "the end lies before the beginning"),
    ("Audit", "Get", {}, "GetRecordRequest does not say which one"),
    ("Audit", "Search", {"page_size": -1}, "SearchRecordsRequest.page_size is -1"),
])
def test_bad_arguments_of_the_control_plane_are_named(server, service, name, fields, says):
    with server.channel() as channel:
        with pytest.raises(grpc.RpcError) as caught:
            ask(Api(channel), service, name, **fields)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert says in caught.value.details()
    assert server.tell("answer") == (0, 0)  # no handler saw it


def test_the_token_of_an_end_user_is_taken_once(server):
    key = "x-phalanx-on-behalf-of"
    with server.channel() as channel:
        api = Api(channel)
        ask(api, "License", "Get", metadata=((key, "a.b.c"),))
        for metadata in (((key, "a.b.c"), (key, "d.e.f")), ((key, "x" * 4097),)):
            with pytest.raises(grpc.RpcError) as caught:
                ask(api, "License", "Get", metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_message_over_the_limit_is_refused(server):
    with server.channel() as channel:
        call = channel.unary_unary("/phalanx.v1.Cluster/Get")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\0" * ((16 << 20) + 1), timeout=20)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_no_certificate_and_no_tls_reach_nothing(server):
    insecure = grpc.insecure_channel(server.target)
    for channel in (server.channel(with_certificate=False), insecure):
        with channel, pytest.raises(grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert server.tell("answer") == (0, 0)


def test_a_client_that_pings_often_is_not_thrown_out(server):
    options = (("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_timeout_ms", 1000),
               ("grpc.http2.max_pings_without_data", 0), ("grpc.keepalive_permit_without_calls", 1))
    with server.channel(options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            for _ in stub.Watch(health_pb2.HealthCheckRequest(), timeout=7):
                pass
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
