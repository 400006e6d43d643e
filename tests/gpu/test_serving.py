# SPDX-License-Identifier: Apache-2.0
"""Whole clusters whose ranks compute with the CUDA backend, on the emulated device; needs no GPU."""
import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from phalanx_cluster import BIN, Cluster, ask, questions

MODULE = BIN.parent / "tests/phalanx_cuda.so"
F32 = ("--set", "engine.compute=f32", "--set", "engine.kv_dtype=f32")
PLAIN = ("--set", "engine.speculate=off")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The programs beside a module whose device is emulated."""
    folder = tmp_path_factory.mktemp("emulated") / "bin"
    folder.mkdir()
    for name in ("phalanx", "phalanxd", "phalanx-rank"):
        shutil.copy(BIN / name, folder / name)
    shutil.copy(MODULE, folder / "phalanx_cuda.so")
    return folder


@pytest.fixture
def on_cuda(tmp_path, programs):
    """on_cuda(tp, pp, extra): a cluster on emulated devices."""
    made = []

    def make(tp=1, pp=1, extra=()):
        made.append(Cluster(tmp_path / f"data{len(made)}", tp, pp, extra=extra, programs=programs, backend="cuda").start())
        return made[-1]

    yield make
    for cluster in made:
        if cluster.process.poll() is None:
            cluster.process.kill()
            cluster.process.wait()


def generate(cluster, prompt, **kwargs):
    raw = cluster.client().completions.with_raw_response.create(
        model=cluster.model, prompt=prompt, max_tokens=12, extra_body={"ignore_eos": True}, **kwargs)
    return raw.parse().choices[0].text, raw.headers["x-phalanx-receipt"]


@pytest.mark.parametrize("layout", [(1, 1), (2, 1), (1, 2)], ids=str)
def test_chat_answers_as_on_the_cpu(own_cluster, on_cuda, layout):
    asked = [q["question"] for q in questions(2 if layout == (1, 1) else 1, seed=7)]
    cpu, cuda = own_cluster(1, 1, extra=F32), on_cuda(*layout, extra=F32)
    for question in asked:
        want, got = ask(cpu, question), ask(cuda, question)
        assert (got.content, got.reasoning_content) == (want.content, want.reasoning_content)
    assert cuda.stop() == 0


@pytest.mark.parametrize("kv", ["int8", "fp8"])
def test_a_cache_of_bytes_answers_right(on_cuda, kv):
    cluster = on_cuda(extra=("--set", f"engine.kv_dtype={kv}"))
    for item in questions(2, seed=8):
        assert ask(cluster, item["question"]).content.split("=")[-1].strip() == item["answer"]
    assert cluster.stop() == 0


def test_many_at_once_get_what_each_gets_alone(on_cuda):
    cluster = on_cuda(extra=PLAIN)
    prompts = [("the quick brown fox", {"temperature": 0}), ("What is 12 + 30?", {"temperature": 1.0, "seed": 5}),
               ("aaaa", {"temperature": 0.7, "top_p": 0.8, "seed": 6}), ("one two three", {"temperature": 0, "presence_penalty": 1.0}),
               ("the", {"temperature": 1.2, "seed": 7, "logprobs": 3})]
    alone = [generate(cluster, p, **options)[0] for p, options in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        for _ in range(2):
            together = list(pool.map(lambda p: generate(cluster, p[0], **p[1])[0], prompts))
            assert together == alone
    assert cluster.stop() == 0


def test_the_record_names_the_device_and_replays_on_another_layout(on_cuda):
    cluster = on_cuda()
    cluster.stop()
    cluster.run("tenant", "set", "kept", "--data", cluster.folder, "--privacy", "encrypted", "--by", "test")
    made = cluster.run("key", "create", "--data", cluster.folder, "--tenant", "kept", "--user", "u", "--json")
    cluster.start()
    client = openai.OpenAI(base_url=cluster.url + "/v1", api_key=json.loads(made.stdout)["key"], max_retries=8)
    answer = client.completions.with_raw_response.create(model=cluster.model, prompt="What is 12 + 30?", max_tokens=20,
                                                         temperature=0.9, seed=3)
    receipt = answer.headers["x-phalanx-receipt"]
    assert cluster.stop() == 0
    cluster.command[cluster.command.index("--tp") + 1] = "2"
    cluster.start()
    verdict = json.loads(cluster.run("audit", "replay", receipt, "--data", cluster.folder, "--json").stdout)
    assert verdict["is_equal"] and verdict["class"] == "A" and verdict["tokens"] > 0, verdict
    assert cluster.stop() == 0
    told = cluster.run("audit", "explain", cluster.folder / "audit", receipt, "--json").stdout
    assert "cuda" in told and "sm_" in told, told


@pytest.mark.parametrize("layout", [(1, 1), (2, 1)], ids=str)
def test_a_stream_survives_a_killed_rank(on_cuda, layout):
    cluster = on_cuda(*layout, extra=PLAIN)

    def stream(act=None):
        text, n = "", 0
        for chunk in cluster.client().completions.create(model=cluster.model, prompt="the", max_tokens=150, temperature=0,
                                                         stream=True, extra_body={"ignore_eos": True}):
            text += "".join(choice.text for choice in chunk.choices)
            n += 1
            if n == 5 and act:
                act()
        return text

    expected = stream()
    assert stream(act=lambda: os.kill(cluster.ready["ranks"][-1]["pid"], signal.SIGKILL)) == expected
    status = json.loads(cluster.run("cluster", "status", "--data", cluster.folder, "--json").stdout)
    assert status["replicas"][0]["restarts"] == 1
    assert cluster.stop() == 0
