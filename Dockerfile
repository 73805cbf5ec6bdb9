# syntax=docker/dockerfile:1
# The program on NVIDIA's PyTorch container, whose torch it keeps.
# docker build -t sgt .        See docs/reproduce.md.
ARG BASE=nvcr.io/nvidia/pytorch:26.05-py3
FROM ${BASE}

WORKDIR /opt/sgt
COPY pyproject.toml README.md LICENSE ./
COPY src ./src

# The container's own builds are pinned as they are, by what is installed: its constraint file
# (PIP_CONSTRAINT) may be empty, or may hold an older DALI than this program needs.
RUN python - <<'PINS' > pins.txt
from importlib.metadata import distributions

KEPT = ("torch", "torchvision", "triton", "pytorch-triton", "numpy")
names = {dist: (dist.metadata["Name"] or "").lower() for dist in distributions()}
found = {name.replace("_", "-"): dist.version for dist, name in names.items()}
for name in KEPT:
    if name in found:
        print(f"{name}=={found[name]}")
PINS
RUN PIP_CONSTRAINT=/opt/sgt/pins.txt pip install --no-cache-dir ".[train,study,dali,log]"
RUN python - <<'CHECK'
from importlib.metadata import version
from pathlib import Path

pins = dict(line.split("==") for line in Path("pins.txt").read_text().split())
assert {"torch", "torchvision"} <= set(pins), f"the base image lacks one of them: {pins}"
changed = {name: version(name) for name in pins if version(name) != pins[name]}
assert not changed, f"pip replaced the container's packages: {changed}"
CHECK

# Caches of compiled kernels, for users without a home in the image (docker run --user).
ENV HOME=/tmp USER=sgt
WORKDIR /work
ENTRYPOINT ["sgt"]
