"""A file of bench/ imports only from files above it, heavy libraries only where used, and the wheel forgets no folder."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "bench").rglob("*.py"))

# From top to bottom, as docs and DESIGN list them. Files of one folder may import one another.
ORDER = (
    "errors redaction stats answer_words answer_inputs answers languages experiment records phases jobs harmony "
    "expert_adapters models taskfile catalog rows meter store runs comparison pareto card sanity repeats transfer gate "
    "language_guard costs baseline judging history finetune engines lm report plan saving fabricate probe worker executors "
    "runner console cli "
).split()
STRANGERS = {"finetune", "engines", "lm", "report"}  # do not import one another; worker and runner join them
# An exception: the shape of the engine that lm is handed.
HANDED_TO_LM = {"bench.engines.Engine", "bench.engines.Generation", "bench.engines.Row"}
# The shipped model's own scripts; nobody imports them.
EMBEDDED_USES = {"errors", "experiment", "records", "harmony"}

HEAVY = {"torch", "transformers", "unsloth", "trl", "peft", "datasets", "accelerate", "lm_eval", "matplotlib"}
MAY_IMPORT_HEAVY = {"finetune", "engines", "lm", "fabricate", "embedded", "report/figures", "report/maps"}
LIGHT_COMMANDS = ["cli", "plan", "store", "comparison", "gate", "report", "runner"]


class Import(NamedTuple):
    module: str  # dotted, absolute
    line: int
    on_load: bool  # False inside a function or under TYPE_CHECKING


def imports(tree: ast.AST, package: str, on_load: bool = True) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, on_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -node.level + 1 or None] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (Import(f"{source}.{alias.name}", node.lineno, on_load) for alias in node.names)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            is_type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            yield from imports(node, package, on_load and not is_function and not is_type_checking)


def place(module: str) -> str | None:
    """`bench.finetune.trl` -> finetune; None outside bench and for the package itself."""
    root, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    return first if root == "bench" and first in {*ORDER, "embedded"} else None


def describe(path: Path) -> str:
    return path.relative_to(ROOT / "bench").with_suffix("").as_posix().removesuffix("/__init__")


def imports_of(path: Path) -> list[Import]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return list(imports(ast.parse(path.read_text("utf-8")), package))


def order_faults(name: str, found: list[Import]) -> Iterator[str]:
    own = name.partition("/")[0]
    if own == "embedded":
        allowed = EMBEDDED_USES
    elif own in {"__init__", "__main__"}:  # the doors: they may open on everything but the scripts
        allowed = set(ORDER)
    else:
        allowed = set(ORDER[: ORDER.index(own)]) - (STRANGERS if own in STRANGERS else set())
    for module, line, _ in found:
        if (used := place(module)) and used not in {own, *allowed} and not (own == "lm" and module in HANDED_TO_LM):
            yield f"bench/{name}.py:{line} imports {module}"


def heavy_faults(name: str, found: list[Import]) -> Iterator[str]:
    if {name, name.partition("/")[0]} & MAY_IMPORT_HEAVY:
        return
    for module, line, on_load in found:
        if on_load and module.partition(".")[0] in HEAVY:
            yield f"bench/{name}.py:{line} imports {module} on load; import it where it is used"


@pytest.mark.parametrize("path", FILES, ids=describe)
def test_file_has_a_place_and_imports_only_from_above(path):
    name = describe(path)
    assert name.partition("/")[0] in {*ORDER, "embedded", "__init__", "__main__"}, f"bench/{name}.py has no place in ORDER"
    assert list(order_faults(name, imports_of(path))) == []


@pytest.mark.parametrize("path", FILES, ids=describe)
def test_light_file_imports_nothing_heavy_on_load(path):
    assert list(heavy_faults(describe(path), imports_of(path))) == []


def test_report_reads_no_model():
    used = {found.module.partition(".")[0] for path in FILES if describe(path).startswith("report") for found in imports_of(path)}
    assert used & HEAVY <= {"matplotlib"}


def test_rules_see_what_they_forbid():
    source = """
import torch
if TYPE_CHECKING:
    import peft
def load():
    import trl
    from ..lm import LM
    from bench import cli
"""
    found = list(imports(ast.parse(source), "bench.report"))
    assert [fault.split()[-1] for fault in order_faults("report/page", found)] == ["bench.lm.LM", "bench.cli"]
    assert [fault.split()[2] for fault in heavy_faults("report/page", found)] == ["torch"]


@pytest.mark.parametrize("name", [name for name in LIGHT_COMMANDS if name in {describe(path) for path in FILES}])
def test_light_command_loads_nothing_heavy(name):
    script = f"import sys, bench.{name}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == ""


def test_wheel_holds_every_folder_with_code():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    folders = {".".join(path.relative_to(ROOT).parent.parts) for path in FILES}
    assert set(packages) == folders | {"bench.suites"}
