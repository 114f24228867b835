"""Labeled images: Fashion-MNIST where its files lie, scikit-learn's digits, or a folder of pictures."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import positive_int
from metier.core.errors import InputError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""
FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImageData:
    """Gray images with their classes.

    Attributes:
        name: "digits", "fashion-mnist", or the folder's name.
        images: (n, height, width) float32 from 0 to 1.
        labels: (n,) int64, numbers of `classes`.
        classes: Names of the classes.
        provenance: Where they come from, and their license.
    """

    name: str
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    provenance: str

    @property
    def sha256(self) -> str:
        """Digest of images and labels."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()

    def take(self, rows: NDArray[np.int64]) -> ImageData:
        """Return some of the images."""
        return ImageData(
            name=self.name,
            images=self.images[rows],
            labels=self.labels[rows],
            classes=self.classes,
            provenance=self.provenance,
        )


def load_images(source: str | Path = "auto", *, side: int | None = None) -> ImageData:
    """Load labeled images.

    Args:
        source: "digits" (scikit-learn, 1,797 images of 8 x 8 pixels); "fashion-mnist" (70,000 of 28 x 28, the
            files of Debian's package dataset-fashion-mnist); "auto", which is the second where its files are
            present and the first otherwise; or a folder: of Fashion-MNIST's four files, or with one folder of
            pictures per class.
        side: Larger images are shrunk to this height and width, by averaging pixels; None keeps the size,
            and a folder's pictures then have to agree.

    Returns:
        The images, gray, from 0 to 1.

    Raises:
        InputError: No such folder, fewer than two classes, pictures of different sizes, or broken files.

    Example:
        >>> digits = load_images("digits")
        >>> digits.images.shape, digits.classes[:3]
        ((1797, 8, 8), ('0', '1', '2'))
    """
    if source == "auto":
        source = "fashion-mnist" if FASHION_MNIST.is_dir() else "digits"
    if side is not None:
        positive_int("side", side)
    if source == "digits":
        found = _digits()
    elif source == "fashion-mnist":
        found = _fashion_mnist(FASHION_MNIST)
    else:
        folder = Path(source)
        if not folder.is_dir():
            raise _unknown(folder)
        files = (folder / "train-images-idx3-ubyte.gz", folder / "train-images-idx3-ubyte")
        if not any(file.is_file() for file in files):
            return _pictures(folder, side)
        found = _fashion_mnist(folder)
    return ImageData(
        name=found.name,
        images=_shrunk(found.images, side),
        labels=found.labels,
        classes=found.classes,
        provenance=found.provenance,
    )


def _unknown(folder: Path) -> InputError:
    return InputError(
        "images come from a known set or from a folder",
        expected="auto, digits, fashion-mnist, or the path of a folder",
        got=str(folder),
        next_step="Check the path; Debian's package dataset-fashion-mnist holds Fashion-MNIST.",
    )


def _digits() -> ImageData:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return ImageData(
        name="digits",
        images=(bunch.images / 16.0).astype(np.float32),
        labels=bunch.target.astype(np.int64),
        classes=tuple(map(str, range(10))),
        provenance="scikit-learn's copy of the test part of the UCI set Optical Recognition of Handwritten "
        "Digits (CC BY 4.0)",
    )


def _fashion_mnist(folder: Path) -> ImageData:
    parts = [
        (_idx(folder, f"{part}-images-idx3-ubyte", 3), _idx(folder, f"{part}-labels-idx1-ubyte", 1))
        for part in ("train", "t10k")
    ]
    images = np.concatenate([image for image, _ in parts])
    labels = np.concatenate([label for _, label in parts]).astype(np.int64)
    if len(images) != len(labels) or labels.max(initial=0) > 9:
        raise _broken(folder, f"{len(images)} images, {len(labels)} labels up to {labels.max(initial=0)}")
    return ImageData(
        name="fashion-mnist",
        images=(images / np.float32(255)).astype(np.float32),
        labels=labels,
        classes=FASHION_CLASSES,
        provenance="Fashion-MNIST, training and test part together (Zalando SE, MIT)",
    )


def _idx(folder: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    """Read one file of unsigned bytes in the IDX format, compressed or not."""
    packed, plain = folder / f"{name}.gz", folder / name
    if not packed.is_file() and not plain.is_file():
        raise _broken(folder, f"no file {name}")
    content = gzip.decompress(packed.read_bytes()) if packed.is_file() else plain.read_bytes()
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < header:
        raise _broken(folder, f"{name} with other contents")
    shape = tuple(np.frombuffer(content, ">i4", dimensions, 4).tolist())
    if len(content) - header != int(np.prod(shape)):
        raise _broken(folder, f"{name} with {len(content) - header} bytes for {shape}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _broken(folder: Path, got: str) -> InputError:
    return InputError(
        "Fashion-MNIST is four files in the IDX format",
        expected="train- and t10k-, images-idx3-ubyte and labels-idx1-ubyte, each plain or .gz",
        got=f"{got} in {folder}",
        next_step="Install Debian's package dataset-fashion-mnist, or fetch the files again.",
    )


def _shrunk(images: NDArray[np.float32], side: int | None) -> NDArray[np.float32]:
    height, width = images.shape[1:]
    if side is None or (height <= side and width <= side):
        return images
    rows, columns = _averaging(height, min(side, height)), _averaging(width, min(side, width))
    found: NDArray[np.float32] = np.einsum("ah,nhw,bw->nab", rows, images, columns, optimize=True)
    return found.astype(np.float32)


def _averaging(size: int, to: int) -> NDArray[np.float32]:
    """(to, size) weights of the overlap of each new pixel with the old ones."""
    edges = np.linspace(0, size, to + 1)
    left, right = (
        np.maximum(edges[:-1, None], np.arange(size)),
        np.minimum(edges[1:, None], np.arange(1, size + 1)),
    )
    overlap: NDArray[np.float32] = (np.clip(right - left, 0, None) * to / size).astype(np.float32)
    return overlap


def _pictures(folder: Path, side: int | None) -> ImageData:
    from PIL import Image

    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [
        (path, number)
        for number, name in enumerate(names)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in PICTURES
    ]
    if len({number for _, number in files}) < 2:
        raise InputError(
            "a folder of pictures has one folder per class",
            expected="two classes or more, with files " + " ".join(PICTURES),
            got=f"{len(files)} pictures in {len({n for _, n in files})} classes of {folder}",
            next_step="Sort the pictures into folders named after their classes.",
        )
    read = []
    for path, _ in files:
        with Image.open(path) as picture:
            gray = np.asarray(picture.convert("L"), dtype=np.float32) / np.float32(255)
        read.append(_square(gray, side)[0])
    shapes = {image.shape for image in read}
    if len(shapes) > 1:
        raise InputError(
            "pictures of one set have one size",
            expected="one size, or side=... to make it one",
            got=", ".join(map(str, sorted(shapes)[:4])),
            next_step="Pass side=32, for example.",
        )
    return ImageData(
        name=folder.name,
        images=np.stack(read),
        labels=np.array([number for _, number in files], dtype=np.int64),
        classes=tuple(names),
        provenance=f"the pictures of the folder {folder.name}",
    )


def _square(image: NDArray[np.float32], side: int | None) -> NDArray[np.float32]:
    """One image as a batch; with `side`, its middle square, shrunk."""
    if side is None:
        return image[None]
    edge = min(image.shape)
    top, left = (image.shape[0] - edge) // 2, (image.shape[1] - edge) // 2
    return _shrunk(image[None, top : top + edge, left : left + edge], side)
