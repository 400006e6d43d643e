# SPDX-License-Identifier: Apache-2.0
"""Guesses from the text so far: fewer steps, the same bits."""
import random

import pytest
from engine import DEMO, GOLDEN, run, start

MODELS = [GOLDEN / "llama3-tied-bf16", GOLDEN / "gpt-oss-window-f32", DEMO]
LAYOUTS = [(1, 1), (2, 1), (1, 2), (2, 2)]
LOOKUP = ("--speculate", "lookup")


def make_requests(count=8, vocab=96):
    """Texts that repeat themselves, answered in every way of sampling; logit biases make some answers repeat too."""
    r = random.Random(4)
    requests = []
    for i in range(count):
        word = [r.randrange(vocab) for _ in range(r.randrange(3, 12))]
        tokens = (word * 20)[:20 + r.randrange(20)]
        requests.append({
            "id": i + 1, "tokens": tokens, "max_new": r.randrange(1, 50) if i else 50,
            "temperature": [0, 1, 0.3][i % 3], "top_p": [1, 0.9][i % 2], "top_k": [0, 5][i % 2],
            "repetition_penalty": [1, 1, 1.05][i % 3], "presence_penalty": [0, 0, 0, 0.5][i % 4],
            "frequency_penalty": [0, 0.2, 0][i % 3], "min_p": [0, 0.1][i % 2], "seed": 77 + i,
            "logit_bias": [[t, 14] for t in word[:2]] if i % 2 else [], "logprobs": [3, -1, 0][i % 3],
            "stop_ids": word[1:2] if i == 5 else [], "ignore_eos": i % 4 == 1, "after": 12 * (i // 2)})
    return requests


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The answers without guesses."""
    known = {}

    def get(model):
        if model not in known:
            known[model] = run(tmp_path_factory.mktemp("plain"), make_requests(), model)
        return known[model]

    return get


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: f"{v[0]}x{v[1]}")
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_guesses_change_no_bit_at_any_layout(plain, tmp_path, model, layout):
    guessed = run(tmp_path, make_requests(), model, *layout, *LOOKUP)
    assert guessed.answers() == plain(model).answers()
    assert plain(model).total["drafted"] == 0
    assert guessed.total["drafted"] > guessed.total["accepted"] > 10  # right ones and wrong ones
    n_tokens = sum(len(guessed.tokens(r["id"])) for r in make_requests())
    assert guessed.total["decode_rows"] < n_tokens - guessed.total["accepted"]


@pytest.mark.parametrize("extra", [("--max-seqs", 1), ("--max-rows", 5), ("--no-prefix-cache",),
                                   ("--kv-blocks", 9, "--max-context", 96), ("--kv-dtype", "bf16"), ("--compute", "bf16")],
                         ids=lambda v: v[0][2:])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_guesses_change_no_bit_at_any_size(tmp_path, model, extra):
    plain = run(tmp_path, make_requests(), model, 1, 1, *extra)
    guessed = run(tmp_path, make_requests(), model, 1, 1, *extra, *LOOKUP)
    assert guessed.answers() == plain.answers()
    assert guessed.total["drafted"] > 0


def test_cancelling_takes_the_guesses_along(tmp_path):
    requests = make_requests()
    for request in requests[::2]:
        request["cancel_after"] = request["after"] + 4
    guessed = run(tmp_path, requests, DEMO, 1, 2, *LOOKUP)
    plain = run(tmp_path, make_requests(), DEMO)
    for request in requests:
        told = guessed.tokens(request["id"])
        assert told == plain.tokens(request["id"])[:len(told)]


def test_an_answer_made_with_guesses_is_read_back_without_a_gap(tmp_path):
    requests = [dict(r, stop_ids=[], max_new=40) for r in make_requests()]
    made = run(tmp_path, requests, DEMO, 1, 1, *LOOKUP)
    checks = [dict(r, tokens=r["tokens"] + made.tokens(r["id"]), check=len(made.tokens(r["id"])))
              for r in requests]
    read = run(tmp_path, checks, DEMO, 1, 1, *LOOKUP)
    for request in requests:
        assert all(e["gap"] == "0" or e["gap"] == 0 for e in read.events[request["id"]])
        assert read.tokens(request["id"]) == made.tokens(request["id"])


def test_an_unknown_way_of_guessing_is_refused(tmp_path):
    done = start(tmp_path, make_requests(1), DEMO, 1, 1, "--speculate", "always")
    assert done.returncode == 2 and "off or lookup" in done.stderr
