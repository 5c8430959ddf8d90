"""The house rules: who may import whom, and how large anything may be."""

import ast
import re
import sys
import tomllib

import pytest

from tests.sources import PACKAGES, ROOT, Source, sources

# A layer may import its own and those behind it.
LAYERS = (
    ("app", "cli"),
    ("parts",),
    ("routes", "middleware"),
    ("bridge",),
    ("completion",),
    ("routing",),
    ("upstream", "cache", "limits", "keys", "sessions", "server"),
    (
        "errors",
        "metrics",
        "settings",
        "context",
        "origin",
        "json_body",
        "redis_address",
        "redis_channel",
        "redis_cluster",
        "redis_dial",
        "redis_follower",
        "redis_form",
        "redis_introduction",
        "redis_link",
        "redis_script",
        "redis_master",
        "redis_part",
        "request_log",
    ),
)
MAX_FILE_LINES, MAX_TEST_FILE_LINES, MAX_FUNCTION_LINES = 250, 500, 40


def layer(module: str) -> int:
    part = module.split(".")[1]
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_no_other_package_of_ours(package):
    allowed = {"gateway": {"gateway", "chains", "skills"}}.get(package, {package})
    strays = [(s.module, name) for s in sources(package) for name in s.imports() if name.split(".")[0] not in allowed]
    assert strays == []


def test_the_gateways_layers_never_look_up():
    strays = []
    for source in sources("gateway"):
        if source.module.count(".") == 1 and source.module.endswith("__init__"):
            continue
        for name in source.imports():
            if name.startswith("gateway.") and layer(name) < layer(source.module):
                strays.append((source.module, name))
    assert strays == []


def test_only_one_module_calls_an_engine():
    clients = {f"gateway.upstream.{name}" for name in ("client.UpstreamClient", "http1.HttpClient")}
    users = {source.module for source in sources("gateway") if clients & set(source.imports())}
    assert {name for name in users if ".upstream." not in name} == {"gateway.parts", "gateway.completion.dispatch"}


def _nodes(statements: list[ast.stmt], *kinds: type[ast.AST]) -> list[int]:
    """The lines of such nodes."""
    found = [node for statement in statements for node in ast.walk(statement) if isinstance(node, kinds)]
    return [node.lineno for node in found if not isinstance(node, ast.Raise) or node.exc is None]


def test_nothing_that_is_compiled_waits_before_it_raises_again():
    """mypyc loses the exception that is in flight then, or leaves it behind as the context of all that come after."""
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    compiled = {path for pattern in hook["mypyc"]["include"] for path in ROOT.glob(pattern.removeprefix("/"))}
    waits = []
    for source in (source for source in sources("gateway") if source.path in compiled):
        for block in (node for node in ast.walk(source.tree) if isinstance(node, ast.Try)):
            bodies = [(block.finalbody, sys.maxsize)]
            bodies += [(handler.body, max(_nodes(handler.body, ast.Raise), default=0)) for handler in block.handlers]
            for body, last in bodies:
                lines = _nodes(body, ast.Await, ast.AsyncFor, ast.AsyncWith)
                waits += [(source.module, line) for line in lines if line < last]
    assert len(compiled) > 50
    assert waits == []


@pytest.mark.parametrize("source", sources(*PACKAGES, "tests", "benchmarks"), ids=lambda source: source.module)
def test_files_and_functions_are_small(source: Source):
    test = source.module.startswith("tests.")
    assert source.lines <= (MAX_TEST_FILE_LINES if test else MAX_FILE_LINES)
    functions = [node for node in ast.walk(source.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if f.end_lineno and f.end_lineno - f.lineno >= MAX_FUNCTION_LINES and not test]
    # A function of routes is a list of handlers, each of them small.
    assert [name for name in long if name not in {"router", "create_app"}] == []


def test_every_module_says_what_it_is():
    silent = [s.module for s in sources(*PACKAGES) if s.lines > 3 and not ast.get_docstring(s.tree)]
    assert silent == []


def test_nothing_rebinds_a_global_or_unpickles():
    for source in sources(*PACKAGES):
        found = [node for node in ast.walk(source.tree) if isinstance(node, ast.Global)]
        assert not found, source.module
        assert not re.search(r"\b(pickle|eval|exec)\s*[.(]", source.path.read_text().replace("execv", "")), (
            source.module
        )
