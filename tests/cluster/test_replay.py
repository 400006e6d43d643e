# SPDX-License-Identifier: Apache-2.0
"""Answers of a real cluster run again: the same tokens on any layout; provenance of the weights in each record."""
import json
import shutil
import subprocess

import openai
import pytest
from phalanx_cluster import BIN, DEMO, Cluster, ask


def make_tenant(cluster):
    """A tenant whose content is kept, encrypted; a client of its user."""
    cluster.run("tenant", "set", "kept", "--data", cluster.folder, "--privacy", "encrypted", "--by", "test")
    made = cluster.run("key", "create", "--data", cluster.folder, "--tenant", "kept", "--user", "u", "--json")
    return json.loads(made.stdout)["key"]


def generate(cluster, key, **kwargs):
    client = openai.OpenAI(base_url=cluster.url + "/v1", api_key=key, max_retries=8)
    answer = client.completions.with_raw_response.create(model=cluster.model, prompt="What is 12 + 30?", max_tokens=40,
                                                         **kwargs)
    return answer.headers["x-phalanx-receipt"]


def replay(cluster, receipt, *extra):
    done = cluster.run("audit", "replay", receipt, "--data", cluster.folder, "--json", *extra, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_an_answer_is_given_again_on_another_layout(tmp_path):
    cluster = Cluster(tmp_path / "data", 1, 1)
    cluster.start()
    cluster.stop()
    key = make_tenant(cluster)
    cluster.start()
    receipts = [generate(cluster, key, temperature=0), generate(cluster, key, temperature=1.0, top_p=0.9),
                generate(cluster, key, temperature=0.8, n=3, presence_penalty=0.5, logit_bias={"65": 2})]
    for receipt in receipts:
        code, verdict = replay(cluster, receipt)
        assert code == 0 and verdict["is_equal"] and verdict["class"] == "A" and verdict["tokens"] > 0, verdict
        code, verdict = replay(cluster, receipt, "--as", "B")
        assert code == 0 and verdict["is_equal"] and verdict["class"] == "B", verdict
        assert verdict["checked"] == verdict["tokens"] > 0 and "the largest gap is 0" in verdict["tolerance"]
    assert cluster.stop() == 0
    again = Cluster(cluster.folder, 2, 2).start()
    for receipt in receipts:
        assert replay(again, receipt)[1]["is_equal"], "the same tokens at TP 2 x PP 2"
        assert replay(again, receipt, "--as", "B")[1]["is_equal"], "and in one pass"
    other = Cluster.run(again, "audit", "replay", "rcpt_" + "0" * 32, "--data", again.folder, check=False)
    assert other.returncode == 1 and "not" in other.stderr
    plain = ask(again, "What is 1 + 1?")
    assert plain.content == "2"
    log = again.folder / "audit"
    again.run("audit", "verify", log, "--trust", log / "trust.json")
    assert again.stop() == 0


def test_other_weights_do_not_give_the_answer(tmp_path, model):
    """A folder without a manifest, whose weights change between answer and replay: both classes tell."""
    cluster = Cluster(tmp_path / "data", 1, 1, model=model).start()
    cluster.stop()
    key = make_tenant(cluster)
    cluster.start()
    receipts = [generate(cluster, key, temperature=0), generate(cluster, key, temperature=1.2)]
    assert all(replay(cluster, receipt, "--as", c)[0] == 0 for receipt in receipts for c in "AB")
    cluster.stop()
    turn_signs(model / "model.safetensors")
    cluster.start()
    for receipt in receipts:
        for way in "AB":
            code, verdict = replay(cluster, receipt, "--as", way)
            assert code == 1 and not verdict["is_equal"] and verdict["class"] == way, verdict
            assert verdict["checked"] < verdict["tokens"] and verdict["first_difference"] >= 0
    assert cluster.stop() == 0


def turn_signs(path):
    """Every 16th bfloat16 has another sign."""
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    for name, tensor in json.loads(data[8:begin]).items():
        if name != "__metadata__" and tensor["dtype"] == "BF16":
            first, end = tensor["data_offsets"]
            for i in range(begin + first + 1, begin + end, 32):
                data[i] ^= 0x80
    path.write_bytes(data)


def sign(folder, tmp_path):
    secret, public = tmp_path / "signer.pem", tmp_path / "signer.pub"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", secret], check=True)
    subprocess.run(["openssl", "ec", "-in", secret, "-pubout", "-out", public], check=True, capture_output=True)
    done = subprocess.run([BIN / "phalanx", "model", "sign", folder, "--key", secret, "--json"], check=True,
                          capture_output=True, text=True)
    return public, json.loads(done.stdout)["root"]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(DEMO, folder)
    (folder / "model.sig").unlink()
    return folder


def test_the_root_of_the_weights_is_in_every_record(tmp_path, model):
    public, root = sign(model, tmp_path)
    cluster = Cluster(tmp_path / "data", 2, 1, model=model, extra=("--set", f"model.key={public}")).start()
    ask(cluster, "What is 2 + 2?")
    status = json.loads(cluster.run("cluster", "status", "--data", cluster.folder, "--json").stdout)
    assert status["replicas"][0]["model_digest"] == root
    cluster.run("cluster", "restart", "--data", cluster.folder)
    ask(cluster, "What is 2 + 3?")
    assert cluster.stop() == 0
    bundles = [p.read_bytes() for p in (cluster.folder / "audit/tile/entries").rglob("*") if p.is_file()]
    assert any(b'"kind":"intent"' in b and root.encode() in b for b in bundles)
    assert any(b'"event":"cluster.restart"' in b for b in bundles), "what an operator does is in the log"


def test_weights_that_nobody_signed_do_not_load(tmp_path, model):
    public, _ = sign(model, tmp_path)
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").write_bytes(data)
    cluster = Cluster(tmp_path / "data", 2, 1, model=model, extra=("--set", f"model.key={public}", "--set",
                                                                    "restart.max_failures=1"))
    with pytest.raises(AssertionError):
        cluster.start()
    assert "has other content than the manifest says" in cluster.log()
    (model / "model.sig").unlink()
    with pytest.raises(AssertionError):
        cluster.start()
    assert "there is no manifest" in cluster.log()
