# The ROS 2 nodes on Jazzy, with OpenVINO and the simulator. See docs/docker.md.
FROM ros:jazzy-ros-base-noble

# What the distribution has of it, as for all of ROS.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/para_policy
COPY . .
# Ubuntu keeps pip out of its own Python, so a virtual environment that sees the system's rclpy. Jazzy's messages were
# built with numpy 1, which cannot be mixed with numpy 2; so constraints.txt, tested with numpy 2, gives torch only.
ENV PATH=/opt/venv/bin:$PATH
# hadolint ignore=DL3013
RUN python3 -m venv --system-site-packages /opt/venv \
    && version=$(sed -n 's/^torch==//p' constraints.txt) \
    && pip install --no-cache-dir "torch==$version+cpu" "numpy<2" \
        --extra-index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir "numpy<2" ".[bags,openvino,sim]" \
    && pip uninstall -y opencv-python \
    && pip install --no-cache-dir --no-deps "opencv-python-headless<4.12"

# ros2 run and ros2 launch find the package where pip has put it; the entrypoint of the base image adds /opt/ros/jazzy.
ENV AMENT_PREFIX_PATH=/opt/venv
# The user that comes with the image.
USER 1000
CMD ["ros2", "launch", "para_policy", "policy.launch.py"]
