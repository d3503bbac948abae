"""What is installed and what is run: every file has its hash, nothing is fetched while a run goes on, no remote code is trusted."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64"}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def requirements(name: str) -> list[tuple[Requirement, list[str]]]:
    """Requirements of a file, each with the hashes that follow it."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in map(str.strip, text.split("\n")) if line and not line.startswith("#")]
    return [(Requirement(line.partition("--hash")[0].strip()), [part for part in line.split() if part.startswith("--")]) for line in lines]


def pins(name: str) -> dict[str, str]:
    """Version of each package, by its canonical name."""
    found = {}
    for requirement, _ in requirements(name):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{name}: {requirement} is no pin"
        assert canonicalize_name(requirement.name) not in found, f"{name}: {requirement.name} stands twice"
        found[canonicalize_name(requirement.name)] = specifier.version
    return found


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-cuda.lock"])
def test_every_line_of_a_lock_has_hashes_and_nothing_else(name: str) -> None:
    for requirement, options in requirements(name):
        assert options, f"{name}: {requirement.name} has no hash"
        assert all(HASH.fullmatch(option) for option in options), f"{name}: {requirement.name} has {options}"
        assert len(set(options)) == len(options)


def test_the_lock_has_the_pins_that_were_written_and_no_other() -> None:
    """Torch alone stands apart: pip would take the build whose hash it knows, and CPU and CUDA builds come from other indexes."""
    written = pins("requirements.in")
    assert pins("requirements.lock") == {name: version for name, version in written.items() if name != "torch"}
    cuda = pins("requirements-cuda.lock")
    assert cuda["torch"] == written["torch"]
    assert {name: version for name, version in cuda.items() if name in written}.items() <= written.items()


@pytest.mark.parametrize("python", PYTHONS)
def test_the_pins_satisfy_what_the_package_asks_for(python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["test"], *project["optional-dependencies"]["dev"]]
    written = pins("requirements.in")
    for requirement in map(Requirement, asked):
        if requirement.marker is None or requirement.marker.evaluate({**LINUX, "python_version": python}):
            assert requirement.specifier.contains(written[canonicalize_name(requirement.name)]), requirement


def test_tox_installs_nothing_but_torch_without_a_hash_in_the_environments_that_run() -> None:
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    running = text.partition("[testenv:.pkg]")[0]
    assert "deps = -r requirements.lock\n" in running
    assert re.findall(r"pip install .*", running) == [
        "pip install --no-deps -c requirements.in {opts} {packages}",
        "pip install --quiet --no-warn-conflicts -c requirements.in torch",
    ]


# --- code


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for folder in ("bench", "suites"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Calls with the last part of the name that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", "")), node


def test_remote_code_is_trusted_nowhere() -> None:
    """Neither as a keyword, in a dictionary, nor by lm-eval's word for it."""
    for path, tree in sources():
        named = [(keyword.arg, keyword.value) for _, call in calls(tree) for keyword in call.keywords]
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                named += [(key.value, value) for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)]
        for name, value in named:
            if name in ("trust_remote_code", "confirm_run_unsafe_code"):
                assert isinstance(value, ast.Constant), f"{path}: {name} is not written out"
                assert value.value is False, f"{path}: {name} is {value.value}"


def test_every_tokenizer_and_model_that_we_load_is_told_so() -> None:
    """What loads from a folder says trust_remote_code=False itself, whatever a library's default is some day."""
    loads = 0
    for path, tree in sources():
        for name, call in calls(tree):
            owner = getattr(getattr(call.func, "value", None), "id", "")
            if name == "from_pretrained" and owner.startswith("Auto"):
                loads += 1
                assert "trust_remote_code" in {keyword.arg for keyword in call.keywords}, f"{path}:{call.lineno}"
    assert loads >= 2


def test_nothing_is_unpickled_installed_or_run_by_a_shell() -> None:
    for path, tree in sources():
        imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib", "pip", "ensurepip"}, path
        for name, call in calls(tree):
            owner = getattr(getattr(call.func, "value", None), "id", None)
            called = f"{owner}.{name}" if isinstance(call.func, ast.Attribute) else name
            forbidden = {"eval", "exec", "os.system", "os.popen", "torch.load", "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle"}
            assert called not in forbidden, f"{path}:{call.lineno} calls {called}"
            assert not any(keyword.arg == "shell" for keyword in call.keywords), f"{path}:{call.lineno} runs a shell"
            if called == "yaml.load":
                assert "Loader" in {keyword.arg for keyword in call.keywords}, f"{path}:{call.lineno}"
