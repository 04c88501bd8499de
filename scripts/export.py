"""Pass a trained generator on: as ONNX, as a program of torch.export, as a folder or repository of a hub.

scripts/export.py --checkpoint runs/photos --out generator.onnx
scripts/export.py --checkpoint runs/photos --out generator.pt2
scripts/export.py --checkpoint runs/photos --out a_new_folder --license cc-by-4.0
scripts/export.py --checkpoint runs/photos --push owner/name
"""

from hamgan.command_line import run
from hamgan.sharing.command import main

if __name__ == "__main__":
    run(lambda: main(description=__doc__))
