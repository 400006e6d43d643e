# SPDX-License-Identifier: Apache-2.0
"""Train the demo model on the CPU, for a given wall-clock time.

Two processes of one thread each hold the parameters in shared memory: each
computes the gradient of its own batch, then updates the half of the matrices
that falls to it.  A batch is one preamble (system message and so on) that many
short examples share, so its tokens are paid once.  Matrix products run in
bf16, the residual stream and the parameters stay fp32.
"""
import argparse
import ctypes
import math
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

import data

DIM, LAYERS, HEADS, KV, HEAD, EXPERTS, WIDTH, WINDOW = 128, 4, 4, 2, 32, 4, 128, 32
BASE, FACTOR, ORIGINAL = 10000.0, 4.0, 256
HERE = os.path.dirname(os.path.abspath(__file__))

# ---- C kernels ---------------------------------------------------------------


def build_kernels():
    out = os.path.join(tempfile.mkdtemp(), "kernels.so")
    subprocess.check_call(["cc", "-O3", "-march=native", "-ffast-math",
                           "-mprefer-vector-width=512", "-shared", "-fPIC",
                           "-o", out, os.path.join(HERE, "kernels.c"), "-lm"])
    return out


LIB = None


def c(name, *args):
    """Call a kernel: tensors by address (None is null), integers as long."""
    getattr(LIB, name)(*(ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor)
                         else ctypes.c_long(a) for a in args))


def bf16(*shape):
    return torch.empty(shape, dtype=torch.bfloat16)


class RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        y, rstd = torch.empty_like(x, dtype=torch.bfloat16), torch.empty(len(x))
        c("rms_fwd", x, w, y, rstd, len(x))
        ctx.save_for_backward(x, w, rstd)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w, rstd = ctx.saved_tensors
        dx, dw = torch.empty_like(x), torch.zeros_like(w)
        c("rms_bwd", x, w, rstd, dy.contiguous(), dx, dw, len(x))
        return dx, dw


class Split(torch.autograd.Function):
    """qkv rows -> rotated q, k, v of the prefix and of the sequences."""

    @staticmethod
    def forward(ctx, qkv, cos, sin, pre, shared, n, length):
        out = [bf16(HEADS, pre, HEAD), bf16(KV, pre, HEAD), bf16(KV, pre, HEAD),
               bf16(n, HEADS, length, HEAD), bf16(n, KV, shared + length, HEAD),
               bf16(n, KV, shared + length, HEAD)]
        c("split_fwd", qkv, cos, sin, *out, pre, shared, n, length)
        ctx.save_for_backward(cos, sin)
        ctx.sizes = pre, shared, n, length
        return tuple(out)

    @staticmethod
    def backward(ctx, *grads):
        cos, sin = ctx.saved_tensors
        dqkv = bf16(len(cos), (HEADS + 2 * KV) * HEAD)
        c("split_bwd", dqkv, cos, sin, *(g.contiguous() for g in grads), *ctx.sizes)
        return (dqkv,) + (None,) * 6


class SinkSoftmax(torch.autograd.Function):
    """In place: the scores are used nowhere else."""

    @staticmethod
    def forward(ctx, p, sinks, *sizes):
        rest = torch.empty(p.numel() // p.shape[-1])
        c("softmax_fwd", p, sinks, rest, *sizes)
        ctx.save_for_backward(p, rest)
        ctx.sizes = sizes
        ctx.mark_dirty(p)
        return p

    @staticmethod
    def backward(ctx, d):
        p, rest = ctx.saved_tensors
        d, dsinks = d.contiguous(), torch.zeros(HEADS)
        c("softmax_bwd", p, d, rest, dsinks, *ctx.sizes)
        return (d, dsinks) + (None,) * 5


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, w):
        a = bf16(len(u), EXPERTS * WIDTH)
        c("swiglu_fwd", u, w, a, len(u))
        ctx.save_for_backward(u, w)
        return a

    @staticmethod
    def backward(ctx, da):
        u, w = ctx.saved_tensors
        du, dw = torch.empty_like(u), torch.empty_like(w)
        c("swiglu_bwd", u, w, da.contiguous(), du, dw, len(u))
        return du, dw


# ---- model -------------------------------------------------------------------

SQUARES = 2 + 3 * EXPERTS  # 128x128 matrices of a layer: q, o, then gates, ups, downs


def shapes():
    """Every parameter by name; "square" and "kv" are the ones Muon trains."""
    out = {"embed": (data.VOCAB, DIM), "head": (data.VOCAB, DIM), "norm": (DIM,)}
    for i in range(LAYERS):
        out.update({f"{i}.{k}": s for k, s in {
            "square": (SQUARES, DIM, DIM), "kv": (2, KV * HEAD, DIM),
            "norm1": (DIM,), "norm2": (DIM,), "qkv_bias": ((HEADS + 2 * KV) * HEAD,),
            "o_bias": (DIM,), "sinks": (HEADS,), "router": (EXPERTS, DIM), "router_bias": (EXPERTS,),
            "gate_up_bias": (EXPERTS, 2, WIDTH), "down_bias": (EXPERTS, DIM)}.items()})
    return out


def views(flat):
    out, at = {}, 0
    for name, shape in shapes().items():
        size = math.prod(shape)
        out[name] = flat[at:at + size].view(shape)
        at += size
    return out


def count():
    return sum(math.prod(s) for s in shapes().values())


def initialise(p):
    for name, t in p.items():
        if "norm" in name:
            t.fill_(1)
        elif t.dim() == 1 or "bias" in name:
            t.zero_()
        elif name == "embed":
            t.normal_(0, 0.5)
        else:
            t.normal_(0, 0.02 if name == "head" or "router" in name else DIM ** -0.5)


def yarn():
    """Inverse frequencies and the factor on cos and sin, untruncated ramp."""
    j = torch.arange(HEAD // 2, dtype=torch.float64)
    theta = BASE ** (-2 * j / HEAD)
    low, high = (HEAD / 2 * math.log(ORIGINAL / (beta * 2 * math.pi)) / math.log(BASE) for beta in (32, 1))
    ramp = ((j - max(low, 0)) / (high - max(low, 0))).clamp(0, 1)
    return theta / FACTOR * ramp + theta * (1 - ramp), 0.1 * math.log(FACTOR) + 1


class Batch:
    """Tokens of one preamble (padded on the left) and n examples (on the right)."""

    def __init__(self, prefix, examples):
        self.n, self.length = len(examples), -(-max(len(p) + len(a) for p, a in examples) // 16) * 16
        self.pre = -(-len(prefix) // 64) * 64
        self.pad = self.pre - len(prefix)
        ids = [0] * self.pad + prefix
        where, target = [], []
        for p, a in examples:
            start = len(ids) + len(p)
            ids += p + a + [0] * (self.length - len(p) - len(a))
            where += range(start - 1, start + len(a) - 1)
            target += a
        self.ids, self.where, self.target = (torch.tensor(t) for t in (ids, where, target))
        own = torch.arange(self.length) + len(prefix)
        self.position = torch.cat([(torch.arange(self.pre) - self.pad).clamp(min=0), own.repeat(self.n)])
        self.answers = [len(a) for _, a in examples]


def attention(qkv, sinks, rope, batch, window):
    pre, n, length = batch.pre, batch.n, batch.length
    shared = min(pre, WINDOW) if window else pre
    qp, kp, vp, q, k, v = Split.apply(qkv, *rope, pre, shared, n, length)

    def attend(q, k, v, n, length, before, pad):
        rows = q.reshape(n * KV, HEADS // KV * length, HEAD)
        k, v = (t.reshape(n * KV, before + length, HEAD) for t in (k, v))
        p = SinkSoftmax.apply(torch.bmm(rows, k.transpose(1, 2)), sinks, n, length, before, pad, window)
        o = torch.bmm(p, v).view(n, HEADS, length, HEAD)
        return o.transpose(1, 2).reshape(n * length, HEADS * HEAD)

    own = attend(q, k, v, n, length, shared, max(0, batch.pad - (pre - shared)))
    return torch.cat([attend(qp, kp, vp, 1, pre, 0, batch.pad), own]) if pre else own


def layer(p, i, x, rope, batch):
    """One block; also returns the balance loss of its router."""
    w = {k.split(".")[1]: t for k, t in p.items() if k.startswith(f"{i}.")}
    square, kv = w["square"].bfloat16(), w["kv"].bfloat16()
    h = RMSNorm.apply(x, w["norm1"])
    qkv = F.linear(h, torch.cat([square[0], kv.reshape(-1, DIM)]), w["qkv_bias"].bfloat16())
    o = attention(qkv, w["sinks"], rope, batch, WINDOW if i % 2 == 0 else 0)
    x = x + F.linear(o, square[1], w["o_bias"].bfloat16())
    h = RMSNorm.apply(x, w["norm2"])
    logits = F.linear(h, w["router"].bfloat16()).float() + w["router_bias"]
    best, index = logits.topk(2)
    share = torch.zeros_like(logits).scatter(1, index, best.softmax(-1))
    load = (share.detach() > 0).float().mean(0)
    balance = EXPERTS / 2 * (load * logits.softmax(-1).mean(0)).sum()
    gate_up = square[2:2 + 2 * EXPERTS].view(2, EXPERTS, WIDTH, DIM).transpose(0, 1).reshape(-1, DIM)
    u = F.linear(h, gate_up, w["gate_up_bias"].bfloat16().view(-1))
    down = square[2 + 2 * EXPERTS:].permute(1, 0, 2).reshape(DIM, EXPERTS * WIDTH)
    y = F.linear(SwiGLU.apply(u, share), down)
    return x + y + share @ w["down_bias"], balance


def forward(p, batch):
    """Logits of the positions that predict an answer token, and the balance loss."""
    frequency, factor = yarn()
    angle = batch.position[:, None].double() * frequency
    rope = (angle.cos() * factor).float(), (angle.sin() * factor).float()
    x, balance = F.embedding(batch.ids, p["embed"]), 0
    for i in range(LAYERS):
        x, b = layer(p, i, x, rope, batch)
        balance = balance + b / LAYERS
    h = RMSNorm.apply(x[batch.where], p["norm"])
    return F.linear(h, p["head"].bfloat16()).float(), balance


# ---- optimiser ---------------------------------------------------------------


def orthogonal(g):
    """Newton-Schulz steps towards the nearest orthogonal matrix (batched)."""
    x = g.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.float()


class Optimiser:
    """Muon on the matrices of this rank's layers, AdamW on this rank's half of the rest."""

    def __init__(self, p, g, rank, world):
        names = list(p)
        self.muon, self.adam = [], []
        for i in range(rank, LAYERS, world):
            self.muon += [(p[f"{i}.{k}"], g[f"{i}.{k}"], torch.zeros_like(p[f"{i}.{k}"]))
                          for k in ("square", "kv")]
        rest = [n for n in names if not n.endswith((".square", ".kv"))]
        for n in rest[rank::world]:
            self.adam.append((p[n], g[n], torch.zeros_like(p[n]), torch.zeros_like(p[n])))
        self.t = 0

    def step(self, scale, clip, muon_lr, adam_lr):
        self.t += 1
        for p, g, m in self.muon:
            g = g * clip
            m.mul_(0.95).add_(g)
            update = orthogonal(g + 0.95 * m)
            p.mul_(1 - 0.1 * muon_lr * scale).add_(update, alpha=-muon_lr * scale)
        for p, g, m, v in self.adam:
            g = g * clip
            m.lerp_(g, 0.1)
            v.lerp_(g * g, 0.02)
            hat = (v / (1 - 0.98 ** self.t)).sqrt_().add_(1e-9)
            p.addcdiv_(m, hat, value=-adam_lr * scale / (1 - 0.9 ** self.t))


def schedule(elapsed, total):
    """Warm up, stay flat for 30 % of the time, then fall in a line to 2 %."""
    if elapsed < 6:
        return max(0.02, elapsed / 6)
    return min(1.0, max(0.02, 0.02 + 0.98 * (1 - elapsed / total) / 0.7))


# ---- batches -----------------------------------------------------------------


def batches(rng, tokens):
    """Endless batches; examples are sorted by length within a pool to pad little."""
    while True:
        pool = []
        for tools, size in ((None, 2400), ("calculator", 420), ("other", 180)):
            some = [tuple(map(data.encode, data.example(rng, tools))) for _ in range(size)]
            some.sort(key=lambda e: len(e[0]) + len(e[1]) + 6 * rng.random())
            while some:
                length = -(-(len(some[-1][0]) + len(some[-1][1])) // 16) * 16
                n = tokens // length
                if n > len(some):  # few shapes: the matrix library plans each anew
                    break
                pool.append((data.encode(data.preamble(rng, tools)), some[-n:]))
                del some[-n:]
        rng.shuffle(pool)
        for prefix, some in pool:
            yield Batch(prefix, some)


def held_out_batches(seed, kind, size):
    """Held-out items of a kind behind full preambles, for a check while training."""
    rng = random.Random(seed)
    out = []
    for _ in range(3):
        some = []
        for _ in range(size // 3):
            if kind == "tool":
                q, e, _ = data.tool_item(rng, True)
                prompt, answer = data.user(q) + "<|start|>assistant", data.call_turn(e)
            else:
                q, w, a = data.TASKS[kind](rng, True)
                prompt, answer = data.user(q) + "<|start|>assistant", data.answer_turn(w, a)
            some.append((data.encode(prompt), data.encode(answer)))
        prefix = data.preamble(rng, "calculator") if kind == "tool" else data.system(rng, False)
        out.append(Batch(data.encode(prefix), some))
    return out


@torch.no_grad()
def exact(p, checks):
    """Share of whole assistant turns where every token is the most likely one."""
    right = total = 0
    for batch in checks:
        logits, _ = forward(p, batch)
        hit = (logits.argmax(-1) == batch.target).split(batch.answers)
        right += sum(bool(h.all()) for h in hit)
        total += len(hit)
    return 100 * right / total


# ---- processes ---------------------------------------------------------------

KINDS = ["add", "sub", "count", "reverse", "sort", "capital", "tool"]


def work(rank, args, lib, params, slots, sums, barrier, start):
    global LIB
    LIB = ctypes.CDLL(lib)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    p, g = views(params), views(sums)
    own = views(slots[rank])
    leaves = {k: t.detach().requires_grad_() for k, t in p.items()}
    for k, t in leaves.items():
        t.grad = own[k]
    if args.more:
        data.WEIGHTS[args.more] *= 3
    optimiser = Optimiser(p, g, rank, args.world)
    source = batches(random.Random(args.seed * 1000 + rank), args.tokens)
    checks = {k: held_out_batches(99, k, 60) for k in KINDS} if rank == 0 else {}
    step = tokens = 0
    total, saved, checked, logged = args.minutes * 60, 0.0, 0.0, 0.0
    while True:
        elapsed = float(start[0])  # rank 0's clock, so that both agree when to stop
        if elapsed >= total:
            break
        batch = next(source)
        slots[rank].zero_()
        logits, balance = forward(leaves, batch)
        loss = F.cross_entropy(logits, batch.target)
        (loss + 0.01 * balance).backward()
        barrier.wait()
        half = slice(rank * sums.numel() // args.world, (rank + 1) * sums.numel() // args.world)
        torch.mean(slots[:, half], 0, out=sums[half])
        if rank == 0:
            start[0] = time.time() - float(start[1])
        barrier.wait()
        norm = float(sums.norm())
        optimiser.step(schedule(elapsed, total), min(1.0, 1 / (norm + 1e-6)), args.muon_lr, args.adam_lr)
        barrier.wait()
        step += 1
        tokens += len(batch.ids)
        if rank == 0 and elapsed - logged > 10:
            logged = elapsed
            print(f"{elapsed:6.0f} s  step {step:5}  loss {loss.item():.4f}  balance {balance.item():.3f}"
                  f"  norm {norm:.2f}  {args.world * tokens / elapsed:.0f} tok/s", flush=True)
        if rank == 0 and elapsed - checked > args.check:
            checked = elapsed
            print(f"{elapsed:6.0f} s  exact  " + "  ".join(
                f"{k} {exact(p, b):.0f}" for k, b in checks.items()), flush=True)
        if rank == 0 and elapsed - saved > 120:
            saved = elapsed
            save(args, params, step, tokens * args.world, elapsed)
    if rank == 0:
        save(args, params, step, tokens * args.world, elapsed)
        print("end", flush=True)


def save(args, params, step, tokens, elapsed):
    """Parameters, and every run that led to them."""
    path = os.path.join(args.out, "last.pt")
    run = {"command": args.command, "step": step, "tokens": tokens, "seconds": elapsed, "world": args.world}
    torch.save({"params": params.clone(), "runs": args.runs + [run]}, path + ".new")
    os.replace(path + ".new", path)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--out", required=True, help="folder for the checkpoint last.pt")
    a.add_argument("--start", help="continue from this checkpoint instead of a random start")
    a.add_argument("--minutes", type=float, default=28)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--world", type=int, default=2, help="processes, one thread each")
    a.add_argument("--tokens", type=int, default=3000, help="example tokens per batch and process")
    a.add_argument("--muon-lr", type=float, default=0.015)
    a.add_argument("--adam-lr", type=float, default=3e-3)
    a.add_argument("--more", choices=list(data.WEIGHTS), help="draw this task three times as often")
    a.add_argument("--check", type=float, default=100, help="seconds between held-out checks")
    args = a.parse_args()
    args.runs, args.command = [], "train.py " + shlex.join(sys.argv[1:])
    os.makedirs(args.out, exist_ok=True)
    # For the processes started below: keep freed memory, keep every planned matrix product.
    os.environ.update(MALLOC_MMAP_THRESHOLD_="33554432", MALLOC_TRIM_THRESHOLD_="8000000000",
                      MALLOC_TOP_PAD_="200000000", ONEDNN_PRIMITIVE_CACHE_CAPACITY="16384")
    torch.manual_seed(args.seed)
    params = torch.empty(count()).share_memory_()
    if args.start:
        before = torch.load(args.start)
        params.copy_(before["params"])
        args.runs = before["runs"]
    else:
        initialise(views(params))
    slots = torch.zeros(args.world, count()).share_memory_()
    sums = torch.zeros(count()).share_memory_()
    start = torch.tensor([0.0, 0.0], dtype=torch.float64).share_memory_()
    start[1] = time.time()
    print(f"{count()} parameters", flush=True)
    context = mp.get_context("spawn")
    mp.spawn(work, (args, build_kernels(), params, slots, sums, context.Barrier(args.world), start),
             nprocs=args.world)


if __name__ == "__main__":
    main()
