# The program on NVIDIA's PyTorch container, whose torch it keeps.
# docker build -t sgt .        See docs/reproduce.md.
ARG BASE=nvcr.io/nvidia/pytorch:26.05-py3
FROM ${BASE}

WORKDIR /opt/sgt
COPY pyproject.toml README.md LICENSE ./
COPY src ./src

# The container's own builds are pinned as they are, by what is installed: its constraint file
# (PIP_CONSTRAINT) may be empty, or may hold an older DALI than this program needs.
RUN pip list --format=freeze | grep -iE '^(torch|torchvision|triton|pytorch[-_]triton|numpy)==' > pins.txt \
    && grep -q '^torch==' pins.txt && grep -q '^torchvision==' pins.txt \
    || { echo "the base image lacks torch or torchvision: $(cat pins.txt)"; exit 1; }
RUN PIP_CONSTRAINT=/opt/sgt/pins.txt pip install --no-cache-dir ".[train,study,dali,log]"
RUN test "$(pip list --format=freeze | grep -cxFf pins.txt)" = "$(wc -l < pins.txt)" \
    || { echo "pip replaced packages of the container: $(cat pins.txt)"; exit 1; }

# Caches of compiled kernels, for users without a home in the image (docker run --user).
ENV HOME=/tmp USER=sgt
WORKDIR /work
ENTRYPOINT ["sgt"]
