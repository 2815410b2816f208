"""What a user installs, and what the repository promises about itself."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

import seem

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((ROOT / "src" / "seem").rglob("*.py"))
PHOTOS = sorted(p for p in (ROOT / "examples" / "photos").iterdir() if p.suffix != ".md")


def test_versions_agree() -> None:
    assert PROJECT["version"] == seem.__version__ == version(PROJECT["name"])
    assert f"## {seem.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_public_name_can_be_used() -> None:
    assert {"load", "Click", "Box", "Scribble", "Polygon", "Mask", "Text", "Reference", "draw"} <= set(seem.__all__)
    for name in seem.__all__:
        assert getattr(seem, name) is not None


def test_constraints_pin_what_the_project_needs() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if line and not line.startswith("#")}
    needed = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    assert {re.split(r"[<>=\[]", requirement)[0].lower() for requirement in needed} <= pinned


def test_imports_are_declared() -> None:
    """Every import of another package at the top of a module is one that `pip install` brings; for the server, that its
    extras bring."""
    known = {"pillow": "PIL", "prometheus-client": "prometheus_client"}

    def brought(requirements: list[str]) -> set[str]:
        names = {re.split(r"[<>=\[]", requirement)[0].lower() for requirement in requirements}
        return {known.get(name, name) for name in names}

    always = brought(PROJECT["dependencies"]) | {"seem", "__future__"}
    server = brought(PROJECT["optional-dependencies"]["serve"] + PROJECT["optional-dependencies"]["ray"])
    import sys

    for path in SOURCES:
        allowed = always | (server if path.parent.name == "serving" else set())
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                top = module.split(".")[0]
                assert top in allowed or top in sys.stdlib_module_names, f"{path.name} imports {top}"


def test_pickles_are_loaded_safely_or_not_at_all() -> None:
    """`torch.load` only with weights_only=True, and no other unpickling but RefCOCO's file of plain values.

    tests/data/test_refcoco.py shows that nothing else gets through that one.
    """
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                allowed = {"pickle"} if path.as_posix().endswith("seem/data/refcoco.py") else set()
                unsafe = {"pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"} - allowed
                assert not unsafe & set(modules), path.name
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if name == "torch.load":
                assert ast.unparse(given["weights_only"]) == "True", f"{path.name}:{node.lineno}"
            if name in ("np.load", "numpy.load"):
                assert "allow_pickle" not in given, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("photo", PHOTOS, ids=[photo.name for photo in PHOTOS])
def test_example_photos_are_small_and_licensed(photo: Path) -> None:
    assert photo.stat().st_size < 150_000
    assert f"| `{photo.name}` |" in (photo.parent / "LICENSES.md").read_text(encoding="utf-8")
    with Image.open(photo) as image:
        assert image.mode == "RGB"
        assert min(image.size) >= 300


def test_files_that_a_reader_looks_for() -> None:
    for name in ("README.md", "LICENSE", "NOTICE", "CONTRIBUTING.md", "CHANGELOG.md", "docs/model-card.md"):
        assert (ROOT / name).stat().st_size > 200, name
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", document.read_text(encoding="utf-8")):
            link = next(filter(None, target))
            if not re.match(r"https?:|mailto:", link):
                assert (document.parent / link).exists(), f"{document.name} links to {link}"


def test_python_in_the_readme_is_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "seem":
                assert hasattr(seem, node.attr) or node.attr in ("compat",), f"README uses seem.{node.attr}"


def test_commands_in_the_readme_exist() -> None:
    from seem.cli import app

    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    used = re.findall(r"^\s*seem ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert used
    assert set(used) <= known
