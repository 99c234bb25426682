"""Distribution that LeRobot imports by its name: it begins with `lerobot_policy_`.

LeRobot itself is not required: it is there before the plug-in, in the version that its user wants.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

NAME = "lerobot_policy_para_policy"
CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = (CHECKOUT / "para_policy" / "__init__.py").read_text()

setup(
    name=NAME,
    version=re.findall(r'^__version__ = "(.+)"$', PACKAGE, re.M)[0],
    description="LeRobot policies sample in parallel, with unchanged command lines.",
    license="MIT",
    python_requires=">=3.10",
    py_modules=[NAME],
    # The package of the same checkout: it is on no index.
    install_requires=[f"para_policy @ {CHECKOUT.as_uri()}"],
)
