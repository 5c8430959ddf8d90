import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from backend import guard
from tests.backend.conftest import alive, descendants, eventually

# A leader with a child; both are in the guarded group and say so.
FAMILY = "sleep 300 & echo $! $$; wait"
# Ignores SIGTERM.
STUBBORN = "trap '' TERM; echo $$; while :; do sleep 0.1; done"


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def guarded(started: list["subprocess.Popen[str]"], script: str, grace_s: float = 5) -> "subprocess.Popen[str]":
    argv = guard.command(["sh", "-c", script], grace_s)
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    started.append(process)
    return process


def pids(process: "subprocess.Popen[str]") -> list[int]:
    assert process.stdout
    return [int(pid) for pid in process.stdout.readline().split()]


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_status_is_passed_on(started: list["subprocess.Popen[str]"], script: str, code: int) -> None:
    assert guarded(started, script).wait(timeout=10) == code


def test_a_command_that_is_not_there_is_127(started: list["subprocess.Popen[str]"]) -> None:
    argv = guard.command(["/no/such/engine"], 5)
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started.append(process)
    assert process.wait(timeout=10) == 127
    assert process.stderr
    assert "/no/such/engine" in process.stderr.read()


def test_the_end_of_stdin_ends_the_whole_group(started: list["subprocess.Popen[str]"]) -> None:
    process = guarded(started, FAMILY)
    family = pids(process)
    assert process.stdin
    process.stdin.close()
    assert process.wait(timeout=10) == 143
    eventually(lambda: not any(alive(pid) for pid in family))


def test_a_signal_ends_the_whole_group(started: list["subprocess.Popen[str]"]) -> None:
    process = guarded(started, FAMILY)
    family = pids(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143
    eventually(lambda: not any(alive(pid) for pid in family))


def test_what_ignores_sigterm_is_killed_after_the_grace(started: list["subprocess.Popen[str]"]) -> None:
    process = guarded(started, STUBBORN, grace_s=0.3)
    (pid,) = pids(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 137
    eventually(lambda: not alive(pid))


def test_a_second_signal_does_not_wait(started: list["subprocess.Popen[str]"]) -> None:
    process = guarded(started, STUBBORN, grace_s=1000)
    (pid,) = pids(process)
    process.send_signal(signal.SIGTERM)
    assert alive(pid)
    # Two signals that are still pending are one: send until the second has arrived.
    eventually(lambda: process.send_signal(signal.SIGTERM) or process.poll() is not None)
    eventually(lambda: not alive(pid))


def test_an_owner_killed_outright_takes_the_group_along() -> None:
    argv = guard.command(["sh", "-c", FAMILY], 5)
    owner = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.Popen({argv!r}, stdin=subprocess.PIPE).wait()"],
        stdout=subprocess.PIPE,
        text=True,
    )
    family = pids(owner)
    below = [*family, *descendants(owner.pid)]
    owner.kill()
    owner.wait()
    eventually(lambda: not any(alive(pid) for pid in below))


def test_a_guard_killed_outright_takes_the_group_along(started: list["subprocess.Popen[str]"]) -> None:
    process = guarded(started, FAMILY)
    below = [*pids(process), *descendants(process.pid)]
    process.kill()
    eventually(lambda: not any(alive(pid) for pid in below))


def test_an_engine_that_ends_takes_its_stragglers_along(started: list["subprocess.Popen[str]"]) -> None:
    process = guarded(started, "sleep 300 & echo $!; exit 3")
    (straggler,) = pids(process)
    assert process.wait(timeout=10) == 3
    eventually(lambda: not alive(straggler))
