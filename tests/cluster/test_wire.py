# SPDX-License-Identifier: Apache-2.0
"""Stock gRPC clients, the metrics page, health pages, and an idle cluster."""
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from phalanx_cluster import ask
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def channel(cluster, with_certificate=True):
    tls = cluster.folder / "tls"
    credentials = grpc.ssl_channel_credentials(
        (tls / "ca.crt").read_bytes(),
        (tls / "operator.key").read_bytes() if with_certificate else None,
        (tls / "operator.crt").read_bytes() if with_certificate else None)
    return grpc.secure_channel(cluster.ready["grpc"], credentials)


def test_stock_health_check(cluster):
    with channel(cluster) as c:
        answer = health_pb2_grpc.HealthStub(c).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(cluster):
    with channel(cluster) as c:
        services = ProtoReflectionDescriptorDatabase(c).get_services()
    assert {"phalanx.v1.RankLink", "phalanx.v1.Cluster", "grpc.health.v1.Health"} <= set(services)


def test_no_certificate_no_call(cluster):
    with channel(cluster, with_certificate=False) as c, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(c).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def get(cluster, path, key=None):
    request = urllib.request.Request(cluster.url + path)
    if key:
        request.add_header("Authorization", "Bearer " + key)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def test_health_pages(cluster):
    assert get(cluster, "/healthz") and get(cluster, "/readyz")


def test_metrics_pass_promtool_and_count(cluster):
    ask(cluster, "What is 1 + 1?")
    page = get(cluster, "/metrics", cluster.key)
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for name in ("phalanx_requests_total", "phalanx_tokens_total", "phalanx_time_to_first_token_seconds_bucket",
                 "phalanx_kv_blocks_used", "phalanx_replica_state"):
        assert name in page, name


def test_no_key_no_models(cluster):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(cluster, "/v1/models")
    assert caught.value.code == 401


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / 100


def test_an_idle_cluster_sleeps(own_cluster):
    cluster = own_cluster(2, 2)
    ask(cluster, "What is 1 + 1?")
    pids = [r["pid"] for r in cluster.ready["ranks"]] + [cluster.process.pid]
    time.sleep(3)
    before = cpu_seconds(pids)
    time.sleep(10)
    used = cpu_seconds(pids) - before
    assert used < 0.2, f"{used} s of CPU in 10 s of idling (2 % of a core allowed)"
    assert cluster.stop() == 0


def test_prompts_never_reach_the_log(own_cluster):
    cluster = own_cluster(1, 1)
    secret = "zebra-quagga-1729"
    ask(cluster, "What is 1 + 1? " + secret, max_tokens=10)
    assert cluster.stop() == 0
    log = cluster.log()
    assert "phalanxd" in log or "fleet" in log, "the log was written"
    assert "quagga" not in log and "What is" not in log
