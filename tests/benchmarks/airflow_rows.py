"""Run by the interpreter of an environment with `apache-airflow`: puts runs into Airflow's database, whose schema it
makes. `airflow_rows.py COUNT`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from airflow.models import DagModel, DagRun
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import insert


def main(count: int) -> None:
    """Insert runs that have ended, each with its conf."""
    initdb()
    now = datetime.now(UTC)
    with create_session() as session:
        session.add(DagBundleModel(name="bench"))
        session.flush()
        session.add(DagModel(dag_id="d", bundle_name="bench", fileloc="d.py", is_paused=False, timetable_type=""))
        session.flush()
        rows = [
            {
                "dag_id": "d",
                "run_id": f"manual__{number:05}",
                "run_type": "manual",
                "state": "success",
                "run_after": now + timedelta(seconds=number),
                "queued_at": now + timedelta(seconds=number),
                "start_date": now + timedelta(seconds=number),
                "end_date": now + timedelta(seconds=number + 9),
                "conf": {"rows": 100},
                "clear_number": 0,
            }
            for number in range(count)
        ]
        session.execute(insert(DagRun.__table__), rows)


if __name__ == "__main__":
    main(int(sys.argv[1]))
