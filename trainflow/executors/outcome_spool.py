"""Outcomes that attempts wrote to disk because no engine was there to hear them."""

from __future__ import annotations

import contextlib
import logging

import msgspec

from trainflow.errors import StateError
from trainflow.messages.execution_api import ExecutionApi
from trainflow.messages.outcome import Outcome
from trainflow.messages.workload import AttemptKey
from trainflow.settings.home import Home

log = logging.getLogger(__name__)


def apply_spooled(home: Home, api: ExecutionApi, key: AttemptKey) -> bool:
    """Apply what an attempt wrote down, if it did: returns whether. It stays there when it cannot be applied now."""
    path = home.outcome(key.attempt_id, key.deferral_number)
    try:
        outcome = msgspec.json.decode(path.read_bytes(), type=Outcome)
    except FileNotFoundError:
        return False
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        log.warning("%s cannot be read (%s): the attempt counts as lost", path, error)
        path.unlink(missing_ok=True)
        return False
    with contextlib.suppress(StateError):
        api.handle(outcome)
    path.unlink(missing_ok=True)
    return True
