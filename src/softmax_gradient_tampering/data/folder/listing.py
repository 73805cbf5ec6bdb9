"""Which files of a split are images, and which class each is of.

The one definition of a class, for training, validation, DALI and `sgt data check`: the images
of a class are all that lie below one folder of the split, or have one label in its CSV file.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from softmax_gradient_tampering.data.folder.image_file import describe_link
from softmax_gradient_tampering.data.folder.labelled_files import LabelledFiles

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
# Left by network disks and by archives of another system, with copies of the images in them.
_LITTER = ("@eaDir", "__MACOSX")
_ARCHIVES = (".tar", ".tgz", ".gz", ".zip", ".7z", ".rar", ".zst", ".bz2", ".xz")
_DIGITS = re.compile(r"([0-9]+)")


class Finding(NamedTuple):
    """A file or folder, and what is to be said of it."""

    path: str
    what: str


@dataclass
class Listing:
    """The image files of one split, class by class.

    Attributes:
        source: the folder of the split, or the CSV file that lists it.
        folder: what the paths are relative to.
        classes: the image files of every class, in natural order; without files for a folder
            that holds none.
        loose: image files of no class: they lie beside the class folders.
        archives: files beside the class folders that may hold images.
        passed_over: how many files are no images, by the ends of their names.
        faults: why this split cannot be trained on.
        remarks: what a user should know of how it was read.
        absent: image files that are links to what is not there.
    """

    source: Path
    folder: Path
    classes: dict[str, list[str]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    faults: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that have images, in the order of their labels."""
        return tuple(sorted((name for name in self.classes if self.classes[name]), key=_order))

    @property
    def num_files(self) -> int:
        return sum(map(len, self.classes.values()))

    def label(self, classes: tuple[str, ...]) -> LabelledFiles:
        """The files of these classes, each with the index of its class.

        Their order is the natural one of their paths.
        """
        labels = {name: label for label, name in enumerate(classes)}
        known = sorted((name for name in self.classes if name in labels), key=_order_of_folders)
        files = [file for name in known for file in self.classes[name]]
        of_files = [labels[name] for name in known for _ in self.classes[name]]
        return LabelledFiles(str(self.folder), files, of_files, classes)

    def path(self, file: str) -> str:
        """The path of a file of the listing."""
        return file if file.startswith("/") else f"{self.folder}/{file}"


def natural_key(text: str) -> list[str | int]:
    """Orders text as a person does, numbers by their value: class2 before class10."""
    parts: list[str | int] = list(_DIGITS.split(text.lower()))
    parts[1::2] = map(int, parts[1::2])
    return parts


def _order(name: str) -> tuple[list[str | int], str]:
    return natural_key(name), name


def _order_of_folders(name: str) -> tuple[list[str | int], str]:
    return natural_key(f"{name}/"), name


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by the end of its name."""
    return name.lower().endswith(ENDINGS)


def is_archive(name: str) -> bool:
    """Whether a file is an archive that may hold images, by the end of its name."""
    return name.lower().endswith(_ARCHIVES)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's images, by its name."""
    return name[0] == "." or name in _LITTER


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, by name, but hidden ones; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
    return [folder / name for name in sorted(names) if not is_hidden(name)]


def list_folder(root: Path) -> Listing:
    """List a split whose class folders lie in `root`.

    Raises:
        OSError: root itself cannot be listed.
    """
    listing = Listing(root, root)
    walk = _Walk(listing)
    folders, listing.loose, others = walk.look_into("", os.scandir(root))
    listing.archives = sorted(filter(is_archive, others))
    for name in sorted(folders):
        listing.classes[name] = walk.images_below(name)
    listing.passed_over = Counter(dict(sorted(walk.passed_over.items())))
    listing.remarks += walk.remarks()
    return listing


class _Walk:
    """A walk through the folders of a split, links followed, but not round in a circle."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.passed_over: Counter[str] = Counter()
        self.hidden: list[str] = []
        self.nested = ""

    def images_below(self, name: str) -> list[str]:
        """The image files below a class folder, relative to the split, in natural order."""
        found: list[str] = []
        root = str(self.listing.folder)
        remaining = [("", frozenset({_identity(root)}))]
        while remaining:
            inner, above = remaining.pop()
            path = f"{root}/{name}/{inner}"
            try:
                identity = _identity(path)
                entries = os.scandir(path)
            except OSError as error:
                self._fault(path, f"cannot be listed: {error.strerror}")
                continue
            if identity in above:
                self._fault(path, "a link to a folder above it, to go round in; remove the link")
                continue
            folders, images, _ = self.look_into(f"{name}/{inner}", entries)
            if images and inner:
                here = f"{name}/{inner}".rstrip("/")
                self.nested = min(self.nested or here, here)
            found += [inner + image for image in images] if inner else images
            remaining += [(f"{inner}{folder}/", above | {identity}) for folder in folders]
        found.sort()  # for those whose natural order is one
        return [f"{name}/{file}" for file in sorted(found, key=natural_key)]

    def look_into(
        self, relative: str, entries: "os._ScandirIterator[str]"
    ) -> tuple[list[str], list[str], list[str]]:
        """The names of the folders, images and other files in a folder, but hidden ones."""
        folders, images, others = [], [], []
        with entries:
            for entry in entries:
                name = entry.name
                is_link = entry.is_symlink()
                is_folder, is_there = _follow(entry) if is_link else (entry.is_dir(), True)
                ends_as_image = not is_folder and is_image(name)
                if is_hidden(name):
                    if is_folder or ends_as_image:
                        self.hidden.append(relative + name)
                elif is_folder:
                    folders.append(name)
                elif ends_as_image:
                    images.append(name)
                    if not is_there:
                        self.listing.absent.append(f"{self.listing.folder}/{relative}{name}")
                elif is_there:
                    others.append(name)
                else:
                    path = f"{self.listing.folder}/{relative}{name}"
                    what = f"{describe_link(Path(path))}; restore that, or remove the link"
                    self._fault(path, what)
        self.passed_over.update(Path(name).suffix.lower() or name for name in others)
        return sorted(folders), images, others

    def _fault(self, path: str, what: str) -> None:
        self.listing.faults.append(Finding(path.rstrip("/"), what))

    def remarks(self) -> list[str]:
        """What a user should know of how the folders were read."""
        remarks = []
        if self.nested:
            top = self.nested.split("/")[0]
            remarks.append(
                f"images lie in folders of class folders; their class is the uppermost folder, "
                f"as {top} of {self.nested}"
            )
        if self.hidden:
            remarks.append(
                f"{len(self.hidden):,} hidden files or folders passed over, {min(self.hidden)} "
                "for one"
            )
        return remarks


def _follow(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Whether a link leads to a folder, and whether to anything at all."""
    try:
        entry.stat()
        return entry.is_dir(), True
    except OSError:
        return False, False


def _identity(path: str) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_dev, status.st_ino
