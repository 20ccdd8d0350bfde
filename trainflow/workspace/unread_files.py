"""What can be said of a pipeline file without reading it as a pipeline: the names in it. No code of a user runs here.

For commands that must answer at once (`status`, `why`), also about a file that no engine has read, or that hangs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainflow.errors import PipelineFileError

if TYPE_CHECKING:
    from trainflow.messages.parsed_file import ChainAccess
    from trainflow.serialization.document import ChainDocument

#: a file that is larger is not looked into, in bytes
_LARGEST = 1_000_000


class UnreadDag(NamedTuple):
    """A DAG that a file seems to define, and its chain: None where only the code of the file knows."""

    dag_id: str
    chain: ChainDocument | None = None
    access: ChainAccess | None = None


def dags_named_in(path: Path) -> list[UnreadDag]:
    """The DAGs of a file by the names in it: of YAML one a stage, of Python the file's own name.

    Raises PipelineFileError for what is no YAML.
    """
    document = _document(path)
    pipeline = document.get("pipeline")
    if not isinstance(pipeline, str):
        return [UnreadDag(path.stem)]
    stages = document.get("stages")
    if not isinstance(stages, dict) or not stages:
        return [_named(document, pipeline, _text(document.get("stage"), "main"), document)]
    return [_named(document, pipeline, name, each if isinstance(each, dict) else {}) for name, each in stages.items()]


def _document(path: Path) -> dict[str, Any]:
    from trainflow.pipeline_spec.yaml_reader import read_document

    try:
        if path.suffix == ".py" or path.stat().st_size > _LARGEST:
            return {}
        value = read_document(path.read_text(encoding="utf-8"), str(path)).value
    except (OSError, UnicodeError, RecursionError) as error:
        raise PipelineFileError(f"cannot be read: {error}", path=str(path)) from None
    return value if isinstance(value, dict) else {}


def _named(document: dict[str, Any], pipeline: str, stage: str, section: dict[str, Any]) -> UnreadDag:
    from trainflow.identifiers import chain_dag_id
    from trainflow.messages.parsed_file import ChainAccess
    from trainflow.serialization.document import ChainDocument

    branch = _text(document.get("branch"), "main")
    store = next(_sections("store", section, document), {})
    samples = next(_sections("samples", section, document), {})
    chain = ChainDocument(pipeline, stage, branch, _text(store.get("url"), ""))
    access = ChainAccess(store_options=_options(store), sample_options=_options(samples))
    return UnreadDag(chain_dag_id(pipeline, stage, branch), chain, access)


def _sections(key: str, *places: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for place in places:
        found = place.get(key)
        if isinstance(found, str):
            yield {"url": found}
        elif isinstance(found, dict):
            yield found


def _options(section: dict[str, Any]) -> dict[str, Any]:
    options = section.get("storage_options")
    return options if isinstance(options, dict) else {}


def _text(value: Any, otherwise: str) -> str:
    return value if isinstance(value, str) else otherwise
