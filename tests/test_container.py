"""The Dockerfile, built and run for real, on a base image that somebody has made beforehand.

CONTAINER_BASE names an image of buildah's storage with Python, torch and torchvision in it, for
instance a debootstrap with torch installed. CONTAINER_FLAGS are buildah's options for every
command, as `--root DIR --runroot DIR`, and CONTAINER_RUN_FLAGS those of building and running, as
`--isolation chroot` and `-v DIR:DIR:ro`.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = os.environ.get("CONTAINER_BASE", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("buildah"), reason="there is no buildah here"),
    pytest.mark.skipif(not BASE, reason="CONTAINER_BASE names no base image with torch"),
]


def buildah(command: str, *words: str) -> str:
    flags = os.environ.get("CONTAINER_FLAGS", "").split()
    if command in ("build", "run"):
        words = (*os.environ.get("CONTAINER_RUN_FLAGS", "").split(), *words)
    done = subprocess.run(["buildah", *flags, command, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A container of the image that the Dockerfile makes."""
    image = f"sgt-test-{uuid.uuid4().hex[:8]}"
    buildah("build", "--network", "host", "--build-arg", f"BASE={BASE}", "-t", image, str(ROOT))
    name = buildah("from", "--pull-never", image).strip()
    yield name
    buildah("rm", name)
    buildah("rmi", image)


def test_the_recipes_are_in_it(container: str) -> None:
    assert "resnet18" in buildah("run", container, "--", "sgt", "recipes")


def test_it_trains_the_digits(container: str) -> None:
    words = ["train", "--epochs", "2", "--output", "/tmp/out", "--experiment", "run"]
    buildah("run", container, "--", "sgt", *words)
    result = buildah("run", container, "--", "cat", "/tmp/out/run/result.json")
    assert '"status": "finished"' in result
