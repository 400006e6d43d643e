#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the golden checkpoints: tiny random models in the published layout, and the logits that
transformers computes for them in float32.  See README.md; needs torch, transformers, safetensors.

    make.py [CASE ...]      all cases when none is named
"""
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).resolve().parent
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
YARN = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}


def gpt_oss(**over):
    config = {
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss",
        "num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16,
        "num_attention_heads": 8, "num_key_value_heads": 2, "num_local_experts": 4,
        "num_experts_per_tok": 2, "experts_per_token": 2, "sliding_window": 8, "swiglu_limit": 7.0,
        "hidden_act": "silu", "attention_bias": True, "attention_dropout": 0.0,
        "rms_norm_eps": 1e-05, "rope_theta": 150000, "rope_scaling": {**YARN, "truncate": False},
        "max_position_embeddings": 512, "initial_context_length": 16, "tie_word_embeddings": False,
        "vocab_size": 277, "eos_token_id": 2, "pad_token_id": 1, "initializer_range": 0.02,
        "output_router_logits": False, "router_aux_loss_coef": 0.9, "use_cache": True,
        "quantization_config": {
            "quant_method": "mxfp4",
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                       "model.embed_tokens", "lm_head"]},
    }
    config.update(over)
    config = {k: v for k, v in config.items() if v is not None}
    if "layer_types" not in config:
        config["layer_types"] = [("sliding_attention", "full_attention")[i % 2]
                                 for i in range(config["num_hidden_layers"])]
    return config


def llama(**over):
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "max_position_embeddings": 256, "tie_word_embeddings": False,
        "vocab_size": 151, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02,
        "pretraining_tp": 1, "use_cache": True,
    }
    config.update(over)
    return config


# name: (config, storage of the dense weights, experts, tokens, seed, files)
CASES = {
    "gpt-oss-window-f32": (
        gpt_oss(hidden_size=32, head_dim=8, vocab_size=101), "f32", "mxfp4", 40, 1, 1),
    "gpt-oss-long-window-bf16": (
        gpt_oss(num_hidden_layers=2, sliding_window=64, num_attention_heads=4,
                num_key_value_heads=4, intermediate_size=160, num_local_experts=8,
                num_experts_per_tok=4, experts_per_token=4, rope_scaling=dict(YARN),
                vocab_size=211), "bf16", "mxfp4", 40, 2, 2),
    "gpt-oss-dequantised-bf16": (
        gpt_oss(num_hidden_layers=2, hidden_size=32, sliding_window=5, num_key_value_heads=1,
                head_dim=8, rope_scaling={**YARN, "truncate": True}, quantization_config=None,
                vocab_size=96), "bf16", "bf16", 37, 3, 1),
    "gpt-oss-parameters-bf16": (
        gpt_oss(sliding_window=16, num_attention_heads=4, num_key_value_heads=2, head_dim=24,
                num_local_experts=3, swiglu_limit=1.5, rope_scaling=None, rope_theta=None,
                max_position_embeddings=256, vocab_size=200,
                rope_parameters={**YARN, "rope_theta": 10000.0, "truncate": False, "factor": 4.0,
                                 "original_max_position_embeddings": 64},
                layer_types=["full_attention", "sliding_attention", "sliding_attention",
                             "full_attention"]), "bf16", "mxfp4", 49, 4, 1),
    "llama-mha-f32": (llama(hidden_size=32, vocab_size=131), "f32", None, 33, 5, 1),
    "llama3-tied-bf16": (
        llama(hidden_size=48, num_attention_heads=8, num_key_value_heads=2, head_dim=8,
              rope_theta=500000.0, rope_scaling=LLAMA3, tie_word_embeddings=True, vocab_size=277,
              intermediate_size=160), "bf16", None, 64, 6, 1),
    "llama-linear-bias-f32": (
        llama(num_hidden_layers=2, hidden_size=32, num_attention_heads=8, num_key_value_heads=1,
              head_dim=24, attention_bias=True, mlp_bias=True, vocab_size=129,
              rope_scaling={"type": "linear", "factor": 2.0}, intermediate_size=172),
        "f32", None, 35, 7, 1),
    "llama3-untied-f16": (
        llama(hidden_size=32, num_attention_heads=8, num_key_value_heads=4, rope_theta=500000.0,
              rope_scaling=LLAMA3, vocab_size=300, num_hidden_layers=5, intermediate_size=224),
        "f16", None, 48, 8, 3),
}


def mxfp4_random(generator, shape_out, blocks):
    """Random blocks and scales, and the exact matrix they stand for [..., out, in]."""
    data = torch.randint(0, 256, (*shape_out, blocks, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(121, 125, (*shape_out, blocks), generator=generator, dtype=torch.uint8)
    table = torch.tensor(E2M1 + [-v for v in E2M1], dtype=torch.float32)
    pairs = torch.stack([data & 15, data >> 4], dim=-1).reshape(*shape_out, blocks, 32)
    values = table[pairs.long()] * torch.exp2(scales.float() - 127)[..., None]
    return data, scales, values.reshape(*shape_out, blocks * 32)


class Checkpoint:
    """Tensors as stored, and the same values in float32 for the reference."""

    def __init__(self, seed, dtype):
        self.generator, self.dtype = torch.Generator().manual_seed(seed), dtype
        self.stored, self.exact = {}, {}

    def normal(self, name, shape, std, mean=0.0, dtype=None):
        values = (torch.randn(shape, generator=self.generator) * std + mean).to(dtype or self.dtype)
        self.stored[name], self.exact[name] = values, values.float()

    def linear(self, name, n, k, bias):
        self.normal(f"{name}.weight", (n, k), 1.2 / math.sqrt(k))
        if bias:
            self.normal(f"{name}.bias", (n,), 0.2)

    def experts(self, name, e, n, k, kind):
        """kind mxfp4: blocks of [e, n, k]; else a plain [e, k (in), n (out)] stack."""
        if kind == "mxfp4":
            data, scales, exact = mxfp4_random(self.generator, (e, n), k // 32)
            self.stored[f"{name}_blocks"], self.stored[f"{name}_scales"] = data, scales
            self.exact[name] = exact.transpose(1, 2).contiguous()
        else:
            self.normal(name, (e, k, n), 1.2 / math.sqrt(k), dtype=DTYPES[kind])
        self.normal(f"{name}_bias", (e, n), 0.3)


def fill(config, dtype, expert_kind, seed):
    c = Checkpoint(seed, DTYPES[dtype])
    d, f = config["hidden_size"], config["intermediate_size"]
    h, k = config["num_attention_heads"], config["num_key_value_heads"]
    dh = config.get("head_dim", d // h)
    oss = config["model_type"] == "gpt_oss"
    c.normal("model.embed_tokens.weight", (config["vocab_size"], d), 1.0)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        c.normal(p + "input_layernorm.weight", (d,), 0.2, 1.0)
        for name, n in (("q_proj", h * dh), ("k_proj", k * dh), ("v_proj", k * dh)):
            c.linear(p + "self_attn." + name, n, d, config["attention_bias"])
        c.linear(p + "self_attn.o_proj", d, h * dh, config["attention_bias"])
        c.normal(p + "post_attention_layernorm.weight", (d,), 0.2, 1.0)
        if oss:
            e = config["num_local_experts"]
            c.normal(p + "self_attn.sinks", (h,), 1.0)
            c.linear(p + "mlp.router", e, d, True)
            c.experts(p + "mlp.experts.gate_up_proj", e, 2 * f, d, expert_kind)
            c.experts(p + "mlp.experts.down_proj", e, d, f, expert_kind)
        else:
            for name, n, m in (("gate_proj", f, d), ("up_proj", f, d), ("down_proj", d, f)):
                c.linear(p + "mlp." + name, n, m, config["mlp_bias"])
    c.normal("model.norm.weight", (d,), 0.2, 1.0)
    if not config["tie_word_embeddings"]:
        c.normal("lm_head.weight", (config["vocab_size"], d), 1.0 / math.sqrt(d))
    return c


def reference(directory, config, exact, tokens):
    kinds = {"gpt_oss": (GptOssConfig, GptOssForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
    config_class, model_class = kinds[config["model_type"]]
    hf = config_class.from_pretrained(directory)
    hf._attn_implementation = "eager"
    model = model_class(hf).float().eval()
    missing, unexpected = model.load_state_dict(exact, strict=False)
    tied = ["lm_head.weight"] if config["tie_word_embeddings"] else []
    assert sorted(missing) == tied and not unexpected, (missing, unexpected)
    model.tie_weights()
    gaps = []

    def router_gap(_module, _args, output):
        best = torch.sort(output[0], dim=-1, descending=True).values
        k = config["num_experts_per_tok"]
        gaps.append((best[:, k - 1] - best[:, k]).min().item())

    if config["model_type"] == "gpt_oss":
        for layer in model.model.layers:
            layer.mlp.router.register_forward_hook(router_gap)
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].float().numpy()
    best = np.sort(logits, axis=1)
    assert not gaps or min(gaps) > 2e-4, f"a router tie ({min(gaps):g}): take another seed"
    assert (best[:, -1] - best[:, -2]).min() > 1e-3, "a tie for the best token: take another seed"
    return logits


def write_files(directory, stored, n_files):
    if n_files == 1:
        save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(stored)
    cut = [len(names) * i // n_files for i in range(n_files + 1)]
    index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in stored.values())},
             "weight_map": {}}
    for i in range(n_files):
        # numbered from 0 with the count one too low, as some published checkpoints are
        file = f"model-{i:05d}-of-{n_files - 1:05d}.safetensors"
        part = {name: stored[name] for name in names[cut[i]:cut[i + 1]]}
        index["weight_map"].update({name: file for name in part})
        save_file(part, directory / file, metadata={"format": "pt"})
    text = json.dumps(index, indent=1, sort_keys=True) + "\n"
    (directory / "model.safetensors.index.json").write_text(text)


def make(name):
    config, dtype, expert_kind, n_tokens, seed, n_files = CASES[name]
    config["torch_dtype"] = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}[dtype]
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    c = fill(config, dtype, expert_kind, seed)
    tokens = torch.randint(0, config["vocab_size"], (n_tokens,), generator=c.generator).tolist()
    write_files(directory, c.stored, n_files)
    (directory / "tokens.json").write_text(json.dumps(tokens) + "\n")
    logits = reference(directory, config, c.exact, tokens)
    np.save(directory / "logits.npy", logits)
    size = sum(p.stat().st_size for p in directory.iterdir())
    print(f"{name}: logits {logits.shape}, max |logit| {abs(logits).max():.2f}, {size} bytes")


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        make(name)


if __name__ == "__main__":
    main()
