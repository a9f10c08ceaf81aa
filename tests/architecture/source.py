"""The source of the product as data: files, syntax trees, functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# From the bottom to the top.
LADDER = ("kernel", "identities", "governance", "budgets", "execution", "conversations", "gateways", "fleet")
PACKAGES = ("fleet", "identities", "governance", "budgets", "execution", "conversations", "gateways")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One Python file of the product."""

    path: Path
    tree: ast.Module
    lines: int

    @property
    def name(self) -> str:
        """Its path below the root, such as `fleet/kernel/queue.py`."""
        return str(self.path.relative_to(ROOT))

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Every function and method with its qualified name."""
        yield from _functions(self.tree, "")


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield f"{prefix}{child.name}", child
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the product, without migrations and tests."""
    paths = [ROOT / "manage.py"]
    for package in (*PACKAGES, "tools", "bench"):
        paths += sorted((ROOT / package).rglob("*.py"))
    return tuple(_read(path) for path in paths if "migrations" not in path.parts)


def _read(path: Path) -> Module:
    text = path.read_text()
    return Module(path, ast.parse(text), len(text.splitlines()))


def called_name(call: ast.Call) -> str:
    """The last part of what is called: `record` for `journal.record(...)`."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def dotted(node: ast.AST) -> str:
    """`os.environ` for that expression, empty for anything but names and attributes."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""
