# SPDX-License-Identifier: Apache-2.0
"""The demo model is right or wrong: its held-out questions are counted, at every layout."""
import concurrent.futures

import pytest
from phalanx_cluster import ask, questions

N_QUESTIONS = 500


def answers_of(cluster, items):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda q: ask(cluster, q["question"]).content, items))


def is_right(answer, item):
    return answer is not None and answer.split("=")[-1].strip() == item["answer"]


@pytest.fixture(scope="module")
def reference(clusters):
    items = questions(N_QUESTIONS, seed=1)
    assert len({q["question"] for q in items}) > N_QUESTIONS * 0.9
    return items, answers_of(clusters(1, 1), items)


def test_additions_and_subtractions(reference):
    items, answers = reference
    n_right = sum(is_right(a, q) for a, q in zip(answers, items))
    assert n_right >= 0.99 * N_QUESTIONS, f"{n_right} of {N_QUESTIONS}"


@pytest.mark.parametrize("tp, pp", [(2, 1), (1, 2), (2, 2)])
def test_every_layout_answers_the_same(clusters, reference, tp, pp):
    items, expected = reference
    assert answers_of(clusters(tp, pp), items) == expected
