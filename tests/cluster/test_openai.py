# SPDX-License-Identifier: Apache-2.0
"""The official openai client against the HTTP API."""
import openai
import pytest
from phalanx_cluster import ask

CALCULATOR = {"type": "function", "function": {
    "name": "calculator", "description": "Evaluate an arithmetic expression.",
    "parameters": {"type": "object",
                   "properties": {"expression": {"type": "string", "description": "The expression."}},
                   "required": ["expression"]}}}


def user(text):
    return [{"role": "user", "content": text}]


def test_models(cluster):
    models = cluster.client().models.list().data
    assert [m.id for m in models] == [cluster.model]
    assert cluster.client().models.retrieve(cluster.model).id == cluster.model


def test_chat_answers_with_reasoning_and_usage(cluster):
    answer = cluster.client().chat.completions.create(
        model=cluster.model, messages=user("What is 347 + 58?"), temperature=0)
    message = answer.choices[0].message
    assert message.content == "405"
    assert "347+058" in message.reasoning_content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 100
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens_details.reasoning_tokens < answer.usage.completion_tokens


def test_receipt_and_request_id_headers(cluster):
    raw = cluster.client().chat.completions.with_raw_response.create(
        model=cluster.model, messages=user("What is 1 + 1?"), temperature=0)
    assert raw.headers["x-request-id"]
    assert raw.headers["x-phalanx-receipt"]


def test_stream_equals_whole(cluster):
    whole = ask(cluster, "What is 58 - 347?")
    stream = cluster.client().chat.completions.create(
        model=cluster.model, messages=user("What is 58 - 347?"), temperature=0, stream=True,
        stream_options={"include_usage": True})
    content, reasoning, finish, usage, n_chunks = "", "", None, None, 0
    for chunk in stream:
        n_chunks += 1
        usage = chunk.usage or usage
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            finish = choice.finish_reason or finish
    assert (content, reasoning) == (whole.content, whole.reasoning_content)
    assert content == "-289"
    assert finish == "stop" and usage.completion_tokens > 10
    assert n_chunks >= 3, "text, finish reason, usage: tokens that are there together share a frame"


def test_tokens_come_as_they_are_made(cluster):
    stream = cluster.client().completions.create(model=cluster.model, prompt="1 2 3", max_tokens=3000, temperature=0, stream=True,
                                                 extra_body={"ignore_eos": True})
    assert sum(1 for chunk in stream if chunk.choices and chunk.choices[0].text) > 10


def test_completions(cluster):
    answer = cluster.client().completions.create(
        model=cluster.model, prompt="Hello", max_tokens=5, temperature=0)
    assert answer.object == "text_completion"
    assert answer.usage.completion_tokens <= 5
    stream = cluster.client().completions.create(
        model=cluster.model, prompt="Hello", max_tokens=5, temperature=0, stream=True)
    assert "".join(c.choices[0].text for c in stream if c.choices) == answer.choices[0].text


def test_completion_of_token_ids_equals_text(cluster):
    client = cluster.client()
    text = client.completions.create(model=cluster.model, prompt="abc", max_tokens=4, temperature=0)
    ids = client.completions.create(model=cluster.model, prompt=[97, 98, 99], max_tokens=4,
                                    temperature=0)
    assert text.choices[0].text == ids.choices[0].text


def test_logprobs(cluster):
    answer = cluster.client().chat.completions.create(
        model=cluster.model, messages=user("What is 2 + 3?"), temperature=0, logprobs=True,
        top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert "".join(e.token for e in entries) == answer.choices[0].message.content
    for e in entries:
        assert e.logprob <= 0 and len(e.top_logprobs) == 3
        assert e.top_logprobs[0].logprob >= e.top_logprobs[1].logprob >= e.top_logprobs[2].logprob
        assert e.top_logprobs[0].token == e.token, "temperature 0 takes the likeliest"
        assert bytes(e.bytes).decode() == e.token


def test_completion_logprobs_have_their_own_shape(cluster):
    answer = cluster.client().completions.create(
        model=cluster.model, prompt="Hello", max_tokens=3, temperature=0, logprobs=2)
    lp = answer.choices[0].logprobs
    assert len(lp.tokens) == len(lp.token_logprobs) == len(lp.top_logprobs) == len(lp.text_offset)


def test_seed_repeats_and_differs(cluster):
    def draw(seed):
        return cluster.client().completions.create(
            model=cluster.model, prompt="the", max_tokens=24, temperature=1.9, seed=seed).choices[0].text

    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(6)}) > 1


def test_stop_strings(cluster):
    answer = cluster.client().chat.completions.create(
        model=cluster.model, messages=user("What is 347 + 58?"), temperature=0, stop=["05"])
    assert answer.choices[0].message.content == "4"
    assert answer.choices[0].finish_reason == "stop"


def test_n_choices(cluster):
    answer = cluster.client().chat.completions.create(
        model=cluster.model, messages=user("What is 347 + 58?"), temperature=0, n=3)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert {c.message.content for c in answer.choices} == {"405"}


def test_length(cluster):
    answer = cluster.client().chat.completions.create(
        model=cluster.model, messages=user("What is 347 + 58?"), temperature=0, max_tokens=4)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 4


def test_tool_call_and_its_result(cluster):
    client = cluster.client()
    messages = user("What is 347 + 58?")
    first = client.chat.completions.create(model=cluster.model, messages=messages, temperature=0,
                                           tools=[CALCULATOR])
    call = first.choices[0].message.tool_calls[0]
    assert first.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "calculator"
    assert call.function.arguments == '{"expression":"347+58"}'
    messages += [first.choices[0].message.model_dump(exclude_none=True),
                 {"role": "tool", "tool_call_id": call.id, "content": "405"}]
    second = client.chat.completions.create(model=cluster.model, messages=messages, temperature=0,
                                            tools=[CALCULATOR])
    assert "405" in second.choices[0].message.content


def test_earlier_turns(cluster):
    answer = cluster.client().chat.completions.create(
        model=cluster.model, temperature=0,
        messages=user("What is 2 + 2?") + [{"role": "assistant", "content": "2 + 2 = 4"}]
        + user("What is 30 - 12?"))
    assert answer.choices[0].message.content == "18"


@pytest.mark.parametrize("fields, name", [
    ({"temperature": -1}, "temperature"),
    ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
    ({"logit_bias": {"99999": 1}}, "logit_bias"),
    ({"n": 100}, "n"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"max_tokens": 10 ** 6}, "max_tokens"),
])
def test_bad_fields_are_refused_by_name(cluster, fields, name):
    with pytest.raises(openai.BadRequestError) as caught:
        cluster.client().chat.completions.create(
            model=cluster.model, messages=user("hi"), **fields)
    assert name in str(caught.value)


def test_unknown_model_and_bad_key(cluster):
    with pytest.raises(openai.NotFoundError):
        cluster.client().chat.completions.create(model="gpt-9", messages=user("hi"))
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=cluster.url + "/v1", api_key="phx_wrong",
                      max_retries=0).models.list()


def test_a_prompt_over_the_context_is_refused(cluster):
    with pytest.raises(openai.BadRequestError):
        ask(cluster, "a" * 200000)


def test_logit_bias_forbids_a_token(cluster):
    free = cluster.client().completions.create(model=cluster.model, prompt="aaa", max_tokens=1,
                                               temperature=0, logprobs=1)
    token = ord(free.choices[0].logprobs.tokens[0][0]) if free.choices[0].text else 97
    bound = cluster.client().completions.create(model=cluster.model, prompt="aaa", max_tokens=1,
                                                temperature=0, logit_bias={str(token): -100})
    assert bound.choices[0].text != free.choices[0].text
