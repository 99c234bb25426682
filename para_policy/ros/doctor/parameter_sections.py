"""Sections of a parameter file, and the nodes that they are for, if there are any."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from para_policy.ros.doctor.report import Finding, fail, warn

NODES = ("policy_node", "chunk_executor", "pusht_sim", "aloha_sim")
_MARK = "ros__parameters"


def check_sections(document: Any, namespace: str) -> Iterator[Finding]:
    """Sections that no node of ours reads although they seem to be meant for one.

    Args:
        document: the parsed file.
        namespace: of the nodes, "/" or "/robot1".
    """
    sections = list(_sections(document, ()))
    if not sections:
        found = f"there is no `{_MARK}:` in it, so that no node reads anything"
        yield fail("parameter file", found, f"expected NODE: {{{_MARK}: {{NAME: VALUE}}}}")
        return
    nodes = {name: f"{namespace.rstrip('/')}/{name}" for name in NODES}
    for section in sections:
        last = section.rsplit("/", 1)[-1]
        if any(_matches(section, node) for node in nodes.values()):
            continue
        if last in nodes:
            found = f"{section} is not for {nodes[last]}, which reads nothing of it"
            yield warn("sections", found, f"write /**/{last}, or give the node's --namespace")
        elif close := difflib.get_close_matches(last, NODES, n=1):
            found = f"no node is called {last}; what stands there is ignored without a word"
            yield fail("sections", found, f"did you mean {close[0]}?")
    for name in NODES[:2]:
        if not any(_matches(section, nodes[name]) for section in sections):
            found = f"nothing in the file is for {nodes[name]}, which runs with its defaults"
            yield warn("sections", found, f"add a section /**/{name}")


def _sections(document: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Node names and patterns, with the slash that ROS adds; namespaces may be nested."""
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        if key == _MARK:
            yield "/" + "/".join(path).strip("/")
        else:
            yield from _sections(value, (*path, str(key).strip("/")))


def _matches(section: str, node: str) -> bool:
    """True where ROS gives the section to the node: * is one name, ** any number of names."""
    if section == "/**":
        return True
    pattern = re.escape(section).replace(r"/\*\*", "(/[^/]+)*").replace(r"\*", "[^/]+")
    return re.fullmatch(pattern, node) is not None
