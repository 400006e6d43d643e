#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks phalanx receipts, years later and with nothing else: one record, its place in the signed tree and
the chain of log keys from a key that you trust.  Exit codes as of phalanx_verify.py, which lies beside it."""
import argparse
import re
import sys

from phalanx_verify import (TAMPERED, UNKNOWN, USAGE, Chain, Checkpoint, Report, Stop, check_record, load_trust,
                            parse_document, read_file, sha256, worst)

RECEIPT_MAX = 4 << 20

def climb(node, index, size, proof):
    """The root above a leaf hash, with every hash of the proof used once; None when it has too few or too many."""
    last, proof = size - 1, list(proof)
    while last > 0:
        if index & 1 or index < last:  # else the last node of a level goes up as it is
            if not proof:
                return None
            node = sha256(b"\x01", proof.pop(0), node) if index & 1 else sha256(b"\x01", node, proof.pop(0))
        index, last = index >> 1, last >> 1
    return None if proof else node

def check_receipt(raw, name, trust):
    """One record, its inclusion proof, the checkpoint and the chain of log keys."""
    report, types = Report(name), dict(checkpoint=str, index=int, keys=list, origin=str, proof=list, record=str)
    try:
        doc = parse_document(raw, types, name, TAMPERED)
        if not all(type(s) is str for s in doc["keys"] + doc["proof"]) or not doc["keys"] or \
                not all(re.fullmatch("[0-9a-f]{64}", hash_text) for hash_text in doc["proof"]):
            raise Stop(TAMPERED, "keys and proof must be notes and hashes")
        cp, record = Checkpoint(doc["checkpoint"].encode(), "checkpoint"), doc["record"].encode()
        chain = Chain([(f"keys[{i}]", note.encode()) for i, note in enumerate(doc["keys"])], doc["origin"])
        chain.check_trust(trust, "--trust", UNKNOWN)
        others = chain.check(cp)
        root = climb(sha256(b"\x00", record), doc["index"], cp.size, map(bytes.fromhex, doc["proof"]))
        if not 0 <= doc["index"] < cp.size or root != cp.root:
            raise Stop(TAMPERED, "the record is not in the tree of the checkpoint at this index")
        check_record(doc["index"], record, report.add)
        report.facts.update(origin=cp.origin, index=doc["index"], size=cp.size, record=doc["record"])
        report.skipped += [f"the signature of {other[:80]} on the checkpoint" for other in others]
        report.skip("the rest of the log; whether what the record says is true")
    except Stop as error:
        report.add(*error.args)
    except UnicodeEncodeError:
        report.add(TAMPERED, "not UTF-8")
    return report

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="RECEIPT")
    parser.add_argument("--trust", metavar="FILE", required=True, help="trust.json, kept by yourself")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.error = lambda message: sys.exit(parser.print_usage() or print(message, file=sys.stderr) or USAGE)
    o = parser.parse_args()
    try:
        trust = load_trust(read_file(o.trust), "--trust", USAGE)
        return worst([check_receipt(read_file(path, RECEIPT_MAX), path, trust).show(o.json) for path in o.paths])
    except Stop as error:
        print(f"phalanx_receipt: {error.args[1]}", file=sys.stderr)
        return error.args[0]

if __name__ == "__main__":
    sys.exit(main())
