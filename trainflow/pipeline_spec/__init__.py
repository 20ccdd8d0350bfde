"""A pipeline written as YAML: read it, check it, compile it to the DAG a Python file would have written.

`yaml_reader` turns the file into plain values that remember where they stand; `overrides` lays `--set` over them and
puts the model's `config` file underneath; `model` says which keys there are (its JSON Schema completes
them in an editor); `compile` writes the DAG with the operators of `trainflow.operators` and nothing else.

Invariants
- Every problem of a file is reported at once, each with the place it comes from: file, line and column, or the
  `--set` that brought it in.
- Only JSON comes out of a file: no tag builds an object, nothing is executed, nothing is imported. A function is named
  `module:name`; that the module exists and defines the name is read from its source.
- One resolved file, one digest, in every process: it is the DAG's `content`, so a changed parameter is a new version.
- Nothing the YAML can do is closed to Python: `compile` has no access that a pipeline in Python lacks.
- This is the only package that imports pydantic.

A change breaks this when it checks something only while the pipeline runs that the file already tells, when a default
lives in `compile` and not in `model`, or when a key is renamed without its name in `trainflow.samples.spec` following.

The way of a file, from `trainflow start` to the documents that are stored: `trainflow.workspace` lets a child process
read it (`trainflow.execution.parse_main`), `trainflow.execution.dag_files` loads it: a Python file by importing it, a
YAML file by `load.load_pipeline_file`, where all of this package is. What comes out are DAGs, which
`trainflow.serialization` turns into documents, and `trainflow.messages` carries these back.

Reading order: `model` (every key, unit and default; the sections are in `sections`, `samples_section`, each with what
it becomes; single values in `fields`), `quantities` (what "1h30m" and "2013-01-01" mean), `yaml_reader`, `overrides`
(what is laid over and under it), `validation` (what a stage takes from the file, and whether that fits), `stage_cycles`
(which stages start from which), `references`, `problems` (how wrong input is told), `load` (all of it in order),
`compile`.
"""
