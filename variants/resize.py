"""Owns bringing images to the size that a variant asks for, on the device they are on.
Refuses cropping.
"""

import torch
import torch.nn.functional as F


def resized(images_BCHW: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear to `size` pixels, smoothed first where it shrinks; 0 leaves the images as they are."""
    if not size:
        return images_BCHW
    shrinks = size < images_BCHW.shape[-1]
    return F.interpolate(images_BCHW, size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks)
