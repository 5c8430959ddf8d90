"""The documents tell the truth: what exists is in docs/reference.md, and what it names exists."""

import re

import pytest
import typer

from backend.engines.vllm import VllmOptions
from backend.spec import ModelSpec
from gateway.app import create_app
from gateway.cli.main import app as cli
from gateway.metrics import Metrics
from gateway.settings import Key, Settings, Upstream
from tests.sources import PACKAGES, ROOT, sources

REFERENCE = (ROOT / "docs" / "reference.md").read_text()
SETTINGS, MODEL, ROUTES, METRICS = (
    REFERENCE.partition(f"\n## {title}")[2].partition("\n## ")[0]
    for title in ("Settings of the gateway", "The cluster file", "Routes", "Metrics")
)
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
DOCUMENTS += [ROOT / "docs" / name for name in ("reference.md", "cluster.md")]


def first_column(table: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE))


def test_settings():
    assert first_column(SETTINGS) == set(Settings.model_fields)
    for field in (*Key.model_fields, *Upstream.model_fields):
        assert f"`{field}`" in SETTINGS


def test_fields_of_a_model():
    model, _, vllm = MODEL.partition("| option of vLLM |")
    assert first_column(model) == set(ModelSpec.model_fields)
    options = {
        name for cell in re.findall(r"^\| (`[^|]+`) \|", vllm, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert options == set(VllmOptions.model_fields)


def test_metrics():
    names = {name for metric in Metrics().registry.collect() for name in [metric.name, f"{metric.name}_total"]}
    documented = first_column(METRICS)
    assert {name.removesuffix("_total") for name in documented} == {name.removesuffix("_total") for name in names}
    assert documented <= names


def test_routes():
    for path in create_app(Settings.load()).openapi()["paths"]:
        chain = re.sub(r"^/chains/\w+(/c/\{config_hash\})?", "", path)
        assert path in ROUTES or f"{chain}`" in ROUTES, path


def test_commands_and_their_options():
    commands, group = {}, typer.main.get_command(cli)
    for name, command in group.commands.items():
        inner = getattr(command, "commands", {"": command})
        commands |= {f"{name} {sub}".strip(): leaf for sub, leaf in inner.items()}
    documented = dict(re.findall(r"^\| `llmgw ([^`]+)` \|[^|]+\| (.+) \|$", REFERENCE, re.MULTILINE))
    assert documented.keys() == commands.keys()
    for name, command in commands.items():
        named = [param for param in command.params if param.param_type_name == "option"]
        options = {option for param in named for option in (*param.opts, *param.secondary_opts)}
        assert set(re.findall(r"--[\w-]+", documented[name])) == options


def test_no_variable_is_read_that_no_document_names():
    text = "".join(path.read_text() for path in DOCUMENTS)
    named = set(re.findall(r"LLMGW_[A-Z_]+", text)) | {f"LLMGW_{name.upper()}" for name in Settings.model_fields}
    read = {name for s in sources(*PACKAGES) for name in re.findall(r"LLMGW_[A-Z_]*[A-Z]", s.path.read_text())}
    assert read - {"LLMGW_X"} <= named


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document):
    named = re.findall(
        r"(?<![/\w])((?:gateway|chains|skills|backend|chatbot|tests|docs|deploy|benchmarks)/[\w/.]+\w)",
        document.read_text(),
    )
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


def test_readme_snippets_are_valid():
    readme = (ROOT / "README.md").read_text()
    for language, code in re.findall(r"```(python|yaml)\n(.*?)```", readme, re.DOTALL):
        if language == "python":
            compile(code, "README.md", "exec")
        else:
            import yaml

            document = yaml.safe_load(code.replace("sha256:...", "sha256:" + "0" * 64))
            Settings(**document.get("gateway", {}))
            for model in document["models"]:
                ModelSpec(**model)
