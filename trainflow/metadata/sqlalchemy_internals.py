"""The private names of SQLAlchemy that are used, all of them: pyproject.toml says up to which version they are known.

Each function is one question; a test asks them all, so that another version that answers otherwise is noticed there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

Process = Callable[[Any], Any]


def taken_apart(statement: Any) -> Any:
    """What a statement shares with all of its kind (hashable), and the parameters taken out of it, in order."""
    return statement._generate_cache_key()


def compiled(statement: Any, dialect: Dialect, key: Any, columns: Sequence[str], *, many: bool) -> SQLCompiler:
    """A statement of the kind `key`, compiled for these columns, of one row or of many."""
    made: SQLCompiler = statement._compiler(dialect, cache_key=key, column_keys=list(columns), for_executemany=many)
    return made


def numbers_of_parameters(compiled: SQLCompiler) -> dict[int, int]:
    """Which of the parameters that were taken out of a statement is which of its compiled form, by id."""
    if compiled.cache_key is None or compiled._cache_key_bind_match is None:
        return {}
    copies = compiled._cache_key_bind_match[0]
    return {id(copy): number for number, bind in enumerate(compiled.cache_key[1]) for copy in copies[bind]}


def bind_processors(compiled: SQLCompiler) -> dict[str, Process]:
    """What makes of a parameter's value what the driver takes, by the parameter's name."""
    return dict(compiled._bind_processors)  # type: ignore[arg-type]


def expanded(compiled: SQLCompiler, values: Mapping[str, Any]) -> Any:
    """The SQL for lists of certain lengths: `statement`, `positiontup`, `parameter_expansion`, `processors`."""
    return compiled._process_parameters_for_postcompile(dict(values))


def result_columns(compiled: SQLCompiler) -> list[tuple[str, TypeEngine[Any]]]:
    """Names and types of the columns of a SELECT."""
    return [(column.keyname, column.type) for column in compiled._result_columns]


#: PostgreSQL's double precision: the only kind of float in any table
_FLOAT8 = 701


def result_processor(type_: TypeEngine[Any], dialect: Dialect) -> Process | None:
    """What makes of the driver's value what the type promises; None: it is that already."""
    return type_._cached_result_processor(dialect, _FLOAT8)


def index_of_names(metadata: SimpleResultMetaData) -> Any:
    """Where each name is in a row, as `Row` takes it."""
    return metadata._key_to_index
