"""`llmgw keys` as it is typed, on a real Redis."""

import hashlib
import json

import pytest
import yaml
from redis import Redis
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.keys.stored import HASH

SECRET = "s" * 32
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrency", "tokens_per_day", "tokens_per_month")


@pytest.fixture
def run(redis_server, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMGW_REDIS_URL", redis_server.url)
    monkeypatch.setenv("LLMGW_KEY_SECRET", SECRET)

    def run(*arguments: str, fails: bool = False) -> str:
        result = CliRunner().invoke(app, ["keys", *arguments])
        assert result.exit_code == (2 if fails else 0), result.output
        return result.output

    return run


def created(output: str) -> tuple[str, str]:
    """Id and key of what was made."""
    first, second = output.strip().splitlines()
    return first.split()[0], second.rpartition(" ")[2]


def test_the_life_of_a_key(run):
    rights = ["--model", "small", "--model", "big", "--requests-per-minute", "60", "--days", "1", "--cache", "never"]
    rights += ["--policy", "affinity", "--priority", "batch"]
    limits = {"tokens_per_minute": 7, "concurrency": 8, "tokens_per_day": 9, "tokens_per_month": 10}
    rights += [word for limit, most in limits.items() for word in (f"--{limit.replace('_', '-')}", str(most))]
    id_, key = created(run("create", "--name", "alice", "--tenant", "team-a", *rights))
    assert key.startswith("sk-llmgw-")
    listed = run("list")
    assert listed.splitlines()[0].split() == ["id", "name", "tenant", "key", "created", "expires"]
    assert listed.splitlines()[1].startswith(f"{id_}  alice  team-a  {key[:13]}…")
    shown = json.loads(run("show", "alice"))
    assert (shown["id"], sorted(shown["models"]), shown["cache"]) == (id_, ["big", "small"], "never")
    assert shown["requests_per_minute"] == 60
    assert {limit: shown[limit] for limit in limits} == limits
    assert (shown["policies"], shown["priority"]) == (["affinity"], "batch")
    assert not {"hash", "replaced"} & shown.keys()
    again, other = created(run("rotate", "alice", "--overlap", "60"))
    assert (again, other != key) == (id_, True)
    assert run("revoke", id_) == f"{id_} is revoked\n"
    assert len(run("list").splitlines()) == 1
    assert all(key not in output for output in (listed, run("list")))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "nobody"], "nobody"),
        (["create", "--name", "n", "--tenant", "t", "--cache", "sometimes", "--file"], "cache"),
        (["create", "--name", "", "--tenant", "t"], "name"),
        (["create", "--name", "n", "--tenant", "t", "--cache", "sometimes"], "cache"),
        (["create", "--name", "n", "--tenant", "t", "--policy", "fastest"], "policies"),
        (["create", "--name", "n", "--tenant", "t", "--priority", "urgent"], "priority"),
        (["create", "--name", "n", "--tenant", "t", "--requests-per-minute", "-1"], "requests_per_minute"),
        *(
            (["create", "--name", "n", "--tenant", "t", f"--{limit.replace('_', '-')}", "0", *more], limit)
            for limit in LIMITS
            for more in ([], ["--file"])
        ),
        *(
            (["create", "--name", "n", "--tenant", "t", "--days", days], "days")
            for days in ("-1", "36501", "1e300", "inf", "nan")
        ),
    ],
)
def test_what_is_wrong_is_one_line(run, arguments, words):
    (line,) = run(*arguments, fails=True).strip().splitlines()
    assert line.startswith("llmgw: ")
    assert words in line


def test_an_entry_for_the_file_needs_no_redis(run, redis_server):
    redis_server.kill()
    output = run("create", "--name", "alice", "--tenant", "a", "--chain", "chat", "--file")
    (entry,) = yaml.safe_load(output.partition("add to the cluster file:")[2])["gateway"]["keys"]
    key = output.splitlines()[0].rpartition(" ")[2]
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert entry == {"name": "alice", "tenant": "a", "chains": ["chat"], "hash": f"sha256:{digest}"}
    assert "Redis" in run("list", fails=True)


def test_without_a_redis_or_its_secret_it_says_what_to_do(run, monkeypatch):
    monkeypatch.delenv("LLMGW_KEY_SECRET")
    assert "LLMGW_KEY_SECRET" in run("list", fails=True)
    monkeypatch.delenv("LLMGW_REDIS_URL")
    assert "llmgw up" in run("list", fails=True)


@pytest.mark.parametrize("field", [{"regions": ["eu"]}, {"expires_at": 10**12}, {"replaced": {"x": 10**400}}])
def test_a_record_that_cannot_be_read_is_named_and_hides_no_other(run, redis_server, field):
    run("create", "--name", "alice", "--tenant", "a")
    digest = "0" * 64
    made = {"id": "k-1", "name": "bob", "tenant": "a", "hash": f"hmac:{digest}", "prefix": "x", "created_at": 1}
    with Redis.from_url(redis_server.url) as redis:
        redis.hset(HASH, "k-1", json.dumps(made | field))
    listed = CliRunner().invoke(app, ["keys", "list"])
    assert [line.split()[1] for line in listed.stdout.splitlines()] == ["name", "alice"]
    (line,) = listed.stderr.splitlines()
    assert line.startswith("llmgw: the record 'k-1' cannot be read")
    assert next(iter(field)) in line
    assert digest not in line
    for command in ("show", "rotate"):
        assert "cannot be read" in run(command, "k-1", fails=True)
    assert run("revoke", "k-1") == "k-1 is revoked\n"
    assert CliRunner().invoke(app, ["keys", "list"]).stderr == ""
