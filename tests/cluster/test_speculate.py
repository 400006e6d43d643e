# SPDX-License-Identifier: Apache-2.0
"""engine.speculate changes how many steps an answer takes, and nothing that a client or a bill sees."""
import re
import urllib.request

import pytest
from phalanx_cluster import Cluster

TEXTS = ["What is 12 + 30?", "12 + 30 = 42. 12 + 30 = 42. 12 + 30 =", "abc abc abc abc abc abc abc", "a, b, a, b, a, b, a,"]
WAYS = [{"temperature": 0}, {"temperature": 1, "seed": 5}, {"temperature": 0, "logprobs": 3},
        {"temperature": 0.5, "seed": 6, "presence_penalty": 0.3, "frequency_penalty": 0.2},
        {"temperature": 0, "stop": ["4"]}, {"temperature": 0.8, "seed": 7, "n": 3}]


def answers_of(cluster):
    """Text, log-probabilities, end and bill of every question asked in every way."""
    client, answers = cluster.client(), []
    for text in TEXTS:
        for way in WAYS:
            a = client.completions.create(model=cluster.model, prompt=text, max_tokens=60, **way)
            answers.append(([(c.text, c.finish_reason, c.logprobs) for c in a.choices],
                            a.usage.prompt_tokens, a.usage.completion_tokens))
    chat = client.chat.completions.create(model=cluster.model, temperature=0, messages=[
        {"role": "user", "content": "What is 12 + 30?"}])
    return answers + [(chat.choices[0].message.content, chat.usage.completion_tokens)]


def count_of(cluster, name):
    request = urllib.request.Request(cluster.url + "/metrics", headers={"Authorization": "Bearer " + cluster.key})
    with urllib.request.urlopen(request, timeout=10) as page:
        return sum(float(n) for n in re.findall(rf"^{name}\S* (\S+)$", page.read().decode(), re.MULTILINE))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("plain") / "data", extra=("--set", "engine.speculate=off")).start()
    answers = answers_of(cluster)
    assert count_of(cluster, "phalanx_draft_tokens_total") == 0
    assert cluster.stop() == 0
    return answers


@pytest.mark.parametrize("tp, pp", [(1, 1), (2, 1), (1, 2)])
def test_answers_and_bills_are_the_same(tmp_path, plain, tp, pp):
    cluster = Cluster(tmp_path / "data", tp, pp, extra=("--set", "engine.speculate=lookup")).start()
    assert answers_of(cluster) == plain
    drafted, accepted = (count_of(cluster, f"phalanx_{what}_tokens_total") for what in ("draft", "accepted"))
    assert drafted > accepted > 100
    assert cluster.stop() == 0
