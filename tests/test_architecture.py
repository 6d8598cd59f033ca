"""The shape of the house, held against the code: layers, exports, twins, what an import costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import autoglm_client

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "autoglm_client"
STANDARD = sys.stdlib_module_names


def layers() -> dict[str, tuple[int, set[str]]]:
    """The table of docs/architecture.md: a module's layer, and the libraries that it and the layers below may use."""
    table: dict[str, tuple[int, set[str]]] = {}
    allowed: set[str] = set()
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        if row := re.match(r"\| (\d) \w+ \| (.+?) \|(.*)\|$", line):
            allowed = allowed | {name for name in re.split(r"[,\s]+", row[3]) if name}
            table |= {name: (int(row[1]), allowed) for name in re.findall(r"`(\w+)`", row[2])}
    return table


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[tuple[str, bool]]:
    """What a file imports at run time: the name, and whether it is a module of this package."""
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[tuple[str, bool]] = set()
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {(alias.name.partition(".")[0], False) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = (node.module or "").partition(".")[0]
            if not node.level:
                found.add((name, False))
            elif node.level == depth:  # from the root of the package; deeper ones stay inside their own
                names = {name} if name else {alias.name for alias in node.names} - set(autoglm_client.__all__)
                found |= {(name, True) for name in names}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in {"__init__.py", "__main__.py"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    table = layers()
    layer, allowed = table[module_of(path)]
    for name, ours in imports_of(path):
        if ours and name != module_of(path):
            assert table[name][0] <= layer, f"{path.name} of layer {layer} imports {name} of layer {table[name][0]}"
        elif not ours:
            assert name in STANDARD | allowed, f"{path.name} of layer {layer} imports {name}"


def test_there_are_no_cycles() -> None:
    edges: dict[str, set[str]] = {}
    for path in FILES:
        edges.setdefault(module_of(path), set()).update(name for name, ours in imports_of(path) if ours)
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above, module])
        if module not in done:
            for name in edges.get(module, set()) - {module}:
                visit(name, (*above, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def test_the_table_names_every_module() -> None:
    modules = {module_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert modules == set(layers())


ENGINE_LIBRARIES = {"tiny": {"torch", "transformers", "tokenizers"}, "cluster": {"ray", "starlette"}}
"""What parts of the servers may import: they run in the engine's environment."""


@pytest.mark.parametrize("path", sorted((ROOT / "server_stub").rglob("*.py")), ids=lambda path: path.name)
def test_the_servers_use_the_standard_library_and_the_shared_facts(path: Path) -> None:
    part = path.relative_to(ROOT / "server_stub").parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            ours = name == "autoglm_client.defaults" or (name.startswith("autoglm_client") and part == "tiny")
            clients = name == "autoglm_client" and path.name == "process.py"
            known = name.partition(".")[0] in STANDARD | ENGINE_LIBRARIES.get(part, set())
            assert ours or clients or known, f"{path.name} imports {name}"


@pytest.mark.parametrize("name", ["autoglm_client", "autoglm_client.actions", "autoglm_client.media", "server_stub"])
def test_all_names_what_is_there(name: str) -> None:
    module = importlib.import_module(name)
    public = {
        name
        for name, value in vars(module).items()
        if not (name.startswith("_") or inspect.ismodule(value) or name == "annotations")
    }
    assert set(module.__all__) - {"__version__"} == public  # ruff holds the order


def test_every_public_noun_is_documented() -> None:
    for name in autoglm_client.__all__:
        value = getattr(autoglm_client, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_the_sync_client_is_the_async_one() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "derive_sync.py", "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, autoglm_client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"langchain_core", "PIL", "numpy", "torch", "vllm", "openai", "httpx", "httpx2", "pydantic", "asyncio"}
    assert not heavy & set(loaded)


def test_the_pipeline_runs_what_the_readme_says() -> None:
    blocks = re.findall(r"```bash\n(.+?)\n```", (ROOT / "README.md").read_text(), re.S)
    assert blocks[-1] in (ROOT / ".ci" / "run").read_text()
