"""Figures of the architecture: the path of one chunk, import circles, sizes, tests.

    python scripts/house.py [CHECKOUT] [--tests JUNIT.xml] [--json OUT]

CHECKOUT is the repository to be measured, this one or an older one, with the packages that its
`para_policy` needs on the path of the interpreter. How each figure is counted is said at the
function that counts it. Frames of comprehensions exist up to Python 3.11: compare figures of one
version.
"""

from __future__ import annotations

import argparse
import ast
import json
import platform
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

SHORT = 50
ROUNDS = 5
SLOWEST = 20

Graph = dict[str, set[str]]
"""Modules by the module that imports them."""


@dataclass(frozen=True)
class Event:
    """A Python function of para_policy that begins or ends.

    Attributes:
        module: whose function it is.
        running: innermost module of para_policy afterwards; None where the caller is at the top.
        stack: our functions that run, outermost first, as (module, function).
    """

    begins: bool
    module: str
    running: str | None
    stack: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PathFigures:
    """The path of one warm chunk through para_policy, as `sys.setprofile` sees it.

    Attributes:
        rounds: batched network calls of the chunk.
        modules: with a function on the path, by package.
        calls: changes of module from one call to the next, in the order of the calls, returns left
            out.
        changes: changes of the module that runs, by a call or by a return: how often a reader who
            steps through changes the file.
        package_calls: `calls`, of package instead of module.
        frames: our functions between the sampler's own call (the outermost of para_policy.samplers,
            left out) and the network's forward (the first function of that name, included), in the
            last round, in which nothing is prepared any more.
        frames_outside: the `frames` outside para_policy.samplers.
    """

    rounds: int
    modules: dict[str, list[str]]
    calls: int
    changes: int
    package_calls: int
    frames: list[str]
    frames_outside: int

    @classmethod
    def of(cls, events: Sequence[Event], rounds: int) -> PathFigures:
        packages: dict[str, set[str]] = defaultdict(set)
        for event in events:
            packages[_package(event.module)].add(event.module)
        called = [event.module for event in events if event.begins]
        frames = _network_frames(events)
        return cls(
            rounds,
            {package: sorted(modules) for package, modules in sorted(packages.items())},
            _changes(called),
            _changes([event.running for event in events]),
            _changes([_package(module) for module in called]),
            frames,
            sum(not frame.startswith("para_policy.samplers.") for frame in frames),
        )


def _changes(names: Sequence[str | None]) -> int:
    return sum(before != after for before, after in pairwise(names))


def _package(module: str) -> str:
    """Second part of a name; a module at the root is its own package."""
    return ".".join(module.split(".")[:2])


def _network_frames(events: Sequence[Event]) -> list[str]:
    """Between the sampler's call and the last call of the network's forward."""
    for event in reversed(events):
        forward = [function.endswith(".forward") for _, function in event.stack]
        sampler = [_package(module) == "para_policy.samplers" for module, _ in event.stack]
        if event.begins and any(sampler) and forward[-1] and sum(forward) == 1:
            inner = event.stack[sampler.index(True) + 1 :]
            return [f"{module}: {function}" for module, function in inner]
    raise SystemExit("no sampler calls a function named forward: co_qualname needs Python 3.11")


def watch(root: Path, job: Callable[[], object]) -> list[Event]:
    """Calls and returns of Python functions whose file lies in `root`, while `job` runs."""
    events: list[Event] = []
    stack: list[tuple[str, str]] = []

    def note(frame: FrameType, kind: str, _: object) -> None:
        code = frame.f_code
        if kind not in ("call", "return") or not code.co_filename.startswith(f"{root}/"):
            return
        module = _name(Path(code.co_filename), root.parent)
        if kind == "call":
            stack.append((module, getattr(code, "co_qualname", code.co_name)))
        else:
            stack.pop()
        running = stack[-1][0] if stack else None
        events.append(Event(kind == "call", module, running, tuple(stack)))

    sys.setprofile(note)
    try:
        job()
    finally:
        sys.setprofile(None)
    return events


def path_figures(checkout: Path) -> dict[str, PathFigures]:
    """The path of `policy.sample(obs, sampler=..., seed=0)`, called for the second time.

    `obs` is the first of the shipped checkpoint's own for which `chord` needs five rounds.
    """
    sys.path.insert(0, str(checkout))
    from safetensors.torch import load_file

    import para_policy

    root = Path(para_policy.__file__).parent
    if root.parent != checkout:
        raise SystemExit(f"para_policy is imported from {root}; unset PYTHONPATH")
    checkpoint = checkout / "checkpoints" / "pusht_state"
    policy = para_policy.load_policy(checkpoint)
    stored = load_file(checkpoint / "observations.safetensors")
    count = len(next(iter(stored.values())))
    chunks = ({name: value[i].numpy() for name, value in stored.items()} for i in range(count))

    def rounds(obs: Mapping[str, Any], sampler: str) -> int:
        return int(policy.sample(obs, sampler=sampler, seed=0).stats.rounds)

    obs = next(obs for obs in chunks if rounds(obs, "chord") == ROUNDS)
    figures = {}
    for sampler in ("chord", "sequential"):
        chunk = partial(rounds, obs, sampler)
        needed = chunk()
        events = watch(root, chunk)
        figures[sampler] = PathFigures.of(events, needed)
    return figures


def _name(file: Path, above: Path) -> str:
    parts = file.relative_to(above).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root: Path) -> tuple[Graph, Graph]:
    """Modules of the package `root` that each of its modules imports, at any place in its file.

    Returns:
        Imports that run, and those for type checking only. That importing a module runs the
        `__init__` of the packages around it is not counted.
    """
    files = {_name(file, root.parent): file for file in sorted(root.rglob("*.py"))}
    graphs: tuple[Graph, Graph] = ({name: set() for name in files}, {name: set() for name in files})
    for module, file in files.items():
        package = module if file.stem == "__init__" else module.rpartition(".")[0]
        for node, typing in _import_nodes(ast.parse(file.read_text()), False):
            targets = {name for name in _targets(node, package, files) if name != module}
            graphs[typing][module] |= targets
    return graphs


def _import_nodes(
    node: ast.AST, typing: bool
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, typing
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from _import_nodes(ast.Module([statement], []), True)
            for statement in child.orelse:
                yield from _import_nodes(ast.Module([statement], []), typing)
        else:
            yield from _import_nodes(child, typing)


def _targets(
    node: ast.Import | ast.ImportFrom, package: str, modules: Collection[str]
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
        return
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    source = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        for name in (f"{source}.{alias.name}", source):
            if name in modules:
                yield name
                break


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of more than one module."""
    reached = {module: _reached(graph, module) for module in graph}
    components = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in graph
        if module in reached[module]
    }
    return sorted(sorted(component) for component in components)


def _reached(graph: Graph, start: str) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - reached
        reached |= new
        waiting.extend(new)
    return reached


def circle_figures(checkout: Path) -> dict[str, list[list[str]]]:
    """Import circles of para_policy; those that arise with imports for type checking apart."""
    running, typing = imports(checkout / "para_policy")
    found = circles(running)
    both = circles({module: running[module] | typing[module] for module in running})
    return {"running": found, "with type checking": [c for c in both if c not in found]}


def size_figures(checkout: Path) -> dict[str, dict[str, int]]:
    """Python files, their lines (all of them), and files under 50 lines, by package and in all."""
    figures: dict[str, Counter[str]] = defaultdict(Counter)
    for root in ("para_policy", "sim", "benchmarks", "tests"):
        for file in sorted((checkout / root).rglob("*.py")):
            folder = file.relative_to(checkout).parts[1:-1]
            lines = len(file.read_text().splitlines())
            for name in (root, f"{root}.{folder[0] if folder else '*'}"):
                figures[name].update(files=1, lines=lines, short=int(lines < SHORT))
    return {name: dict(counter) for name, counter in figures.items()}


def assertion_figures(checkout: Path) -> dict[str, int]:
    """Statements in tests/: `assert`, and calls of `pytest.raises`. Doctests are not among them."""
    nodes = [
        node
        for file in sorted((checkout / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
    ]
    raises = [
        node
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises"
    ]
    return {"asserts": sum(isinstance(node, ast.Assert) for node in nodes), "raises": len(raises)}


def run_figures(junit: Path) -> dict[str, Any]:
    """A run of the tests: how many, wall seconds, and the slowest, set-up and tear-down included."""
    root = ElementTree.parse(junit).getroot()
    cases = sorted(root.iter("testcase"), key=lambda case: -float(case.get("time", 0)))
    return {
        "tests": len(cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
        "seconds": sum(float(suite.get("time", 0)) for suite in root.iter("testsuite")),
        "slowest": [
            (f"{case.get('classname')}::{case.get('name')}", float(case.get("time", 0)))
            for case in cases[:SLOWEST]
        ],
    }


def print_path(figures: Mapping[str, PathFigures]) -> None:
    print(f"One warm chunk, Python {platform.python_version()}")
    heads = ("rounds", "modules", "packages", "calls", "changes", "package calls", "frames")
    print(f"{'':12}" + "".join(f"{head:>15}" for head in heads))
    for sampler, path in figures.items():
        count = sum(len(modules) for modules in path.modules.values())
        frames = f"{len(path.frames)} ({path.frames_outside})"
        values = (path.rounds, count, len(path.modules), path.calls, path.changes)
        cells = (*values, path.package_calls, frames)
        print(f"{sampler:12}" + "".join(f"{cell!s:>15}" for cell in cells))
    print("calls: module differs from that of the call before; changes: returns counted, too;")
    print("frames: from the sampler's call to the network's forward (outside samplers).")
    for sampler, path in figures.items():
        print(f"\nFrames of a network call, {sampler}:", *path.frames, sep="\n    ")
    print("\nModules on the path of chord:")
    for package, modules in figures["chord"].modules.items():
        names = (module.removeprefix(package).lstrip(".") for module in modules)
        print(f"    {package.removeprefix('para_policy.'):14}", *filter(None, names))


def print_circles(figures: Mapping[str, Sequence[Sequence[str]]]) -> None:
    print(f"\nImport circles of para_policy: {len(figures['running'])}", end="")
    print(f"; more with imports for type checking: {len(figures['with type checking'])}")
    for kind, circles_of_kind in figures.items():
        for circle in circles_of_kind:
            print(f"    {kind}:", *circle, sep="\n        ")


def print_sizes(figures: Mapping[str, Mapping[str, int]]) -> None:
    print(f"\n{'':30}{'files':>8}{'lines':>8}{'under ' + str(SHORT):>10}")
    for name, figure in figures.items():
        row = f"{figure['files']:8}{figure['lines']:8}{figure['short']:10}"
        print(f"{name if '.' not in name else '    ' + name:30}{row}")


def print_run(figures: Mapping[str, Any]) -> None:
    tests, skipped = figures["tests"], figures["skipped"]
    print(f"Run: {tests} tests, {skipped} of them skipped, {figures['seconds']:.0f} s; slowest:")
    for name, seconds in figures["slowest"]:
        print(f"    {seconds:7.1f} s  {name}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, nargs="?", default=Path(__file__).parent.parent)
    parser.add_argument("--tests", type=Path, metavar="JUNIT.xml", help="report of a test run")
    parser.add_argument("--json", type=Path, metavar="OUT", help="file for the figures")
    args = parser.parse_args(argv)
    checkout = args.checkout.resolve()
    path = path_figures(checkout)
    print_path(path)
    found = circle_figures(checkout)
    print_circles(found)
    sizes = size_figures(checkout)
    print_sizes(sizes)
    assertions = assertion_figures(checkout)
    print("\nTests: {asserts} assert statements, {raises} pytest.raises".format(**assertions))
    run = None if args.tests is None else run_figures(args.tests)
    if run is not None:
        print_run(run)
    if args.json is not None:
        paths = {sampler: asdict(figures) for sampler, figures in path.items()}
        figures = {"path": paths, "circles": found, "sizes": sizes, "assertions": assertions}
        args.json.write_text(json.dumps({**figures, "run": run}, indent=1) + "\n")


if __name__ == "__main__":
    main()
