"""Where settings come from, and what is said when they are wrong."""

import pytest

from gateway.settings import ConfigError, Settings

KEY = {"name": "a", "tenant": "t", "hash": "sha256:" + "0" * 64}

FILE = """
gateway:
  port: 9001
  workers: 3
  upstreams:
    - {model: x, url: "https://host/base/"}
models:
  - {name: one, engine: llamacpp}
  - {name: two, engine: llamacpp}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE)
    return path


def test_arguments_come_before_environment_before_file_before_defaults(file, monkeypatch):
    monkeypatch.setenv("LLMGW_WORKERS", "4")
    monkeypatch.setenv("LLMGW_HOST", "::1")
    settings = Settings.load(config=file, host="localhost", port=None)
    assert (settings.host, settings.workers, settings.port, settings.max_body_bytes) == ("localhost", 4, 9001, 8 << 20)


def test_the_environment_can_name_the_file(file, monkeypatch):
    monkeypatch.setenv("LLMGW_CONFIG", str(file))
    settings = Settings.load()
    assert settings.models == ("one", "two")
    assert settings.upstreams[0].url == "https://host/base"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"port": 70000}, "port"),
        ({"keys": [KEY | {"hash": "plain"}]}, "keys.0.hash"),
        ({"keys": [KEY | {"key": "x"}]}, "keys.0.key"),
        ({"upstreams": [{"model": "x", "url": "host:80"}]}, "upstreams.0.url"),
        ({"upstreams": [{"model": "x", "url": "http://h", "tasks": ["sing"]}]}, "upstreams.0.tasks"),
        ({"unknown": 1}, "unknown"),
        ({"host": "0.0.0.0"}, "loopback only"),
        ({"host": "gateway.example"}, "loopback only"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(values, words):
    with pytest.raises(ConfigError, match=words) as raised:
        Settings.load(**values)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "values",
    [{"host": "127.0.0.1"}, {"host": "::1"}, {"host": "0.0.0.0", "keys": [KEY]}, {"host": "0.0.0.0", "insecure": True}],
)
def test_another_address_than_loopback_needs_keys_or_a_word(values):
    assert Settings.load(**values).host == values["host"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[]", "mapping"),
        (b"3", "mapping"),
        (b"gateway: [1]", "mapping"),
        (b"models: 3", "a list"),
        (b"a: [", "cluster.yaml"),
        (b"gateway: {prot: 1}", "prot"),
        (b"\xff\xfe", "cluster.yaml"),
        (b"models: 2026-02-30", "cluster.yaml"),
        (b"gateway: {port: 1}\nmodels: []\ngateway: {port: 2}", "'gateway' is there twice.* line 3"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_in_one_line(tmp_path, content, words):
    path = tmp_path / "cluster.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as raised:
        Settings.load(config=path)
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="No such file"):
        Settings.load(config=tmp_path / "none.yaml")


def test_a_variable_that_cannot_be_read_says_which(monkeypatch):
    monkeypatch.setenv("LLMGW_KEYS", "not JSON")
    with pytest.raises(ConfigError, match="keys"):
        Settings.load()


def test_secrets_do_not_show():
    settings = Settings.load(
        engine_key="s3cret",
        redis_url="redis://:s3cret@h",
        upstreams=[{"model": "x", "url": "http://h", "key": "s3cret"}],
    )
    assert "s3cret" not in repr(settings)
