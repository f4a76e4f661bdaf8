from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial

import pytest

IN_PYTHON = "time.sleep(60)"
IN_A_LIBRARY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
TIDYING_UP = """
try:
    print('ready', flush=True), time.sleep(60)
finally:
    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
"""
FAILING_TO_TIDY_UP = """
try:
    time.sleep(60)
finally:
    raise RuntimeError('cannot join thread before it is started')
"""
CATCHING = """
try:
    time.sleep(60)
except BaseException:
    pass
"""
OF_A_COMMAND = """
import types
from lurefs import cli
from lurefs.sweeps.workers import Call, answer
def work():
    try:
        print('working', flush=True), time.sleep(60)
    finally:
        raise {error}
cli.parse = lambda arguments: types.SimpleNamespace(run=lambda parsed: {call})
cli._main([])
"""


def started(work: str, *, ignored: bool = False) -> subprocess.Popen[str]:
    """Start a process that does some work in the block; it has printed "ready" when this returns."""
    lines = "".join(f"    {line}\n" for line in ["print('ready', flush=True)", *work.strip().splitlines()])
    code = "import hashlib, os, signal, time\nfrom lurefs.interrupts import ended_by_signals\n"
    code += f"with ended_by_signals('all is kept'):\n{lines}print('done', flush=True)\n"
    handler = signal.SIG_IGN if ignored else signal.SIG_DFL  # processes in the background ignore SIGINT
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, handler),
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", [IN_PYTHON, IN_A_LIBRARY, TIDYING_UP, FAILING_TO_TIDY_UP, CATCHING])
def test_a_process_ends_within_a_second_and_says_why(work: str, number: signal.Signals) -> None:
    process = started(work)
    time.sleep(0.2)  # the work has begun
    sent = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - sent < 1.5  # one second, and some for a busy machine
    assert (process.returncode, error) == (128 + number, "all is kept\n")


@pytest.mark.parametrize("call", ["work()", "print(answer(Call(work)))"])
@pytest.mark.parametrize("error", ["RuntimeError('in the wrong state')", "OSError(28, 'No space left')"])
def test_what_a_library_raises_while_it_tidies_up_is_no_failure(error: str, call: str) -> None:
    process = started(OF_A_COMMAND.format(error=error, call=call))
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (128 + signal.SIGTERM, "", "all is kept\n")


def test_a_signal_that_meets_a_finaliser_ends_the_process_without_a_traceback() -> None:
    work = """
class Finalised:
    def __del__(self):
        print('in a finaliser', flush=True)
        time.sleep(60)
Finalised()
time.sleep(60)
"""
    process = started(work)
    assert process.stdout is not None and process.stdout.readline() == "in a finaliser\n"
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (128 + signal.SIGTERM, "all is kept\n")


def test_an_ignored_signal_stays_ignored() -> None:
    process = started("time.sleep(0.5)", ignored=True)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("done\n", "")


def test_signals_of_a_forked_process_do_not_end_its_parent() -> None:
    work = """
child = os.fork()
if child == 0:
    time.sleep(60)
time.sleep(0.2)
os.kill(child, signal.SIGTERM)
print(os.waitpid(child, 0)[1])
time.sleep(1)
"""
    output, _ = started(work).communicate(timeout=60)
    assert output == f"{signal.SIGTERM:d}\ndone\n"


def test_after_the_block_signals_do_what_they_did_before() -> None:
    from lurefs.interrupts import ended_by_signals

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with ended_by_signals("never printed"):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
