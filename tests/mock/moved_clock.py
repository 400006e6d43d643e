# SPDX-License-Identifier: Apache-2.0
"""A wall clock that a test moves while programs run (movedclock.c)."""
import struct
import time

import pytest
from mock_daemon import TESTS

HOUR, DAY = 3600, 86400


class MovedClock:
    def __init__(self, folder):
        if not (TESTS / "movedclock.so").exists():
            pytest.skip("movedclock.so is not built under sanitizers")
        self.path = folder / "moved-clock"
        self.seconds = 0
        self.move(0)
        self.environment = {"LD_PRELOAD": str(TESTS / "movedclock.so"), "MOVEDCLOCK_FILE": str(self.path)}

    def move(self, seconds):
        """Ahead by so much more; the file is changed in place, since programs have it mapped."""
        self.seconds += seconds
        with open(self.path, "r+b" if self.path.exists() else "wb") as file:
            file.write(struct.pack("=q", self.seconds * 10**9))

    def time(self):
        return time.time() + self.seconds

    def format(self, ahead=0, form="%Y-%m-%dT%H:%M:%SZ"):
        return time.strftime(form, time.gmtime(self.time() + ahead))
