#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes audit folders for tests: an independent log writer that can also write wrong ones."""
import base64
import hashlib
import json
import os
import random
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORIGIN = "phalanx/test-cluster"
START_NS = 1_790_000_000 * 10**9


def to_json(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")


def digest(data):
    return hashlib.sha256(data).digest()


def key_of(seed):
    return Ed25519PrivateKey.from_private_bytes(digest(seed.encode()))


def public_of(key):
    return key.public_key().public_bytes_raw()


def sign(text, signers):
    """signers: [(name, key)]."""
    out = text + "\n"
    for name, key in signers:
        hashed = digest(name.encode() + b"\n\x01" + public_of(key))[:4]
        blob = base64.b64encode(hashed + key.sign(text.encode())).decode()
        out += f"\u2014 {name} {blob}\n"
    return out.encode()


def vkey(name, key):
    blob = b"\x01" + public_of(key)
    return f"{name}+{digest(name.encode() + chr(10).encode() + blob)[:4].hex()}+{base64.b64encode(blob).decode()}"


def path_of(index):
    digits = str(index)
    digits = digits.zfill((len(digits) + 2) // 3 * 3)
    groups = [digits[i:i + 3] for i in range(0, len(digits), 3)]
    return "/".join(["x" + g for g in groups[:-1]] + [groups[-1]])


def merkle(hashes):
    """RFC 6962, as its text says."""
    if not hashes:
        return digest(b"")
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return digest(b"\x01" + merkle(hashes[:k]) + merkle(hashes[k:]))


def inclusion(index, hashes):
    if len(hashes) == 1:
        return []
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if index < k:
        return inclusion(index, hashes[:k]) + [merkle(hashes[k:])]
    return inclusion(index - k, hashes[k:]) + [merkle(hashes[:k])]


class Log:
    """Records and key epochs; write() makes the folder of what is there."""

    def __init__(self, origin=ORIGIN, seed="test"):
        self.origin, self.seed = origin, seed
        self.records, self.hashes = [], []
        self.starts = {1: 0}  # key epoch: size of the log where it begins
        self.closed = {}      # key epoch: size of its last checkpoint
        self.witnesses = []   # (name, key)

    def key(self, epoch):
        return key_of(f"{self.seed}/{epoch}")

    @property
    def epoch(self):
        return max(self.starts)

    def add(self, record):
        self.add_raw(to_json(record))

    def add_raw(self, raw):
        self.records.append(raw)
        self.hashes.append(digest(b"\x00" + raw))

    def rotate(self):
        self.closed[self.epoch] = len(self.records)
        self.starts[self.epoch + 1] = len(self.records)

    def checkpoint(self, size=None, epoch=None, signer=None, witnesses=()):
        """The text says epoch; signer is the epoch whose key signs."""
        size = len(self.records) if size is None else size
        epoch = self.epoch if epoch is None else epoch
        signer = epoch if signer is None else signer
        root = base64.b64encode(merkle(self.hashes[:size])).decode()
        return sign(f"{self.origin}\n{size}\n{root}\nepoch {epoch}\n",
                    [(f"{self.origin}/{signer}", self.key(signer)), *witnesses])

    def key_note(self, epoch):
        public = base64.b64encode(public_of(self.key(epoch))).decode()
        text = f"phalanx log key\n{self.origin}\n{epoch}\n{self.starts[epoch]}\n{public}\n"
        signers = [e for e in (epoch - 1, epoch) if e > 0]
        return sign(text, [(f"{self.origin}/{e}", self.key(e)) for e in signers])

    def trust(self, epochs=(1,)):
        return to_json({"keys": [{"epoch": e, "public_key": public_of(self.key(e)).hex()} for e in epochs],
                        "origin": self.origin, "v": 1}) + b"\n"

    def tiles(self):
        out, level, nodes = {}, 0, self.hashes
        while nodes:
            for at in range(0, len(nodes), 256):
                part = nodes[at:at + 256]
                name = path_of(at // 256) + ("" if len(part) == 256 else f".p/{len(part)}")
                out[f"tile/{level}/{name}"] = b"".join(part)
                if level == 0:
                    out[f"tile/entries/{name}"] = b"".join(
                        len(r).to_bytes(2, "big") + r for r in self.records[at:at + 256])
            nodes = [merkle(nodes[i:i + 256]) for i in range(0, len(nodes) - 255, 256)]
            level += 1
        return out

    def files(self):
        """{path: bytes} of the whole folder."""
        out = self.tiles()
        out["checkpoint"] = self.checkpoint(witnesses=self.witnesses)
        out["trust.json"] = self.trust()
        for epoch in self.starts:
            out[f"keys/{epoch}"] = self.key_note(epoch)
        for epoch, size in self.closed.items():
            out[f"closing/{epoch}"] = self.checkpoint(size, epoch)
        return out

    def receipt(self, index):
        return to_json({"checkpoint": self.checkpoint().decode(), "index": index,
                        "keys": [self.key_note(e).decode() for e in sorted(self.starts)], "origin": self.origin,
                        "proof": [h.hex() for h in inclusion(index, self.hashes)],
                        "record": self.records[index].decode(), "v": 1})


def write(files, folder):
    for name, data in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


# ---- what a cluster writes ----------------------------------------------------------------------------------

class Cluster:
    """A clean history: starts, requests, refusals, crashes, events of all kinds."""

    def __init__(self, log, rng):
        self.log, self.rng = log, rng
        self.now, self.epoch, self.open = START_NS, 0, []
        self.rows = []  # (receipt, tenant, user, prompt, cached, output, reasoning)

    def receipt(self):
        return f"rcpt_{self.rng.getrandbits(128):032x}"

    def base(self, kind, receipt=None):
        self.now += self.rng.randrange(0, 2 * 10**9)
        return {"at_ns": self.now - self.rng.choice((0, 0, 0, 10**9)), "kind": kind,
                "receipt": receipt or self.receipt(), "v": 1}

    def start(self):
        while self.open:  # crashes settle in the epoch that ended
            if self.open[-1]["state"]["privacy"] == "gateway":
                break
            self.result(self.open.pop(), "crash")
        self.epoch += 1
        self.log.add(dict(self.base("admin"), event="daemon.start", epoch=self.epoch, build="test",
                          config_sha256="0" * 64, model={"manifest_root": "sha256:" + "1" * 64, "name": "m"}))

    def intent(self, privacy="commit"):
        rng, who = self.rng, self.rng.choice((("acme", "ann"), ("acme", "bob"), ("zürich", "çelik \"q\"\n")))
        record = dict(
            self.base("intent"), clock="ok", epoch=self.epoch,
            asked={"api": "chat", "max_new": rng.randrange(1, 999), "n_in": rng.randrange(1, 999),
                   "req_id": f"req_{rng.getrandbits(64):016x}", "request_commit": f"{rng.getrandbits(256):064x}"},
            engine={"backend": "cpu", "build": "test", "tp": 1}, model={"manifest_root": "sha256:" + "1" * 64,
                                                                      "name": "m"},
            rules={"admission": "allow", "budget_left": -1, "guard": {"name": "", "verdict": "", "version": ""},
                   "licence": "", "licence_serial": 0, "licence_state": "active", "policy": "apache-2.0"},
            sample={"rng": "philox4x32-10", "seed": str(rng.getrandbits(64)), "temperature_e6": 1000000},
            state={"content_sha256": "", "keep_until_ns": self.now + 10**18, "privacy": privacy},
            who={"auth": "key", "purpose": "", "tenant": who[0], "user": who[1]})
        self.log.add(record)
        return record

    def result(self, intent, finish="stop"):
        rng = self.rng
        prompt, output = intent["asked"]["n_in"], rng.randrange(0, intent["asked"]["max_new"] + 1)
        cached, reasoning = rng.randrange(0, prompt + 1), rng.randrange(0, output + 1)
        self.log.add(dict(
            self.base("result", intent["receipt"]), epoch=self.epoch, finish=finish, ledger="commit",
            cost={"cached": cached, "compute_ms": 5, "output": output, "prompt": prompt, "queue_ms": 1,
                  "reasoning": reasoning, "upper": prompt + intent["asked"]["max_new"]},
            out={"content_sha256": "", "replay_class": "B", "response_commit": f"{rng.getrandbits(256):064x}"},
            timing={"first_ms": 3, "total_ms": 9}))
        self.rows.append((intent["receipt"], intent["who"]["tenant"], intent["who"]["user"], prompt, cached, output,
                          reasoning))

    def event(self):
        kind = self.rng.choice(("admin", "licence", "clock", "key", "model", "config", "shred", "read", "correct",
                                "content.hold"))
        self.log.add(dict(self.base(kind), by="root", detail="d\té \u2028", event=kind + ".done", subject="s"))

    def refusal(self):
        self.log.add(dict(self.base("refusal"), epoch=self.epoch, key_id="k", req_id="r", rule="rate.key",
                          tenant="acme", user="ann"))

    def run(self, size):
        """Grows the log to about that size."""
        rng = self.rng
        self.start()
        while len(self.log.records) < size:
            dice = rng.random()
            if dice < 0.45:
                self.open.insert(rng.randrange(len(self.open) + 1), self.intent())
            elif dice < 0.85 and self.open:
                self.result(self.open.pop(rng.randrange(len(self.open))))
            elif dice < 0.93:
                self.refusal()
            elif dice < 0.97:
                self.event()
            elif dice < 0.985:
                self.start()
            else:
                self.log.rotate()


def make_clean(seed, size, origin=ORIGIN):
    log = Log(origin)
    cluster = Cluster(log, random.Random(seed))
    cluster.run(size)
    return log, cluster


def usage_csv(rows):
    out = "receipt,kind,tenant,user,model,prompt_tokens,cached_tokens,output_tokens,reasoning_tokens\r\n"
    for receipt, tenant, user, prompt, cached, output, reasoning in rows:
        quoted = user.replace('"', '""')
        out += f'{receipt},commit,"{tenant}","{quoted}",m,{prompt},{cached},{output},{reasoning}\r\n'
    return out


if __name__ == "__main__":
    made, _ = make_clean(int(sys.argv[2]), int(sys.argv[3]))
    write(made.files(), sys.argv[1])
