# SPDX-License-Identifier: Apache-2.0
import pytest
from phalanx_cluster import Cluster


@pytest.fixture(scope="session")
def clusters(tmp_path_factory):
    """clusters(tp, pp): a running demo cluster of that layout, shared by the session."""
    running = {}

    def get(tp=1, pp=1):
        if (tp, pp) not in running:
            folder = tmp_path_factory.mktemp(f"cluster-{tp}x{pp}") / "data"
            running[tp, pp] = Cluster(folder, tp, pp).start()
        return running[tp, pp]

    yield get
    codes = [c.stop() for c in running.values()]
    assert all(code == 0 for code in codes), codes


@pytest.fixture(scope="session")
def cluster(clusters):
    return clusters(2, 1)


@pytest.fixture
def own_cluster(tmp_path):
    """own_cluster(tp, pp, ...): a cluster that the test may break."""
    made = []

    def make(tp=1, pp=1, **kwargs):
        made.append(Cluster(tmp_path / f"data{len(made)}", tp, pp, **kwargs).start())
        return made[-1]

    yield make
    for c in made:
        if c.process.poll() is None:
            c.process.kill()
            c.process.wait()
