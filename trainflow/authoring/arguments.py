"""Check what a user passes to a DAG or an operator; every refusal names owner, argument and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar

from trainflow.bounds import LARGEST_INTEGER, LONGEST_DURATION, clip
from trainflow.errors import InputError, UnexpectedArgument
from trainflow.param_schema import check_json

_E = TypeVar("_E", bound=StrEnum)


class ArgNotSet:
    """Type of `NOTSET`, the value of an argument that was not given where None means something; there is one."""

    def __repr__(self) -> str:
        return "NOTSET"

    def __bool__(self) -> bool:
        return False


NOTSET: Final = ArgNotSet()

#: Airflow parameters people bring along, and why they have no counterpart
_NO_COUNTERPART = {
    "start_date": "pipelines trigger themselves, so no date decides when they run",
    "end_date": "pipelines trigger themselves, so no date decides when they run",
    "catchup": "there is no schedule to catch up with: a backfill is a chain of runs that trigger each other",
    "on_success_callback": "add a task with trigger_rule='all_success' instead",
    "on_failure_callback": "add a task with trigger_rule='one_failed' instead",
    "on_retry_callback": "there are no callbacks",
    "provide_context": "context is passed by parameter name",
    "owner": "put it into tags",
    "email": "there is no e-mail",
    "email_on_failure": "there is no e-mail",
    "email_on_retry": "there is no e-mail",
    "executor": "use queue",
    "wait_for_downstream": "use depends_on_past",
    "on_execute_callback": "there are no callbacks",
    "on_skipped_callback": "there are no callbacks",
    "sla": "give the task an execution_timeout, or the DAG a dagrun_timeout",
    "resources": "use pool and pool_slots",
    "run_as_user": "tasks run as the user of the engine",
    "inlets": "there are no assets",
    "outlets": "there are no assets",
    "tooltip": "there are no colours and no tooltips; say it in a comment, or in doc_md",
    "ui_color": "there are no colours and no tooltips",
    "ui_fgcolor": "there are no colours and no tooltips",
    "group_display_name": "the group_id is what people see",
    "add_suffix_on_collision": "give each group a group_id of its own",
    "on_failure_fail_dagrun": "teardowns do not decide about a run",
}


def nearest(name: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing when no name is near."""
    import difflib

    found = difflib.get_close_matches(name, sorted(allowed), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def refuse_unexpected(owner: str, unexpected: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise UnexpectedArgument for the first of `unexpected`; nothing when there is none."""
    for name in sorted(unexpected):
        hint = nearest(name, allowed)
        reason = f" ({_NO_COUNTERPART[name]})" if name in _NO_COUNTERPART else ""
        raise UnexpectedArgument(f"{owner} has no argument {name!r}{reason}.{hint}", owner=owner, argument=name)


def duration(value: timedelta | float, what: str, *, positive: bool = False) -> timedelta:
    """`value` as a timedelta; a number is seconds. Raises InputError when it is none, or negative."""
    if isinstance(value, timedelta):
        result = value
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e14:
        result = timedelta(seconds=value)
    else:
        raise InputError(f"{what}: {clip(value)} is no duration; give a timedelta or a number of seconds")
    if result > LONGEST_DURATION:
        raise InputError(f"{what}: {value!r} is too long; give at most {LONGEST_DURATION.days:,} days")
    if result < timedelta(0) or (positive and not result):
        raise InputError(f"{what}: {value!r} must be {'more than zero' if positive else 'zero or more'}")
    return result


def optional_duration(value: timedelta | float | None, what: str) -> timedelta | None:
    """A duration as `duration` gives it, positive; None stays None."""
    return None if value is None else duration(value, what, positive=True)


def whole_number(value: Any, what: str, *, at_least: int | None = None, at_most: int | None = LARGEST_INTEGER) -> int:
    """`value` if it is an int (and not a bool) within its bounds; raises InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{what}: {clip(value)} is no whole number")
    if at_least is not None and value < at_least:
        raise InputError(f"{what}: {clip(value)} is less than {at_least}")
    if at_most is not None and value > at_most:
        raise InputError(f"{what}: {clip(value)} is more than {at_most:,}")
    return value


def mapping(value: Any, what: str) -> dict[str, Any]:
    """`value` as a dict, empty for None. Raises InputError when it is none, or has keys that are no strings."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{what}: {clip(value)} is no dict; give {{name: value}}")
    for name in value:
        if not isinstance(name, str):
            raise InputError(f"{what}: {clip(name)} is no name; give strings")
    return dict(value)


def json_mapping(value: Any, what: str) -> dict[str, Any]:
    """`value` as a dict of what JSON has a form for, empty for None. Raises InputError."""
    found = mapping(value, what)
    check_json(found, what)
    return found


def yes_or_no(value: Any, what: str) -> bool:
    """`value` if it is a bool; raises InputError otherwise: text like "no" would count as True."""
    if not isinstance(value, bool):
        raise InputError(f"{what}: {clip(value)} is neither True nor False")
    return value


def optional_text(value: Any, what: str) -> str | None:
    """`value` if it is a string or None; raises InputError otherwise."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{what}: {clip(value)} is no string")
    return value


def texts(value: Any, what: str) -> list[str]:
    """`value`, several strings, as a list. Raises InputError for one string, and for anything else."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"{what}={clip(value)} is no list; give a list of strings")
    several = list(value)
    for each in several:
        if not isinstance(each, str):
            raise InputError(f"{what}: {clip(each)} is no string; give a list of strings")
    return several


def no_mapping(name: str) -> str:
    """What to write instead of Airflow's dynamic task mapping."""
    return (
        f"{name}: there is no dynamic task mapping (partial, expand): make the tasks in a loop, "
        "`for number in range(4): …`, or let one task handle the list"
    )


def one_of(value: str, kind: type[_E], what: str) -> _E:
    """`value` as a member of `kind`; raises InputError with the allowed names."""
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(member.value for member in kind)
        hint = nearest(str(value), [member.value for member in kind])
        raise InputError(f"{what}: {value!r} is unknown.{hint} Allowed: {allowed}") from None
