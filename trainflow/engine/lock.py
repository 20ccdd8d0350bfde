"""One engine a home: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from trainflow.errors import EngineAlreadyRunning, SettingsError
from trainflow.settings.home import Home

_LOOKS = 50
_PAUSE_SECONDS = 0.01


@contextmanager
def engine_lock(home: Home) -> Iterator[None]:
    """Own the home's engine. Raises EngineAlreadyRunning with the pid of the one that does, SettingsError where nothing
    can be written or locked."""
    home.create()
    try:
        descriptor = os.open(home.engine_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise home.refused(error) from error
    try:
        _acquire(descriptor, home)
        _sign(descriptor, home)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _sign(descriptor: int, home: Home) -> None:
    os.ftruncate(descriptor, 0)
    try:
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:  # the disk is full
        raise home.refused(error) from error


def _acquire(descriptor: int, home: Home) -> None:
    """A process that only looks (`running_engine`) holds the lock for an instant and writes no pid: look again then."""
    for _ in range(_LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _owner(descriptor)
            # a pid may be left of an engine that was killed, while another process only looks
            if pid and _is_there(pid):
                raise EngineAlreadyRunning(
                    f"an engine (pid {pid}) runs in {home.path}; 'trainflow stop' ends it", pid=pid
                ) from None
            time.sleep(_PAUSE_SECONDS)
        except OSError as error:
            raise SettingsError(
                f"the home {home.path} is on a disk that knows no file locks ({error.strerror}), so two engines could "
                "run in it at once; set TRAINFLOW_HOME to a folder on a disk of this machine"
            ) from error
        else:
            return
    raise EngineAlreadyRunning(f"{home.engine_lock} is held by a process that does not say its pid", pid=0)


def running_engine(home: Home) -> int | None:
    """The pid of the engine that owns the home, None when there is none."""
    try:
        descriptor = os.open(home.engine_lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(descriptor)
    except OSError:  # a disk that knows no locks: no engine can have begun there
        return None
    else:
        return None
    finally:
        os.close(descriptor)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _owner(descriptor: int) -> int:
    with contextlib.suppress(ValueError):
        return int(os.pread(descriptor, 32, 0).decode().strip())
    return 0
