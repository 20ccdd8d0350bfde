"""The audit's own replay knows every kind of entry, although it shares no code with the ledger."""

from __future__ import annotations

import ast
import inspect
from typing import get_args

from trainflow.checkpoints.audit.raw_chain import replay
from trainflow.checkpoints.ledger.entries import LedgerEntry

#: checkpoints are told by their type; what begins a chain is all that is left
_OTHERWISE = {"checkpoint", "hole filled", "fork", "adoption"}


def test_replay_has_case_for_every_kind_of_entry() -> None:
    kinds = {str(each.__struct_config__.tag) for each in get_args(LedgerEntry)}
    patterns = (node for node in ast.walk(ast.parse(inspect.getsource(replay))) if isinstance(node, ast.MatchValue))
    cases = {pattern.value.value for pattern in patterns if isinstance(pattern.value, ast.Constant)}

    assert cases | _OTHERWISE == kinds
