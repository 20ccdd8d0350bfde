"""The code of a project on a host that has no engine: at a path, or brought there and kept by where it comes from.

`workers.code` says how: `shared` (the same path on every host), `image` (it is in the image, or wherever the worker was
started), `git+URL@COMMIT`, or the fsspec URL of a zip file. What is brought is made beside its place and renamed, so
that two workers of one host may bring it at a time.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from trainflow.errors import EngineError, InputError, describe
from trainflow.messages.workload import ExecuteTask
from trainflow.settings.project import MARKER, find_root

if TYPE_CHECKING:
    from trainflow.authoring.dag import DAG

SHARED, IMAGE, GIT = "shared", "image", "git+"
_GIT_SECONDS = 600


def code_of(workload: ExecuteTask, given: Path | None, started_in: Path) -> Path:
    """The root of the project that a workload is run with. `given`: where a person says that it is; `started_in`: where
    the worker was started. Raises InputError when it is not there, EngineError when it cannot be brought."""
    if given is not None:
        return _project(given, f"--project {given}")
    if workload.code in ("", SHARED):
        return _project(Path(workload.project_root), "workers.code is 'shared'")
    if workload.code == IMAGE:
        return _project(find_root(started_in) or started_in, "workers.code is 'image'")
    return _project(_brought(workload.code), workload.code)


def _project(root: Path, where: str) -> Path:
    if not root.is_dir():
        raise InputError(f"{where}: this host has no folder {root}")
    return root.resolve()


def _brought(code: str) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainflow" / "code"
    place = folder / hashlib.sha256(code.encode()).hexdigest()[:24]
    if not place.is_dir():
        # a warm process imports this module, and what it has read each child would copy
        import shutil
        import tempfile

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder, prefix="new_"))
        try:
            (_check_out if code.startswith(GIT) else _unpack)(code, made)
            made.rename(place)
        except OSError as error:
            if not place.is_dir():  # another worker was faster
                raise EngineError(f"{code} cannot be brought to this host: {describe(error)}") from error
        finally:
            shutil.rmtree(made, ignore_errors=True)
    inside = [each for each in place.iterdir() if each.is_dir()]
    if not (place / MARKER).is_file() and len(inside) == 1:
        return inside[0]
    return place


def _check_out(code: str, folder: Path) -> None:
    import subprocess

    url, _, commit = code.removeprefix(GIT).rpartition("@")
    for words in (["init", "--quiet"], ["fetch", "--quiet", "--depth", "1", url, commit], ["checkout", "FETCH_HEAD"]):
        try:
            subprocess.run(
                ["git", "-C", str(folder), *words],
                check=True,
                capture_output=True,
                text=True,
                timeout=_GIT_SECONDS,
                env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            )
        except FileNotFoundError:
            raise EngineError(f"{code}: there is no git on this host") from None
        except subprocess.TimeoutExpired:
            raise EngineError(f"{code}: git {words[0]} took longer than {_GIT_SECONDS} s") from None
        except subprocess.CalledProcessError as error:
            raise EngineError(f"{code}: git {words[0]}: {error.stderr.strip()}") from None


def _unpack(code: str, folder: Path) -> None:
    import zipfile

    import fsspec

    try:
        with fsspec.open(code, "rb") as file, zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
    except Exception as error:
        raise EngineError(f"{code} cannot be brought to this host: {describe(error)}") from error


def check_version(dag: DAG, content: str, root: Path | str, version: str) -> None:
    """Raise InputError when the code in `root` is not that of the DAG version that the run is pinned to."""
    here = version_here(dag, content)
    if here != version:
        raise InputError(
            f"the code of this worker ({root}) gives version {here} of DAG '{dag.dag_id}', its run is pinned to "
            f"{version}: bring the worker's code up to date, or start a run of what it has"
        )


def version_here(dag: DAG, content: str) -> str:
    """The version that a DAG is here. Asked in a warm process, all that is forked from it need not make it again."""
    if dag not in _VERSIONS:
        from trainflow.serialization.document import encode, version_of
        from trainflow.serialization.from_dag import to_document

        _VERSIONS[dag] = version_of(encode(to_document(dag, content)))
    return _VERSIONS[dag]


#: versions that were made in this process, or in the one that it was forked from
_VERSIONS: WeakKeyDictionary[DAG, str] = WeakKeyDictionary()
