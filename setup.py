"""One package for `colcon build` (ament_python) and for plain `pip install`."""

from __future__ import annotations

import re
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "para_policy"
URL = "https://github.com/para-policy/para_policy"
HERE = Path(__file__).parent


def version() -> str:
    """`para_policy.__version__`, without importing the package, whose needs are not installed yet."""
    found = re.search(r'^__version__ = "(.+)"$', (HERE / NAME / "__init__.py").read_text(), re.M)
    assert found is not None
    return found[1]


def readme() -> str:
    """README.md with links that work outside of the repository, too."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    for images, where in (("!", "raw"), ("", "blob")):
        text = re.sub(rf"({images}\[[^\]]*\])\((?!\w+:|#)", rf"\1({URL}/{where}/main/", text)
    return text


# What each extra is for: docs/dependencies.md.
EXTRAS = {
    "aloha": ["dm-control<1.1", "gym-aloha", "mujoco<3.9"],
    "bags": ["mcap", "rosbags"],
    "cluster": ["ray"],
    "convert": ["dill", "omegaconf"],
    "export": ["onnx", "onnxruntime", "onnxscript"],
    "hub": ["huggingface-hub"],
    "images": ["opencv-python"],
    "lerobot": ["av", "pyarrow"],
    "openvino": ["openvino"],
    "plots": ["matplotlib"],
    "sim": ["gym-pusht", "gymnasium", "pymunk<7"],
    "tensorboard": ["tensorboard"],
    "text": ["huggingface-hub", "tokenizers"],
    "train": ["accelerate", "matplotlib", "zarr"],
    "video": ["imageio-ffmpeg"],
}
# gym-aloha needs labmaze, which has no wheels elsewhere and must not stop the others.
WITH_ALOHA = "python_version < '3.13' and platform_machine == 'x86_64'"
ALL = sorted(
    f"{package}; {WITH_ALOHA}" if package in EXTRAS["aloha"] else package
    for package in {package for packages in EXTRAS.values() for package in packages}
)
# omegaconf needs a package that exists as source only, which must not stop `make test`.
TESTED = [package for package in ALL if package not in EXTRAS["convert"]]
TEST = [
    *("hypothesis", "imageio", "ipykernel", "nbclient", "nbformat"),
    *("pytest", "pytest-timeout", "pytest-xdist"),
]
DOCS = ["pdoc"]
DEV = ["import-linter", "mypy", "ruff", "scipy-stubs", "types-PyYAML"]

setup(
    name=NAME,
    version=version(),
    description="Real-time diffusion policies: the denoising steps solved in parallel.",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="MIT",
    url=URL,
    project_urls={
        "Source": URL,
        "Documentation": f"{URL}/tree/main/docs",
        "Issues": f"{URL}/issues",
    },
    keywords=["diffusion policy", "parallel sampling", "robot learning", "ROS 2", "LeRobot"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*", "sim", "sim.*"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", glob("config/ros/*.yaml")),
        (f"share/{NAME}/config/arm_6dof", glob("config/ros/arm_6dof/*.yaml")),
        (f"share/{NAME}/config/aloha", glob("config/ros/aloha/*.yaml")),
        (f"share/{NAME}/config/training", glob("config/training/*.yaml")),
        # colcon puts the console scripts there; pip does not, and `ros2 run` looks nowhere else.
        (f"lib/{NAME}", glob("libexec/*")),
    ],
    # What a robot needs to run a policy and its node. rclpy is missing on purpose: it comes with
    # ROS 2, or from requirements-ros.txt.
    install_requires=[
        "diffusers",
        "filelock",
        "numpy",
        "pillow",
        "pydantic>=2",
        "pyyaml",
        "rich",
        "safetensors",
        "scipy",
        "torch>=2.4",
        "tyro",
    ],
    extras_require={**EXTRAS, "all": ALL, "test": [*TESTED, *TEST], "docs": DOCS, "dev": DEV},
    entry_points={
        "console_scripts": [
            f"para-policy = {NAME}.cli.main:main",
            f"policy_node = {NAME}.ros.start:policy_node",
            f"chunk_executor = {NAME}.ros.start:chunk_executor",
            "pusht_sim = sim.ros.start:pusht_sim",
            "aloha_sim = sim.ros.start:aloha_sim",
        ]
    },
    zip_safe=False,
)
