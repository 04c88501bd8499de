"""Draw images from a trained generator: sheets, folders, .npz, truncation sweeps, interpolations, films.

scripts/sample.py --checkpoint runs/photos --classes coffee,3-5 --seeds 0-15 --out grid.png
scripts/sample.py --checkpoint runs/photos --classes cat --seeds 0-3 --out walk.mp4
accelerate launch scripts/sample.py --checkpoint runs/imagenet --seeds 0-49 --out samples.npz
"""

from hamgan.command_line import run
from hamgan.sampling.command import main

if __name__ == "__main__":
    run(main)
