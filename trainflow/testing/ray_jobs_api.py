"""Ray's Jobs API on this machine: jobs are processes, and the answers are those of Ray 2.60.

    with RayJobsServer(folder) as ray:
        ...                                    # executors.ray.address = ray.url
        ray.restart()                          # a head without a store of its own forgets all jobs

`tests/integration/test_ray_jobs_api.py` asks the same of this and of a real cluster, where there is one.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import threading
import time
import traceback
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from trainflow.observability.processes import ProcessEntry, descendants, is_alive, process_table
from trainflow.testing.processes import HeldPort

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_MESSAGES = {
    "RUNNING": "Job is currently running.",
    "STOPPED": "Job was intentionally stopped.",
    "SUCCEEDED": "Job finished successfully.",
}
#: what Ray gives a job that is told to stop, where the job does not say
_STOP_SECONDS = 3.0
_LOOK_SECONDS = 0.02
_REQUEST = frozenset(
    {
        "entrypoint",
        "submission_id",
        "job_id",
        "runtime_env",
        "metadata",
        "entrypoint_num_cpus",
        "entrypoint_num_gpus",
        "entrypoint_memory",
        "entrypoint_resources",
        "entrypoint_label_selector",
    }
)
_AMOUNTS = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory", "entrypoint_resources")


class _Job:
    """One job, and its process."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = dict(request)
        self.status = "PENDING"
        self.message: str | None = None
        self.exit_code: int | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.told = False

    def details(self) -> dict[str, Any]:
        """What Ray tells of it."""
        return {
            "type": "SUBMISSION",
            "job_id": None,
            "submission_id": self.request["submission_id"],
            "driver_info": None,
            "status": self.status,
            "entrypoint": self.request["entrypoint"],
            "message": self.message or _MESSAGES.get(self.status) or self._waits(),
            "error_type": None,
            "start_time": 0,
            "end_time": None,
            "metadata": self.request.get("metadata"),
            "runtime_env": self.request.get("runtime_env"),
            "driver_agent_http_address": None,
            "driver_node_id": None,
            "driver_exit_code": self.exit_code,
        }

    def _waits(self) -> str:
        said = "Job has not started yet."
        if any(self.request.get(name) for name in _AMOUNTS):
            said += " It may be waiting for resources (CPUs, GPUs, memory, custom resources) to become available."
        if self.request.get("runtime_env"):
            said += " It may be waiting for the runtime environment to be set up."
        return said


class RayJobsServer:
    """A head of one node. `num_cpus` and `num_gpus`: what it has. `folder` is for packages and logs."""

    def __init__(self, folder: Path, *, num_cpus: float = 8, num_gpus: float = 0) -> None:
        self._folder = folder
        self.num_cpus = num_cpus
        self.num_gpus = num_gpus
        self._jobs: dict[str, _Job] = {}
        self._packages: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._begun: list[tuple[_Job, threading.Thread]] = []
        self._port = HeldPort()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Address of its dashboard."""
        return f"http://127.0.0.1:{self._port.number}"

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """All jobs as Ray lists them, by submission id."""
        with self._lock:
            return {name: job.details() for name, job in self._jobs.items()}

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._port.release()
        for job, thread in self._begun:
            job.told = True
            if job.process is not None:
                _signal_all(job.process, signal.SIGKILL)
            thread.join()

    def listen(self) -> None:
        """Answer."""
        head = self

        class BoundHandler(_JobsHandler):
            server_of = head

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port.number), BoundHandler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="ray jobs api", daemon=True).start()

    def hang_up(self) -> None:
        """Answer no more; jobs go on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def restart(self) -> None:
        """Forget all jobs and packages. Their processes go on."""
        with self._lock:
            self._jobs.clear()
            self._packages.clear()

    def kill_all(self) -> None:
        """End all processes of jobs by force."""
        with self._lock:
            for job in self._jobs.values():
                if job.process is not None:
                    _signal_all(job.process, signal.SIGKILL)

    # -- what is asked ---------------------------------------------------------------------------------------------

    def submit(self, request: dict[str, Any]) -> tuple[int, object]:
        """Answer POST /api/jobs/."""
        if "entrypoint" not in request:
            missing = "JobSubmitRequest.__init__() missing 1 required positional argument: 'entrypoint'"
            return 400, _traceback(TypeError(missing))
        for name in request:
            if name not in _REQUEST:
                unknown = f"JobSubmitRequest.__init__() got an unexpected keyword argument '{name}'"
                return 400, _traceback(TypeError(unknown))
        name = request.setdefault("submission_id", f"raysubmit_{len(self._jobs)}")
        with self._lock:
            if name in self._jobs:
                taken = f"Job with submission_id {name} already exists. Please use a different submission_id."
                return 500, _forwarded(ValueError(taken))
            job = self._jobs[name] = _Job(request)
        thread = threading.Thread(target=self._run, args=(name, job), name=f"job {name}", daemon=True)
        self._begun.append((job, thread))
        thread.start()
        return 200, {"job_id": name, "submission_id": name}

    def job(self, name: str) -> _Job | None:
        """The job of this id."""
        with self._lock:
            return self._jobs.get(name)

    def stop(self, job: _Job) -> tuple[int, object]:
        """Answer POST /api/jobs/ID/stop."""
        running, job.told = job.status not in _ENDED, True
        return 200, {"stopped": running}

    def delete(self, name: str, job: _Job) -> tuple[int, object]:
        """Answer DELETE /api/jobs/ID."""
        if job.status not in _ENDED:
            said = f"Attempted to delete job '{name}', but it is in a non-terminal state {job.status}."
            return 500, _forwarded(RuntimeError(said))
        with self._lock:
            self._jobs.pop(name, None)
        return 200, {"deleted": True}

    def put_package(self, name: str, content: bytes) -> tuple[int, object]:
        """Answer PUT /api/packages/gcs/NAME."""
        with self._lock:
            self._packages[f"gcs://{name}"] = content
        return 200, ""

    # -- one job ---------------------------------------------------------------------------------------------------

    def _run(self, name: str, job: _Job) -> None:
        while not job.told and not self._takes(job):
            time.sleep(_LOOK_SECONDS)
        if job.told and job.process is None and job.status == "PENDING":
            job.status = "STOPPED"
            return
        log = self._folder / f"job-driver-{name}.log"
        try:
            job.process = self._start(name, job, log)
        except Exception as error:
            job.message, job.status = f"Runtime env setup for job failed: {error}", "FAILED"
            return
        code = self._follow(job, job.process)
        if job.told:
            job.status = "STOPPED"
        elif code == 0:
            job.exit_code, job.status = code, "SUCCEEDED"
        else:
            own = f"Running entrypoint for job {name}: {job.request['entrypoint']}\n"
            tail = (log.read_text(errors="replace") + own)[-20_000:]
            said = f"Job entrypoint command failed with exit code {code}"
            logs = f", last available logs (truncated to 20,000 chars):\n{tail}"
            job.exit_code, job.message, job.status = code, said + logs, "FAILED"

    def _takes(self, job: _Job) -> bool:
        """Give the job what it needs, where that is free."""
        with self._lock:
            for kind, total in (("entrypoint_num_cpus", self.num_cpus), ("entrypoint_num_gpus", self.num_gpus)):
                used = sum(each.request.get(kind) or 0 for each in self._jobs.values() if each.status == "RUNNING")
                if used + (job.request.get(kind) or 0) > total:
                    return False
            if job.request.get("entrypoint_resources"):
                return False  # it has none
            job.status = "RUNNING"
            return True

    def _start(self, name: str, job: _Job, log: Path) -> subprocess.Popen[bytes]:
        environment = job.request.get("runtime_env") or {}
        folder = self._folder / f"job-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        if "working_dir" in environment:
            with zipfile.ZipFile(io.BytesIO(self._packages[environment["working_dir"]])) as archive:
                archive.extractall(folder)
        with log.open("wb") as output:
            return subprocess.Popen(
                ["/bin/sh", "-c", job.request["entrypoint"]],
                cwd=folder,
                env={**os.environ, **environment.get("env_vars", {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @staticmethod
    def _follow(job: _Job, process: subprocess.Popen[bytes]) -> int:
        """Wait for its end. One that is told to stop gets SIGTERM, with all that it started, and SIGKILL later."""
        given = (job.request.get("runtime_env") or {}).get("env_vars", {}).get("RAY_JOB_STOP_WAIT_TIME_S")
        patience = _STOP_SECONDS if given is None else int(given)
        family: list[ProcessEntry] = []
        killed_at: float | None = None
        while process.poll() is None or any(is_alive(each.pid, each.started) for each in family):
            if job.told and killed_at is None:
                killed_at = time.monotonic() + patience
                family = _signal_all(process, signal.SIGTERM)
            if killed_at is not None and time.monotonic() >= killed_at:
                _signal_all(process, signal.SIGKILL)
                for each in family:  # by now they may descend from it no more
                    _signal(each, signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)
        return process.returncode


class _JobsHandler(BaseHTTPRequestHandler):
    """Reads a request and writes its answer."""

    server_of: RayJobsServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        parts = self._parts()
        if parts == ["api", "jobs"]:
            self._answer(200, list(self.server_of.jobs.values()))
        elif parts == ["api", "version"]:
            self._answer(200, {"version": "4", "ray_version": "2.60.0"})
        elif parts[:2] == ["api", "jobs"] and (job := self._job(parts[2])) is not None:
            self._answer(200, job.details())

    def do_POST(self) -> None:
        parts, content = self._parts(), self._content()
        if parts == ["api", "jobs"]:
            self._answer(*self.server_of.submit(json.loads(content)))
        elif parts[3:] == ["stop"] and (job := self._job(parts[2])) is not None:
            self._answer(*self.server_of.stop(job))

    def do_DELETE(self) -> None:
        parts = self._parts()
        if (job := self._job(parts[2])) is not None:
            self._answer(*self.server_of.delete(parts[2], job))

    def do_PUT(self) -> None:
        parts, content = self._parts(), self._content()
        self._answer(*self.server_of.put_package(parts[3], content))

    def _parts(self) -> list[str]:
        return [unquote(part) for part in self.path.split("/") if part]

    def _content(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _job(self, name: str) -> _Job | None:
        job = self.server_of.job(name)
        if job is None:
            self._answer(404, f"Job {name} does not exist")
        return job

    def _answer(self, status: int, body: object) -> None:
        kind, text = ("text/plain", body) if isinstance(body, str) else ("application/json", json.dumps(body))
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _signal_all(process: subprocess.Popen[bytes], number: signal.Signals) -> list[ProcessEntry]:
    """Signal a process and all that descends from it, as Ray does: in whatever group or session it is. The latter."""
    family = descendants([process.pid], process_table())
    for entry in family:
        _signal(entry, number)
    with suppress(ProcessLookupError):
        process.send_signal(number)
    return family


def _signal(entry: ProcessEntry, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if is_alive(entry.pid, entry.started):
            os.kill(entry.pid, number)


def _forwarded(error: Exception) -> str:
    """What the head answers with for an error of the agent that it has asked."""
    said = f"Request failed with status code 400: {_traceback(error)}.\n"
    return _traceback(RuntimeError(said))


def _traceback(error: Exception) -> str:
    """What Ray answers with for an error of its own."""
    try:
        raise error
    except Exception:
        return traceback.format_exc()
