from pathlib import Path

import pytest

from backend.engines import EngineLoadError, discover, engines
from backend.engines.base import KEY_VARIABLE, Load, Place
from backend.spec import ModelSpec

LLAMACPP = engines()["llamacpp"]


def option(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_the_command_line_says_the_spec_and_no_secret(
    default_models: dict[str, ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret-key")
    argv = LLAMACPP.launch(default_models["chat"], Place("127.0.0.1", 4711, threads=3)).argv
    assert option(argv, "--port") == "4711"
    assert option(argv, "--threads") == "3"
    assert option(argv, "--context") == "4096"
    assert option(argv, "--parallel") == "4"
    assert option(argv, "--alias") == "smollm2-135m-instruct"
    assert option(argv, "--model").endswith("SmolLM2-135M-Instruct.Q4_1.gguf")
    assert "--embeddings" not in argv
    assert "secret-key" not in " ".join(argv)


def test_an_embeddings_model_promises_nothing_of_chat(default_models: dict[str, ModelSpec]) -> None:
    spec = default_models["embeddings"]
    assert "--embeddings" in LLAMACPP.launch(spec, Place("127.0.0.1", 1, threads=1)).argv
    assert LLAMACPP.capabilities(spec) == ()


def test_the_load_is_read_from_a_scrape() -> None:
    scrape = (
        "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 3\n"
        "llamacpp:requests_deferred 1\nllamacpp:requests_waiting 2\n"
    )
    assert LLAMACPP.load(scrape) == Load(running=3, waiting=3)
    assert LLAMACPP.load("") == Load(running=0, waiting=0)
    assert LLAMACPP.load("llamacpp:requests_processing NaN\nllamacpp:requests_waiting +Inf\n") == Load()


@pytest.mark.parametrize(
    ("source", "reason"),
    [("import no_such_module_at_all\n", "ModuleNotFoundError"), ("ENGINE = 1\n", "not an Engine"), ("", "ENGINE")],
)
def test_an_engine_that_does_not_load_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    package = tmp_path / f"plugged_{abs(hash(source))}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_private.py").write_text("raise RuntimeError\n")
    (package / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EngineLoadError, match=reason) as caught:
        discover(package.name, [str(package)])
    assert "broken.py" in str(caught.value)
