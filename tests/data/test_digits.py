from __future__ import annotations

import numpy as np

from lurefs.data.digits import digits


def test_digits_are_scaled_to_the_full_range() -> None:
    dataset = digits()
    images = dataset.read(np.arange(len(dataset)))
    assert images.shape == (1797, 8, 8, 1)
    assert (images.min(), images.max()) == (0, 255)
    assert images[0, 0, :4, 0].tolist() == [0, 0, 80, 207]  # 0, 0, 5 and 13 of 16


def test_digits_have_ten_classes_and_one_source() -> None:
    dataset = digits()
    assert dataset.class_names == tuple("0123456789")
    assert dataset.n_per_class.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert dataset.image_ids[:2] == ("0/0000", "1/0001")
    assert not dataset.sources.any()


def test_digits_come_in_another_size() -> None:
    assert digits(image_size=12).read(np.array([5])).shape == (1, 12, 12, 1)
