"""Pixels of camera messages: uint8, channels first, in the size that the policy was trained with."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError
from sensor_msgs.msg import CompressedImage, Image

from para_policy.errors import InputError
from para_policy.extras import extra

Pixels = NDArray[np.uint8]

IMAGE_OPTIONS = frozenset({"crop", "resize"})
"""Keys of the inputs file for all images; raw ones also know `encoding`."""

_ENCODINGS = {
    "rgb8": ("RGB", "RGB"),
    "bgr8": ("RGB", "BGR"),
    "rgba8": ("RGB", "RGBX"),
    "bgra8": ("RGB", "BGRX"),
    "mono8": ("L", "L"),
}
"""Pillow's names of the pixels and of their bytes in the message. All have one byte for each
channel, and then `is_bigendian` means nothing."""
_BY_OPENCV = {
    "yuv422": (2, "COLOR_YUV2RGB_UYVY"),
    "uyvy": (2, "COLOR_YUV2RGB_UYVY"),
    "yuv422_yuy2": (2, "COLOR_YUV2RGB_YUY2"),
    "yuyv": (2, "COLOR_YUV2RGB_YUY2"),
    # ROS calls a pattern by its first two rows, OpenCV by the second row from the second column on.
    "bayer_rggb8": (1, "COLOR_BayerBG2RGB"),
    "bayer_bggr8": (1, "COLOR_BayerRG2RGB"),
    "bayer_gbrg8": (1, "COLOR_BayerGR2RGB"),
    "bayer_grbg8": (1, "COLOR_BayerGB2RGB"),
}
"""Bytes of a pixel, and OpenCV's name of the conversion, which is the one of cv_bridge."""
_KNOWN = (*_ENCODINGS, *_BY_OPENCV)
_UNORDERED = {"8UC1": ("mono8",), "8UC3": ("bgr8", "rgb8"), "8UC4": ("bgra8", "rgba8")}
"""Encodings that say how many channels there are, but not which."""
_PIXEL_BYTES = {
    **{name: len(channels) for name, (_, channels) in _ENCODINGS.items()},
    **{name: size for name, (size, _) in _BY_OPENCV.items()},
    **{f"8UC{channels}": channels for channels in range(1, 5)},
    **{"mono16": 2, "16UC1": 2, "32FC1": 4, "rgb16": 6, "bgr16": 6, "rgba16": 8, "bgra16": 8},
}
"""What an image tells by its encoding, also where that cannot be turned into colours."""
_FORMATS = ("JPEG", "PNG")
_MODES = ("L", "LA", "P", "RGB", "RGBA")


def read_image(message: Image, options: Mapping[str, Any]) -> Pixels:
    """Pixels (3, H, W) of an uncompressed image; alpha is dropped, grey becomes three equal channels.

    Args:
        options: `shape` (3, H, W) of the policy's input, and how the image comes to that size:
            `crop` (top, left, height, width) in pixels or None, then `resize`; `encoding`, which
            takes the place of the message's, or None.
    Raises:
        InputError: when the encoding is not supported, the data are not as long as the header
            says, or the size is not the policy's.
        MissingPackageError: when the encoding needs OpenCV, which is not there.
    """
    encoding = options["encoding"] or message.encoding
    check_encoding(encoding)
    pixel_bytes = _PIXEL_BYTES[encoding]
    said = _PIXEL_BYTES.get(message.encoding, pixel_bytes)
    if said != pixel_bytes:
        # Otherwise the rest of each line would pass for padding, and the picture be another one.
        raise InputError(
            f"image encoding is '{message.encoding}', {said} bytes for each pixel; `encoding: "
            f"{encoding}` in the inputs file has {pixel_bytes}: take it out, or give one of {said}"
        )
    height, width, row = message.height, message.width, message.width * pixel_bytes
    if not height or not width:
        raise InputError(f"image is empty: {_size(height, width)}")
    if message.step < row or len(message.data) != message.step * height:
        raise InputError(
            f"image is damaged: {_size(height, width)} in {encoding} needs steps of at "
            f"least {row} bytes and step x height bytes; it has step {message.step} and "
            f"{len(message.data)} bytes"
        )
    _check_size(height, width, options)
    if encoding in _BY_OPENCV:
        lines = np.frombuffer(message.data, dtype=np.uint8).reshape(height, message.step)[:, :row]
        return _fitted(_converted(encoding, lines), options)
    mode, channels = _ENCODINGS[encoding]
    size = (width, height)
    picture = Pillow.frombytes(mode, size, message.data, "raw", channels, message.step, 1)
    return _fitted(picture, options)


def check_encoding(encoding: str) -> None:
    """Refuse what cannot be turned into colours.

    Raises:
        InputError: with the encodings that can, or what else to do.
    """
    if encoding in _UNORDERED:
        choices = " or ".join(_UNORDERED[encoding])
        raise InputError(
            f"image encoding is '{encoding}', which does not say what the channels are; set "
            f"`encoding: {choices}` in the inputs file"
        )
    if encoding not in _KNOWN:
        raise InputError(
            f"image encoding is {encoding!r}; expected one of {', '.join(_KNOWN)}: let the camera "
            "driver send one of them, or convert with a node such as debayer_node of image_proc"
        )


def _converted(encoding: str, lines: Pixels) -> Pillow.Image:
    """Colours of rows of bytes (H, W x bytes of a pixel) that Pillow does not know."""
    with extra(
        "images", f"image encoding '{encoding}', which debayer_node of image_proc converts,"
    ):
        import cv2
    size, conversion = _BY_OPENCV[encoding]
    height, width = lines.shape[0], lines.shape[1] // size
    if width % 2 or (height % 2 and encoding.startswith("bayer")):
        raise InputError(f"image is {_size(height, width)}; {encoding} needs even numbers")
    pixels = lines.reshape((height, width) if size == 1 else (height, width, size))
    return Pillow.fromarray(cv2.cvtColor(np.ascontiguousarray(pixels), getattr(cv2, conversion)))


def read_compressed_image(message: CompressedImage, options: Mapping[str, Any]) -> Pixels:
    """Pixels (3, H, W) of a JPEG or PNG image; `options` as for `read_image`.

    The data say themselves what they are; `format` is only quoted. Alpha is dropped, grey becomes
    three equal channels. A JPEG with wrong bytes in its middle is still a picture: only truncation
    is found.

    Raises:
        InputError: when the data are neither, are truncated or damaged, hold something else than
            colour or grey values of eight bits (a depth image does), or the size is not the policy's.
    """
    try:
        with Pillow.open(io.BytesIO(message.data), formats=_FORMATS) as picture:
            _check_mode(picture)
            _check_size(picture.height, picture.width, options)
            decoded = picture.convert("RGB")
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"compressed image of format {message.format!r} is neither {' nor '.join(_FORMATS)}"
        ) from error
    # Whatever a decoder raises about bytes from the network, the callback must live on. What it
    # says differs from image to image, and would be logged each time.
    except Exception as error:
        raise InputError(
            f"compressed image of format {message.format!r} is truncated or damaged"
        ) from error
    return _fitted(decoded, options)


def _check_mode(picture: Pillow.Image) -> None:
    if picture.mode not in _MODES:
        raise InputError(
            f"compressed image has pixels of kind {picture.mode!r}; expected colour or grey with "
            "eight bits per channel"
        )


def _check_size(height: int, width: int, options: Mapping[str, Any]) -> None:
    """Before any decoding, as a wrong size is the usual mistake."""
    crop = options["crop"]
    if crop is not None:
        top, left, *size = crop
        if top + size[0] > height or left + size[1] > width:
            raise InputError(
                f"image is {_size(height, width)}; crop {list(crop)} (top, left, height, width) "
                "reaches beyond it"
            )
        height, width = size
    wanted = options["shape"][1:]
    if not options["resize"] and (height, width) != tuple(wanted):
        raise InputError(
            f"image is {_size(height, width)}{' after the crop' if crop else ''}, the policy needs "
            f"{_size(*wanted)}; set `crop` or `resize: true` in the inputs file, or the camera"
        )


def _fitted(picture: Pillow.Image, options: Mapping[str, Any]) -> Pixels:
    """The picture, cropped and scaled as `options` say, as (3, H, W)."""
    if options["crop"] is not None:
        top, left, height, width = options["crop"]
        picture = picture.crop((left, top, left + width, top + height))
    height, width = options["shape"][1:]
    if picture.size != (width, height):
        # Pillow widens the filter when it scales down: each new pixel is a mean over the old ones.
        picture = picture.resize((width, height), Pillow.Resampling.BILINEAR)
    pixels = np.asarray(picture).reshape(height, width, -1)
    return np.broadcast_to(np.moveaxis(pixels, -1, 0), (3, height, width))


def _size(height: int, width: int) -> str:
    return f"{height} x {width} pixels (height x width)"
