"""Rendering of template fields."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from datetime import UTC, datetime
from types import SimpleNamespace

import jinja2
import pytest

from trainflow.authoring.context import build_context, current_context, get_current_context
from trainflow.authoring.dag import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.errors import TaskError, TemplateError
from trainflow.messages.execution_api import RunInfo

NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)


class Field(BaseOperator):
    template_fields = ("value",)
    template_ext = (".sql",)

    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.value = value


class FakeTaskInstance(SimpleNamespace):
    def xcom_pull(self, task_ids, key="return_value", default=None):
        return self.xcoms.get((task_ids, key), default)


def context_of(task, *, logical_date=NOON, xcoms=None, conf=None):
    ti = FakeTaskInstance(try_number=2, map_index=-1, xcoms=xcoms or {})
    run = RunInfo(
        dag_id="d", run_id="r1", run_type="manual", conf=conf or {}, queued_at=NOON, logical_date=logical_date
    )
    return build_context(task, ti, run, params={"n": 3})


def rendered(value, *, dag_options=None, **options):
    with DAG("d", **(dag_options or {})):
        task = Field(value, task_id="t")
    task.render_template_fields(context_of(task, **options))
    return task.value


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{{ ds }} {{ ds_nodash }} {{ ts }}", "2013-01-31 20130131 2013-01-31T12:00:00+00:00"),
        ("{{ ts_nodash }} {{ ts_nodash_with_tz }}", "20130131T120000 20130131T120000+0000"),
        ("{{ params.n + 1 }}", "4"),
        ("{{ macros.ds_add(ds, 1) }} {{ macros.ds_format(ds, '%Y-%m-%d', '%d') }}", "2013-02-01 31"),
        ("{{ (logical_date - macros.timedelta(days=1)) | ds }}", "2013-01-30"),
        ("{{ dag.dag_id }}/{{ task.task_id }}/{{ run_id }}/{{ dag_run.run_type }}", "d/t/r1/manual"),
        ("{{ dag_run.conf['a'] }}", "1"),
        ("{{ task_instance_key_str }}", "d__t__20130131"),
        ("no expression { here }", "no expression { here }"),
        ("line {# comment #}\n", "line \n"),
        (["{{ ds }}", {"k": ("{{ run_id }}", 5)}], ["2013-01-31", {"k": ("r1", 5)}]),
        (Point("{{ run_id }}", 2), Point("r1", 2)),
        (17, 17),
        (None, None),
    ],
)
def test_template_renders_to_expected_value_and_type(value, expected):
    result = rendered(value, conf={"a": 1})
    assert result == expected
    assert type(result) is type(expected)


def test_template_outputs_are_pulled_and_not_rendered_again():
    with DAG("d"):
        source = Field(1, task_id="source")
        task = Field([source.output, {"k": source.output["rows"]}, f"got {source.output['rows']}"], task_id="t")
    xcoms = {("source", "return_value"): "{{ ds }}", ("source", "rows"): 7}
    task.render_template_fields(context_of(task, xcoms=xcoms))
    assert task.value == ["{{ ds }}", {"k": 7}, "got 7"]


def test_template_of_missing_return_is_none_but_missing_key_fails():
    with DAG("d"):
        source = Field(1, task_id="source")
        task = Field(source.output, task_id="t")
        picky = Field(source.output["rows"], task_id="p")
    task.render_template_fields(context_of(task))
    assert task.value is None
    with pytest.raises(TaskError, match=r"'source' pushed no XCom 'rows'.*multiple_outputs"):
        picky.render_template_fields(context_of(picky))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a\n{{ missing }}\nb", "'missing' is undefined.*'{{ missing }}'"),
        ("{{ params.typo }}", "no attribute 'typo'"),
        ("{{ ds", "syntax error in line 1"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__ }}", "unsafe"),
        ("absent.sql", "'absent.sql' is not beside the DAG file"),
        (["ok", {"deep": "{{ missing }}"}], "'missing' is undefined"),
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_error_names_task_field_and_expression(value, problem, native):
    with pytest.raises(TemplateError, match=f"task 't', field 'value': .*{problem}") as caught:
        rendered(value, dag_options={"render_template_as_native_obj": native})
    assert (caught.value.task_id, caught.value.field) == ("t", "value")


def test_date_is_absent_from_run_without_one():
    with pytest.raises(TemplateError, match="'ds' is undefined"):
        rendered("{{ ds }}", logical_date=None)
    assert rendered("{{ task_instance_key_str }}", logical_date=None) == "d__t__r1"


def test_template_rendered_natively_keeps_types():
    options = {"render_template_as_native_obj": True}
    assert rendered("{{ params }}", dag_options=options) == {"n": 3}
    assert rendered("{{ params.n }}", dag_options=options) == 3
    assert rendered("n={{ params.n }}", dag_options=options) == "n=3"


def test_macros_and_filters_of_dag():
    options = {"user_defined_macros": {"twice": lambda n: 2 * n}, "user_defined_filters": {"loud": str.upper}}
    assert rendered("{{ twice(params.n) }} {{ run_id | loud }}", dag_options=options) == "6 R1"


def test_file_beside_dag_file_is_read(tmp_path):
    (tmp_path / "query.sql").write_text("select {{ params.n }} {% include 'part.sql' %}\n")
    (tmp_path / "part.sql").write_text("from {{ run_id }}")
    with DAG("d") as dag:
        task = Field(["query.sql", "{{ run_id }}.sqlx"], task_id="t")
    dag.fileloc = str(tmp_path / "pipeline.py")
    task.render_template_fields(context_of(task))
    assert task.value == ["select 3 from r1\n", "r1.sqlx"]


def test_field_without_expression_never_loads_jinja():
    code = """
import sys
from trainflow.authoring.dag import DAG
from trainflow.authoring.operator import BaseOperator
class Field(BaseOperator):
    template_fields = ("value",)
    value = None
with DAG("d"):
    task = Field(task_id="t")
task.value = ["plain", {"a": 1}]
task.render_template_fields({})
assert task.value == ["plain", {"a": 1}]
print("jinja2" in sys.modules, "asyncio" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


CONSTANTS = [
    "{{ 'a' | seen }}",
    "{{ 'a' is seen }}",
    "{{ ('a' | seen) ~ 'b' }} and {{ [1, 2 | seen] }}",
    "{{ {'k': 'a' | seen}['k'] if 1 is seen else 2 }}",
    "{{ ('a' | seen)[0:1] | seen(2 | seen, k=3 | seen) }}",
    "{% autoescape 1 | seen %}a{% endautoescape %}",
    "{% if 1 is seen %}{% set x = 1 | seen %}{% endif %}",
    "{# none #}{{ 'a' | seen }" + "}" + " " * 3_000,
]


@pytest.fixture
def compiled(monkeypatch):
    """The texts that Jinja compiles, those without an error, in order."""
    texts = []
    compile_text = jinja2.Environment.from_string

    def spy(self, source, *args, **kwargs):
        template = compile_text(self, source, *args, **kwargs)
        texts.append(source)
        return template

    monkeypatch.setattr(jinja2.Environment, "from_string", spy)
    return texts


@pytest.mark.parametrize("native", [False, True])
def test_warm_up_with_constants_in_fields_calls_nothing_of_users(tmp_path, native, compiled, monkeypatch):
    """A filter or a test over a constant would be called by an optimizing compiler: in the process that all attempts
    are forked from."""
    called = []

    def seen(*given, **named):
        called.append(given)
        return "a"

    monkeypatch.setitem(jinja2.defaults.DEFAULT_TESTS, "seen", seen)
    with DAG("d", user_defined_filters={"seen": seen}, render_template_as_native_obj=native):
        task = Field([*CONSTANTS, "{{ unfinished", "{{ 'b' | seen }}"], task_id="t")
    task.warm_up(tmp_path)
    assert called == []
    assert compiled == [*CONSTANTS[:5], "{{ 'b' | seen }}"]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    "expression",
    [
        "9 ** 9 ** 9 ** 9",
        "'a' * 9 ** 15",
        "('%' ~ 9 ** 12 ~ 'd') % 1",
        "range(9 ** 9) | list",
        "range(9 ** 9) | sum",
        "'a' | center(9 ** 12)",
        "[0] * 9 ** 12",
        "1 // 0",
    ],
)
def test_warm_up_with_arithmetic_without_end_reckons_nothing(tmp_path, native, expression, compiled):
    """Evaluated, each of them ends this process, or takes longer than the tests have."""
    with DAG("d", render_template_as_native_obj=native):
        task = Field(f"{{{{ {expression} }}}}", task_id="t")
    task.warm_up(tmp_path)
    assert compiled == [task.value]


@pytest.mark.parametrize(
    "text", ["{{ ds }}" + "a" * 2_000, "{% autoescape ds %}{{ ds }}{% endautoescape %}", "{%- set x = ds -%}{{ x }}"]
)
def test_warm_up_with_text_that_is_long_or_has_statements_leaves_it_to_attempt(tmp_path, text, compiled):
    with DAG("d"):
        task = Field(text, task_id="t")
    task.warm_up(tmp_path)
    assert compiled == []
    task.render_template_fields(context_of(task))
    assert task.value.startswith("2013-01-31")


def test_warm_up_with_field_that_is_a_property_leaves_it_to_attempt(tmp_path, compiled):
    """A property is a user's code: in the shared process all launches would wait for it."""

    class Computed(Field):
        asked = 0

        @property
        def value(self):
            type(self).asked += 1
            return "{{ ds }}"

        @value.setter
        def value(self, given):
            pass

    with DAG("d"):
        task = Computed("{{ ds }}", task_id="t")
    asked = Computed.asked
    task.warm_up(tmp_path)
    assert (Computed.asked, compiled) == (asked, [])


def test_warm_up_with_many_texts_compiles_some_of_them(tmp_path, compiled):
    with DAG("d"):
        task = Field([f"{{{{ ds }}}}{number:01000d}" for number in range(20)], task_id="t")
    task.warm_up(tmp_path)
    assert compiled == task.value[:9]


def test_rendering_after_warm_up_compiles_nothing_again(tmp_path, compiled):
    with DAG("d", user_defined_filters={"twice": lambda text: text * 2}):
        task = Field(["{{ 'a' | twice }}", {"k": "{{ ds }}"}, "plain", 5, "{{ 2 ** 3 }}"], task_id="t")
    task.warm_up(tmp_path)
    task.render_template_fields(context_of(task))
    assert task.value == ["aa", {"k": "2013-01-31"}, "plain", 5, "8"]
    assert len(compiled) == len(set(compiled)) == 3


def test_template_rendering_is_each_dags_own():
    for word in ("one", "two"):
        with DAG("d", user_defined_macros={"word": word}, user_defined_filters={"f": lambda _, word=word: word}):
            task = Field("{{ word }} {{ ds | f }}", task_id="t")
        task.render_template_fields(context_of(task))
        assert task.value == f"{word} {word}"


def test_current_context_is_there_only_while_task_runs():
    with pytest.raises(RuntimeError, match="only while a task runs"):
        get_current_context()
    with current_context({"run_id": "r"}):
        assert get_current_context() == {"run_id": "r"}
    with pytest.raises(RuntimeError):
        get_current_context()
