"""verify finds nothing wrong with an image if, and only if, the loader decodes it: in a folder, in
a stream and in parquet shards.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.image_samples import noise, png

from cpsam.data import load_dataset
from cpsam.data.decode import decode_square
from cpsam.data.verify import verify
from cpsam.errors import DataError


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB", height: int = 9, width: int = 12) -> Image.Image:
    return Image.fromarray(noise(height, width, 3)).convert(mode)


def turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(picture(), kind, exif=exif)


def indexed(**options: object) -> bytes:
    return save(picture().quantize(16), "PNG", **options)


def animated(kind: str) -> bytes:
    return save(
        picture(),
        kind,
        save_all=True,
        append_images=[Image.new("RGB", (12, 9), color) for color in ("red", "blue")],
    )


DEEP = Image.fromarray(noise(9, 12).astype(np.uint16) * 257)
JPEG, PNG = save(picture(), "JPEG"), save(picture(), "PNG")

GOOD: dict[str, bytes] = {
    "cmyk.tif": save(picture("CMYK"), "TIFF"),
    "cmyk.jpg": save(picture("CMYK"), "JPEG"),
    "lab.tif": save(picture("LAB"), "TIFF"),
    "deflate.tif": save(picture(), "TIFF", compression="tiff_deflate"),
    "bits.png": save(picture("1"), "PNG"),
    "bits.tif": save(picture("1"), "TIFF", compression="group4"),
    "bits.pbm": save(picture("1"), "PPM"),
    "grey-alpha.png": save(picture("LA"), "PNG"),
    "palette.png": indexed(),
    "transparent-index.png": indexed(transparency=3),
    "transparent-bytes.png": indexed(transparency=bytes(range(16))),
    "transparent-colour.png": save(picture(), "PNG", transparency=(1, 2, 3)),
    "progressive.jpg": save(picture(), "JPEG", progressive=True),
    "ycc.tif": save(picture("YCbCr"), "TIFF"),
    "lossless.webp": save(picture("RGBA"), "WEBP", lossless=True),
    "1x1.png": png(noise(1, 1, 3)),
    "1x1.jpg": save(picture(height=1, width=1), "JPEG"),
    "1000:1.png": png(noise(1, 1000, 3)),
    "grey.jp2": save(picture("L"), "JPEG2000"),
    "alpha.jp2": save(picture("RGBA"), "JPEG2000"),
    "png-inside.jpg": PNG,
    "jpeg-inside.tga": JPEG,
    "rest.jpg": JPEG + b"trailing garbage",
    "rest.png": PNG + PNG,
    "plain.tga": save(picture(), "TGA"),
    "exif.jpg": turned("JPEG", 6),
    "exif.png": turned("PNG", 8),
    "exif.webp": turned("WEBP", 3),
    "exif.tif": turned("TIFF", 5),
    "exif-0.jpg": turned("JPEG", 0),
    "exif-99.jpg": turned("JPEG", 99),
    "exif-broken.jpg": save(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
}
BAD: dict[str, bytes] = {
    "animated.tif": animated("TIFF"),
    "animated.png": animated("PNG"),
    "animated.webp": animated("WEBP"),
    "16-bits.png": save(DEEP, "PNG"),
    "16-bits.tif": save(DEEP, "TIFF"),
    "16-bits.jp2": save(DEEP, "JPEG2000"),
    "float.tif": save(picture("F"), "TIFF"),
    "1001:1.png": png(noise(1, 1001, 3)),
    "empty.jpg": b"",
    "text.jpg": b"<html>403 Forbidden</html>",
    "gif-inside.png": save(picture("P"), "GIF"),
    "plain-tga-inside.png": save(picture(), "TGA"),
    "header.jpg": JPEG[:20],
    "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    **{
        f"half.{kind}": whole[: len(whole) // 2]
        for kind, whole in {"jpg": JPEG, "png": PNG}.items()
    },
    "half.webp": save(picture(), "WEBP")[:100],
    "half.tif": save(picture(), "TIFF")[:100],
    "half.jp2": save(picture(height=64, width=64), "JPEG2000")[:90],
    "half.bmp": save(picture(), "BMP")[:100],
}
IMAGES = {**GOOD, **BAD}

# pytest makes errors of Pillow's warnings; the library leaves them out.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL.")


def decodes(read: Callable[[], object]) -> bool:
    try:
        read()
    except DataError as error:
        assert "\n" not in str(error) and "object at 0x" not in str(error)
        return False
    return True


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder in which class a has the odd images."""
    for seed, place in enumerate(["train/b", "val/a", "val/b"]):
        (tmp_path / "p" / place).mkdir(parents=True)
        (tmp_path / "p" / place / "1.png").write_bytes(png(noise(8, 9, 3, seed=100 + seed)))
    (tmp_path / "p/train/a").mkdir()
    for name, data in IMAGES.items():
        (tmp_path / "p/train/a" / name).write_bytes(data)
    return tmp_path / "p"


def test_verify_and_the_loader_agree_on_a_folder(tree: Path) -> None:
    faults = {Path(fault.where).name: fault.reason for fault in verify(tree).faults}
    assert faults.keys() == BAD.keys(), "what is good, and what is bad"
    stream = load_dataset("folder", tree, image_size=8, stream=True, workers=0).train
    for index, name in enumerate(sorted(IMAGES)):
        assert decodes(lambda name=name: decode_square(tree / "train/a" / name, 8)) == (
            name in GOOD
        ), name
        for draw in (None, (0, 0)):
            assert decodes(
                lambda index=index, draw=draw: list(stream.batches([np.array([index])], draw))
            ) == (name in GOOD), name


def test_verify_and_the_loader_agree_on_shards(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary())])
    # the bytes alone do not say that they are a Targa
    named = {name: data for name, data in IMAGES.items() if not name.endswith(".tga")}
    for split, data in {
        "train": list(named.values()),
        "test": [png(noise(8, 9, 3, seed=1)), png(noise(8, 9, 3, seed=2))],
    }.items():
        labels = [row % 2 for row in range(len(data))]
        pq.write_table(
            pa.table(
                {"image": pa.array([{"bytes": cell} for cell in data], kind), "label": labels}
            ),
            tmp_path / f"{split}-0.parquet",
        )
    found = {fault.row for fault in verify(tmp_path).faults if "same pixels" not in fault.reason}
    assert found == {row for row, name in enumerate(named) if name in BAD}
    stream = load_dataset("folder", tmp_path, image_size=8, workers=0).train
    for row, name in enumerate(named):
        assert decodes(lambda row=row: list(stream.batches([np.array([row])], None))) == (
            name in GOOD
        ), name
