"""Bugs that a session has to find: each the text of a sitecustomize, which every process of the project imports."""

from __future__ import annotations

_WRAP = """\
import os
import time

from trainflow.operators.training import training_context

right = training_context.TrainContext.batches


def batches(self, *arguments, **options):
    found = right(self, *arguments, **options)
{change}
    return found


training_context.TrainContext.batches = batches
"""

#: what goes on from a save leaves out the batch that comes next, as a position that is one batch ahead does; the first
#: attempt of all stands still once two batches are saved, so that it is killed at work however busy the machine is
SKIPS_AFTER_KILL = _WRAP.format(
    change="""\
    if self.saved is not None:
        next(iter(found), None)
    elif len(os.listdir(self.project_root / "diary")) == 1:

        class Standing:
            total_rows = found.total_rows
            position = property(lambda self: found.position)

            def __iter__(self):
                for number, batch in enumerate(found):
                    time.sleep(3600 if number == 2 else 0)
                    yield batch

        return Standing()"""
)

#: after a rewind the rows of a split come twice
TWICE_AFTER_REWIND = _WRAP.format(
    change="""\
    ledger = self.project_root / "checkpoints"
    if any('"kind":"rewind"' in path.read_text() for path in ledger.glob("*/*/*/ledger/0*.json")):
        again = right(self, *arguments, **options)

        class Twice:
            total_rows = found.total_rows
            position = property(lambda self: found.position)

            def __iter__(self):
                yield from found
                yield from again

        return Twice()"""
)
