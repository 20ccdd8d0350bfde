"""The project that `trainflow init` lays out: a folder that runs as it is, on samples it makes itself.

`template/` ships in the wheel. A file's name there is its name in the project with `.tmpl` behind it, so that no
linter, test runner or importer takes it for one of ours; `gitignore` gets its dot. Only `{{name}}` is filled in.

Invariants
- Nothing is ever overwritten: either all files are new, or none is written.
- What is laid out needs trainflow and nothing else, no network and no service.

A change breaks this when the template uses an API that its test does not run.

Reading order: `template/README.md.tmpl`, `template/pipelines/example.yaml.tmpl`, `lay_out`.
"""
