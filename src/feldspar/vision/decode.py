"""Decode the file of an image by Pillow (extra ``vision``) into bytes (channels, height, width)."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from feldspar.core.errors import UserError, missing_extra

EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "HSV", "LAB")
"""Pillow's names of the kinds of pixels that bytes can hold."""


def decode_image(file: Path | BinaryIO, name: str, channels: int) -> Tensor:
    """Decode a file as bytes (channels, height, width), in gray or colour as ``channels`` says.

    Gray becomes colour by repetition, and colour becomes gray by its luminance. CMYK is converted,
    and transparent parts show white. Raises UserError, which names the file, where it cannot be
    decoded and for pixels of more than 8 bits.
    """
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("Pillow", "vision") from None
    try:
        with Image.open(file) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{name} cannot be read as an image",
            found=str(error) or type(error).__name__,
            do="restore the file, or remove it",
        ) from error
    if image.mode not in EIGHT_BITS:
        raise UserError(
            f"{name} has pixels of another kind than 8 bits a channel",
            found=f"mode {image.mode}",
            do="convert it to 8 bits",
        )
    pixels = np.array(_on_white(image).convert("L" if channels == 1 else "RGB"))
    planes = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes))


def _on_white(image: Any) -> Any:
    """Lay an image with transparent parts on white."""
    if not (image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info):
        return image
    from PIL import Image

    opaque = image.convert("RGBA")
    paper = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
    return Image.alpha_composite(paper, opaque)
