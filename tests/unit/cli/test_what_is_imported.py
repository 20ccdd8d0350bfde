from __future__ import annotations

import subprocess
import sys


def test_help_pays_for_nothing_it_does_not_use() -> None:
    heavy = ["sqlalchemy", "pyarrow", "mlflow", "jinja2", "yaml", "fsspec", "pydantic", "asyncio", "rich", "random"]
    script = f"import sys, trainflow.cli.main; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
