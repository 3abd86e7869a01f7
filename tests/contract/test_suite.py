"""Check the tests themselves: they replace no code of ours, and unit tests wait in virtual time only."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("*.py"))
UNITS = sorted([*TESTS.glob("unit/*.py"), *TESTS.glob("property/*.py")])

REPLACED = {
    "unit/test_gate.py": {"asyncio_throttle.throttler"},
    "unit/test_loose_ends.py": {"asyncio_throttle.throttler"},
    "integration/test_client.py": {"aiohttp.client_proto"},
}
"""The exceptions: modules of libraries that offer no argument for the replacement."""

REPLACING = {"setattr", "delattr", "setitem", "delitem"}


def name_of(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def calls(path: Path) -> list[tuple[str, str, list[ast.expr]]]:
    """Return the owner, the method and the arguments of each method call in a file."""
    nodes = [node for node in nodes_of(path) if isinstance(node, ast.Call)]
    found = [(node.func, node.args) for node in nodes if isinstance(node.func, ast.Attribute)]
    return [(ast.unparse(method.value), method.attr, arguments) for method, arguments in found]


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, and ``module.name`` for each name that it imports from one."""
    names: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_test_replaces_our_own_code(path: Path) -> None:
    replaced = {ast.unparse(arguments[0]) for _, method, arguments in calls(path) if method in REPLACING}
    assert replaced == REPLACED.get(name_of(path), set())
    assert not {each for each in imported(path) if each.split(".")[0] in {"mock", "pytest_mock"} or "unittest" in each}


@pytest.mark.parametrize("path", UNITS, ids=name_of)
def test_unit_tests_sleep_only_in_virtual_time(path: Path) -> None:
    modules, used = imported(path), calls(path)
    assert not {"time.sleep", "threading.Timer"} & modules
    assert not {("time", "sleep"), ("threading", "Timer")} & {(owner, method) for owner, method, _ in used}
    sleeps = {ast.unparse(args[0]) for owner, method, args in used if (owner, method) == ("asyncio", "sleep")}
    is_virtual = {"virtual", "engine_bench"} & modules and ("asyncio", "run") not in {each[:2] for each in used}
    assert is_virtual or sleeps <= {"0"}
