# SPDX-License-Identifier: Apache-2.0
"""A signed folder is checked by several threads of every rank: no file is left out, whatever their number."""
import shutil
import subprocess

import pytest
from engine import BIN, DEMO, start

REQUESTS = [{"id": 1, "tokens": [1, 2, 3], "max_new": 1}]
EXTRA_FILES = 37  # more than the parts of two ranks, and no multiple of them


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signed") / "model"
    shutil.copytree(DEMO, folder)
    (folder / "model.sig").unlink()
    for i in range(EXTRA_FILES):
        (folder / f"extra-{i:02}.json").write_text(f"{{\"number\": {i}}}\n")
    key = folder.parent / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key],
                   check=True, capture_output=True)
    subprocess.run([BIN / "phalanx-model", "sign", folder, "--key", key], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("tp, threads", [(1, 1), (1, 3), (1, 20), (2, 2)])
def test_a_change_anywhere_is_found(signed, tmp_path, tp, threads):
    def load():
        return start(tmp_path, REQUESTS, signed, tp, 1, "--threads", threads)

    assert load().returncode == 0
    for i in range(0, EXTRA_FILES, 1 if tp == 1 and threads == 3 else 6):
        path = signed / f"extra-{i:02}.json"
        text = path.read_text()
        path.write_text(text.replace("number", "numbeR"))  # the same size
        try:
            done = load()
        finally:
            path.write_text(text)
        assert done.returncode != 0, path.name
        assert f"{path.name}: has other content" in done.stderr
