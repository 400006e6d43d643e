# SPDX-License-Identifier: Apache-2.0
import pytest
from mock_daemon import Daemon


@pytest.fixture
def make_daemon(tmp_path):
    """make_daemon(name, setting...) answers a prepared daemon, not started; all are gone when the test ends."""
    made = []

    def make(name="data", *settings, environment=None):
        daemon = Daemon(tmp_path / name, settings, environment)
        made.append(daemon)
        return daemon.prepare()

    yield make
    for daemon in made:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One running daemon for all tests of a file that do not disturb each other."""
    daemon = Daemon(tmp_path_factory.mktemp("shared") / "data").prepare().start()
    yield daemon
    daemon.kill()
