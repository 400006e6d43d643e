# SPDX-License-Identifier: Apache-2.0
"""An answer read back in one prefill pass: what the engine gave is found to the bit, what it did not give is not."""
import json
import shutil

import pytest
from engine import DEMO, GOLDEN, run
from test_engine import LAYOUTS, MODELS, make_requests

LOGIT_GAP, MASS_GAP = 0.05, 0.005  # daemon/replay/replay.h


def check_of(request, answer, **changes):
    """The request that checks an answer."""
    own = {k: v for k, v in request.items() if k not in ("max_new", "cancel_after")}
    return dict(own, tokens=request["tokens"] + answer, n_prompt=len(request["tokens"]), check=len(answer), **changes)


def gaps(done, request):
    events = done.events[request["id"]]
    assert all(e["token"] >= 0 for e in events) and events[-1]["finish"] == "length"
    return [float(e["gap"]) for e in events]


def tolerance(request):
    return MASS_GAP if request.get("temperature", 0) > 0 else LOGIT_GAP


def count_over(done, request):
    return sum(gap > tolerance(request) for gap in gaps(done, request))


def expect_found(done, request, answer):
    events = done.events[request["id"]]
    assert [e["token"] for e in events] == answer
    assert [e["index"] for e in events] == list(range(len(answer)))
    assert [e["finish"] for e in events] == ["none"] * (len(answer) - 1) + ["length"]
    assert gaps(done, request) == [0.0] * len(answer)


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """Requests of every kind with the answers of one rank, log-probabilities included."""
    known = {}

    def get(model):
        if model not in known:
            requests = make_requests(seed=3, count=10, max_new=40)
            known[model] = requests, run(tmp_path_factory.mktemp("answered"), requests, model)
        return known[model]

    return get


@pytest.mark.parametrize("extra", [(), ("--max-rows", 7), ("--max-seqs", 2), ("--no-prefix-cache",)], ids=str)
@pytest.mark.parametrize("layout", [(1, 1), (2, 2)], ids=lambda v: f"{v[0]}x{v[1]}")
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_an_answer_is_found_on_every_layout_in_every_chunk(answered, tmp_path, model, layout, extra):
    requests, made = answered(model)
    checks = [check_of(r, made.tokens(r["id"])) for r in requests]
    done = run(tmp_path, checks, model, *layout, *extra)
    for request in requests:
        expect_found(done, request, made.tokens(request["id"]))
        assert [(e["logprob"], e["top"]) for e in done.events[request["id"]]] == \
            [(e["logprob"], e["top"]) for e in made.events[request["id"]]]
    assert done.total["decode_rows"] == 0


@pytest.mark.parametrize("layout", [(1, 1), *LAYOUTS], ids=lambda v: f"{v[0]}x{v[1]}")
def test_checks_and_answers_share_the_steps(answered, tmp_path, layout):
    """Beside checks every answer stays the same bits, and each check finds its answer."""
    requests, made = answered(MODELS[0])
    checks = [check_of(r, made.tokens(r["id"]), id=100 + r["id"]) for r in requests]
    done = run(tmp_path, requests + checks, MODELS[0], *layout, "--max-seqs", 6, "--max-rows", 40)
    for request in requests:
        assert done.answer(request["id"]) == made.answer(request["id"])
        expect_found(done, {"id": 100 + request["id"]}, made.tokens(request["id"]))


@pytest.mark.parametrize("layout", [(1, 1), (2, 2)], ids=lambda v: f"{v[0]}x{v[1]}")
def test_a_check_that_gives_way_goes_on_where_it_was(tmp_path, layout):
    requests = make_requests(seed=2, count=6, max_new=70)
    for i, request in enumerate(requests):
        request.update(max_new=70 - len(request["tokens"]) // 2, after=0, priority=int(i % 2))
    made = run(tmp_path, requests, MODELS[0])
    mixed = [check_of(r, made.tokens(r["id"])) if i % 2 == 0 else dict(r, after=3)
             for i, r in enumerate(requests)]
    done = run(tmp_path, mixed, MODELS[0], *layout, "--kv-blocks", 14, "--no-prefix-cache", "--max-rows", 9)
    assert done.total["preempted"] > 0
    for i, request in enumerate(requests):
        if i % 2 == 0:
            expect_found(done, request, made.tokens(request["id"]))
        else:
            assert done.answer(request["id"]) == made.answer(request["id"])


def test_a_check_may_fill_the_context(tmp_path):
    request = {"id": 1, "tokens": [1] * 60, "max_new": 100, "ignore_eos": True}
    made = run(tmp_path, [request], MODELS[0], 1, 1, "--max-context", 64)
    assert len(made.tokens(1)) == 4
    done = run(tmp_path, [check_of(request, made.tokens(1))], MODELS[0], 1, 1, "--max-context", 64)
    expect_found(done, request, made.tokens(1))


def test_a_check_is_cancelled_like_an_answer(answered, tmp_path):
    requests, made = answered(MODELS[0])
    check = check_of(requests[2], made.tokens(requests[2]["id"]), after=0, cancel_after=2)
    done = run(tmp_path, [check, dict(requests[0], after=0)], MODELS[0], 1, 1, "--max-rows", 4)
    assert done.finish(check["id"]) == "cancelled"
    assert done.answer(requests[0]["id"]) == made.answer(requests[0]["id"])


@pytest.mark.parametrize("check, n_prompt", [(4, 1), (5, None), (1, 4)])
def test_an_impossible_check_is_refused(tmp_path, check, n_prompt):
    request = {"id": 1, "tokens": [1, 2, 3, 4], "check": check}
    if n_prompt is not None:
        request["n_prompt"] = n_prompt
    done = run(tmp_path, [request], MODELS[0])
    assert done.finish(1) == "error" and done.tokens(1) == []


# ---- what must be caught

WINDOW = GOLDEN / "gpt-oss-window-f32"  # its answers are as varied as a small model's can be
KINDS = {"greedy": {"temperature": 0},
         "drawn": {"temperature": 0.8, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.2,
                   "repetition_penalty": 1.1, "logit_bias": [[5, 2.5], [7, -100]]}}


def make_kind(kind, count=12, length=40):
    return [dict(KINDS[kind], id=i + 1, tokens=[(7 * i + 3 * j + 1) % 90 for j in range(9 + i)], max_new=length,
                 seed=77 + i, ignore_eos=True) for i in range(count)]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    return {kind: run(tmp_path_factory.mktemp(kind), make_kind(kind), WINDOW) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_token_is_caught(kinds, tmp_path, kind):
    """Each answer with one token that the sampler did not draw: some position is over the tolerance."""
    checks = []
    for request in make_kind(kind):
        answer = list(kinds[kind].tokens(request["id"]))
        at = 3 * request["id"] % len(answer)
        answer[at] = (answer[at] + 31) % 96
        checks.append((check_of(request, answer), at))
    done = run(tmp_path, [c for c, _ in checks], WINDOW)
    for check, at in checks:
        assert gaps(done, check)[:at] == [0.0] * at
        assert gaps(done, check)[at] > 0
    caught = [count_over(done, c) > 0 for c, _ in checks]
    assert all(caught), caught


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_prompt_is_caught(kinds, tmp_path, kind):
    """Caught where the changed prompt has another answer; a greedy one may well be the same."""
    requests = []
    for request in make_kind(kind):
        prompt = list(request["tokens"])
        prompt[-1] = (prompt[-1] + 13) % 90
        requests.append(dict(request, tokens=prompt))
    checks = [check_of(r, kinds[kind].tokens(r["id"]), id=100 + r["id"]) for r in requests]
    done = run(tmp_path, requests + checks, WINDOW)
    is_other = [done.tokens(r["id"]) != kinds[kind].tokens(r["id"]) for r in requests]
    assert [count_over(done, c) > 0 for c in checks] == is_other
    assert sum(is_other) >= len(is_other) // 2


def test_another_seed_is_caught(kinds, tmp_path):
    checks = [check_of(r, kinds["drawn"].tokens(r["id"]), seed=5000 + r["id"]) for r in make_kind("drawn")]
    done = run(tmp_path, checks, WINDOW)
    assert all(count_over(done, c) > len(gaps(done, c)) // 4 for c in checks)


@pytest.mark.parametrize("change", [{"temperature": 1.0}, {"top_p": 1.0}, {"presence_penalty": -1.5},
                                    {"logit_bias": [[5, 20]]}], ids=str)
def test_another_sampler_is_caught(kinds, tmp_path, change):
    checks = [check_of(r, kinds["drawn"].tokens(r["id"]), **change) for r in make_kind("drawn")]
    done = run(tmp_path, checks, WINDOW)
    assert all(count_over(done, c) > 0 for c in checks)


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_are_caught(kinds, tmp_path, kind):
    """The same checkpoint with the sign of every 64th weight turned: every answer is doubted."""
    other = tmp_path / "other"
    shutil.copytree(WINDOW, other)
    path = next(other.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    for name, tensor in json.loads(data[8:begin]).items():
        if name != "__metadata__" and tensor["dtype"] == "F32":
            first, end = tensor["data_offsets"]
            for i in range(begin + first + 3, begin + end, 256):  # the sign of a float32 is in its last byte
                data[i] ^= 0x80
    path.write_bytes(data)
    checks = [check_of(r, kinds[kind].tokens(r["id"])) for r in make_kind(kind)]
    done = run(tmp_path, checks, other)
    assert all(count_over(done, c) > 0 for c in checks)


def test_a_check_is_one_prefill(tmp_path):
    """200 tokens of the demonstration model: every row is a row of a prompt.  The times are printed, not judged."""
    request = {"id": 1, "tokens": list(range(1, 33)), "max_new": 200, "ignore_eos": True}
    made = run(tmp_path, [request], DEMO, 1, 1, "--no-prefix-cache")
    done = run(tmp_path, [check_of(request, made.tokens(1))], DEMO, 1, 1, "--no-prefix-cache")
    expect_found(done, request, made.tokens(1))
    assert (done.total["prefill_rows"], done.total["decode_rows"]) == (231, 0)
    assert (made.total["prefill_rows"], made.total["decode_rows"]) == (32, 199)
    print(f"200 tokens: generated in {made.total['step_us']} us, checked in {done.total['step_us']} us")
