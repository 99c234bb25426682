# para_policy on a CPU, with OpenVINO and the simulator. See docs/docker.md.
FROM python:3.12-slim-bookworm

WORKDIR /opt/para_policy
COPY . .
# The CPU build of torch is much smaller; constraints.txt has the versions that were tested. opencv-python, which
# gym-pusht asks for, needs libGL of a desktop; the headless build does not.
RUN version=$(sed -n 's/^torch==//p' constraints.txt) \
    && pip install --no-cache-dir -c constraints.txt "torch==$version+cpu" \
        --extra-index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir -c constraints.txt ".[openvino,plots,sim,video]" \
    && pip uninstall -y opencv-python \
    && pip install --no-cache-dir --no-deps -c constraints.txt opencv-python-headless

# What drives a robot needs no rights; commands find checkpoints/ and config/ here. Mount a folder for their output.
RUN useradd --uid 1000 --create-home robot
USER 1000
ENTRYPOINT ["para-policy"]
CMD ["--help"]
