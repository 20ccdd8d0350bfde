"""The pipeline that every executor runs in its contract (`executor_contract`)."""

from __future__ import annotations

PIPELINE = "pipelines/contract.py"
CODE = '''
import os, signal, sys, time
from pathlib import Path
from trainflow import DAG
from trainflow.operators import PythonOperator

HERE = Path(__file__).parent.parent

def says():
    return "first"

def fails():
    raise ValueError("on purpose")

def leaves():
    os._exit(0)

def dies():
    os.kill(os.getpid(), signal.SIGKILL)

def waits():
    (HERE / "waiting").touch()
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return "went on"

def stubborn():
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    (HERE / "deaf").touch()
    while True:
        time.sleep(60)

#: a daemon that nothing but SIGKILL ends, in a session of its own, without its parent; it says its pid and waits
STRAY = """
import os, signal, sys
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
while True:
    signal.pause()
"""

def strays(*kinds):
    import subprocess, sys
    for kind in kinds:
        path = HERE / f"stray_{kind}"
        environment = {} if kind == "bare" else None
        subprocess.run([sys.executable, "-c", STRAY, str(path), kind], env=environment, check=True)
        while not path.exists():
            time.sleep(0.01)

def strays_and_says():
    strays("marked", "bare", "deaf")
    return "first"

def strays_and_fails():
    strays("marked", "bare")
    raise ValueError("on purpose")

def strays_and_leaves():
    strays("marked")
    os._exit(0)

def strays_and_dies():
    strays("marked")
    os.kill(os.getpid(), signal.SIGKILL)

def strays_and_waits():
    strays("marked", "deaf")
    return waits()

def copies_and_says():
    for end in (0, 1, 2):
        if os.fork() == 0:
            if end == 0:
                return "of a copy"
            if end == 1:
                raise ValueError("in a copy")
            import atexit
            atexit.register((HERE / "exit_handler").touch)
            sys.exit(3)
    return [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(3)]

def square(number):
    return number * number

def multiplies():
    import multiprocessing
    found = []
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            found += pool.map(abs, [-1, 2])
        process = multiprocessing.get_context(method).Process(target=time.sleep, args=(1000,))
        process.start()
        process.terminate()
        process.join()
        found.append(process.exitcode)
    return found

with DAG("contract"):
    for function in (
        says, fails, leaves, dies, waits, stubborn, strays_and_says, strays_and_fails, strays_and_leaves,
        strays_and_dies, strays_and_waits, copies_and_says, multiplies,
    ):
        PythonOperator(task_id=function.__name__, python_callable=function)

#: one whose ranks have hosts of their own, where the executor can do that
with DAG("contract_ranks"):
    PythonOperator(task_id="waits", python_callable=waits).nodes = 3

#: the same, one a DAG
for function in (says, fails, leaves, dies, waits, stubborn, strays_and_says, strays_and_dies):
    with DAG(f"contract_{function.__name__}"):
        PythonOperator(task_id=function.__name__, python_callable=function)
'''
