"""Settings in environment variables (`TRAINFLOW__SECTION__KEY`), and which of them are for the control plane alone.

Imports nothing heavy: processes are started with it before anything else is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

PREFIX = "TRAINFLOW__"
#: sections and keys that only the control plane needs, and that code of users must not see
_OF_CONTROL_PLANE = ("database__", "notifications__", "openlineage__", "telemetry__", "api__token", "workers__token")
#: keys of executors that are
_OF_EXECUTORS = ("__broker", "__token")


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that runs code of users: without the secrets of the control plane."""
    return {name: value for name, value in environ.items() if not _is_of_control_plane(name)}


def forget_secrets() -> None:
    """Take the secrets of the control plane out of the environment of this process, and so of all that it starts."""
    for name in [name for name in os.environ if _is_of_control_plane(name)]:
        del os.environ[name]


def take_secret(name: str) -> str | None:
    """The value of a variable, which is in the environment of this process no more: neither for what it starts, nor for
    who looks at the process from outside (`/proc/PID/environ`, which shows what it was started with)."""
    value = os.environ.get(name)
    if value is None:
        return None
    import ctypes

    getenv = ctypes.CDLL(None).getenv
    getenv.restype, getenv.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    place = getenv(os.fsencode(name))
    if place:
        ctypes.memset(place, ord("-"), len(os.fsencode(value)))
    del os.environ[name]
    return value


def _is_of_control_plane(name: str) -> bool:
    if not name.upper().startswith(PREFIX):
        return False
    setting = name[len(PREFIX) :].lower()
    return setting.startswith(_OF_CONTROL_PLANE) or setting.endswith(_OF_EXECUTORS)
