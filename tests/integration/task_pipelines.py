"""Pipelines whose tasks succeed, fail, retry, time out, skip, wait and come back, for tests of a whole engine."""

from __future__ import annotations

PIPELINE = '''
import os
import signal
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from trainflow import DAG
from trainflow.authoring.sensor import BaseSensorOperator
from trainflow.authoring.operator import BaseOperator
from trainflow.operators import EmptyOperator, PythonOperator
from trainflow.operators.triggers.time import DateTimeTrigger, TimeDeltaTrigger
from trainflow.errors import FailException, SampleCheckFailed, SampleGap, SkipException

HERE = Path(__file__).parent.parent
SOON = timedelta(milliseconds=20)

def count(name):
    """How often this was called, over processes."""
    with (HERE / name).open("a") as file:
        file.write("x")
    return len((HERE / name).read_text())

with DAG("values"):
    def give():
        return {"n": 41, "text": "ü"}
    def take(given):
        return given["n"] + 1
    a = PythonOperator(task_id="give", python_callable=give)
    b = PythonOperator(task_id="take", python_callable=take, op_kwargs={"given": a.output})
    a >> b

with DAG("retries"):
    def flaky():
        if count("flaky") < 3:
            raise ValueError("not yet")
        return "at last"
    PythonOperator(task_id="flaky", python_callable=flaky, retries=2, retry_delay=SOON)

def shows_password(params):
    print("it is", params["db_password"])
    raise FailException(f"refused: {params['db_password']}")

with DAG("passwords", params={"db_password": "correct-horse"}):
    PythonOperator(task_id="show", python_callable=shows_password)

with DAG("mistake"):
    def misspelt():
        count("misspelt")
        return coutn("x")
    PythonOperator(task_id="misspelt", python_callable=misspelt, retries=5, retry_delay=SOON)

with DAG("gives_up"):
    def hopeless():
        count("hopeless")
        raise ValueError("never")
    a = PythonOperator(task_id="hopeless", python_callable=hopeless, retries=1, retry_delay=SOON)
    a >> EmptyOperator(task_id="after")

with DAG("final"):
    def final(error):
        count("final")
        raise error
    BAD = {"partition": datetime(2024, 1, 1, tzinfo=timezone.utc)}
    for name, error in {
        "told": FailException("no use"),
        "check": SampleCheckFailed("no rows", problems=("no rows",), **BAD),
        "gap": SampleGap("no partition", **BAD),
    }.items():
        PythonOperator(task_id=name, python_callable=final, op_args=[error], retries=5, retry_delay=SOON)

with DAG("too_long"):
    def endless():
        while True:
            time.sleep(60)
    PythonOperator(task_id="endless", python_callable=endless, execution_timeout=timedelta(milliseconds=50))

with DAG("runs_out"):
    def full():
        raise RuntimeError("cannot save") from OSError(28, "No space left on device", "/data")
    def nested():
        value = []
        for _ in range(300):
            value = [value]
        return value
    def no_memory():
        raise MemoryError
    for function in (full, nested, no_memory):
        PythonOperator(task_id=function.__name__, python_callable=function)

class WaitsTooLong(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(hours=2)), method_name="came", timeout=7200)

    def came(self, context, event=None):
        raise AssertionError("nothing came")

    def on_kill(self):
        count("told")

with DAG("waits_too_long"):
    WaitsTooLong(task_id="waits", execution_timeout=timedelta(hours=1))

with DAG("run_too_long", dagrun_timeout=3600):
    PythonOperator(task_id="endless", python_callable=endless)

with DAG("fails_fast", fail_fast=True):
    def begins():
        (HERE / "begun").touch()
        endless()
    def fails():
        while not (HERE / "begun").exists():
            time.sleep(0.01)
        return 1 / 0
    PythonOperator(task_id="endless", python_callable=begins)
    PythonOperator(task_id="fails", python_callable=fails)

with DAG("leaves"):
    def leave():
        if count("leave") == 1:
            os._exit(0)
    PythonOperator(task_id="leave", python_callable=leave, retries=1, retry_delay=SOON)

with DAG("killed"):
    def killed():
        if count("killed") < 3:
            os.kill(os.getpid(), signal.SIGKILL)
    PythonOperator(task_id="killed", python_callable=killed)

with DAG("swallows"):
    def swallow():
        if count("swallow") > 1:
            return "done"
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except BaseException:
            return "pretends to be done"
    PythonOperator(task_id="swallow", python_callable=swallow)

with DAG("large"):
    def much():
        return "x" * 10_000_000
    def measure(given):
        return len(given)
    a = PythonOperator(task_id="much", python_callable=much)
    b = PythonOperator(task_id="measure", python_callable=measure, op_kwargs={"given": a.output})
    a >> b

with DAG("odd_words"):
    def told():
        raise ValueError("no file \\udcff\\x00 in " + "A" * 1_000_000 + " of postgresql://me:geheim@db/x")
    PythonOperator(task_id="told", python_callable=told)

with DAG("numbers"):
    def numpy_number():
        import numpy
        return {"auc": numpy.float32(0.5), "rows": numpy.int64(3)}
    def not_a_number():
        return {"loss": [float("nan")]}
    PythonOperator(task_id="numpy_number", python_callable=numpy_number)
    PythonOperator(task_id="not_a_number", python_callable=not_a_number)

with DAG("skips"):
    def skip():
        raise SkipException("not today")
    a = PythonOperator(task_id="skip", python_callable=skip)
    b = EmptyOperator(task_id="after")
    c = EmptyOperator(task_id="later")
    d = EmptyOperator(task_id="anyway", trigger_rule="all_done")
    a >> b >> c >> d

class Waits(BaseOperator):
    def __init__(self, trigger, times=1, timeout=None, **kwargs):
        super().__init__(**kwargs)
        self.trigger, self.times, self.timeout = trigger, times, timeout
    def execute(self, context):
        self.again(context, 1)
    def again(self, context, number):
        context["ti"].xcom_push("number", number)
        self.defer(trigger=self.trigger(), method_name="came", kwargs={"number": number}, timeout=self.timeout)
    def came(self, context, event, number):
        if number < self.times:
            self.again(context, number + 1)
        return [number, bool(event), context["ti"].xcom_pull(self.task_id, key="number")]

with DAG("waits"):
    Waits(lambda: TimeDeltaTrigger(SOON), task_id="delta")
    Waits(lambda: DateTimeTrigger(datetime.now(timezone.utc) - timedelta(days=1)), task_id="past", times=3)

class Looks(BaseSensorOperator):
    def poke(self, context):
        return count("looks_" + self.task_id) >= 3

with DAG("looks"):
    Looks(task_id="looks", mode="reschedule", poke_interval=0.02)
    Looks(task_id="pokes", mode="poke", poke_interval=0.02)

with DAG("narrow", max_active_tasks=16):
    def alone():
        lock = HERE / "alone"
        lock.mkdir()
        time.sleep(0.01)
        lock.rmdir()
    for number in range(4):
        PythonOperator(task_id=f"t{number}", python_callable=alone, pool="one")

with DAG("wide", max_active_tasks=1):
    for number in range(3):
        PythonOperator(task_id=f"t{number}", python_callable=alone)

with DAG("torn"):
    from operators.waiting import Breaks
    Waits(Breaks, task_id="breaks", retries=1, retry_delay=SOON)

with DAG("late"):
    Waits(lambda: DateTimeTrigger(datetime.now(timezone.utc) + timedelta(days=1)), task_id="late", timeout=0.05)
'''
WAITING = '''
from pathlib import Path
from trainflow.authoring.trigger import BaseTrigger, TriggerEvent

class Breaks(BaseTrigger):
    """Breaks the first time."""
    def serialize(self):
        return "operators.waiting.Breaks", {}
    async def run(self):
        marker = Path(__file__).parent / "broke"
        if not marker.exists():
            marker.touch()
            raise RuntimeError("it broke")
        yield TriggerEvent("fine")
'''
