"""A leash: `python -S -E guard.py GRACE_S -- argv...` runs argv in a process group and ends the group with its owner.

The owner holds the other end of the guard's stdin. However it dies, by kill -9 too, the kernel closes the pipe, and
the group goes: SIGTERM to argv's process, GRACE_S seconds at most, SIGKILL to all. A SIGTERM or SIGINT to the guard
does the same, and a second one does not wait. Should the guard itself be killed (Ray kills the children of a worker
that died), a second process, which does nothing but wait for that, kills the group. (PR_SET_PDEATHSIG could not do all
this: it reaches no grandchild, and fires when the *thread* that forked has ended.)

The exit status is argv's own, 128 + n for a signal. Only small modules are imported: a guard starts in milliseconds.
"""

import os
import select
import signal
import sys
import time

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def command(argv: list[str], grace_s: float) -> list[str]:
    """The command line that runs argv under a guard."""
    return [sys.executable, "-S", "-E", __file__, str(grace_s), "--", *argv]


def main(argv: list[str]) -> int:
    grace_s, guarded = float(argv[1]), argv[3:]
    # A signal wakes select() through this pipe, so that none can slip in between a check and a wait.
    wakeup, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    child = _spawn(guarded)
    reaper = _spawn_reaper(child)
    code = _wait(child, wakeup, grace_s)
    _kill_group(child)
    os.kill(reaper, signal.SIGKILL)
    return code


def _wait(child: int, wakeup: int, grace_s: float) -> int:
    """Returns the exit status of the child, which is asked to end when the owner is gone or a signal says so."""
    watched = [0, wakeup]
    deadline: float | None = None
    while (code := _exit_code(child)) is None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return 128 + signal.SIGKILL
        readable, _, _ = select.select(watched, [], [], left)
        stop = wakeup in readable and bool(STOP_SIGNALS & set(os.read(wakeup, 4096)))
        if 0 in readable and not os.read(0, 4096):
            watched.remove(0)
            stop = stop or deadline is None
        if stop:
            deadline = time.monotonic() + (grace_s if deadline is None else 0)
            os.kill(child, signal.SIGTERM)
    return code


def _spawn(argv: list[str]) -> int:
    # Until argv runs, the child has the guard's handlers: a signal would be lost, or told to the guard a second time.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in (*STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        try:
            os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted
        except OSError as error:
            sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
            sys.stderr.flush()
            os._exit(127)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    return child


def _spawn_reaper(group: int) -> int:
    """A process that kills the group when the guard has been killed; the guard ends it when there is no more to do."""
    reader, writer = os.pipe()
    reaper = os.fork()
    if reaper == 0:
        os.setsid()
        os.close(writer)
        os.read(reader, 1)
        _kill_group(group)
        os._exit(0)
    os.close(reader)
    return reaper


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _exit_code(child: int) -> int | None:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
