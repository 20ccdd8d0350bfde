"""What is done before the first word, so that a process answers sooner, and why each of it is safe.

`trainflow start`, in order:

1. The command line imports what the words need and nothing else (`cli.entry`, `cli.main`). Heavy libraries, and all
   that one command alone uses, are imported inside the function that uses them; `trainflow` and `trainflow.operators`
   look their public names up when they are first asked for. Help is plain text: to draw it costs 0.3 s.
2. While modules are imported, garbage is not looked for (`importing`): modules are not garbage.
3. With the lock of the home in hand, and before the engine is imported, the forkserver is started and is asked to read
   the pipeline file (`engine.startup`): two interpreters import side by side. If it breaks, the engine starts
   another one.
4. The engine is imported and becomes what the command asked for. SQLAlchemy imports `importlib.metadata` for dialects
   of others, and `asyncio` with `ssl` for engines that are awaited: neither is loaded until it is asked for
   (`load_when_used`), which leaves out seventy modules, a tenth of what a start takes.

The forkserver (`execution.forkserver`) imports what every attempt needs, rehearses one (`execution.prefork`), and
takes all of it out of the garbage collector's hands (`freeze_imports`): its children share those pages.

Every other interpreter of ours is started by `interpreter`.

A process imports as it goes. Where the package is installed anew under it, what it imports from then on is of another
build than what it has: `is_replaced` says so, and `run_again` puts the same command of the new build in its place.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from _thread import allocate_lock
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple


def version() -> str:
    """The version of this package. Asked here, its top module is not imported for it, which names code for users."""
    found: str = sys.modules["trainflow"].__version__
    return found


class _Installed(NamedTuple):
    """What an installer changes: of the file of the top module, which comes with every build."""

    number: int
    changed: int
    size: int
    content: bytes


def _installed(known: _Installed | None = None) -> _Installed | None:
    """What is installed now; None while nothing is. `known` where the file is as it was, or cannot be looked at: a disk
    in the network that does not answer for a moment has replaced nothing. Some file systems (sshfs, buckets that are
    mounted) give a file another number from time to time: then its content is looked at."""
    file = sys.modules["trainflow"].__file__ or ""
    try:
        found = os.stat(file)
        state = found.st_ino, found.st_mtime_ns, found.st_size
        if known is not None and known[:3] == state:
            return known
        with open(file, "rb") as opened:
            content = opened.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return known
    if known is not None and (known.changed, known.size, known.content) == (*state[1:], content):
        return known
    return _Installed(*state, content)


#: when this process began to import
_IMPORTED = _installed()


def is_replaced() -> bool:
    """Whether the package was installed anew, or is about to be, since this process began. Costs one call of the
    system. A checkout that is installed in editable form is looked at by its top module alone."""
    return _installed(_IMPORTED) != _IMPORTED


def said_of_two_builds(error: BaseException) -> str | None:
    """What a command says that `error` has ended since the package is being installed anew, or was while it ran; None:
    it is of another kind. Shown of it is what names a module alone: anything else might hold a secret."""
    is_part = isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "trainflow"
    if not is_part and not is_replaced():
        return None
    what = f"{type(error).__name__}: {error}" if is_part else type(error).__name__
    return f"trainflow is being installed anew, or was while this command ran ({what}): run it again"


def run_again(*, without: str, instead: Sequence[str] = (), patience_seconds: float = 300.0) -> None:
    """Put this very command of the build that is installed now in the place of this process, once that can be imported
    and has not changed for a second, and its command is there, which an installer writes last; `without` an option and
    its value, and `instead` of its words those, where it decided something that is not decided twice. Comes back when
    it cannot be, after that long."""
    import subprocess

    arguments = [*sys.orig_argv[1:]]
    if instead:
        arguments = [*arguments[: len(arguments) - len(sys.argv[1:])], *instead]
    if without in arguments:
        at = arguments.index(without)
        del arguments[at : at + 2]
    until = time.monotonic() + patience_seconds
    while time.monotonic() < until:
        before = _installed()
        time.sleep(1.0)
        look = [sys.executable, "-P", "-c", "import trainflow.cli.main, trainflow.engine.engine"]
        if before is None or before != _installed() or not os.path.exists(sys.argv[0]):
            continue
        if not subprocess.run(look, capture_output=True).returncode:
            sys.stdout.flush()
            sys.stderr.flush()
            os.execv(sys.executable, [sys.executable, *arguments])


@contextmanager
def importing() -> Iterator[None]:
    """Keep the collector from looking for garbage inside; afterwards what is there now is never looked through again.

    Modules stay. Looking through them again and again while they are made takes a sixth of the time of importing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_when_used(*names: str) -> None:
    """Let modules be imported without being loaded: each is loaded once something of it is asked for. Not with
    `importlib.util.LazyLoader`, whose modules are loaded by the next `import` of them already.

    Those of the standard library, and modules that their package imports itself: that is not imported for it. A name
    `module:function` lets the function be taken, too: the module is loaded when it is called."""
    for name in names:
        name, _, function = name.partition(":")
        if name not in sys.modules:
            sys.modules[name] = module = _Unloaded(name)
            package, _, own = name.rpartition(".")
            if package in sys.modules or package.partition(".")[0] in sys.stdlib_module_names:
                setattr(import_module(package), own, module)
            if function:
                setattr(module, function, partial(_call, module, function))


#: held while a module that is not loaded makes room for the one that is: two threads may ask at once
_UNLOADING = allocate_lock()


class _Unloaded(ModuleType):
    def __getattr__(self, attribute: str) -> Any:
        return getattr(_loaded(self), attribute)


def _loaded(module: _Unloaded) -> ModuleType:
    with _UNLOADING:
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]
    return import_module(module.__name__)


def _call(module: _Unloaded, function: str, *arguments: Any) -> Any:
    return getattr(_loaded(module), function)(*arguments)


def freeze_imports() -> None:
    """Collect what is garbage now, and never look through the rest again: a child that is forked afterwards does not
    touch these pages, so they stay shared."""
    gc.collect()
    gc.freeze()


def interpreter(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module in this interpreter. `-P`: the folder that a command was
    typed in hides nothing that is imported."""
    return [sys.executable, "-P", "-m", module, *arguments]
