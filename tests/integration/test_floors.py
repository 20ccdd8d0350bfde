"""The floors of the package, as `pyproject.toml` draws them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_modules_import_downwards_only() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr


def test_package_without_docstring_is_found() -> None:
    silent = [
        str(package.relative_to(ROOT))
        for package in (ROOT / "trainflow").rglob("__init__.py")
        if "migrations" not in package.parts and len(package.read_text().split('"""')[1]) < 40
    ]

    assert silent == []


def test_clock_is_only_module_that_asks_time() -> None:
    calls = ("datetime.now(", "time.time(", "utcnow(", ".today(")
    texts = {path: path.read_text() for path in (ROOT / "trainflow").rglob("*.py") if path.name != "clock.py"}
    asking = [f"{path.relative_to(ROOT)}: {call}" for path, text in texts.items() for call in calls if call in text]

    assert asking == []


def test_sql_outside_metadata_is_found() -> None:
    """Others pass connections and rows on, and never make a statement."""
    passed_on = {"Connection", "Row", "DBAPIError", "StatementError"}
    package = ROOT / "trainflow"
    made = [
        f"{path.relative_to(ROOT)}: {name.name}"
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in ("metadata", "testing")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy")
        for name in node.names
        if name.name not in passed_on
    ]

    assert made == []


def test_processes_of_a_worker_elsewhere_load_no_database_library() -> None:
    """Each attempt on another host starts two of them: SQLAlchemy alone takes longer than all that they need."""
    started = ("actions.execute_workload", "actions.celery_worker", "execution.ranks.agent", "execution.attempt_main")
    imports = "".join(f"import trainflow.{name}\n" for name in started)
    code = f"import sys\n{imports}print(*sorted({{'sqlalchemy', 'pydantic', 'pyarrow', 'numpy'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert result.stdout.split() == []


def test_server_of_attempts_loads_nothing_of_pages_and_no_command_line() -> None:
    """It is there all the time, on each host of the control plane: what people ask is loaded when they ask."""
    absent = ("click", "multiprocessing", "jinja2", "pydantic", "trainflow.api.web_server", "trainflow.insight")
    code = f"""
import sys
import trainflow.api.execution_server, trainflow.api.main
print(*[name for name in {absent} if name in sys.modules])
import uvicorn.main
print(uvicorn.main.run.__name__)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert result.stdout.splitlines() == ["", "run"]
