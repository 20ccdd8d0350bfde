"""The parts of Uvicorn that serve: its configuration, its server, its protocol.

The package imports its command line as well, which no server uses: that is left out, and 1.5 MiB with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_COMMAND_LINE = "uvicorn.main"


@contextmanager
def _without_command_line() -> Iterator[None]:
    """Have `import uvicorn` find nothing where its command line is, unless this process has it already."""
    if "uvicorn" in sys.modules:
        yield
        return
    nothing = ModuleType(_COMMAND_LINE)
    taken = ("Server", "main", "run")
    for name in taken:
        setattr(nothing, name, None)
    sys.modules[_COMMAND_LINE] = nothing
    try:
        yield
    finally:
        # whatever wants it later imports it
        sys.modules.pop(_COMMAND_LINE, None)
        package = sys.modules.get("uvicorn")
        for name in taken if package is not None else ():
            vars(package).pop(name, None)


with _without_command_line():
    from uvicorn.config import Config as Config
    from uvicorn.protocols.http.h11_impl import H11Protocol as H11Protocol
    from uvicorn.server import Server as Server
