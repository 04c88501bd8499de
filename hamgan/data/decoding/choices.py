"""Define the names of crops and filters. Imports no torch, so that `hamgan prepare --help` is fast."""

from typing import Literal

Crop = Literal["centre", "paper", "adm"]
Filter = Literal["lanczos", "bicubic", "bilinear", "box"]
