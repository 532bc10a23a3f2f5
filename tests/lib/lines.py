"""The lines that a process says, as they come."""

import threading

from .command import TIMEOUT


class Lines:
    """What comes from a stream, collected by a thread of its own."""

    def __init__(self, stream):
        self.all = []
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream):
        for line in stream:
            with self._more:
                self.all.append(line)
                self._more.notify_all()

    def until(self, text, times=1):
        """Wait for a line with a text in it; that line."""
        with self._more:
            found = self._more.wait_for(lambda: sum(text in line for line in self.all) >= times, TIMEOUT)
        assert found, self.all
        return [line for line in self.all if text in line][times - 1]
