"""Floats never touch tokens or money. Where one is right, the line says so: `# float: why`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = ("accounts", "usage", "plans", "invoicing")
FORBIDDEN = {"float", "FloatField"}


def floats_in(source: str) -> Iterator[int]:
    """Line numbers of float literals, float(...), `float` in annotations and FloatField."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "id", None) or getattr(node, "attr", None)
        literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
        line = getattr(node, "lineno", 0)
        if (literal or name in FORBIDDEN) and "# float:" not in lines[line - 1]:
            yield line


@pytest.mark.parametrize("app", APPS)
def test_no_float_touches_tokens_or_money(app: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / app).rglob("*.py"))
        for line in floats_in(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    ["price = 9.9", "float(x)", "def f(x: float): ...", "models.FloatField()"],
)
def test_the_rule_finds_every_kind(source: str) -> None:
    assert list(floats_in(source)) == [1]


def test_a_line_that_says_why_may_have_one() -> None:
    assert list(floats_in("seconds = 0.5  # float: a pause, not an amount")) == []
