"""Name the ways to make a picture square. Imports no torch, for which `hamgan prepare --help` would have to wait."""

from typing import Literal

Crop = Literal["centre", "paper", "adm"]
Filter = Literal["lanczos", "bicubic", "bilinear", "box"]
