"""Labeled images from scikit-learn, from files in Fashion-MNIST's format, and from folders of pictures."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image

from metier import data
from metier.core import InputError


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def fashion(tmp_path):
    """Four small files in the format of the real ones."""
    rng = np.random.default_rng(0)
    images = {"train": rng.integers(256, size=(12, 28, 28)), "t10k": rng.integers(256, size=(5, 28, 28))}
    for part, array in images.items():
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", array)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(len(array)) % 10)
    return tmp_path, images


def test_digits_should_be_what_scikit_learn_has():
    digits = data.load_images("digits")
    assert digits.images.shape == (1797, 8, 8)
    assert digits.images.min() == 0.0
    assert digits.images.max() == 1.0
    assert digits.take(np.array([3, 1])).labels.tolist() == digits.labels[[3, 1]].tolist()


def test_files_of_fashion_mnist_should_be_read_exactly(fashion):
    folder, images = fashion
    found = data.load_images(folder)
    np.testing.assert_allclose(found.images[:12] * 255, images["train"], atol=1e-4)
    np.testing.assert_allclose(found.images[12:] * 255, images["t10k"], atol=1e-4)
    assert found.labels[12:].tolist() == [0, 1, 2, 3, 4]
    assert found.classes[9] == "ankle boot"


def test_shrinking_should_average_pixels(fashion):
    folder, images = fashion
    found = data.load_images(folder, side=14)
    expected = images["train"].reshape(12, 14, 2, 14, 2).mean((2, 4)) / 255
    np.testing.assert_allclose(found.images[:12], expected, atol=1e-5)
    odd = data.load_images(folder, side=9)
    np.testing.assert_allclose(
        odd.images.mean((1, 2)), data.load_images(folder).images.mean((1, 2)), atol=1e-4
    )


def test_broken_files_should_be_refused(fashion):
    folder, _ = fashion
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", np.arange(4))
    with pytest.raises(InputError, match="17 images, 16 labels"):
        data.load_images(folder)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(InputError, match="with other contents"):
        data.load_images(folder)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="no file t10k-labels"):
        data.load_images(folder)


def test_a_folder_of_pictures_should_be_read_by_class(tmp_path):
    for name, shade, size in (("bright", 255, (6, 6)), ("dark", 0, (6, 8))):
        (tmp_path / name).mkdir()
        Image.new("RGB", size, (shade,) * 3).save(tmp_path / name / "a.png")
    with pytest.raises(InputError, match=r"pictures of one set have one size: .*side="):
        data.load_images(tmp_path)
    found = data.load_images(tmp_path, side=4)
    assert found.images.shape == (2, 4, 4)
    assert found.classes == ("bright", "dark")
    assert found.images[:, 0, 0].tolist() == [1.0, 0.0]


def test_folders_without_classes_should_be_refused(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(InputError, match="one folder per class"):
        data.load_images(tmp_path)
    with pytest.raises(InputError, match="auto, digits, fashion-mnist"):
        data.load_images(tmp_path / "absent")
