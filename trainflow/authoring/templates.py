"""Fill template fields: XComArgs are pulled, Jinja expressions evaluated, files named by a field read and rendered.

Jinja is sandboxed and strict: what the context does not hold is an error, never an empty string. It is imported only
when a field holds an expression.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from trainflow.authoring.xcom_arg import XComArg
from trainflow.errors import TemplateError, describe

if TYPE_CHECKING:
    from jinja2 import Environment, Template

    from trainflow.authoring.context import Context
    from trainflow.authoring.dag import DAG
    from trainflow.authoring.operator import BaseOperator

_EXPRESSION_CHARACTERS = 200
#: of one text, and of all of a task: whatever they are, compiling so many takes some 25 milliseconds a thousand
_WARM_CHARACTERS, _WARM_CHARACTERS_OF_TASK = 2_000, 10_000


def render_fields(task: BaseOperator, context: Context) -> None:
    """Replace the value of every template field of `task`. Raises TemplateError; XComArgs may raise TaskError."""
    renderer = Renderer(task, context)
    rendered = {field: renderer.render(field, getattr(task, field)) for field in task.template_fields}
    for field, value in rendered.items():
        setattr(task, field, value)


class Renderer:
    """Renders values for one task in one context. What is rendered is not rendered again: an XCom that looks like an
    expression stays as it is."""

    def __init__(self, task: BaseOperator, context: Context) -> None:
        self._task = task
        self._context = context

    def render(self, field: str, value: Any) -> Any:
        """`value` with everything in it filled in; lists, tuples and dicts are new ones, other objects the same."""
        if isinstance(value, XComArg):
            return value.resolve(self._context)
        if isinstance(value, str):
            return self._text(field, value)
        if isinstance(value, tuple):
            items = [self.render(field, item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, list):
            return [self.render(field, item) for item in value]
        if isinstance(value, dict):
            return {key: self.render(field, item) for key, item in value.items()}
        return value

    def _text(self, field: str, text: str) -> Any:
        from_file = bool(self._task.template_ext) and text.endswith(tuple(self._task.template_ext))
        if not from_file and not is_template(text):
            return text
        import jinja2

        templates = templates_of(self._task.dag if self._task.has_dag() else None)
        try:
            template = templates.of_file(text) if from_file else templates.of_text(text)
            return template.render(self._variables())
        except jinja2.TemplateNotFound as error:
            raise self._error(field, text, f"the file {error.name!r} is not beside the DAG file") from error
        except jinja2.TemplateSyntaxError as error:
            raise self._error(field, text, f"syntax error in line {error.lineno}: {error.message}") from error
        except jinja2.TemplateError as error:
            raise self._error(field, _failing_line(error, text), str(error.message)) from error
        except Exception as error:
            raise self._error(field, _failing_line(error, text), describe(error)) from error

    def _variables(self) -> dict[str, Any]:
        macros = self._task.dag.user_defined_macros if self._task.has_dag() else {}
        return {**macros, **self._context}

    def _error(self, field: str, expression: str, problem: str) -> TemplateError:
        if len(expression) > _EXPRESSION_CHARACTERS:
            expression = f"{expression[:_EXPRESSION_CHARACTERS]}..."
        return TemplateError(
            f"task {self._task.task_id!r}, field {field!r}: {problem}, in {expression!r}",
            task_id=self._task.task_id,
            field=field,
            expression=expression,
        )


class Templates:
    """The templates of a DAG. A text is compiled once: that takes longer than rendering it."""

    def __init__(self, dag: DAG | None) -> None:
        self._environment = environment_of(dag)
        self._texts: dict[str, Template] = {}

    def of_text(self, text: str) -> Template:
        """The template that a field holds. Raises TemplateSyntaxError."""
        if text not in self._texts:
            self._texts[text] = self._environment.from_string(text)
        return self._texts[text]

    def of_file(self, name: str) -> Template:
        """The template in a file, as it is now. Raises TemplateNotFound, TemplateSyntaxError."""
        return self._environment.get_template(name)


_kept: WeakKeyDictionary[DAG, Templates] = WeakKeyDictionary()


def templates_of(dag: DAG | None) -> Templates:
    """The templates of a DAG: made once for each."""
    if dag is None:
        return Templates(None)
    if dag not in _kept:
        _kept[dag] = Templates(dag)
    return _kept[dag]


def warm_up(task: BaseOperator) -> None:
    """Import what rendering the fields of `task` will need, and compile what they hold, for a warm process: it is
    translated there, and nothing of it evaluated: not even a property of the operator is asked, so what is no plain
    attribute is left to the attempt. The attempt says what is wrong with it."""
    attributes = vars(task)
    values = [attributes.get(field) for field in task.template_fields]
    found = [text for text in texts_in(values) if is_template(text)]
    if not found:
        return
    import jinja2

    templates, left = templates_of(task.dag if task.has_dag() else None), _WARM_CHARACTERS_OF_TASK
    for text in filter(_is_quickly_compiled, found):
        left -= len(text)
        if left < 0:
            return
        with contextlib.suppress(jinja2.TemplateError, RecursionError):
            templates.of_text(text)


def _is_quickly_compiled(text: str) -> bool:
    """Short, and without statements: `{% autoescape EXPRESSION %}` is evaluated by the compiler whatever one does."""
    return len(text) <= _WARM_CHARACTERS and "{%" not in text


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a value, or in what it holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)


def is_template(text: str) -> bool:
    """Whether Jinja has anything to do in `text`."""
    return "{{" in text or "{%" in text or "{#" in text


def environment_of(dag: DAG | None) -> Environment:
    """The Jinja environment of a DAG: its filters, its file's folder, native objects if it wants them."""
    import jinja2

    from trainflow.authoring.jinja import NativeEnvironment, TextEnvironment

    native = dag is not None and dag.render_template_as_native_obj
    folder = Path(dag.fileloc).parent if dag is not None and dag.fileloc else None
    environment = (NativeEnvironment if native else TextEnvironment)(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        loader=jinja2.FileSystemLoader(str(folder)) if folder is not None else None,
    )
    if dag is not None:
        environment.filters.update(dag.user_defined_filters)
    return environment


def _failing_line(error: BaseException, text: str) -> str:
    """The line of the template in which `error` was raised; the whole text when it is not known."""
    line = None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    lines = text.splitlines()
    return lines[line - 1].strip() if line is not None and 0 < line <= len(lines) else text
