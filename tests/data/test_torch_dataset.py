"""Anybody's torch Dataset becomes a data set of ours, or is refused with the sample at fault."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cpsam.data.sets import torch_dataset
from cpsam.data.sets.torch_dataset import from_torch
from cpsam.errors import CpsamError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3)).astype(np.uint8)


class Samples(torch.utils.data.Dataset[Any]):
    def __init__(self, samples: list[Any], **attributes: Any) -> None:
        self.samples = samples
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index]
        return sample() if callable(sample) else sample


def labelled(images: list[Any]) -> Samples:
    return Samples([(image, index % 2) for index, image in enumerate(images)])


FORMS = {
    "pil": [Image.fromarray(pixels) for pixels in PIXELS],
    "array": list(PIXELS),
    "tensor": list(torch.from_numpy(PIXELS).permute(0, 3, 1, 2)),
}


def test_the_same_pixels_are_the_same_data_in_every_form() -> None:
    found = [from_torch(labelled(images), labelled(images)) for images in FORMS.values()]
    assert len({dataset.fingerprint for dataset in found}) == 1
    images = found[0].train.images  # pyrefly: ignore
    assert torch.equal(images, torch.stack(FORMS["tensor"]))
    assert found[0].mean == pytest.approx(PIXELS.mean((0, 1, 2)) / 255)
    assert found[0].flip and found[0].classes == ("0", "1")


def test_grey_images_have_one_channel_and_names_of_classes_are_taken() -> None:
    train = Samples([(Image.fromarray(pixels[..., 0]), 0) for pixels in PIXELS], classes=["a", "b"])
    dataset = from_torch(train, train)
    assert dataset.in_channels == 1 and dataset.classes == ("a", "b")


def test_other_samples_or_no_augmentation_are_other_data() -> None:
    data = [labelled(images) for images in (FORMS["array"], FORMS["array"][::-1])]
    datasets = [
        from_torch(data[0], data[0]),
        from_torch(data[0], data[1]),
        from_torch(data[1], data[0]),
        from_torch(data[0], data[0], augment=False),
        from_torch(data[0], data[0], version="1"),
        from_torch(data[0], data[0], version="2"),
    ]
    assert len({dataset.fingerprint for dataset in datasets}) == len(datasets)
    assert (datasets[3].padding, datasets[3].flip) == (0, False)


def test_more_than_is_hashed_needs_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_dataset, "HASHED_BYTES", 100)
    data = labelled(FORMS["array"])
    with pytest.raises(CpsamError, match=r"cpsam\.Versioned"):
        from_torch(data, data)
    assert len(from_torch(data, data, version="1").train) == 4


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "has no samples"),
        ([PIXELS[0]], r"sample 0 of the train data must be \(image, label\)"),
        ([(PIXELS[0], 0), (PIXELS[0], 0.5)], "label of sample 1 .* got float 0.5"),
        ([(PIXELS[0], -1)], "must be a whole number from 0"),
        ([(PIXELS[0].astype(float), 0)], "must be a PIL image.* got ndarray of float64"),
        ([(torch.zeros(3, 4, 4, dtype=torch.int64), 0)], "got Tensor of torch.int64"),
        (
            [(PIXELS[0], 0), (PIXELS[0][1:], 0)],
            "sample 1 .* is 3x5x5 .* first is 3x6x5",
        ),
        ([lambda: (np.random.default_rng().integers(0, 255, (4, 4)).astype("u1"), 0)], "random"),
    ],
)
def test_a_bad_sample_is_named(samples: list[Any], message: str) -> None:
    with pytest.raises(CpsamError, match=message) as error:
        from_torch(Samples(samples), labelled(FORMS["array"]))
    assert "\n" not in str(error.value)


def test_a_stream_is_not_a_map_style_data_set() -> None:
    with pytest.raises(CpsamError, match="map-style"):
        from_torch(iter([]), labelled(FORMS["array"]))
