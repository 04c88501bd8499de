"""Find the latent and the class of a trained generator whose image is nearest to a picture; writes a sheet.

scripts/invert.py --checkpoint runs/photos --images cat.jpg dog.png --out inverted.png
scripts/invert.py --checkpoint runs/photos --images cat.jpg --classes cat coffee --steps 1000 --out inverted.png
"""

from hamgan.command_line import run
from hamgan.inversion.command import main

if __name__ == "__main__":
    run(main)
