# para_policy on an NVIDIA GPU: torch brings CUDA itself, the host its driver. See docs/docker.md.
FROM python:3.12-slim-bookworm

WORKDIR /opt/para_policy
# torch.compile calls a C compiler; any version will do.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . .
# torch of the package index is the CUDA build. Headless OpenCV as in cpu.Dockerfile.
RUN pip install --no-cache-dir -c constraints.txt ".[plots,sim,train,video]" \
    && pip uninstall -y opencv-python \
    && pip install --no-cache-dir --no-deps -c constraints.txt opencv-python-headless

RUN useradd --uid 1000 --create-home robot
USER 1000
ENTRYPOINT ["para-policy"]
CMD ["--help"]
