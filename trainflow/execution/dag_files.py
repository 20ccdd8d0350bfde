"""Turn a pipeline file into DAGs, and keep what was loaded while nothing it came from changes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

from trainflow.authoring.dag import DAG, collecting_dags
from trainflow.bootstrap import importing
from trainflow.errors import InputError, PipelineFileError, describe
from trainflow.messages.workload import DagSource
from trainflow.settings.project import Project

YAML_SUFFIXES = (".yaml", ".yml")
#: what a file looked like: modification time in nanoseconds, size in bytes
Stamp = tuple[int, int]


class LoadedFile(NamedTuple):
    """A file's DAGs by id, the digest of what decides besides the DAG what an attempt does (YAML: the resolved file;
    empty for Python), and the other files it was made from (YAML: the parameters of its `config`)."""

    dags: dict[str, DAG]
    content: str
    files: tuple[Path, ...] = ()


def add_to_path(project: Project) -> None:
    """Let `operators.…` of the project be imported: last on the path, so that it hides nothing."""
    root = str(project.root)
    if root not in sys.path:
        sys.path.append(root)


def import_reader(path: str) -> bool:
    """Import what reads a file of this kind, and no file; whether there was anything to import. Before a process is
    forked for one: 0.1 s for YAML, which the child and its parent would each take."""
    before = len(sys.modules)
    if path.endswith(YAML_SUFFIXES):
        with contextlib.suppress(ImportError), importing():  # the child says what is missing
            import trainflow.pipeline_spec.load  # noqa: F401
    return len(sys.modules) > before


def load(source: DagSource, project: Project) -> LoadedFile:
    """The DAGs of a file. Raises PipelineFileError (with the line, where there is one) or another InputError."""
    add_to_path(project)
    path = project.absolute(source.path)
    if not path.is_file():
        raise PipelineFileError("there is no such file", path=project.relative(path))
    if path.suffix in YAML_SUFFIXES:
        from trainflow.pipeline_spec.load import load_pipeline_file

        dags, content, files = load_pipeline_file(path, source.overrides, project)
        return LoadedFile({dag.dag_id: dag for dag in dags}, content, files)
    if path.suffix == ".py":
        return LoadedFile(_load_python(path, source.overrides, project), "")
    raise PipelineFileError("a pipeline is a .yaml, .yml or .py file", path=project.relative(path))


def _load_python(path: Path, overrides: dict[str, str], project: Project) -> dict[str, DAG]:
    shown = project.relative(path)
    name = f"trainflow_pipeline_{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with collecting_dags() as made:
            spec.loader.exec_module(module)
    except PipelineFileError:
        raise
    except SyntaxError as error:
        # it may be in a module that the file imports
        file = error.filename or ""
        where = project.relative(Path(file)) if os.path.isabs(file) else shown
        said = f"syntax error: {error.msg}"
        raise PipelineFileError(said, path=where, line=error.lineno, column=error.offset) from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        line, hint = _line_in(path, error), _where_to_find(path, error)
        raise PipelineFileError(f"{describe(error)}{hint}", path=shown, line=line) from error
    dags = {dag.dag_id: dag for dag in made}
    if len(dags) < len(made):
        twice = sorted({dag.dag_id for dag in made if sum(other.dag_id == dag.dag_id for other in made) > 1})
        raise PipelineFileError(f"defines more than one DAG called {', '.join(twice)}", path=shown)
    if not dags:
        raise PipelineFileError("defines no DAG", path=shown)
    _override(dags, overrides, path)
    return dags


def _where_to_find(path: Path, error: BaseException) -> str:
    """Airflow has the folder of the pipelines on its path; here a module beside a pipeline has that folder's name."""
    name = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    beside = path.parent / name.partition(".")[0]
    if not name or not (beside.with_suffix(".py").is_file() or beside.is_dir()):
        return ""
    return f" (what is imported is looked for in the project's folder: write {path.parent.name}.{name})"


def _override(dags: dict[str, DAG], overrides: dict[str, str], path: Path) -> None:
    """`--set params.NAME=value` on a Python pipeline: another default for a param it declares."""
    from trainflow.pipeline_spec.problems import SourcePlace
    from trainflow.pipeline_spec.yaml_reader import read_document

    for key, raw in overrides.items():
        name = key.removeprefix("params.")
        declaring = [dag for dag in dags.values() if name in dag.param_schemas]
        if name == key or not declaring:
            known = sorted(f"params.{name}" for dag in dags.values() for name in dag.param_schemas)
            raise InputError(
                f"--set {key}: {path.name} is a Python pipeline, only its params can be set "
                f"({', '.join(known) or 'it declares none'})"
            )
        place = SourcePlace(f"--set {key}={raw}")
        value = read_document(raw, place.source, at=place).value
        for dag in declaring:
            dag.param_schemas[name] = {**dag.param_schemas[name], "default": value}


def _line_in(path: Path, error: BaseException) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None


def project_modules(project: Project) -> list[Path]:
    """Files of the project that this process has imported."""
    root = str(project.root) + os.sep
    found = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.startswith(root) and "site-packages" not in file:
            found.add(Path(file))
    return sorted(found)


class DagFiles:
    """What this process has loaded, and whether it is still what lies on disk."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._loaded: dict[tuple[str, tuple[tuple[str, str], ...]], LoadedFile] = {}
        #: by path, as text: all are looked at before each attempt, and `Path` takes longer than the system does
        self._stamps: dict[str, Stamp | None] = {}

    def get(self, source: DagSource) -> LoadedFile:
        """The DAGs of a file, loaded once."""
        key = _key(source)
        if key not in self._loaded:
            self.watch([self._project.absolute(source.path)])
            try:
                with importing():
                    self._loaded[key] = load(source, self._project)
                self.watch(list(self._loaded[key].files))
            finally:
                # what was imported stays imported, also when the file that asked for it failed
                self.note_imports()
        return self._loaded[key]

    def put(self, source: DagSource, loaded: LoadedFile) -> None:
        """Have a file that lies on no disk."""
        self._loaded[_key(source)] = loaded

    def has(self, source: DagSource) -> bool:
        """Whether the file is loaded."""
        return _key(source) in self._loaded

    def note_imports(self) -> None:
        """Remember what the files look like that were imported meanwhile."""
        self.watch(project_modules(self._project))

    def watch(self, paths: list[Path]) -> None:
        """Also look at these files (configuration that a pipeline file reads)."""
        for path in map(str, paths):
            self._stamps.setdefault(path, _stamp(path))

    def changed(self) -> Path | None:
        """A file that is not any more what was loaded, None when all are."""
        return next((Path(path) for path, stamp in self._stamps.items() if _stamp(path) != stamp), None)


def _key(source: DagSource) -> tuple[str, tuple[tuple[str, str], ...]]:
    return (source.path, tuple(sorted(source.overrides.items())))


def _stamp(path: str) -> Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size)
