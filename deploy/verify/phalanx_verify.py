#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Verifies phalanx audit folders.  Independent of phalanx: shares no code with it.
Needs Python 3.8 and the `cryptography` package (for Ed25519); no network, no daemon, no database.
Exit codes: 0 ok, 1 tampered, 2 evidence incomplete, 3 usage error, 4 unknown key, version or field."""
import argparse
import base64
import hashlib
import json
import os
import re
import stat
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

OK, TAMPERED, INCOMPLETE, USAGE, UNKNOWN = range(5)
NAMES = ("ok", "tampered", "incomplete", "usage", "unknown")
WORST_FIRST = (USAGE, TAMPERED, UNKNOWN, INCOMPLETE, OK)
SHOWN = 20              # problems of a folder that are printed
BACK_NS = 120 * 10**9   # a clock may be set back by this much
CLOSED_MAX = 1_000_000  # finished receipts that are remembered
NOTE_MAX, BUNDLE_MAX = 64 << 10, 256 * (2 + 65535)
DEPTH_MAX = 8           # objects inside each other in a record
COMMON, START, WHO = dict(at_ns=int, kind=str, receipt=str), dict(epoch=int), dict(tenant=str, user=str)
FIELDS = dict(intent=dict(epoch=int, asked=dict, engine=dict, model=dict, rules=dict, sample=dict, who=dict),
              result=dict(epoch=int, finish=str, cost=dict, out=dict, timing=dict), refusal=dict(rule=str))
COST = dict.fromkeys(("cached", "compute_ms", "output", "prompt", "queue_ms", "reasoning", "upper"), int)
KINDS = {"admin", "clock", "config", "content.hold", "correct", "gap", "intent", "key", "licence", "model", "read",
         "refusal", "replay", "result", "shred"}
DECIMAL = re.compile(r"0|[1-9][0-9]{0,17}")
BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
TILE = re.compile(r"tile/([0-7]|entries)/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
OTHER_FILE = re.compile(r"checkpoint|trust\.json|(keys|closing)/[1-9][0-9]{0,17}")

class Stop(Exception):
    """(exit code, text): nothing behind this can be checked."""

def stop(code, text):
    raise Stop(code, text)
def stop_if(is_wrong, code, text):
    return stop(code, text) if is_wrong else None
def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()
def worst(codes):
    return min(codes, key=WORST_FIRST.index, default=OK)
def number(text, what):
    return int(text) if DECIMAL.fullmatch(text) else stop(TAMPERED, f"{what}: not a plain decimal number")
def from_base64(text, what):
    data = base64.b64decode(text) if BASE64.fullmatch(text) else b""
    is_strict = base64.b64encode(data).decode() == text  # else spare bits in the last digit
    return data if is_strict else stop(TAMPERED, f"{what}: not strict base64")
def refuse(_):
    raise ValueError("not the canonical form of objects, strings and 64-bit integers")
def to_json(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")
def has(record, types):
    return all(type(record.get(key)) is kind for key, kind in types.items())

def check_values(value, depth=1):
    for item in value.values():
        if type(item) is dict and depth < DEPTH_MAX:
            check_values(item, depth + 1)
        elif type(item) is not str and not (type(item) is int and -2**63 <= item < 2**63):
            refuse(item)

def parse_record(raw):
    """The record, when these bytes are its one canonical spelling (so no key is there twice); else ValueError."""
    try:
        record = json.loads(raw.decode("utf-8"), parse_float=refuse, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None
    check_values(record if type(record) is dict else {"": None})
    return record if to_json(record) == raw else refuse(raw)
def no_duplicates(pairs):
    return dict(pairs) if len(dict(pairs)) == len(pairs) else refuse(pairs)
def parse_document(raw, types, what, bad):
    """A JSON object with exactly these keys and "v": 1."""
    try:
        out = json.loads(raw.decode("utf-8"), object_pairs_hook=no_duplicates, parse_float=refuse)
    except (ValueError, RecursionError):
        raise Stop(bad, f"{what}: not JSON, or a key is there twice") from None
    if type(out) is dict and (set(out) - {*types, "v"} or type(out.get("v")) is int and out["v"] != 1):
        raise Stop(UNKNOWN, f"{what}: unknown version or key")
    is_good = type(out) is dict and has(out, dict(types, v=int))
    return out if is_good else stop(bad, f"{what}: needs exactly the keys v, {', '.join(types)}")

class Note:
    def __init__(self, data, what):
        head, found, tail = data.rpartition(b"\n\n")
        self.what, self.data, self.text, self.signatures = what, data, head + b"\n", []
        try:
            self.lines, lines = head.decode("utf-8").split("\n"), tail[:-1].decode("utf-8").split("\n")
        except UnicodeDecodeError:
            found = b""
        is_bad = not found or tail[-1:] != b"\n" or len(lines) > 16 or re.search(b"[\\x00-\\x09\\x0b-\\x1f]", data)
        stop_if(is_bad, TAMPERED, f"{what}: not a signed note")
        for line in lines:
            match = re.fullmatch("\u2014 ([^ +]+) ([A-Za-z0-9+/=]+)", line)
            blob = from_base64(match.group(2), what) if match else b""
            stop_if(len(blob) < 5, TAMPERED, f"{what}: malformed signature line")
            self.signatures.append((match.group(1), blob[:4], blob[4:]))
    def verify(self, name, key):
        """None: not signed by it; True, False: the signature verifies or not."""
        key_hash = sha256(name.encode(), b"\n\x01", key)[:4]
        found = [s for n, h, s in self.signatures if n == name and h == key_hash]
        try:
            for signature in found:
                Ed25519PublicKey.from_public_bytes(key).verify(signature, self.text)
        except (InvalidSignature, ValueError):
            return False
        return True if found else None
    def need(self, origin, keys):
        """Signed by exactly these log keys {epoch: key}, once each.  Returns the names of other signers."""
        names = {f"{origin}/{epoch}": key for epoch, key in keys.items()}
        signers = [n for n, _, _ in self.signatures]
        for name in signers:
            if name.startswith(origin + "/") and (name not in names or signers.count(name) != 1):
                raise Stop(TAMPERED, f"{self.what}: signed by {name[:80]}, which may not sign it")
        for name, key in names.items():
            stop_if(not self.verify(name, key), TAMPERED, f"{self.what}: no valid signature of {name[:80]}")
        return [n for n in signers if n not in names]

class Checkpoint(Note):
    def __init__(self, data, what):
        super().__init__(data, what)
        lines = self.lines
        if len(lines) < 4 or not lines[0] or not lines[3].startswith("epoch "):
            raise Stop(TAMPERED, f"{what}: not a checkpoint")
        stop_if(len(lines) > 4, UNKNOWN, f"{what}: unknown line after the epoch")
        self.origin, self.size, self.epoch = lines[0], number(lines[1], what), number(lines[3][6:], what)
        self.root = from_base64(lines[2], what)

class Chain:
    """The log keys: [(what, bytes)] of keys/1, 2, ..., each signed by the key before and by itself."""
    def __init__(self, notes, origin):
        self.origin, self.keys, self.starts = origin, {}, {0: 0}
        for epoch, (what, data) in enumerate(notes, 1):
            note = Note(data, what)
            if len(note.lines) != 5 or note.lines[:3] != ["phalanx log key", origin, str(epoch)]:
                raise Stop(TAMPERED, f"{what}: not the log key of epoch {epoch} of {origin[:80]}")
            self.starts[epoch], self.keys[epoch] = number(note.lines[3], what), from_base64(note.lines[4], what)
            if self.starts[epoch] < self.starts[epoch - 1] or self.starts[1] != 0:
                raise Stop(TAMPERED, f"{what}: wrong first size")
            if note.need(origin, {e: self.keys[e] for e in (epoch - 1, epoch) if e > 0}):
                raise Stop(TAMPERED, f"{what}: signed by somebody else too")
    def check(self, cp):
        """Each key speaks for the sizes of its own epoch alone.  Returns the names of other signers."""
        stop_if(cp.origin != self.origin, TAMPERED, f"{cp.what}: of another log, {cp.origin[:80]}")
        stop_if(cp.epoch not in self.keys, UNKNOWN, f"{cp.what}: the key of epoch {cp.epoch} is unknown")
        others = cp.need(cp.origin, {cp.epoch: self.keys[cp.epoch]})
        if not self.starts[cp.epoch] <= cp.size <= self.starts.get(cp.epoch + 1, cp.size):
            raise Stop(TAMPERED, f"{cp.what}: size {cp.size} is outside of epoch {cp.epoch}")
        return others
    def check_trust(self, trust, what, bad):
        if trust[0] != self.origin or any(self.keys.get(epoch) != key for epoch, key in trust[1].items()):
            raise Stop(bad, f"{what}: the trusted keys of {trust[0][:80]} are not those of this log")

def load_trust(raw, what, bad):
    trust, keys = parse_document(raw, dict(keys=list, origin=str), what, bad), {}
    for item in trust["keys"]:
        if type(item) is not dict or set(item) != {"epoch", "public_key"} or type(item["epoch"]) is not int or \
                item["epoch"] < 1 or not re.fullmatch("[0-9a-f]{64}", str(item["public_key"])):
            raise Stop(bad, f"{what}: each key has an epoch and a public_key of 64 hex digits")
        keys[item["epoch"]] = bytes.fromhex(item["public_key"])
    stop_if(not keys or len(keys) != len(trust["keys"]), bad, f"{what}: no keys, or two of one epoch")
    return trust["origin"], keys

class Rules:
    def __init__(self, add):
        self.add, self.open, self.closed = add, {}, set()  # open: receipt -> (epoch, is_gateway, leaf)
        self.epoch, self.newest_ns, self.requests, self.kinds = None, 0, 0, {}
    def push(self, leaf, raw):
        r = check_record(leaf, raw, self.add)
        if r is None:
            return
        kind = r["kind"] if r["kind"] in KINDS or len(self.kinds) < 64 else "others"
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if r["at_ns"] < self.newest_ns - BACK_NS:
            self.add(INCOMPLETE, f"record {leaf}: the clock went back by more than 120 s")
        self.newest_ns = max(r["at_ns"], self.newest_ns)
        if kind == "gap":
            self.add(INCOMPLETE, f"record {leaf}: a gap until {r['at_ns']}: {str(r.get('event', ''))[:60]}")
        problem = self.push_intent(leaf, r) if kind == "intent" else self.push_result(r) if kind == "result" else \
            self.push_start(leaf, r["epoch"]) if is_start(r) else None
        if problem:
            self.add(TAMPERED, f"record {leaf}: {problem}")
    def push_intent(self, leaf, r):
        receipt, state = r["receipt"], r.get("state")
        if receipt in self.open or sha256(receipt.encode())[:16] in self.closed:
            return "a second intent with this receipt"
        self.open[receipt] = (r["epoch"], type(state) is dict and state.get("privacy") == "gateway", leaf)
        self.requests += 1
        return f"its epoch is not {self.epoch}" if self.epoch not in (None, r["epoch"]) else None
    def push_result(self, r):
        if r["receipt"] not in self.open:
            return "a result without an open intent before it: none at all, or this is the second result"
        epoch = self.close(r["receipt"])[0]
        is_good = epoch <= r["epoch"] <= (epoch if self.epoch is None else self.epoch)
        return None if is_good else f"a result of epoch {r['epoch']} for an intent of epoch {epoch}"
    def close(self, receipt):
        if len(self.closed) < CLOSED_MAX:
            self.closed.add(sha256(receipt.encode())[:16])
        return self.open.pop(receipt)
    def push_start(self, leaf, epoch):
        before, self.epoch = self.epoch, epoch
        for receipt in [receipt for receipt, intent in self.open.items() if not intent[1]]:
            self.add(INCOMPLETE, f"record {self.close(receipt)[2]}: an intent without a result before the daemon.start"
                                 f" of record {leaf}")
        return f"epoch {epoch} follows epoch {before}" if before is not None and epoch != before + 1 else None

def is_start(r):
    return r["kind"] == "admin" and r.get("event") == "daemon.start"

def check_record(leaf, raw, add):
    """What a record must be by itself; None when it is not."""
    try:
        r = parse_record(raw)
    except ValueError as error:
        return add(TAMPERED, f"record {leaf}: {error}")
    if type(r.get("v")) is not int or r["v"] != 1 or "crit" in r:
        return add(UNKNOWN, f"record {leaf}: unknown version or critical field")
    is_good = has(r, COMMON) and r["receipt"] and has(r, FIELDS.get(r["kind"], START if is_start(r) else {}))
    for kind, group, types in (("result", "cost", COST), ("intent", "who", WHO)):
        is_good = is_good and (r["kind"] != kind or has(r[group], types))
    return r if is_good else add(TAMPERED, f"record {leaf}: without the fields of its kind")

def index_path(index):
    parts = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        parts.insert(0, f"x{index % 1000:03d}")
    return "/".join(parts)
def width_of(name):
    return int(name.rpartition("/")[2]) if ".p/" in name else 256
def split(name, data):
    """The entries of a bundle: as many as its name says, and not a byte more."""
    at, out = 0, []
    for _ in range(width_of(name)):
        end = at + 2 + int.from_bytes(data[at:at + 2], "big")
        out.append(data[at + 2:end])
        stop_if(at + 2 > len(data) or end > len(data), TAMPERED, f"{name}: cut short")
        at = end
    stop_if(at != len(data), TAMPERED, f"{name}: {len(data) - at} bytes too many")
    return out

class Tree:
    """Roots of the complete subtrees of what was pushed; nodes of every eighth level go to on_node()."""
    def __init__(self, on_node):
        self.size, self.stack, self.on_node = 0, [], on_node
    def push(self, node):
        height, size = 0, self.size
        self.on_node(0, node)
        while size & 1:
            node, height, size = sha256(b"\x01", self.stack.pop(), node), height + 1, size >> 1
            if height % 8 == 0:
                self.on_node(height // 8, node)
        self.stack.append(node)
        self.size += 1
    def root(self):
        node = self.stack[-1] if self.stack else sha256()
        for left in reversed(self.stack[:-1]):
            node = sha256(b"\x01", left, node)
        return node

class Folder:
    def __init__(self, path):
        self.path = path
    def read(self, name, most):
        """The file's bytes, or None when there is none."""
        try:
            fd = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with os.fdopen(fd, "rb") as file:
            data = file.read(most + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        stop_if(data is None or len(data) > most, TAMPERED, f"{name}: no regular file, or larger than {most} bytes")
        return data
    def names(self, folder=""):
        for base, _, files in os.walk(os.path.join(self.path, folder)):
            yield from (os.path.relpath(os.path.join(base, name), self.path) for name in files)

class Report:
    def __init__(self, name):
        self.name, self.codes, self.problems, self.count, self.skipped, self.facts = name, set(), [], 0, [], {}
    def add(self, code, text):
        self.codes.add(code)
        self.count += 1
        self.problems += [f"{NAMES[code]}: {text}"] * (self.count <= SHOWN)
    def skip(self, text):
        self.skipped += [text] * (len(self.skipped) < SHOWN)
    def show(self, as_json):
        code = worst(self.codes)
        if as_json:
            print(json.dumps(dict(self.facts, name=self.name, verdict=NAMES[code], exit=code, n_problems=self.count,
                                  problems=self.problems, not_checked=self.skipped), sort_keys=True))
            return code
        lines = self.problems + [f"{self.count} problems in all"] * (self.count > SHOWN)
        lines += [f"{key}: {value}" for key, value in self.facts.items()]
        print("\n  ".join([f"{self.name}: {NAMES[code]}"] + lines + [f"not checked: {s}" for s in self.skipped]))
        return code

class Verify:
    """One folder.  trust: of load_trust() or None; kept: checkpoints; witnesses: (what, [(name, key)], least)."""
    def __init__(self, folder, name, trust=None, kept=(), witnesses=()):
        self.folder, self.trust, self.kept, self.witnesses = folder, trust, kept, witnesses
        self.report, self.tiles = Report(name), {}
        self.rules = Rules(self.report.add)
    def run(self):
        try:
            for step in (self.load, self.stream, self.walk, self.finish):
                step()
        except Stop as error:
            self.report.add(*error.args)
            self.report.skip("everything behind the last problem")
        except OSError as error:
            self.report.add(INCOMPLETE, f"cannot be read: {error.strerror}")
        return self.report
    def need(self, name):
        data = self.folder.read(name, NOTE_MAX)
        return data if data is not None else stop(INCOMPLETE, f"{name}: missing")
    def epochs(self, folder):
        return sorted(int(n.rpartition("/")[2]) for n in self.folder.names(folder) if OTHER_FILE.fullmatch(n))
    def load(self):
        self.cp = cp = Checkpoint(self.need("checkpoint"), "checkpoint")
        self.last = max(self.epochs("keys"), default=1)
        names = [f"keys/{e}" for e in range(1, min(self.last, len(self.epochs("keys")) + 1) + 1)]
        self.chain = Chain([(name, self.need(name)) for name in names], cp.origin)
        self.report.facts.update(origin=cp.origin, size=cp.size, root=cp.root.hex(), key_epochs=self.last)
        self.check_trust()
        self.load_closings()
        self.check_witnesses(self.chain.check(cp))
        for item in self.kept:
            self.chain.check(item)
        tops = [cp, *self.closings.values()]
        self.size, self.marks = max(c.size for c in tops), {}
        for item in [*tops, *self.kept]:
            self.marks.setdefault(item.size, []).append(item)
            if item.size > self.size:
                raise Stop(TAMPERED, f"{item.what}: has {item.size} records, this log only {self.size}: rolled back")
    def check_trust(self):
        raw, trust = self.folder.read("trust.json", NOTE_MAX), self.trust
        if raw is not None:
            own = load_trust(raw, "trust.json", TAMPERED)
            if raw not in (to_json(json.loads(raw)), to_json(json.loads(raw)) + b"\n"):
                raise Stop(TAMPERED, "trust.json: not in canonical form")
            self.chain.check_trust(own, "trust.json", TAMPERED)
        if trust is None:
            self.report.add(INCOMPLETE, "TRUST WAS TAKEN FROM THE FOLDER ITSELF, and whoever can forge a log can "
                                        "forge that too: give --trust with a copy of your own")
            trust = own if raw is not None else ("", {1: b""})
        else:
            self.chain.check_trust(trust, "--trust", UNKNOWN)
        if min(trust[1]) > 1:
            self.report.skip(f"the log keys before epoch {min(trust[1])}, except that each has signed the next")
    def load_closings(self):
        cp, self.closings = self.cp, {}
        for epoch in self.epochs("closing"):
            self.closings[epoch] = item = Checkpoint(self.need(f"closing/{epoch}"), f"closing/{epoch}")
            self.chain.check(item)
            if item.epoch != epoch or item.size != self.chain.starts.get(epoch + 1, item.size):
                raise Stop(TAMPERED, f"{item.what}: of another epoch, or not where keys/{epoch + 1} starts")
        for epoch in sorted(set(range(1, self.last)) - set(self.closings)):
            self.report.add(INCOMPLETE, f"closing/{epoch}: missing")
        end = self.closings.get(cp.epoch, cp)
        stop_if(end.size < cp.size, TAMPERED, f"checkpoint: signed after closing/{cp.epoch}, which is smaller")
        if cp.epoch < self.last or end.size > cp.size:
            self.report.add(INCOMPLETE, f"the checkpoint is older than keys/{self.last} or closing/{cp.epoch}: rolled "
                                        "back, or copied while a key moved on (then copy it again)")
    def check_witnesses(self, others):
        for what, verifiers, least in self.witnesses:
            verdicts = [self.cp.verify(name, key) for name, key in verifiers]
            if False in verdicts:
                self.report.add(TAMPERED, f"checkpoint: a signature of {what} is wrong")
            if verdicts.count(True) < least:
                self.report.add(INCOMPLETE, f"{what}: {verdicts.count(True)} of {least} witnesses have signed")
        for name in sorted(set(others) - {name for _, verifiers, _ in self.witnesses for name, _ in verifiers}):
            self.report.skip(f"the signature of {name[:80]} on the checkpoint: its key was not given")
    def find(self, path, width, most):
        """The file of that tile or a wider one (the log may have grown): (name, bytes); (exact name, None)."""
        names = ([f"{path}.p/{width}"] if width < 256 else []) + [path]
        for name in names + [f"{path}.p/{wider}" for wider in range(width + 1, 256)]:
            data = self.folder.read(name, most)
            if data is not None:
                return name, data
        return names[0], None
    def on_node(self, level, node):
        tile = self.tiles.setdefault(level, [0, bytearray()])
        tile[1] += node
        if len(tile[1]) == 256 * 32:
            self.compare(level, *tile)
            self.tiles[level] = [tile[0] + 1, bytearray()]
    def compare(self, level, index, expected):
        name, found = self.find(f"tile/{level}/{index_path(index)}", len(expected) // 32, 256 * 32)
        if found is None:
            self.report.add(INCOMPLETE, f"{name}: missing")
        elif len(found) != 32 * width_of(name) or not found.startswith(bytes(expected)):
            self.report.add(TAMPERED, f"{name}: differs from the entries")
    def stream(self):
        tree, is_tty = Tree(self.on_node), sys.stderr.isatty()
        self.check_marks(tree)
        while tree.size < self.size:
            width = min(256, self.size - tree.size)
            name, data = self.find(f"tile/entries/{index_path(tree.size // 256)}", width, BUNDLE_MAX)
            for raw in split(name, self.need(name) if data is None else data)[:width]:
                self.rules.push(tree.size, raw)
                tree.push(sha256(b"\x00", raw))
                if tree.size in self.marks:
                    self.check_marks(tree)
            if is_tty and tree.size % 65536 == 0:
                print(f"\r{tree.size} of {self.size} records", end="", file=sys.stderr, flush=True)
        for level, (index, data) in ((level, tile) for level, tile in self.tiles.items() if tile[1]):
            self.compare(level, index, data)
    def check_marks(self, tree):
        for cp in (cp for cp in self.marks.get(tree.size, ()) if tree.root() != cp.root):
            self.report.add(TAMPERED, f"{cp.what}: its root is not that of the first {cp.size} records")
    def walk(self):
        """Files that the stream did not read: older partial tiles, what is behind the checkpoint, strangers."""
        is_behind = False
        for name in self.folder.names():
            match = TILE.fullmatch(name)
            index, width = (int(re.sub("[x/]", "", match.group(2))), width_of(name)) if match else (0, 0)
            if match is None or index_path(index) != match.group(2) or int(match.group(3) or 1) > 255:
                if not OTHER_FILE.fullmatch(name):
                    self.report.skip(f"the file {name[:100]!r}: not of an audit folder")
                continue
            is_entries = match.group(1) == "entries"
            count = (self.size >> (0 if is_entries else 8 * int(match.group(1)))) - 256 * index
            if width > count:
                is_behind = True
            elif width < min(256, count):  # older: the beginning of the one that was checked
                found = self.folder.read(name, BUNDLE_MAX)
                whole = self.find(name.partition(".p/")[0], min(256, count), BUNDLE_MAX)[1] or b""
                is_full = split(name, found) if is_entries else len(found) == 32 * width
                if not is_full or not whole.startswith(found):
                    self.report.add(TAMPERED, f"{name}: differs from the entries")
        if is_behind:
            self.report.skip("records behind the checkpoint: not signed yet, so no part of this log")
    def finish(self):
        rules, skip = self.rules, self.report.skip
        self.report.facts.update(requests=rules.requests, open=len(rules.open), daemon_epoch=rules.epoch,
                                 records=dict(sorted(rules.kinds.items())))
        for kind in sorted(set(rules.kinds) - KINDS):
            skip(f"the meaning of {rules.kinds[kind]} records of kind {kind[:40]!r}")
        if len(rules.closed) == CLOSED_MAX:
            skip(f"whether a receipt behind the first {CLOSED_MAX} was used again")
        if not self.kept:
            skip("whether this is an older or another copy of the log (--from with a checkpoint you kept)")
        if not self.witnesses:
            skip(f"witnesses: the records from {self.chain.starts[self.last]} on rest on the newest log key alone")
        skip("whether what the records say is true; prompts and answers themselves")

def read_file(path, most=NOTE_MAX):
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise Stop(USAGE, f"{path}: {error.strerror}") from None
    return data if len(data) <= most else stop(USAGE, f"{path}: larger than {most} bytes")

def load_witness(text):
    """VKEY[:N] or FILE[:N], a file with a vkey in each line: N of them must have signed (default: all)."""
    what, _, least = text.rpartition(":") if re.search(":[0-9]{1,2}$", text) else (text, "", "")
    lines = [what] if what.count("+") >= 2 else read_file(what).decode("utf-8", "replace").split()
    verifiers = []
    for line in lines:
        match = re.fullmatch(r"([^+ ]+)\+([0-9a-f]{8})\+(\S{44})", line) or stop(UNKNOWN, f"{line[:80]}: not a vkey")
        name, key = match.group(1), from_base64(match.group(3), "witness key")
        if key[0] != 1 or len(key) != 33 or sha256(name.encode(), b"\n", key)[:4].hex() != match.group(2):
            raise Stop(UNKNOWN, f"{name[:80]}: not the verifier key of an Ed25519 witness")
        verifiers.append((name, key[1:]))
    return "witness " + what[:60], verifiers, int(least or len(verifiers))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("verify",))
    parser.add_argument("paths", nargs="+", metavar="DIR", help="audit folders")
    parser.add_argument("--trust", metavar="FILE", help="trust.json that you got with the log, kept by yourself")
    parser.add_argument("--from", dest="kept", action="append", default=[], metavar="FILE", help="a kept checkpoint")
    parser.add_argument("--witness", action="append", default=[], metavar="VKEY[:N]", help=load_witness.__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.error = lambda message: sys.exit(parser.print_usage() or print(message, file=sys.stderr) or USAGE)
    o = parser.parse_args()
    try:
        trust = load_trust(read_file(o.trust), "--trust", USAGE) if o.trust else None
        kept = [Checkpoint(read_file(path), path) for path in o.kept]
        witnesses = [load_witness(text) for text in o.witness]
        missing = [path for path in o.paths if not os.path.isdir(path)]
        stop_if(missing, USAGE, f"{missing[:1]}: no such folder")
        reports = (Verify(Folder(path), path, trust, kept, witnesses).run() for path in o.paths)
        return worst([report.show(o.json) for report in reports])
    except Stop as error:
        print(f"phalanx_verify: {error.args[1]}", file=sys.stderr)
        return error.args[0]

if __name__ == "__main__":
    sys.exit(main())
