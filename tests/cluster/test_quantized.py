# SPDX-License-Identifier: Apache-2.0
"""The demo model as an int8 copy, signed as derived from the original, answers its sums through `phalanx up`."""
import shutil
import subprocess

from phalanx_cluster import BIN, DEMO, ROOT, questions
from test_answers import answers_of, is_right

N_QUESTIONS = 60


def test_the_quantised_demo_model_answers_sums(own_cluster, tmp_path):
    source, copy, key, public = (tmp_path / n for n in ("demo", "int8", "key.pem", "key.pub"))
    shutil.copytree(DEMO, source)
    shutil.copy(ROOT / "LICENSE", source / "LICENSE")
    (source / "NOTICE").write_text("The demo model of phalanx.\n")
    for arguments in (["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key],
                      ["openssl", "ec", "-in", key, "-pubout", "-out", public],
                      [BIN / "phalanx", "model", "quantize", source, copy, "--key", key, "--parent-key",
                       ROOT / "deploy/demo/model.pub"]):
        subprocess.run(arguments, check=True, capture_output=True)
    items = questions(N_QUESTIONS, seed=2)
    cluster = own_cluster(2, 1, model=copy, extra=["--set", f"model.key={public}"])
    answers = answers_of(cluster, items)
    assert sum(is_right(a, q) for a, q in zip(answers, items)) >= 0.95 * N_QUESTIONS
    assert cluster.stop() == 0
    loaded = own_cluster(1, 1, model=DEMO, extra=["--dtype", "int8"])
    assert answers_of(loaded, items) == answers  # what loading quantises answers the same
    assert loaded.stop() == 0
    narrow = own_cluster(1, 2, model=DEMO, extra=["--dtype", "int8", "--kv-dtype", "int8"])
    assert sum(is_right(a, q) for a, q in zip(answers_of(narrow, items), items)) >= 0.95 * N_QUESTIONS
