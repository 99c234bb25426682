"""One package for `colcon build` (ament_python) and for plain `pip install`."""

from glob import glob

from setuptools import find_packages, setup

NAME = "para_policy"

EXPORT = ["onnx", "onnxruntime", "onnxscript"]
OPENVINO = ["openvino"]
TRAIN = ["accelerate"]

setup(
    name=NAME,
    version="0.1.0",
    description="Real-time diffusion policies: the denoising steps solved in parallel.",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["para_policy", "para_policy.*", "sim", "sim.*"]),
    package_data={"para_policy": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", glob("config/*.yaml")),
        (f"share/{NAME}/config/arm_6dof", glob("config/arm_6dof/*.yaml")),
        (f"share/{NAME}/configs", glob("config/training/*.yaml")),
        # colcon puts the console scripts there; pip does not, and `ros2 run` looks nowhere else.
        (f"lib/{NAME}", glob("libexec/*")),
    ],
    # rclpy is missing on purpose: it comes with ROS 2, or from requirements-ros.txt.
    install_requires=[
        "diffusers",
        "gym-pusht",
        "gymnasium",
        "imageio",
        "imageio-ffmpeg",
        "matplotlib",
        "mcap",
        "numpy",
        "pillow",
        "pydantic>=2",
        "pymunk<7",
        "pyyaml",
        "rich",
        "rosbags",
        "safetensors",
        "scipy",
        "torch>=2.4",
        "tyro",
        "zarr",
    ],
    extras_require={
        "convert": ["dill", "omegaconf"],
        "export": EXPORT,
        "hub": ["huggingface-hub"],
        "openvino": OPENVINO,
        "train": TRAIN,
        "test": [
            *EXPORT,
            *OPENVINO,
            *TRAIN,
            "hypothesis",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
        ],
        "dev": ["import-linter", "mypy", "ruff", "scipy-stubs", "types-PyYAML"],
    },
    entry_points={
        "console_scripts": [
            "para-policy = para_policy.cli.main:main",
            "policy_node = para_policy.ros.policy_node:main",
            "chunk_executor = para_policy.ros.chunk_executor:main",
            "pusht_sim = sim.ros.pusht_sim:main",
        ]
    },
    zip_safe=False,
)
