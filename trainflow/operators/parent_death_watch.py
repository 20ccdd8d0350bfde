"""End a process group when the process that started it dies without a word.

A process killed with SIGKILL ends nothing itself, and a trainer that goes on would share the machine with the next
try. So a small shell waits at a pipe: a line means that all went well, the end of the pipe that its owner is gone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

#: how long a group may clean up after SIGTERM, in tenths of a second
_GRACE_TENTHS = 100
_WATCH = """
read -r line && exit 0
kill -s TERM -- "-$1" 2>/dev/null
left=$2
while [ "$left" -gt 0 ] && kill -s 0 -- "-$1" 2>/dev/null; do left=$((left - 1)); sleep 0.1; done
kill -s KILL -- "-$1" 2>/dev/null
"""


class ParentDeathWatch:
    """Watches over the process group `group`, from now until `release`."""

    def __init__(self, group: int) -> None:
        """Raises OSError when no shell can be started."""
        reading, self._writing = os.pipe()
        try:
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH, "death-watch", str(group), str(_GRACE_TENTHS)],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # not in the caller's group: what is sent to that one must not end the watch
                process_group=0,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)

    def release(self) -> None:
        """The group has ended in the ordinary way."""
        with contextlib.suppress(OSError):
            os.write(self._writing, b"\n")
        os.close(self._writing)
        self._watcher.wait()
