from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image

from para_policy.errors import InputError, MissingPackageError
from para_policy.ros.messages.conversions import ns_to_stamp
from para_policy.ros.messages.images import read_compressed_image, read_image
from para_policy.ros.messages.inputs import InputMapping

HEIGHT, WIDTH = 6, 8
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ALPHA = np.full((HEIGHT, WIDTH, 1), 7, dtype=np.uint8)
OPAQUE = np.concatenate([COLOURS, ALPHA], axis=-1)


def options(
    height: int = HEIGHT,
    width: int = WIDTH,
    crop: Any = None,
    resize: bool = False,
    encoding: str | None = None,
) -> dict[str, Any]:
    return {"shape": (3, height, width), "crop": crop, "resize": resize, "encoding": encoding}


def message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    height, width, channels = pixels.shape
    lines = np.full((height, width * channels + padding), 99, dtype=np.uint8)
    lines[:, : width * channels] = pixels.reshape(height, -1)
    made = Image(height=height, width=width, encoding=encoding, step=lines.shape[1])
    made.data = lines.tobytes()
    return made


def encoded(pixels: np.ndarray, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


def compressed(data: bytes) -> CompressedImage:
    return CompressedImage(format="jpeg", data=data)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", COLOURS),
        ("bgr8", COLOURS[..., ::-1]),
        ("rgba8", OPAQUE),
        ("bgra8", OPAQUE[..., [2, 1, 0, 3]]),
    ],
)
def test_colours_come_out_as_red_green_blue(
    encoding: str, pixels: np.ndarray, padding: int, is_bigendian: int
) -> None:
    made = message(pixels, encoding, padding)
    made.is_bigendian = is_bigendian  # says nothing about single bytes
    read = read_image(made, options())
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, COLOURS.transpose(2, 0, 1))


COLOUR = (200, 60, 20)


def mosaic(pattern: str) -> np.ndarray:
    """What a sensor behind a filter of this pattern sees of one colour."""
    values = dict(zip("rgb", COLOUR, strict=True))
    tile = np.array([values[letter] for letter in pattern], dtype=np.uint8).reshape(2, 2)
    return np.tile(tile, (HEIGHT // 2, WIDTH // 2))[..., None]


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_the_colour_that_the_sensor_saw(pattern: str, padding: int) -> None:
    pytest.importorskip("cv2")
    read = read_image(message(mosaic(pattern), f"bayer_{pattern}8", padding), options())
    assert read.reshape(3, -1).T.tolist() == [list(COLOUR)] * (HEIGHT * WIDTH)


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")],
)
def test_both_orders_of_yuv_422_give_the_same_colour(encoding: str, order: str) -> None:
    pytest.importorskip("cv2")
    red, green, blue = (channel / 255 for channel in COLOUR)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # BT.601, studio range
    values = {
        "y": 16 + 219 * grey,
        "u": 128 + 112 * (blue - grey) / 0.886,
        "v": 128 + 112 * (red - grey) / 0.701,
    }
    pair = np.array([round(values[letter]) for letter in order], dtype=np.uint8).reshape(1, 2, 2)
    pixels = np.tile(pair, (HEIGHT, WIDTH // 2, 1))
    read = read_image(message(pixels, encoding, padding=2), options())
    colours = read.reshape(3, -1).T.astype(int)
    assert np.abs(colours - COLOUR).max() <= 3  # bytes are rounded


def test_what_needs_opencv_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingPackageError, match=r"debayer_node .* needs cv2; pip install"):
        read_image(message(mosaic("rggb"), "bayer_rggb8"), options())


def test_channels_without_names_are_named_in_the_inputs_file() -> None:
    made = message(COLOURS[..., ::-1], "8UC3")
    with pytest.raises(InputError, match="set `encoding: bgr8 or rgb8` in the inputs file"):
        read_image(made, options())
    read = read_image(made, options(encoding="bgr8"))
    np.testing.assert_array_equal(read, COLOURS.transpose(2, 0, 1))
    with pytest.raises(ValueError, match=r"'8UC3', which does not say what the channels are"):
        InputMapping(topic="t", type="sensor_msgs/msg/Image", encoding="8UC3")


@pytest.mark.parametrize(
    ("pixels", "said", "encoding", "sizes"),
    [
        (OPAQUE, "rgba8", "rgb8", "4 bytes for each pixel; .* has 3"),
        (COLOURS, "bgr8", "mono8", "3 bytes for each pixel; .* has 1"),
        (COLOURS[..., :2], "16UC1", "mono8", "2 bytes for each pixel; .* has 1"),
    ],
)
def test_an_encoding_of_another_size_does_not_take_pixels_for_padding(
    pixels: np.ndarray, said: str, encoding: str, sizes: str
) -> None:
    with pytest.raises(InputError, match=sizes):
        read_image(message(pixels, said), options(encoding=encoding))


def test_grey_becomes_three_equal_channels() -> None:
    grey = COLOURS[..., :1]
    for read in (
        read_image(message(grey, "mono8", padding=3), options()),
        read_compressed_image(compressed(encoded(grey[..., 0], "PNG")), options()),
    ):
        np.testing.assert_array_equal(read, np.stack([grey[..., 0]] * 3))


@pytest.mark.parametrize("pixels", [COLOURS, OPAQUE])
def test_png_is_exact(pixels: np.ndarray) -> None:
    read = read_compressed_image(compressed(encoded(pixels, "PNG")), options())
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, COLOURS.transpose(2, 0, 1))


def test_jpeg_keeps_colours_and_places() -> None:
    corners = np.zeros((32, 48, 3), dtype=np.uint8)
    corners[:16, :16, 0] = corners[:16, 32:, 1] = corners[16:, :16, 2] = 255
    data = encoded(corners, "JPEG", quality=95, subsampling=0)
    read = read_compressed_image(compressed(data), options(32, 48))
    assert np.abs(read.astype(int) - corners.transpose(2, 0, 1)).max() < 10


@pytest.mark.parametrize("as_message", ["raw", "png"])
def test_crop_then_resize(as_message: str) -> None:
    red, green, blue, white, black = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3, [0] * 3
    small = np.array([[red, white, blue], [black, green, [255, 0, 255]]], dtype=np.uint8)
    large = np.zeros((20, 40, 3), dtype=np.uint8)
    large[4:12, 5:17] = small.repeat(4, axis=0).repeat(4, axis=1)

    def read(**given: Any) -> np.ndarray:
        if as_message == "raw":
            return read_image(message(large[..., ::-1], "bgr8"), options(**given))
        return read_compressed_image(compressed(encoded(large, "PNG")), options(**given))

    crop = (4, 5, 8, 12)
    np.testing.assert_array_equal(
        read(height=8, width=12, crop=crop), large[4:12, 5:17].transpose(2, 0, 1)
    )
    scaled = read(height=2, width=3, crop=crop, resize=True).transpose(1, 2, 0).astype(int)
    assert scaled.shape == (2, 3, 3)
    # The filter reaches into the neighbours, but the nearest colour prevails.
    distances = np.abs(scaled[:, :, None, None] - small.astype(int)).sum(axis=-1).reshape(6, 6)
    assert distances.argmin(axis=1).tolist() == list(range(6))


def test_scaling_down_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 1), dtype=np.uint8)
    stripes[:, ::2] = 255
    read = read_image(message(stripes, "mono8"), options(8, 8, resize=True))
    assert read.shape == (3, 8, 8)
    assert np.abs(read.astype(int) - 127).max() < 12  # picking single pixels would give 0 or 255


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": "mono16"}, "encoding is 'mono16'; expected one of rgb8, bgr8, rgba8"),
        ({"encoding": "8UC3"}, "encoding is '8UC3'"),
        ({"encoding": ""}, "encoding is ''"),
        ({"height": 0}, "image is empty: 0 x 8"),
        ({"width": 0}, "image is empty: 6 x 0"),
        ({"data": b""}, "step 24 and 0 bytes"),
        ({"data": bytes(6 * 24 - 1)}, "step 24 and 143 bytes"),
        ({"data": bytes(6 * 24 + 1)}, "step 24 and 145 bytes"),
        ({"step": 23}, "step 23 and 144 bytes"),
        ({"step": 0}, "step 0 and 144 bytes"),
        ({"height": 2**32 - 1, "width": 2**32 - 1}, "image is damaged"),
    ],
)
def test_malformed_images_are_refused(changes: dict[str, Any], reason: str) -> None:
    made = message(COLOURS, "rgb8")
    for name, value in changes.items():
        setattr(made, name, value)
    with pytest.raises(InputError, match=reason):
        read_image(made, options(resize=True))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            {"height": 96, "width": 96},
            r"image is 6 x 8 pixels \(height x width\), the policy needs 96 x 96 .*resize: true",
        ),
        ({"height": 8, "width": 6}, "image is 6 x 8 .* needs 8 x 6"),
        ({"crop": (0, 0, 5, 8)}, "image is 5 x 8 .* after the crop, the policy needs 6 x 8"),
        ({"crop": (1, 0, 6, 8)}, r"image is 6 x 8 .*; crop \[1, 0, 6, 8\] .* beyond it"),
        ({"crop": (0, 1, 6, 8), "resize": True}, "beyond it"),
    ],
)
def test_other_sizes_are_refused_by_name(given: dict[str, Any], reason: str) -> None:
    for read, made in (
        (read_image, message(COLOURS, "rgb8")),
        (read_compressed_image, compressed(encoded(COLOURS, "PNG"))),
    ):
        with pytest.raises(InputError, match=reason):
            read(made, options(**given))


def test_what_is_no_jpeg_or_png_is_refused() -> None:
    depth = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    jpeg = encoded(COLOURS, "JPEG")
    for data, reason in (
        (b"", "of format 'jpeg' is neither JPEG nor PNG"),
        (b"\0" * 100, "is neither"),
        (encoded(COLOURS, "TIFF"), "is neither"),
        (jpeg[: len(jpeg) // 2], "of format 'jpeg' is truncated or damaged"),
        (jpeg[:-20], "is truncated or damaged"),
        (encoded(COLOURS, "PNG")[:-30], "is truncated or damaged"),
        (encoded(depth, "PNG"), "kind 'I;16'"),
    ):
        with pytest.raises(InputError, match=reason):
            read_compressed_image(compressed(data), options())


@given(
    st.sampled_from(["JPEG", "PNG"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
def test_damaged_data_never_raise_anything_else(
    kind: str, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(encoded(COLOURS, kind))
    for place, byte in changes:
        data[int(place * len(data))] = byte
    try:
        read = read_compressed_image(compressed(bytes(data[: round(kept * len(data))])), options())
    except InputError:
        return
    assert (read.shape, read.dtype) == ((3, HEIGHT, WIDTH), np.uint8)


def test_mapping_passes_its_options_and_keeps_the_stamp() -> None:
    mapping = InputMapping(topic="t", type="sensor_msgs/msg/Image", crop=(0, 2, 6, 4), resize=True)
    made = message(COLOURS, "rgb8")
    stamp_ns, pixels = mapping.read(made, receive_ns=5, shape=(3, 6, 4))
    assert stamp_ns == 5
    np.testing.assert_array_equal(pixels, COLOURS[:, 2:6].transpose(2, 0, 1))
    made.header.stamp = ns_to_stamp(77)
    assert mapping.read(made, receive_ns=5, shape=(3, 6, 4))[0] == 77
