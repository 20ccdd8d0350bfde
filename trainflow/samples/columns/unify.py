"""One schema for all files of a split and of the chain that it continues, or which file and column do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from trainflow.samples.columns.cast import InexactCast, decided_by_values
from trainflow.samples.columns.common_type import NoCommonType, common_field, without_views
from trainflow.samples.columns.types import columns_of, schema_of

Policy = Literal["strict", "fill"]
CHAIN = "what the chain was trained on before"
#: raises InexactCast with the first value of the file that does not fit the types of these columns
CheckValues = Callable[[str, Mapping[str, pa.DataType]], None]


class ColumnConflict(ValueError):
    """A file whose columns do not go together with the others'. The text names file, column, both types and, where one
    decides, the value; `remedy` says what to do about it."""

    def __init__(self, said: str, remedy: str) -> None:
        super().__init__(said)
        self.remedy = remedy


@dataclass(frozen=True)
class FileColumns:
    """The columns of one file."""

    path: str
    schema: pa.Schema


class UnifiedColumns:
    """The columns of files that are added, a partition at a time. What cannot be added changes nothing.

    `chain`: the columns of the split before, which count like those of one more file.
    """

    def __init__(self, policy: Policy, chain: Iterable[tuple[str, str]], check_values: CheckValues) -> None:
        before = schema_of(chain)
        self._fill = policy == "fill"
        self._check_values = check_values
        self._chain = tuple(before.names)
        self._fields: dict[str, pa.Field] = {field.name: field for field in before}
        self._origins = dict.fromkeys(before.names, CHAIN)
        #: each schema with the files that have it
        self._files: list[tuple[pa.Schema, list[str]]] = []

    @property
    def schema(self) -> pa.Schema:
        """Columns in the order of the chain, then of the file with the most: the order of files decides nothing."""
        orders = sorted((tuple(schema.names) for schema, _ in self._files), key=lambda names: (-len(names), names))
        names = dict.fromkeys(name for order in (self._chain, *orders) for name in order)
        return pa.schema([self._fields[name] for name in names])

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """The same as a split records it; () when no file was added."""
        return columns_of(self.schema) if self._files else ()

    def add(self, files: Sequence[FileColumns]) -> None:
        """Raises ColumnConflict."""
        fields, origins = dict(self._fields), dict(self._origins)
        added: list[tuple[pa.Schema, list[str]]] = []
        for file in files:
            same = _paths_of(file.schema, added)
            if same is None:
                if _paths_of(file.schema, self._files) is None:
                    self._join(file, fields, origins)
                added.append((file.schema, same := []))
            same.append(file.path)
        for schema, paths in added:
            self._compare_values(schema, paths, fields, origins)
        for schema, paths in self._files:
            if any(fields[name].type != self._fields[name].type for name in schema.names):
                self._compare_values(schema, paths, fields, origins)
        self._fields, self._origins = fields, origins
        for schema, paths in added:
            known = _paths_of(schema, self._files)
            if known is None:
                self._files.append((schema, paths))
            else:
                known.extend(paths)

    def _join(self, file: FileColumns, fields: dict[str, pa.Field], origins: dict[str, str]) -> None:
        first, names = not fields, file.schema.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ColumnConflict(
                f"{file.path}: the column {twice!r} is there twice", "Have it written with one of them"
            )
        if not first and not self._fill:
            self._compare_names(file, fields, origins)
        for field in file.schema:
            field = field.remove_metadata()
            field = field.with_type(without_views(field.type))
            known = fields.get(field.name)
            if known is None:
                fields[field.name] = field if first else field.with_nullable(True)
                origins[field.name] = file.path
                continue
            try:
                fields[field.name] = common_field(known, field, fill=self._fill)
            except NoCommonType as error:
                raise _types_differ(file.path, field, known, origins[field.name], str(error)) from error
            if fields[field.name].type != known.type:
                origins[field.name] = file.path
        for name in fields.keys() - set(names):
            fields[name] = fields[name].with_nullable(True)

    def _compare_names(self, file: FileColumns, fields: dict[str, pa.Field], origins: dict[str, str]) -> None:
        more = [name for name in file.schema.names if name not in fields]
        less = [name for name in fields if name not in file.schema.names]
        remedy = "Have every file written with the same columns, or let what is missing be null: samples.columns: fill"
        if more:
            other = next(iter(origins.values()))
            raise ColumnConflict(f"{file.path} has the column {more[0]!r}, which {_not_in(other)}", remedy)
        if less:
            other = origins[less[0]]
            raise ColumnConflict(f"{file.path} has no column {less[0]!r}, which {_in(other)}", remedy)

    def _compare_values(
        self, schema: pa.Schema, paths: list[str], fields: dict[str, pa.Field], origins: dict[str, str]
    ) -> None:
        if all(field.type.equals(fields[field.name].type) for field in schema):
            return
        wanted = {
            field.name: fields[field.name].type
            for field in schema
            if decided_by_values(field.type, fields[field.name].type)
        }
        for path in paths if wanted else ():
            for name, kind in wanted.items():
                try:
                    self._check_values(path, {name: kind})
                except InexactCast as error:
                    raise ColumnConflict(
                        f"{path}: column {name!r} is {schema.field(name).type}, and {kind} {_where(origins[name])}: "
                        f"its value {error} is none exactly",
                        "Have the column written with one type that holds every value",
                    ) from error


def _paths_of(schema: pa.Schema, files: list[tuple[pa.Schema, list[str]]]) -> list[str] | None:
    return next((paths for known, paths in files if known.equals(schema)), None)


def _types_differ(path: str, field: pa.Field, known: pa.Field, origin: str, why: str) -> ColumnConflict:
    said = f"{path}: column {field.name!r} is {field.type}, and {known.type} {_where(origin)}"
    return ColumnConflict(f"{said} ({why})" if why else said, "Have the column written with one type")


def _where(origin: str) -> str:
    return f"in {origin}"


def _in(origin: str) -> str:
    return "the chain was trained on before" if origin == CHAIN else f"{origin} has"


def _not_in(origin: str) -> str:
    return f"was not in {origin}" if origin == CHAIN else f"{origin} has not"
