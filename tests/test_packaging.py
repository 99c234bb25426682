"""Metadata and dependencies: what setup.py says is what the package is and imports."""

from __future__ import annotations

import ast
import re
import runpy
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import setuptools

import para_policy

ROOT = Path(__file__).parents[1]
PACKAGE = ET.parse(ROOT / "package.xml").getroot()
ROS = {str(tag.text) for tag in PACKAGE.iter("exec_depend")}
OURS = {"para_policy", "sim"}
DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python", "yaml": "pyyaml"}
"""Distributions whose import has another name, besides _ for -."""
BACKENDS = Path("para_policy/inference/backends")
"""Backends that are missing are no error where another one can be taken: they guard themselves."""

LEROBOT, LEROBOT_PARTS = Path("para_policy/lerobot_server"), {"grpc", "lerobot"}
"""The server runs where LeRobot was installed with what its own server needs; the command says so."""


def described(folder: Path) -> dict[str, Any]:
    """What the setup.py of a folder hands to setuptools."""
    given: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **options: given.update(options))
        patch.chdir(folder)
        runpy.run_path("setup.py", run_name="__main__")
    return given


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    return described(ROOT)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[;]", requirement)[0].lower() for requirement in requirements}


def distribution(module: str) -> str:
    return DISTRIBUTIONS.get(module, module.replace("_", "-")).lower()


def imports(tree: ast.AST, extra: str = "") -> Iterator[tuple[str, str]]:
    """Top-level packages that a module imports, each with the extra that guards the import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], extra) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], extra
        yield from imports(node, _guard(node) or extra)


def _guard(node: ast.AST) -> str:
    """NAME of `with extra(NAME, ...)`."""
    if isinstance(node, ast.With):
        call = node.items[0].context_expr
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id == "extra"
        ):
            assert isinstance(call.args[0], ast.Constant)
            return str(call.args[0].value)
    return ""


def test_every_import_is_in_the_base_or_guarded_by_its_extra(metadata: dict[str, Any]) -> None:
    base = names(metadata["install_requires"])
    extras = {extra: names(found) for extra, found in metadata["extras_require"].items()}
    wrong, guarded = [], set()
    for path in (path for folder in OURS for path in sorted((ROOT / folder).rglob("*.py"))):
        text = path.read_text()
        for module, extra in imports(ast.parse(text)):
            if module in sys.stdlib_module_names or module in OURS | ROS:
                continue
            if path.relative_to(ROOT).parent == LEROBOT and module in LEROBOT_PARTS:
                continue
            package = distribution(module)
            if path.relative_to(ROOT).parent == BACKENDS and package not in base:
                said = re.findall(r"install\(.(\w+).\)", text)
                extra = next((name for name in said if package in extras[name]), "")
            if package not in (base | extras.get(extra, set())):
                wrong.append(f"{path.relative_to(ROOT)}: {module}, extra {extra!r}")
            guarded.add(package)
    assert wrong == []
    # What comes with another package, which imports it.
    assert base | extras["all"] == guarded | {"pymunk"}


def test_the_extra_all_is_all_that_a_user_may_want(metadata: dict[str, Any]) -> None:
    extras = dict(metadata["extras_require"])
    everything, test = names(extras.pop("all")), names(extras.pop("test"))
    del extras["dev"], extras["docs"]
    assert everything == set().union(*map(names, extras.values()))
    assert everything - test == names(extras["convert"])
    assert not everything & names(metadata["install_requires"])


def test_every_dependency_has_a_reason_and_a_pinned_version(metadata: dict[str, Any]) -> None:
    rows = re.findall(r"^\| (.+?) \| .+ \|$", (ROOT / "docs" / "dependencies.md").read_text(), re.M)
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    base, extras = names(metadata["install_requires"]), metadata["extras_require"]
    for extra, found in (("", base), *((name, names(found)) for name, found in extras.items())):
        if extra in ("all", "test"):
            continue
        for package in found:
            row = next((row for row in rows if package in re.split(r"[ ,]+", row.lower())), None)
            assert row is not None, package
            assert not extra or f"`{extra}`" in row, (package, extra)
            assert package in pinned or extra == "convert", package


def test_the_version_is_the_same_everywhere(metadata: dict[str, Any]) -> None:
    assert metadata["version"] == para_policy.__version__ == PACKAGE.findtext("version")


def test_the_description_is_the_readme_with_links_that_work_elsewhere(
    metadata: dict[str, Any],
) -> None:
    text = metadata["long_description"]
    assert text.startswith("# para_policy\n")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    assert all(link.startswith(("https://", "#")) for link in links)
    assert metadata["project_urls"]["Source"] == "https://github.com/para-policy/para_policy"


def test_files_of_ros_are_installed_where_it_looks_for_them(metadata: dict[str, Any]) -> None:
    installed = {
        f"{folder}/{Path(file).name}": file
        for folder, files in metadata["data_files"]
        for file in files
    }
    assert {
        "share/ament_index/resource_index/packages/para_policy",
        "share/para_policy/package.xml",
        "share/para_policy/launch/policy.launch.py",
        "share/para_policy/config/policy.yaml",
        "share/para_policy/config/pusht_inputs.yaml",
        "share/para_policy/config/arm_6dof/policy.yaml",
        "share/para_policy/config/aloha/policy.yaml",
        "share/para_policy/config/training/pusht_state.yaml",
        *(
            f"lib/para_policy/{node}"
            for node in ("policy_node", "chunk_executor", "pusht_sim", "aloha_sim")
        ),
    } <= set(installed)
    assert all((ROOT / file).is_file() for file in installed.values())


def test_the_plug_in_of_lerobot_is_found_by_its_name_and_needs_this_package_only(
    metadata: dict[str, Any],
) -> None:
    folder = ROOT / "lerobot_plugin"
    plugin = described(folder)
    assert plugin["name"].startswith("lerobot_policy_")
    assert plugin["py_modules"] == [plugin["name"]]
    assert (folder / f"{plugin['name']}.py").is_file()
    assert plugin["version"] == metadata["version"]
    assert plugin["python_requires"] == metadata["python_requires"]
    assert plugin["install_requires"] == [f"para_policy @ {ROOT.as_uri()}"]
