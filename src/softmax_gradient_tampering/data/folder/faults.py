"""Why a folder cannot be trained on, and what a user should know of how it was read."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from softmax_gradient_tampering.data.folder.listing import ENDINGS, Finding, Listing
from softmax_gradient_tampering.data.folder.nearest import nearest_layout
from softmax_gradient_tampering.data.folder.splits import SPLIT_NAMES

_NUM_NAMED = 8
_OF_ILSVRC_VAL = re.compile(r"ILSVRC2012_val_[0-9]{8}\.JPEG")
_OF_ILSVRC_CLASS = re.compile(r"n[0-9]{8}\.tar")


def find_faults(root: Path, train: Listing | None, val: Listing | None) -> list[Finding]:
    """Why the splits of a data set cannot be trained on; nothing if they can.

    Args:
        root: the data set.
        train: its training split, where there is one.
        val: its validation split, where there is one.
    """
    faults: list[Finding] = []
    for listing in (train, val):
        if listing is None:
            continue
        of_split = [*_of_layout(root, listing), *listing.faults]
        if not listing.num_files and not of_split:
            what = f"no images in it, files that end in {', '.join(ENDINGS)}"
            of_split = [Finding(str(listing.source), what)]
        faults += of_split
    if train is None or not train.num_files:
        return faults
    faults += _of_training(root, train)
    unknown = [name for name in val.names if name not in train.names] if val else []
    if val and unknown:
        what = (
            f"class {_named(unknown)} is not among the {len(train.names):,} classes of "
            f"{train.source}; the two splits need the same classes"
        )
        faults.append(Finding(str(val.source), what))
    return faults


def remarks_on(listing: Listing) -> list[str]:
    """What a user should know of how a split was read, a line each."""
    kinds = [f"{number:,} {ending}" for ending, number in listing.passed_over.most_common()]
    passed_over = f"passed over, as no images by the ends of their names: {_named(kinds)}"
    return [*listing.remarks, *([passed_over] if kinds else [])]


def _of_layout(root: Path, listing: Listing) -> Iterator[Finding]:
    """Files and folders that lie where no class can be told from."""
    loose, where = sorted(listing.loose), str(listing.source)
    if loose and all(map(_OF_ILSVRC_VAL.fullmatch, loose)):
        what = f"{_count(loose, 'validation image')} of ILSVRC as downloaded, not sorted by class"
        way = f"sgt data imagenet --val {where} --devkit DEVKIT --output DIR sorts them"
        yield Finding(where, f"{what}; {way}")
    elif loose and listing.names:
        what = f"{_count(loose, 'image')} beside the class folders, of no class: {_named(loose)}"
        yield Finding(where, f"{what}; move each into the folder of its class, or remove it")
    elif loose:
        yield Finding(
            where,
            f"{_count(loose, 'image')} and no class folders; put each into a folder named as its "
            f"class, or list them in {where}.csv, path,label in every line{_hint(root)}",
        )
    packed = [
        name
        for name in listing.archives
        if not listing.names
        or (_OF_ILSVRC_CLASS.fullmatch(name) and Path(name).stem not in listing.names)
    ]
    if packed:
        what = f"{_count(packed, 'archive')} not unpacked, {_named(packed)}; unpack them"
        is_imagenet = any(map(_OF_ILSVRC_CLASS.fullmatch, packed))
        way = f": sgt data imagenet --train {where} --output DIR does" * is_imagenet
        yield Finding(where, what + way)
    splits = [name for name in listing.names if _is_split(listing, name)]
    if splits:
        what = f"{_named(splits)} in it, with folders of images, is named as a split is"
        yield Finding(where, f"{what}, not as a class{_hint(root)}")


def _is_split(listing: Listing, name: str) -> bool:
    """Whether a class folder is called as a split and has no images but in further folders."""
    if listing.source != listing.folder or name.lower() not in SPLIT_NAMES:
        return False
    return all(file.count("/") > 1 for file in listing.classes[name])


def _of_training(root: Path, train: Listing) -> Iterator[Finding]:
    for name in train.classes:
        if not train.classes[name]:
            what = "a class without an image; remove the folder or fill it"
            yield Finding(f"{train.source}/{name}", what)
    if len(train.names) == 1:
        what = f"one class only, {train.names[0]}; a classifier needs at least two{_hint(root)}"
        yield Finding(str(train.source), what)


def _hint(root: Path) -> str:
    near = nearest_layout(root)
    return f"; {near} would work" if near else ""


def _count(things: Sequence[str], what: str) -> str:
    return f"{len(things):,} {what}{'s' * (len(things) != 1)}"


def _named(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:_NUM_NAMED]) + ", ..." * (len(names) > _NUM_NAMED)
