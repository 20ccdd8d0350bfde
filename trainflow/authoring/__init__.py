"""How a pipeline is written in Python: DAGs, operators, their edges, templates, params, sensors and triggers.

Names and meaning are Airflow's (`airflow.sdk`); what is not offered is not accepted either.

Rules that hold everywhere in here:

- **One mechanism for values of other tasks.** An `XComArg` may stand in a template field, also inside lists, tuples and
  dicts; nowhere else. Edges are derived from the fields when the graph is asked for (`DAG.graph`), so an assignment
  after construction counts and nothing has to be kept in step. The same fields are resolved before `execute`.
- **Edges are remembered as written** (operator or task group on either side) and become edges of tasks when the graph
  is asked for: `group >> task` means what the group holds in the end, not what it held at that line.
- **Defaults before the constructor.** `default_args` of the DAG and of the task groups reach every parameter of an
  operator's constructor, its own included (`operator_type`).
- **Nothing accepted and ignored.** An unknown keyword, an unknown key of `default_args`, an unknown schema keyword of a
  Param are errors, with the nearest name.
- Nothing here imports asyncio, jinja2 or anything heavier at module level: every attempt's process carries it.

A change breaks this when constructing a DAG has an effect outside the objects made, when a value depends on the time,
the process or the path of the file, or when a field can hold an XComArg that is neither an edge nor resolved.

Reading order: `dag`, `operator` (with `operator_type`: how one is constructed, inside the innermost open DAG), `graph`
(edges as written, and what comes of them), `xcom_arg`, `task_group`, `decorators`, `python_call` (calling a user's
function), `context`, `templates` (with `jinja`, which only a task with an expression imports), `param`, `sensor`,
`trigger`; how arguments are checked: `arguments`, `checked_call`.
"""
