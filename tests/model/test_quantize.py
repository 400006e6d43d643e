# SPDX-License-Identifier: Apache-2.0
"""phalanx model quantize: the copy answers, bit for bit, as its source does with --dtype int8."""
import hashlib
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(os.environ.get("PHX_BIN", ROOT / "build/release/bin")) / "phalanx-model"
GOLDEN = ROOT / "tests/golden"
CASES = sorted(p.name for p in GOLDEN.iterdir() if p.is_dir())


def tool(*args, code=0):
    done = subprocess.run([str(TOOL), *map(str, args)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done


def logits(folder, tokens, *args):
    out = folder.parent / "out.npy"
    tool("logits", folder, "--tokens", tokens, "--out", out, "--comm", "local", "--threads", 1, *args)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def copy(case, to):
    shutil.copytree(GOLDEN / case, to)
    return to


def read_header(file):
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + size]), data[8 + size:]


def tensor(file, name):
    header, data = read_header(file)
    begin, end = header[name]["data_offsets"]
    return header[name], data[begin:end]


@pytest.mark.parametrize("case", CASES)
def test_the_copy_answers_as_its_source_does_in_int8(tmp_path, case):
    source, new = copy(case, tmp_path / "source"), tmp_path / "new"
    facts = json.loads(tool("quantize", source, new, "--json").stdout)
    assert facts["matrices"] > 0 and facts["derived_from"] == "" and facts["root"] == ""
    assert "no manifest" in tool("verify", new).stdout
    tokens = source / "tokens.json"
    want = logits(source, tokens, "--dtype", "int8")
    assert want != logits(source, tokens)
    for tp, pp in ((1, 1), (2, 1), (4, 1), (2, 2)):
        heads = json.loads((source / "config.json").read_text())["num_attention_heads"]
        if heads % tp == 0:
            assert logits(new, tokens, "--tp", tp, "--pp", pp) == want, (tp, pp)
    # what loading quantises is what lies on the disk: asking for it again changes nothing
    assert logits(new, tokens, "--dtype", "int8") == want


def test_values_and_scales_are_as_documented(tmp_path):
    source, new = copy("llama-mha-f32", tmp_path / "source"), tmp_path / "new"
    tool("quantize", source, new)
    name = "model.layers.1.mlp.down_proj.weight"
    about, data = tensor(source / "model.safetensors", name)
    rows, k = about["shape"]
    assert about["dtype"] == "F32" and k % 8 == 0 and k // 8 <= 256
    floats = struct.unpack(f"<{rows * k}f", data)
    about, values = tensor(new / "model.safetensors", name)
    assert about == {"dtype": "I8", "shape": [rows, k], "data_offsets": about["data_offsets"]}
    about, scales = tensor(new / "model.safetensors", name + "_scales")
    assert about["dtype"] == "F32" and about["shape"] == [rows, 8]  # a group in each of the 8 slices
    values = struct.unpack(f"<{rows * k}b", values)
    scales = struct.unpack(f"<{rows * 8}f", scales)
    for row in range(rows):
        for s in range(8):
            part = floats[row * k + s * k // 8:row * k + (s + 1) * k // 8]
            scale = scales[row * 8 + s]
            assert abs(scale - max(map(abs, part)) / 127) <= 1e-7 * scale
            for f, q in zip(part, values[row * k + s * k // 8:]):
                assert abs(f - q * scale) <= 0.5000001 * scale
    config = json.loads((new / "config.json").read_text())
    assert config.pop("quantization_config") == {
        "quant_method": "phalanx-int8", "bits": 8, "group_size": 256, "k_slices": 8}
    assert config == json.loads((source / "config.json").read_text())


# several groups in a row and in a slice: slices of 300 columns of o_proj, and of 256 and 288 of down_proj
WIDE = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 328, "intermediate_size": 2112,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 300,
        "vocab_size": 288, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2}
WIDE_ENDS = {"o_proj": range(0, 2401, 300), "down_proj": [66 * i // 8 * 32 for i in range(9)]}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    base = tmp_path_factory.mktemp("wide")
    (base / "config.json").write_text(json.dumps(WIDE))
    tool("synth", "--config", base / "config.json", "--seed", 5, base / "source")
    tool("quantize", base / "source", base / "new")
    return base / "source", base / "new"


def test_every_group_of_many_has_its_own_scale(wide):
    source, new = wide
    for part, groups in (("self_attn.q_proj", 2), ("self_attn.o_proj", 16), ("mlp.down_proj", 10)):
        name = f"model.layers.1.{part}.weight"
        about, data = tensor(source / "model.safetensors", name)
        rows, k = about["shape"]
        assert about["dtype"] == "BF16"
        values = tensor(new / "model.safetensors", name)[1]
        about, scales = tensor(new / "model.safetensors", name + "_scales")
        assert about["shape"] == [rows, groups]
        ends = WIDE_ENDS.get(part.split(".")[1], [0, k])
        bounds = [(g, min(g + 256, end)) for first, end in zip(ends, ends[1:]) for g in range(first, end, 256)]
        assert len(bounds) == groups
        for row in (0, rows // 2, rows - 1):
            exact = [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0]
                     for i in range(row * k * 2, (row + 1) * k * 2, 2)]
            got = struct.unpack_from(f"<{k}b", values, row * k)
            for g, (first, end) in enumerate(bounds):
                scale = struct.unpack_from("<f", scales, (row * groups + g) * 4)[0]
                assert abs(scale - max(map(abs, exact[first:end])) / 127) <= 1e-6 * scale
                assert all(abs(exact[i] - got[i] * scale) <= 0.50001 * scale for i in range(first, end))


@pytest.mark.parametrize("tp,pp,more", [
    (1, 1, []), (2, 1, []), (4, 1, ["--prefill-chunk", 7]), (8, 1, []), (1, 2, ["--isa", "avx2"]),
    (2, 2, ["--isa", "ref"])])
def test_every_rank_finds_its_groups_among_many(tmp_path, wide, tp, pp, more):
    source, new = wide
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps([(7 * i + 3) % 250 for i in range(40)]))
    assert logits(new, tokens, "--tp", tp, "--pp", pp, *more) == logits(source, tokens, "--dtype", "int8")


def test_what_is_no_dense_matrix_stays_byte_for_byte(tmp_path):
    source, new = copy("gpt-oss-window-f32", tmp_path / "source"), tmp_path / "new"
    (source / "LICENSE").write_text("free\n")
    (source / "weights.gguf").write_text("another format")
    done = tool("quantize", source, new)
    assert "weights.gguf is left out" in done.stderr and "tokens.json" not in done.stderr
    assert (new / "LICENSE").read_text() == "free\n" and not (new / "weights.gguf").exists()
    header, _ = read_header(source / "model.safetensors")
    quantised = 0
    for name in header:
        if name == "__metadata__":
            continue
        before, after = (tensor(f / "model.safetensors", name) for f in (source, new))
        if after[0]["dtype"] == "I8":
            quantised += 1
            assert name.endswith(("_proj.weight", "embed_tokens.weight", "lm_head.weight"))
        else:
            assert before[0]["dtype"] == after[0]["dtype"] and before[1] == after[1], name
    layers = json.loads((source / "config.json").read_text())["num_hidden_layers"]
    assert quantised == 2 + 4 * layers
    assert json.loads((new / "config.json").read_text())["quantization_config"]["experts"] == "mxfp4"


def test_several_files_and_their_index(tmp_path):
    source, new = tmp_path / "source", tmp_path / "new"
    tool("synth", "--preset", "tiny-gpt-oss", "--layers", 24, "--shard-mb", 1, source)
    assert len(list(source.glob("*.safetensors"))) > 2
    tool("quantize", source, new)
    assert sorted(p.name for p in new.iterdir()) == sorted(p.name for p in source.iterdir())
    tokens = tmp_path / "tokens.json"
    tokens.write_text("[1, 2, 3, 200, 7]")
    assert logits(new, tokens, "--tp", 2) == logits(source, tokens, "--dtype", "int8")


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    folder = tmp_path_factory.mktemp("key")
    private, public = folder / "a.pem", folder / "a.pub"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private], check=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def test_a_signed_source_is_named_by_its_copy(tmp_path, key):
    private, public = key
    source, new = copy("llama3-tied-bf16", tmp_path / "source"), tmp_path / "new"
    says = tool("quantize", source, new, "--key", private, code=1).stderr
    assert "there is no manifest" in says and not new.exists()
    root = json.loads(tool("sign", source, "--key", private, "--json").stdout)["root"]
    says = tool("quantize", source, new, "--key", private, code=1).stderr
    assert "no LICENSE file" in says and not new.exists()
    (source / "LICENSE").write_text("terms")
    (source / "NOTICE.txt").write_text("names")
    root = json.loads(tool("sign", source, "--key", private, "--json").stdout)["root"]
    facts = json.loads(
        tool("quantize", source, new, "--key", private, "--parent-key", public, "--json").stdout)
    assert facts["derived_from"] == root and facts["root"].startswith("sha256:") and facts["root"] != root
    assert json.loads((new / "config.json").read_text())["quantization_config"]["derived_from"] == root
    assert "signed manifest " + facts["root"] in tool("verify", new, "--key", public).stdout
    unsigned = tmp_path / "unsigned"
    assert f"--derived-from {root}" in tool("quantize", source, unsigned).stdout
    (source / "NOTICE.txt").write_text("other names")
    assert "NOTICE.txt" in tool("quantize", source, tmp_path / "late", code=1).stderr
    assert not (tmp_path / "late").exists()


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"].update(changes)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("changes,says", [
    ({"group_size": 128}, "quantization_config.group_size 128 is not served"),
    ({"k_slices": 4}, "quantization_config.k_slices 4 is not served"),
    ({"bits": 4}, "quantization_config.bits 4 is not served"),
    ({"symmetric": False}, "symmetric"),
    ({"experts": "int4"}, "experts"),
    ({"quant_method": "gptq"}, "gptq"),
])
def test_another_quantisation_is_refused_by_name(tmp_path, changes, says):
    source, new = copy("llama-mha-f32", tmp_path / "source"), tmp_path / "new"
    tool("quantize", source, new)
    edit_config(new, **changes)
    assert says in tool("verify", new, code=1).stderr


def test_a_copy_that_is_not_whole_is_refused(tmp_path):
    source, new = copy("llama-mha-f32", tmp_path / "source"), tmp_path / "new"
    tool("quantize", source, new)
    assert "quantised already" in tool("quantize", new, tmp_path / "twice", code=1).stderr
    assert "File exists" in tool("quantize", source, new, code=1).stderr
    tokens, out, file = source / "tokens.json", tmp_path / "out.npy", new / "model.safetensors"
    whole = file.read_bytes()

    def refused(data, says):
        file.write_bytes(data)
        done = tool("logits", new, "--tokens", tokens, "--out", out, "--comm", "local", code=1)
        assert says in done.stderr

    name = b"model.layers.0.self_attn.q_proj.weight_scales"
    refused(whole.replace(name, name[:-1] + b"z"), "q_proj.weight_scales is missing")
    refused(whole.replace(name + b'":{"dtype":"F32"', name + b'":{"dtype":"I32"'), "stored as I32, not as F32")
    header, data = read_header(file.with_name(file.name)) if file.write_bytes(whole) else None
    begin = len(whole) - len(data) + header[name.decode()]["data_offsets"][0]
    for bad in (float("nan"), float("inf"), -1.0):
        refused(whole[:begin] + struct.pack("<f", bad) + whole[begin + 4:], "group 0 of row 0 has a scale")
        assert name.decode() + ": group 0 of row 0 has a scale" in tool("verify", new, code=1).stderr
    file.write_bytes(whole)
    (new / "config.json").unlink()
    assert "config.json" in tool("verify", new, code=1).stderr


def test_layouts_whose_slices_are_others_are_refused(tmp_path):
    source, new = tmp_path / "source", tmp_path / "new"
    config = json.loads((GOLDEN / "llama-mha-f32/config.json").read_text())
    config.update(num_attention_heads=6, num_key_value_heads=6, head_dim=8)
    (tmp_path / "config.json").write_text(json.dumps(config))
    tool("synth", "--config", tmp_path / "config.json", "--vocab-small", source)
    tool("quantize", source, new)
    tokens, out = tmp_path / "tokens.json", tmp_path / "out.npy"
    tokens.write_text("[1, 2, 3]")
    tool("logits", source, "--dtype", "int8", "--tp", 3, "--comm", "local", "--tokens", tokens, "--out", out)
    done = tool("logits", new, "--tp", 3, "--comm", "local", "--tokens", tokens, "--out", out, code=1)
    assert "its groups fit tp 1, 2, 4 and 8, not 3" in done.stderr


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    source, new = copy("llama-mha-f32", tmp_path / "source"), tmp_path / "new"
    file = source / "model.safetensors"
    header, data = read_header(file)
    whole = file.read_bytes()
    name = "model.layers.0.mlp.up_proj.weight"
    begin = len(whole) - len(data) + header[name]["data_offsets"][0]
    file.write_bytes(whole[:begin] + struct.pack("<f", float("nan")) + whole[begin + 4:])
    assert f"tensor {name} holds a NaN" in tool("quantize", source, new, code=1).stderr


@pytest.mark.parametrize("args,says", [(["--dtype", "int4"], "--dtype"), (["--group", 64], "--group"), ([], "")])
def test_usage(tmp_path, args, says):
    folders = [tmp_path / "a", tmp_path / "b"] if args else [tmp_path / "a"]
    assert says in tool("quantize", *folders, *args, code=2).stderr
