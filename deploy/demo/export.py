# SPDX-License-Identifier: Apache-2.0
"""Write a training checkpoint as a published-layout model folder.

Expert matrices become MXFP4 blocks, everything else bf16.
"""
import argparse
import json
import os

import torch
from safetensors.torch import save_file

import data
import train

LEVELS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
MIDDLES = (LEVELS[1:] + LEVELS[:-1]) / 2


def nibbles(x):
    """Nearest E2M1 code of each element (ties to the smaller magnitude)."""
    return torch.bucketize(x.abs().contiguous(), MIDDLES) + 8 * (x < 0)


def values(codes):
    return LEVELS[codes % 8] * torch.where(codes >= 8, -1.0, 1.0)


def mxfp4(w):
    """[..., out, in] -> blocks [..., out, in/32, 16] and scales [..., out, in/32].

    Of the two scales that suit the largest element (it may saturate at 6 or
    not) each block takes the one with the smaller squared error.
    """
    x = w.float().unflatten(-1, (-1, 32))
    top = x.abs().amax(-1).clamp(min=2.0 ** -100).log2().floor()
    best = None
    for k in (top - 2, top - 1):
        codes = nibbles(x / 2.0 ** k[..., None])
        error = (values(codes) * 2.0 ** k[..., None] - x).square().sum(-1)
        if best is None:
            best = [codes, k, error]
        else:
            better = error < best[2]
            best = [torch.where(better[..., None], codes, best[0]), torch.where(better, k, best[1]), None]
    codes, k = best[0].to(torch.uint8), best[1]
    return codes[..., 0::2] | codes[..., 1::2] << 4, (k + 127).to(torch.uint8)


def unpack(blocks, scales):
    """The inverse of mxfp4, fp32."""
    codes = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2).long()
    return (values(codes) * 2.0 ** (scales.float() - 127)[..., None]).flatten(-2)


def tensors(flat):
    """The published names and shapes."""
    p, e = train.views(flat), train.EXPERTS
    out = {"model.embed_tokens.weight": p["embed"], "lm_head.weight": p["head"], "model.norm.weight": p["norm"]}
    for i in range(train.LAYERS):
        q = {k.split(".")[1]: t for k, t in p.items() if k.startswith(f"{i}.")}
        to, square, heads = f"model.layers.{i}.", q["square"], train.HEADS * train.HEAD
        bias = dict(zip("qkv", q["qkv_bias"].split([heads, 64, 64])))
        weight = dict(zip("qkv", (square[0], q["kv"][0], q["kv"][1])))
        for k in "qkv":
            out[f"{to}self_attn.{k}_proj.weight"] = weight[k]
            out[f"{to}self_attn.{k}_proj.bias"] = bias[k]
        out[to + "self_attn.o_proj.weight"], out[to + "self_attn.o_proj.bias"] = square[1], q["o_bias"]
        out[to + "self_attn.sinks"] = q["sinks"]
        out[to + "input_layernorm.weight"] = q["norm1"]
        out[to + "post_attention_layernorm.weight"] = q["norm2"]
        out[to + "mlp.router.weight"], out[to + "mlp.router.bias"] = q["router"], q["router_bias"]
        gate, up, down = square[2:].view(3, e, train.WIDTH, train.DIM)
        mix = torch.stack([gate, up], 2).flatten(1, 2)  # even rows gate, odd rows up
        for name, matrix in (("gate_up_proj", mix), ("down_proj", down)):
            blocks, scales = mxfp4(matrix)
            out[f"{to}mlp.experts.{name}_blocks"], out[f"{to}mlp.experts.{name}_scales"] = blocks, scales
        out[to + "mlp.experts.gate_up_proj_bias"] = q["gate_up_bias"].transpose(1, 2).flatten(1)
        out[to + "mlp.experts.down_proj_bias"] = q["down_bias"]
    return {k: (t if t.dtype == torch.uint8 else t.bfloat16()).contiguous() for k, t in out.items()}


def config():
    n = train.LAYERS
    return {
        "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0,
        "eos_token_id": data.RETURN, "experts_per_token": 2, "head_dim": train.HEAD,
        "hidden_act": "silu", "hidden_size": train.DIM, "initial_context_length": train.ORIGINAL,
        "initializer_range": 0.02, "intermediate_size": train.WIDTH,
        "layer_types": ["full_attention" if i % 2 else "sliding_attention" for i in range(n)],
        "max_position_embeddings": 4096, "model_type": "gpt_oss", "num_attention_heads": train.HEADS,
        "num_experts_per_tok": 2, "num_hidden_layers": n, "num_key_value_heads": train.KV,
        "num_local_experts": train.EXPERTS, "output_router_logits": False, "pad_token_id": data.ENDOFTEXT,
        "quantization_config": {"modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
            "quant_method": "mxfp4"},
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": train.FACTOR,
                         "original_max_position_embeddings": train.ORIGINAL, "rope_type": "yarn",
                         "truncate": False},
        "rope_theta": int(train.BASE), "router_aux_loss_coef": 0.01, "sliding_window": train.WINDOW,
        "swiglu_limit": 7.0, "tie_word_embeddings": False, "transformers_version": "4.55.0",
        "use_cache": True, "vocab_size": data.VOCAB,
    }


# The split of o200k; without merges it changes nothing, but loaders expect it.
PATTERN = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])


def byte_chars():
    """The printable character that stands for each byte in GPT-2's vocabulary."""
    same = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    rest = iter(range(256, 512))
    return [chr(b if b in same else next(rest)) for b in range(256)]


def added_tokens():
    return [{"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for name, i in data.SPECIAL_ID.items()]


def tokenizer():
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens(),
        "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True,
                                            "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": True, "vocab": {ch: i for i, ch in enumerate(byte_chars())},
                  "merges": []},
    }


def tokenizer_config():
    decoder = {str(t.pop("id")): t for t in added_tokens()}
    return {"added_tokens_decoder": decoder, "bos_token": "<|startoftext|>", "eos_token": "<|return|>",
            "pad_token": "<|endoftext|>", "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 1000000000000000019884624838656, "tokenizer_class": "PreTrainedTokenizerFast"}


def generation_config():
    return {"bos_token_id": data.SPECIAL_ID["<|startoftext|>"], "do_sample": True,
            "eos_token_id": [data.RETURN, data.ENDOFTEXT, data.CALL], "pad_token_id": data.ENDOFTEXT,
            "transformers_version": "4.55.0"}


def export(flat, folder):
    os.makedirs(folder, exist_ok=True)
    weights = os.path.join(folder, "model.safetensors")
    save_file(tensors(flat), weights, metadata={"format": "pt"})
    os.chmod(weights, 0o644)  # the writer leaves it private
    for name, value in (("config", config()), ("generation_config", generation_config()),
                        ("tokenizer", tokenizer()), ("tokenizer_config", tokenizer_config())):
        with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as f:
            json.dump(value, f, indent=2, ensure_ascii=False)
            f.write("\n")


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("checkpoint", nargs="+", help="last.pt of train.py; several are averaged")
    a.add_argument("folder", help="the model folder to write")
    args = a.parse_args()
    export(torch.stack([torch.load(c)["params"] for c in args.checkpoint]).mean(0), args.folder)


if __name__ == "__main__":
    main()
