"""List the packages to install: those of `hamgan`, and the presets in ``configs/`` as `hamgan.configs`.

All else stands in ``pyproject.toml``, which can either find packages or list them, but not add one to those it finds.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["hamgan", "hamgan.*"]),
        *("hamgan.configs", "hamgan.configs.accelerate", "hamgan.configs.segmentation"),
    ],
    package_dir={"hamgan.configs": "configs"},
)
