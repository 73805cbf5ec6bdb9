"""NVIDIA DALI's part: from the bytes of image files to batches of uint8 pixels.

DALI is given the files' bytes and all random decisions, and keeps no state of its own: what
comes out depends on what goes in alone, whatever was fed before and on however many threads.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from softmax_gradient_tampering.data.folder.image_file import open_image, read_failure
from softmax_gradient_tampering.errors import UserError

# timm's names, as far as DALI has the same filter.
INTERPOLATIONS = {
    "nearest": "INTERP_NN",
    "bilinear": "INTERP_LINEAR",
    "bicubic": "INTERP_CUBIC",
    "lanczos": "INTERP_LANCZOS3",
}
# PIL's names of the formats that DALI decodes.
DALI_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000")

_READ_AHEAD = 4  # batches whose files are being read
_IN_FLIGHT = 2  # batches that DALI works on
_FILES_OF_A_JOB = 8

Numbers = NDArray[Any]


@dataclass(frozen=True)
class Graph:
    """What DALI does to an image.

    Args:
        size: height and width of the result.
        is_grey: one channel in place of three.
        is_random: cut, resize and flip as each sample's numbers say; else resize all of the
            image and cut a window from that.
        antialias: low-pass filter where an image becomes smaller.
        interpolation: a key of INTERPOLATIONS; of random graphs, each sample has its own.
        is_on_gpu: decode and resize on the GPU.
    """

    size: tuple[int, int]
    is_grey: bool
    is_random: bool
    antialias: bool
    interpolation: str
    is_on_gpu: bool

    def build(self, batch_size: int, num_threads: int, device_id: int | None) -> Any:
        from nvidia.dali import pipeline_def

        define = pipeline_def(
            self._define,
            batch_size=batch_size,
            num_threads=num_threads,
            device_id=device_id,
            prefetch_queue_depth=1,  # a run begins when it is asked for, and no other
        )
        pipeline = define()
        pipeline.build()
        return pipeline

    def _define(self) -> Any:
        from nvidia.dali import fn, types

        def numbers(name: str, num: int) -> Any:
            return fn.external_source(name=name, dtype=types.INT32, ndim=int(num > 1))

        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
        decoding = {
            "device": "mixed" if self.is_on_gpu else "cpu",
            "output_type": types.GRAY if self.is_grey else types.RGB,
            "adjust_orientation": False,  # as PIL reads files
            "jpeg_fancy_upsampling": True,  # likewise; CPUs always do
        }
        start, shape = numbers("start", 2), numbers("shape", 2)
        if not self.is_random:
            images = fn.decoders.image(encoded, **decoding)
            images = fn.resize(
                images,
                size=fn.cast(shape, dtype=types.FLOAT),
                interp_type=getattr(types, INTERPOLATIONS[self.interpolation]),
                antialias=self.antialias,
            )
            return fn.slice(images, start=start, shape=self.size, axis_names="HW")
        images = fn.decoders.image_slice(
            encoded, start=start, shape=shape, axis_names="HW", **decoding
        )
        filters = fn.reinterpret(numbers("filter", 1), dtype=types.INTERP_TYPE)
        images = fn.resize(images, size=self.size, interp_type=filters, antialias=self.antialias)
        horizontal, vertical = numbers("horizontal", 1), numbers("vertical", 1)
        return fn.flip(images, horizontal=horizontal, vertical=vertical)


@dataclass
class Request:
    """A batch to be made: its files, their sizes when they were checked, DALI's inputs."""

    paths: list[str]
    num_bytes: list[int]
    inputs: dict[str, Numbers]
    contents: list[Numbers] = field(default_factory=list)

    def feed(self, pipeline: Any) -> None:
        pipeline.feed_input("encoded", self.contents)
        for name, numbers in self.inputs.items():
            pipeline.feed_input(name, np.ascontiguousarray(numbers, dtype=np.int32))
        pipeline.schedule_run()

    def only(self, number: int) -> "Request":
        """The request of one of its files."""
        one = slice(number, number + 1)
        inputs = {name: numbers[one] for name, numbers in self.inputs.items()}
        return Request(self.paths[one], self.num_bytes[one], inputs, self.contents[one])


class Decoder:
    """A DALI pipeline and the threads that read files for it.

    Args:
        graph: what is done to the images.
        batch_size: the largest batch.
        num_threads: DALI's threads, and as many that read files.
        device: where it decodes, if the graph is on the GPU.
    """

    def __init__(
        self, graph: Graph, batch_size: int, num_threads: int, device: torch.device
    ) -> None:
        device_id = (device.index or 0) if graph.is_on_gpu else None
        self._build: Callable[[int], Any] = lambda size: graph.build(size, num_threads, device_id)
        self._batch_size = batch_size
        self._device = device if graph.is_on_gpu else None
        self._pipeline: Any = None
        self._readers = ThreadPoolExecutor(num_threads, thread_name_prefix="read")
        self._running: deque[Request] = deque()
        self._is_taken = False  # the first of those running
        self._number_of_calls = 0

    def batches(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """The images of every request, (n, C, H, W) uint8; valid until the next is taken.

        What an earlier call has begun is given up.

        Raises:
            UserError: a file cannot be read or decoded any more; it is named.
        """
        self._begin()
        number = self._number_of_calls
        remaining = iter(requests)
        reading: deque[tuple[Request, list[Future[list[Numbers]]]]] = deque()
        try:
            while number == self._number_of_calls:
                while len(reading) < _READ_AHEAD and (request := next(remaining, None)):
                    reading.append((request, self._read(request)))
                while reading and len(self._running) < _IN_FLIGHT:
                    request, contents = reading.popleft()
                    request.contents = [one for job in contents for one in job.result()]
                    self._running.append(request)
                    request.feed(self._pipeline)
                if not self._running:
                    return
                yield self._take()
                if number == self._number_of_calls:
                    self._release()
        finally:
            for _, contents in reading:
                for job in contents:
                    job.cancel()

    def _read(self, request: Request) -> list[Future[list[Numbers]]]:
        """Have a request's files read, several by each job."""
        jobs = []
        for start in range(0, len(request.paths), _FILES_OF_A_JOB):
            part = slice(start, start + _FILES_OF_A_JOB)
            job = self._readers.submit(_read_files, request.paths[part], request.num_bytes[part])
            jobs.append(job)
        return jobs

    def _begin(self) -> None:
        """Build the pipeline, or empty it of what an earlier call has begun."""
        self._number_of_calls += 1
        if self._pipeline is None:
            self._pipeline = self._build(self._batch_size)
        if self._is_taken:
            self._release()
        while self._running:
            self._take()
            self._release()

    def _take(self) -> Tensor:
        try:
            if self._device is None:
                (images,) = self._pipeline.share_outputs()
            else:
                stream = torch.cuda.current_stream(self._device)
                (images,) = self._pipeline.share_outputs(cuda_stream=stream)
        except Exception as error:  # DALI's errors are of many types
            request = self._running.popleft()
            self._running.clear()
            self._pipeline = None
            raise self._failure(request, error) from error
        self._is_taken = True
        return from_dlpack(images.as_tensor()).permute(0, 3, 1, 2)

    def _release(self) -> None:
        self._pipeline.release_outputs()
        self._running.popleft()
        self._is_taken = False

    def _failure(self, request: Request, error: Exception) -> UserError:
        """Which file it is that DALI cannot decode: they are tried one by one."""
        pipeline = self._build(1)
        for number, path in enumerate(request.paths):
            try:
                request.only(number).feed(pipeline)
                pipeline.share_outputs()
                pipeline.release_outputs()
            except Exception as reason:
                return _bad_file(path, f"DALI cannot decode it: {_reason(reason)}")
        return UserError(f"DALI failed: {_reason(error)}", is_local=True)


def _read_files(paths: list[str], num_bytes: list[int]) -> list[Numbers]:
    return [_read_file(*file) for file in zip(paths, num_bytes, strict=True)]


def _read_file(path: str, num_bytes: int) -> Numbers:
    try:
        with open_image(path) as file:
            content = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        raise _bad_file(path, f"cannot be read: {read_failure(error)}") from error
    if len(content) != num_bytes:
        size = f"{len(content)} bytes, and had {num_bytes} when it was checked"
        raise _bad_file(path, f"has changed: {size}")
    return content


def _bad_file(path: str, why: str) -> UserError:
    return UserError(
        f"{path}: {why}; put the file back as it was, then go on with --resume", is_local=True
    )


def _reason(error: Exception) -> str:
    """DALI's own words, from among its traceback of the pipeline."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    after = [
        line for line, before in zip(lines[1:], lines, strict=False) if before == "encountered:"
    ]
    return (after or lines or [type(error).__name__])[0]
