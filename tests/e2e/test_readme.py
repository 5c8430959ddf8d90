"""What README.md tells a newcomer to paste works as it stands."""

import re
import subprocess
import sys

import pytest

from tests.sources import ROOT

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL) + re.findall(
    r"^\$ (curl .*?\}')$", README, re.DOTALL | re.MULTILINE
)


def here(text: str, stack) -> str:
    return re.sub(r"(127\.0\.0\.1|localhost):8080", f"127.0.0.1:{stack.port}", text)


@pytest.mark.parametrize("code", PYTHON, ids=["OpenAI", "LangChain", "Semantic Kernel"])
def test_python(stack, code):
    done = subprocess.run([sys.executable, "-c", here(code, stack)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or "stream" not in code


@pytest.mark.parametrize("code", SHELL, ids=["skill", "chat"])
def test_shell(stack, code):
    done = subprocess.run(["bash", "-ec", here(code, stack)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert '"value"' in done.stdout or "data: [DONE]" in done.stdout


def test_the_commands_that_up_prints(stack):
    commands = re.findall(r"^  (curl .+)$", stack.printed, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0
        assert '"error"' not in done.stdout
        assert done.stdout
