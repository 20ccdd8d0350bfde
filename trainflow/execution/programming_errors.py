"""Tell a mistake in the user's code from what another try might get over, and say where it stands."""

from __future__ import annotations

import builtins
import difflib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from traceback import walk_tb
from types import FrameType

from trainflow.errors import InputError, TemplateError, TrainflowError, describe, message_of

_PACKAGE = Path(__file__).parents[1]
_MISTAKES = (NameError, AttributeError, TypeError)
_UNEXPECTED = re.compile(r"(?P<function>[\w.<>]+)\(\) got an unexpected keyword argument '(?P<name>\w+)'")


def is_programming_error(error: BaseException, root: Path) -> bool:
    """Tell whether `error` comes from what is written in the code, so that every further try ends like this one.

    NameError, AttributeError, TypeError, what trainflow refuses that the project at `root` asks it for, and templates
    that cannot be rendered because of one of these or of what they say. Not where None came instead of a value: that
    is the answer of a service as often as a mistake.
    """
    if isinstance(error, TemplateError):
        cause = error.__cause__
        return (
            cause is None or type(cause).__module__.partition(".")[0] == "jinja2" or is_programming_error(cause, root)
        )
    if isinstance(error, InputError):
        return _place(error, root)[0] is not None
    return isinstance(error, _MISTAKES) and "NoneType" not in message_of(error)


def may_be_of_two_builds(error: BaseException) -> bool:
    """Whether parts of two builds of trainflow in one process may have raised `error`: something could not be imported,
    or its own code broke. Not what it refuses on purpose, and nothing that a task or a library of the task's raised."""
    if isinstance(error, ImportError | TrainflowError):
        return isinstance(error, ImportError)
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return bool(frames) and Path(frames[-1].f_code.co_filename).is_relative_to(_PACKAGE)


def explain_error(error: BaseException, root: Path) -> str:
    """Say what `error` is, what was probably meant, and the line of the project at `root` it was raised from."""
    said = describe(error)
    frame, line = _place(error, root)
    if frame is None:
        return said
    # newer Pythons say themselves what may have been meant
    meant = None if "did you mean" in said.lower() else _nearest(error, frame)
    path = Path(frame.f_code.co_filename)
    shown = path.relative_to(root) if path.is_relative_to(root) else path
    return f"{said}{f'; did you mean {meant!r}?' if meant else ''} ({shown}:{line})"


def _place(error: BaseException, root: Path) -> tuple[FrameType | None, int]:
    """The innermost frame in a file of the project's own; no frame where the error was not raised from one."""
    found: tuple[FrameType | None, int] = (None, 0)
    traceback = error.__traceback__
    while traceback is not None:
        if _is_own(Path(traceback.tb_frame.f_code.co_filename), root):
            found = traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next
    return found


def _is_own(file: Path, root: Path) -> bool:
    """Whether a file is of the project at `root`, and not of a library or of trainflow, which may lie below it, too."""
    return file.is_relative_to(root) and "site-packages" not in file.parts and not file.is_relative_to(_PACKAGE)


def _nearest(error: BaseException, frame: FrameType) -> str | None:
    name, known = _asked_for(error, frame)
    if not name:
        return None
    return next(iter(difflib.get_close_matches(name, [each for each in known if each != name], n=1)), None)


def _asked_for(error: BaseException, frame: FrameType) -> tuple[str | None, Iterable[str]]:
    """Tell the name that was not there, and the names that were."""
    if isinstance(error, NameError):
        return error.name, [*frame.f_locals, *frame.f_globals, *dir(builtins)]
    if isinstance(error, AttributeError):
        return error.name, _attributes(error.obj)
    unexpected = _UNEXPECTED.search(message_of(error))
    if unexpected is None:
        return None, ()
    function = frame.f_locals.get(unexpected["function"]) or frame.f_globals.get(unexpected["function"])
    try:
        return unexpected["name"], list(inspect.signature(function).parameters) if callable(function) else ()
    except (TypeError, ValueError):
        return None, ()


def _attributes(holder: object) -> list[str]:
    try:
        return dir(holder)
    except Exception:  # a class may say anything here
        return []
