"""A network of namespaces: machines with addresses of their own on a switch, whose cables a test may pull.

Needs root and iproute2. This machine takes part by one interface; the switch is in a namespace too, where no firewall
and no bridge of this machine's has a say.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import psutil

from backend import guard

PREFIX = "llmgwlan"  # with a process id behind it, as long as an interface's name may be
# A machine has processes, a /proc and a hostname of its own. Its first process takes all others along when it ends.
_OWN = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts"]


def unavailable() -> str | None:
    """Why there can be no such network here; None where there can."""
    for tool in ("ip", "unshare"):
        if shutil.which(tool) is None:
            return f"no `{tool}` here (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    probe = f"{PREFIX}{os.getpid()}-probe"
    for command in (["ip", "netns", "add", probe], ["ip", "netns", "delete", probe], [*_OWN, "true"]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return f"no namespaces here: {done.stderr.strip()}"
    return None


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


class Lan:
    """The switch, this machine's cable to it, and the other machines.

    Attributes:
        network: the first three numbers of every address.
        address: this machine's.
    """

    def __init__(self) -> None:
        self.name = f"{PREFIX}{os.getpid()}"
        self.switch = f"{self.name}-switch"
        # Of this process's id, so that two runs do not meet.
        self.network = f"10.{128 + os.getpid() // 256 % 128}.{os.getpid() % 256}."
        self.address = f"{self.network}254"
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        _sweep()
        with ExitStack() as ends:
            ip("netns", "add", self.switch)
            ends.callback(ip, "netns", "delete", self.switch)  # and with it every cable
            ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
            ip("-n", self.switch, "link", "set", "switch", "up")
            ip("link", "add", self.name, "type", "veth", "peer", "name", "home", "netns", self.switch)
            ip("-n", self.switch, "link", "set", "home", "master", "switch", "up")
            ip("address", "add", f"{self.address}/24", "dev", self.name)
            ip("link", "set", self.name, "up")
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def machine(self, name: str, number: int, folder: Path, environment: Mapping[str, str]) -> "Machine":
        """A machine that is there until the network goes."""
        machine = Machine(self, name, f"{self.network}{number}", folder, environment)
        ip("netns", "add", machine.namespace)
        self._ends.callback(ip, "netns", "delete", machine.namespace)
        self._ends.enter_context(closing(machine))
        ip("-n", machine.namespace, "link", "set", "lo", "up")
        ip(
            "-n",
            self.switch,
            "link",
            "add",
            "name",
            name,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            machine.namespace,
        )
        ip("-n", machine.namespace, "address", "add", f"{machine.address}/24", "dev", "eth0")
        ip("-n", machine.namespace, "link", "set", "eth0", "up")
        ip("-n", self.switch, "link", "set", name, "master", "switch", "up")
        return machine


class Machine:
    """One machine: its kernel's network is there as long as the Lan, its processes come and go.

    Attributes:
        folder: its working directory, with its log.
    """

    def __init__(self, lan: Lan, name: str, address: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self.namespace = f"{lan.name}-{name}"
        self._switch = lan.switch
        # One path for all, and behind it a folder of each machine's own: Ray puts the sockets of every node where those
        # of the head are. They lie 83 bytes below, and may have 107.
        self._temporary = folder.parent / "tmp"
        self._environment = {**environment, "TMPDIR": str(self._temporary)}
        self._services: list[subprocess.Popen[bytes]] = []
        for path in (folder / "tmp", self._temporary):
            path.mkdir(parents=True, exist_ok=True)

    def service(self, command: str) -> None:
        """Runs a shell command, and again whenever it has ended."""
        script = f'{self._mount}\nhostname {self.name}\nwhile :; do\n{command}\necho "ended with $?"; sleep 1; done'
        argv = [*self._inside, *_OWN, "bash", "-c", script]
        with (self.folder / "log").open("ab") as log:
            self._services.append(
                subprocess.Popen(
                    # Under a guard: should the tests be killed, no machine stays.
                    guard.command(argv, grace_s=0),
                    env=self._environment,
                    cwd=self.folder,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def run(self, command: str) -> str:
        """What a shell command prints."""
        argv = [*self._inside, "unshare", "--mount", "bash", "-c", f"{self._mount}\n{command}"]
        done = subprocess.run(argv, env=self._environment, cwd=self.folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def unplug(self) -> None:
        """Pulls the cable: what is sent to it or from it vanishes."""
        ip("-n", self._switch, "link", "set", self.name, "down")

    def plug(self) -> None:
        ip("-n", self._switch, "link", "set", self.name, "up")

    def kill(self) -> None:
        """Ends every process at once, by SIGKILL. Its kernel goes on, and refuses connections."""
        for service in self._services:
            service.kill()  # the guard; what it guards is killed with it, and that ends the process namespace
            service.wait()
        self._services.clear()
        deadline = time.monotonic() + 10
        while left := self.processes():
            assert time.monotonic() < deadline, f"{self.name}: {left} outlive their first process"
            time.sleep(0.01)

    close = kill

    def processes(self) -> Sequence[int]:
        return [int(pid) for pid in ip("netns", "pids", self.namespace).split()]

    @property
    def _mount(self) -> str:
        return f"mount --bind {self.folder / 'tmp'} {self._temporary}"

    @property
    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]


def _sweep() -> None:
    """Takes away what a run that was killed has left: names only, for its processes ended with it."""
    names = re.findall(rf"^{PREFIX}(\d+)-\S+", ip("netns", "list"), re.MULTILINE)
    for pid in {int(name) for name in names} - set(psutil.pids()):
        for line in ip("netns", "list").splitlines():
            if line.startswith(f"{PREFIX}{pid}-"):
                ip("netns", "delete", line.split()[0])
