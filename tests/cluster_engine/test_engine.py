# SPDX-License-Identifier: Apache-2.0
"""The engine alone: whatever layout, chunk, neighbour, cache hit or preemption, the same bits come out."""
import random

import pytest
from engine import DEMO, GOLDEN, run, start

MODELS = [GOLDEN / "llama3-tied-bf16", GOLDEN / "gpt-oss-window-f32", DEMO]
LAYOUTS = [(2, 1), (1, 2), (2, 2)]


def make_requests(seed=1, count=10, vocab=96, max_new=12):
    """A mix of everything that can be asked for; some share a prefix of 40 tokens."""
    r = random.Random(seed)
    prefix = [r.randrange(vocab) for _ in range(40)]
    requests = []
    for i in range(count):
        own = [r.randrange(vocab) for _ in range(r.randrange(1, 50))]
        requests.append({
            "id": i + 1, "tokens": prefix + own if i % 2 else own, "max_new": r.randrange(1, max_new + 1),
            "temperature": [0, 1, 0.7][i % 3], "top_p": [1, 0.9][i % 2], "top_k": [0, 20, 0, 0][i % 4],
            "min_p": [0, 0, 0, 0.05][i % 4], "repetition_penalty": [1, 1.2][i % 2],
            "presence_penalty": [0, 0.5, 0][i % 3], "frequency_penalty": [0, 0, 0.3][i % 3],
            "logit_bias": [[5, 2.5], [7, -100]] if i % 4 == 1 else [], "seed": 1000 + i,
            "logprobs": [-1, 0, 3][i % 3], "ignore_eos": True, "after": r.randrange(6),
            "salt": "tenant-a"})
    return requests


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The answers of one rank, requests as they come."""
    known = {}

    def get(model):
        if model not in known:
            known[model] = run(tmp_path_factory.mktemp("reference"), make_requests(), model)
        return known[model]

    return get


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_every_request_is_answered_to_its_length(reference, model):
    for request in make_requests():
        events = reference(model).events[request["id"]]
        assert [e["index"] for e in events] == list(range(request["max_new"]))
        assert [e["finish"] != "none" for e in events] == [False] * (len(events) - 1) + [True]
        assert events[-1]["finish"] == "length"
        wanted = max(request["logprobs"], 0)
        assert all(len(e["top"]) == wanted for e in events)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: f"{v[0]}x{v[1]}")
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_layouts_agree_bit_for_bit(reference, tmp_path, model, layout):
    assert run(tmp_path, make_requests(), model, *layout).answers() == reference(model).answers()


@pytest.mark.parametrize("layout", [(1, 1), (2, 2)], ids=lambda v: f"{v[0]}x{v[1]}")
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_chunks_of_a_prompt_change_no_bit(reference, tmp_path, model, layout):
    small = run(tmp_path, make_requests(), model, *layout, "--max-rows", 7)
    assert small.answers() == reference(model).answers()


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_prefix_hits_change_no_bit(reference, tmp_path, model):
    without = run(tmp_path, make_requests(), model, 1, 1, "--no-prefix-cache")
    assert without.total["prefix_hit_tokens"] == 0
    assert without.answers() == reference(model).answers()
    assert reference(model).total["prefix_hit_tokens"] > 0
    hits = [e[0]["cached"] for e in reference(model).events.values()]
    assert max(hits) == 32  # the two whole blocks of the shared 40 tokens


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_neighbours_change_no_bit(reference, tmp_path, model):
    for request in make_requests()[::3]:
        alone = run(tmp_path, [request], model)
        assert alone.answer(request["id"]) == reference(model).answer(request["id"])


@pytest.mark.parametrize("layout", [(1, 1), (2, 2)], ids=lambda v: f"{v[0]}x{v[1]}")
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_preemption_changes_no_bit(tmp_path, model, layout):
    requests = make_requests(seed=2, count=6, max_new=70)
    for request in requests:
        request["max_new"] = 70 - len(request["tokens"]) // 2
    plenty = run(tmp_path, requests, model)
    tight = run(tmp_path, requests, model, *layout, "--kv-blocks", 14, "--no-prefix-cache")
    assert plenty.total["preempted"] == 0 and tight.total["preempted"] > 0
    assert tight.answers() == plenty.answers()


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_a_resumed_request_goes_on_where_it_stopped(reference, tmp_path, model):
    resumed = []
    for request in make_requests():
        made = reference(model).tokens(request["id"])
        keep = len(made) // 2
        if keep and keep < len(made):
            resumed.append(dict(request, tokens=request["tokens"] + made[:keep], n_prompt=len(request["tokens"]),
                                max_new=request["max_new"] - keep))
    again = run(tmp_path, resumed, model, 1, 2)
    assert len(resumed) >= 5
    for request in resumed:
        keep = len(request["tokens"]) - request["n_prompt"]
        assert again.answer(request["id"]) == reference(model).answer(request["id"])[keep:]


def test_tenants_do_not_share_a_cache(tmp_path):
    request = {"tokens": list(range(64)), "max_new": 2}
    requests = [dict(request, id=1, salt="a"), dict(request, id=2, salt="b", after=4),
                dict(request, id=3, salt="a", after=8)]
    done = run(tmp_path, requests, MODELS[0])
    assert [done.events[i][0]["cached"] for i in (1, 2, 3)] == [0, 0, 48]


def test_a_stop_id_ends_and_is_delivered(tmp_path):
    free = run(tmp_path, [{"id": 1, "tokens": [1, 2, 3], "max_new": 8}], MODELS[0])
    stop = free.tokens(1)[3]
    requests = [{"id": 1, "tokens": [1, 2, 3], "max_new": 8, "stop_ids": [stop]},
                {"id": 2, "tokens": [1, 2, 3], "max_new": 8, "stop_ids": [stop], "ignore_eos": True}]
    done = run(tmp_path, requests, MODELS[0])
    first = free.tokens(1).index(stop)
    assert done.tokens(1) == free.tokens(1)[:first + 1] and done.finish(1) == "stop"
    assert done.tokens(2) == free.tokens(1) and done.finish(2) == "length"


@pytest.mark.parametrize("layout", [(1, 1), (2, 2)], ids=lambda v: f"{v[0]}x{v[1]}")
def test_cancelling_one_leaves_the_others_alone(tmp_path, layout):
    requests = [{"id": 1, "tokens": [1, 2, 3], "max_new": 20, "cancel_after": 5},
                {"id": 2, "tokens": [4, 5], "max_new": 20},
                {"id": 3, "tokens": [6], "max_new": 3, "after": 2, "cancel_after": 2}]
    done = run(tmp_path, requests, MODELS[0], *layout)
    alone = run(tmp_path, requests[1:2], MODELS[0])
    assert done.finish(1) == "cancelled" and 1 <= len(done.tokens(1)) < 20
    assert done.finish(3) == "cancelled"
    assert done.answer(2) == alone.answer(2)


def test_what_cannot_run_is_refused_and_hurts_nobody(tmp_path):
    good = {"id": 1, "tokens": [1, 2, 3], "max_new": 4}
    requests = [good, {"id": 2, "tokens": [1, 999999], "max_new": 4}, {"id": 3, "tokens": [1] * 300, "max_new": 4},
                {"id": 4, "tokens": [1], "max_new": 4, "temperature": -1},
                {"id": 5, "tokens": [1], "max_new": 4, "n_prompt": 7}, {"id": 6, "tokens": [], "max_new": 4}]
    done = run(tmp_path, requests, MODELS[0], 1, 1, "--max-context", 64)
    assert done.answer(1) == run(tmp_path, [good], MODELS[0]).answer(1)
    assert [done.finish(i) for i in range(2, 7)] == ["error"] * 5


def test_the_context_ends_a_request(tmp_path):
    done = run(tmp_path, [{"id": 1, "tokens": [1] * 60, "max_new": 100}], MODELS[0], 1, 1, "--max-context", 64)
    assert len(done.tokens(1)) == 4 and done.finish(1) == "length"


@pytest.mark.parametrize("arguments, words", [
    (["--tp", "3"], "tp"), (["--pp", "99"], "pp"), (["--kv-memory", "10"], "--kv-memory"),
    (["--max-context", "1000000"], "max_context"), (["--backend", "tpu"], "tpu"),
], ids=lambda v: str(v))
def test_an_impossible_start_says_why(tmp_path, arguments, words):
    done = start(tmp_path, [{"id": 1, "tokens": [1]}], MODELS[0], 1, 1, *arguments)
    assert done.returncode == 1 and words in done.stderr and "phalanx-rank: " in done.stderr


@pytest.mark.parametrize("line, words", [
    ({"id": 1, "tokens": [1], "speed": 9}, "speed"), ({"id": 1, "tokens": [1.5]}, "tokens[0]"),
    ({"id": 1, "tokens": [1], "logprobs": 21}, "logprobs"), ({"id": 1, "tokens": [1], "top_p": "x"}, "top_p"),
], ids=lambda v: str(v))
def test_a_bad_script_is_refused_by_name(tmp_path, line, words):
    done = start(tmp_path, [line], MODELS[0])
    assert done.returncode == 1 and words in done.stderr and "request 1" in done.stderr
