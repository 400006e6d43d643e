# SPDX-License-Identifier: Apache-2.0
"""The rows of the benchmark: what each side runs, what it is held against, and what it must reach.

A side is a function of the tools that answers a sample: {"value", "min", "max", "command", ...}.  Sides of a row
run in turns.  `floor` and `aim` are ratios to the other side, or limits of the figure itself where `is_limit`.
"""
from dataclasses import dataclass, field
from statistics import median
from typing import Callable, Optional

LLAMA, OSS = "llama-3.2-1b", "gpt-oss-small"
KV = ["--kv-dtype", "bf16"]  # as many bytes as the other's f16
BF16 = [("--compute", "bf16")]
INT8 = [("--dtype", "int8"), ("--compute", "bf16")]

# Weights that llama.cpp reads per decoded token of the gpt-oss shape: 12 layers of 4 experts (17 bytes for 32
# weights), attention (34 bytes for 32) and router (4 bytes each), and the output layer.
OSS_TOKEN_BYTES = 12 * (4 * 3 * 1440 * 1440 * 17 // 32 + (2 * 2048 + 2 * 512) * 1440 * 34 // 32 + 32 * 1440 * 4) \
    + 32000 * 1440 * 34 // 32


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts and answers, of one sequence and of each in a batch."""
    prompt: int = 512
    gen: int = 128
    batch_prompt: int = 128
    batch_gen: int = 64


SHORT = Lengths(64, 8, 16, 4)  # to try the whole run; what it measures is no result


@dataclass
class Row:
    name: str
    title: str
    unit: str
    ours: Callable
    theirs: Optional[Callable] = None
    other: str = "llama.cpp"             # what the second side is
    peer_file: Optional[str] = None      # without it that side is left out
    models: tuple = ()
    need: list = field(default_factory=list)  # options without which the row means nothing
    ceiling: Optional[str] = None        # the key of the ceiling it is a share of
    floor: Optional[float] = None
    aim: Optional[float] = None
    aim_share: Optional[float] = None    # of the ceiling
    is_limit: bool = False
    is_lower_better: bool = False
    part_of: Optional[str] = None        # the row whose samples hold this one's figure ...
    key: Optional[str] = None            # ... under this name


def rates(facts, command, without):
    """One sample of an engine run: its only decode, or its prefill."""
    if facts["batch"]:
        one = facts["batch"][0]
        value, low, high, at_once = one["tokens_per_s"], one["min"], one["max"], one["batch"]
        weights, context = facts["token_bytes"], facts["context_bytes"] * one["context"]
    else:
        value, low, high = (facts[key] for key in ("prefill_tokens_per_s", "prefill_min", "prefill_max"))
        weights, context, at_once = facts["weights_bytes"], 0, facts["prompt"]
    return {"value": value, "min": low, "max": high, "command": command, "without": without, "isa": facts["isa"],
            "token_gop": 2 * facts["token_macs"] / 1e9, "token_gb": (weights / at_once + context) / 1e9,
            "context_gb": context / 1e9, "at_once": at_once}


def engine(model, arguments, wish=(), threads=None):
    def run(tools):
        options, without = tools.ours.known(wish)
        facts, command = tools.ours.engine(
            model, [*arguments(tools.lengths), *KV, *options, "--reps", tools.reps], threads)
        return rates(facts, command, without)
    return run


def peer(fn, kind=None, is_all_read=False):
    """A sample of several figures that one of the other's tools gave; `kind` tells what it reads for a token, or
    where is_all_read for many at once."""
    def run(tools):
        values, command = fn(tools)
        sample = {"value": median(values), "min": min(values), "max": max(values), "command": command}
        if kind is not None:
            is_part = kind == "mxfp4" and not is_all_read
            sample["weights_gb"] = (OSS_TOKEN_BYTES if is_part else tools.peer.size(kind)) / 1e9
        return sample
    return run


def prefill_args(n):
    return ["--prompt", n.prompt, "--gen", 0]


def decode_args(n):
    return ["--prompt", 0, "--gen", n.gen, "--context", 0]


def batch_args(n):
    return ["--prompt", 0, "--gen", n.batch_gen, "--context", n.batch_prompt, "--batch", 32]


def two_ranks(arguments):
    return lambda n: [*arguments(n), "--tp", 2, "--comm", "mpi"]


def prefill_row(name, title, model, wish, kind, ceiling, floor, aim, aim_share=None, need=()):
    return Row(name, title, "tokens/s", engine(model, prefill_args, wish),
               peer(lambda t: t.peer.bench(kind, t.lengths.prompt, 0, t.reps), kind, is_all_read=True), peer_file=kind, models=(model,),
               need=list(need), ceiling=ceiling, floor=floor, aim=aim, aim_share=aim_share)


def decode_row(name, title, model, wish, kind, floor, aim, aim_share, need=()):
    return Row(name, title, "tokens/s", engine(model, decode_args, wish),
               peer(lambda t: t.peer.bench(kind, 0, t.lengths.gen, t.reps), kind), peer_file=kind, models=(model,),
               need=list(need), ceiling="read_gb_s", floor=floor, aim=aim, aim_share=aim_share)


def batch_row(name, title, model, wish, kind, floor, aim, need=()):
    return Row(name, title, "tokens/s", engine(model, batch_args, wish),
               peer(lambda t: t.peer.batched(kind, t.lengths.batch_prompt, t.lengths.batch_gen, 32), kind), peer_file=kind,
               models=(model,), need=list(need), ceiling="read_gb_s", floor=floor, aim=aim)


def ranks_row(name, title, arguments, wish, need=()):
    return Row(name, title, "tokens/s", engine(LLAMA, two_ranks(arguments), wish, threads=1),
               engine(LLAMA, arguments, wish, threads=2), other="1 process of 2 threads", models=(LLAMA,),
               need=list(need), floor=0.9, aim=1.0)


def memory(model, arguments, wish=(), threads=None):
    def run(tools):
        options, without = tools.ours.known(wish)
        facts, command = tools.ours.engine(
            model, ["--prompt", tools.lengths.prompt, "--gen", 16, "--reps", 1, *KV, *arguments, *options], threads)
        value = (facts["peak_resident_bytes"] - facts["weights_bytes"] - facts["kv_bytes"]) / 1e6
        return {"value": value, "min": value, "max": value, "command": command, "without": without}
    return run


def memory_row(name, title, model, wish, kind, need=()):
    def theirs(tools):
        size, command = tools.peer.memory(kind, tools.lengths.prompt, 16)
        return [size / 1e6], command
    return Row(name, title, "MB", memory(model, (), wish), peer(theirs), peer_file=kind,
               models=(model,), need=list(need), floor=300, aim=150, is_limit=True, is_lower_better=True)


def timed(fn):
    """A sample of the seconds that a start took, right behind another: a virtual machine gives free memory back to
    its host, and whoever uses it first again waits for it (here a second per GB)."""
    def run(tools):
        fn(tools)
        value, facts, command = fn(tools)
        return {"value": value, "min": value, "max": value, "command": command, **facts}
    return run


# 8 clients with 200 tokens in and 64 out, three times each; nothing is guessed, for a random model soon repeats itself.
LOAD = ["-c", "8", "--requests", "24", "--duration", "600", "--prompt-tokens", "200", "--output-tokens", "64"]


def seen_by_clients(fn):
    """A sample of what streaming clients see: output tokens per second, and the waits in milliseconds beside it."""
    def run(tools):
        facts, command = fn(tools)
        value = facts["output_tokens_per_s"]
        return {"value": value, "min": value, "max": value, "ttft_ms": facts["ttft_ms"]["p50"],
                "gap_ms": facts["inter_token_ms"]["p50"], "ttft_max_ms": facts["ttft_ms"]["max"],
                "command": f"{command}; phalanx bench http {' '.join(LOAD)}"}
    return run


def http_part(name, title, key, floor, aim):
    return Row(name, title, "ms", None, theirs=None, peer_file="q8_0", floor=floor, aim=aim, is_lower_better=True,
               part_of="http", key=key)


ROWS = [
    prefill_row("prefill-bf16", "prefill 512, Llama-1B shape, bf16", LLAMA, BF16, "bf16", "amx_bf16_gflop_s", 6, 15, 0.5),
    prefill_row("prefill-int8", "prefill 512, Llama-1B shape, int8 against Q8_0", LLAMA, INT8, "q8_0",
                "amx_int8_gop_s", 4, 12, 0.5, need=INT8),
    prefill_row("prefill-mxfp4", "prefill 512, gpt-oss shape, MXFP4", OSS, BF16 + INT8, "mxfp4", "amx_bf16_gflop_s", 4, 12),
    decode_row("decode-bf16", "decode, one sequence, bf16", LLAMA, BF16, "bf16", 1.2, 1.5, 0.95),
    decode_row("decode-int8", "decode, one sequence, int8 against Q8_0", LLAMA, INT8, "q8_0", 1.15, 1.3, 0.95, need=INT8),
    decode_row("decode-mxfp4", "decode, one sequence, gpt-oss shape, MXFP4", OSS, BF16 + INT8, "mxfp4", 1.2, 1.7, 0.9),
    batch_row("decode-32-int8", "decode, 32 sequences, int8 against Q8_0", LLAMA, INT8, "q8_0", 2, 4, need=INT8),
    batch_row("decode-32-bf16", "decode, 32 sequences, bf16", LLAMA, BF16, "bf16", 2, 4),
    ranks_row("tp2-prefill-bf16", "TP 2, 2 processes of 1 thread: prefill 512, bf16", prefill_args, BF16),
    ranks_row("tp2-decode-bf16", "TP 2, 2 processes of 1 thread: decode, bf16", decode_args, BF16),
    ranks_row("tp2-prefill-int8", "TP 2, 2 processes of 1 thread: prefill 512, int8", prefill_args, INT8, need=INT8),
    ranks_row("tp2-decode-int8", "TP 2, 2 processes of 1 thread: decode, int8", decode_args, INT8, need=INT8),
    Row("http", "HTTP, 8 streaming clients, 200 in 64 out, int8 against Q8_0: output", "tokens/s",
        seen_by_clients(lambda t: t.ours.serve_load(LLAMA, ["--dtype", "int8", "--set", "engine.speculate=off"], LOAD)),
        seen_by_clients(lambda t: t.peer.serve_load("q8_0", lambda url: t.ours.load(url, LOAD))), peer_file="q8_0",
        models=(LLAMA,), floor=3, aim=5),
    http_part("http-ttft", "the same: time to first token, median", "ttft_ms", 3, 10),
    http_part("http-gap", "the same: between two tokens, median", "gap_ms", 1, 3),
    Row("start", "start to first token over HTTP, bf16 against Q8_0, hot in page cache", "s",
        timed(lambda t: t.ours.serve_first(LLAMA, [])), timed(lambda t: t.peer.serve_first("q8_0")), peer_file="q8_0",
        models=(LLAMA,), floor=2, aim=1, is_limit=True, is_lower_better=True),
    Row("start-engine", "start to first token, engine alone, bf16, hot in page cache", "s",
        timed(lambda t: t.ours.first(LLAMA, KV)), models=(LLAMA,), floor=2, aim=1, is_limit=True, is_lower_better=True),
    memory_row("memory-bf16", "memory beyond weights and KV, bf16", LLAMA, BF16, "bf16"),
    memory_row("memory-int8", "memory beyond weights and KV, int8 against Q8_0", LLAMA, INT8, "q8_0", need=INT8),
    Row("memory-tp2", "memory beyond weights and KV, bf16, TP 2, both processes", "MB",
        memory(LLAMA, ("--tp", 2, "--comm", "mpi"), BF16, threads=1), models=(LLAMA,), floor=300, aim=150,
        is_limit=True, is_lower_better=True),
]


def row_names():
    return [row.name for row in ROWS]


def parts_of(row):
    """The rows whose figures lie in this one's samples."""
    return [part for part in ROWS if part.part_of == row.name]


def pick(names):
    """The rows to run for these names, in their own order; a name may end in * and a part stands for its whole."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]

    def is_meant(row, name):
        return row.name == name or (name.endswith("*") and row.name.startswith(name[:-1]))

    unknown = [name for name in wanted if not any(is_meant(row, name) for row in ROWS)]
    if unknown:
        raise SystemExit(f"no row {', '.join(unknown)}; there are {', '.join(row_names())}")
    meant = {row.part_of or row.name for row in ROWS if any(is_meant(row, name) for name in wanted)}
    return [row for row in ROWS if row.name in meant]
