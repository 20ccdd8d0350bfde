"""How every command ends: 0 done, or one of these."""

from __future__ import annotations

#: the chain or a task failed, or what was looked at is not as it should be
EXIT_FAILED = 1
#: what was typed, or what is written in a file, cannot be
EXIT_WRONG_INPUT = 2
#: Ctrl-C, as shells count it
EXIT_INTERRUPTED = 130
