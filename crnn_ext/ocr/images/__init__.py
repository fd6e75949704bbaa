"""Images of text lines: opening and preprocessing."""

from .image_files import ImageError, ImageSource, Mode, read_image
from .preprocessing import Preprocessing, parse_resize

__all__ = [
    "ImageError",
    "ImageSource",
    "Mode",
    "Preprocessing",
    "parse_resize",
    "read_image",
]
