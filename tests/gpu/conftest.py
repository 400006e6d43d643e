# SPDX-License-Identifier: Apache-2.0
import pytest
from phalanx_cluster import Cluster


@pytest.fixture
def own_cluster(tmp_path):
    """own_cluster(tp, pp, ...): a cluster on the CPU."""
    made = []

    def make(tp=1, pp=1, **kwargs):
        made.append(Cluster(tmp_path / f"cpu{len(made)}", tp, pp, **kwargs).start())
        return made[-1]

    yield make
    for c in made:
        c.stop()
