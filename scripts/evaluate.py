"""Measure a generator or a folder of images: FID, IS, KID, precision and recall, with the protocol attached.

scripts/evaluate.py --checkpoint runs/photos --reference photos --features efficientnet-lite0
accelerate launch scripts/evaluate.py --checkpoint runs/imagenet --reference stores/imagenet128 --preset biggan
scripts/evaluate.py reference --data stores/imagenet128 --split val --output references/imagenet128.safetensors
"""

from hamgan.command_line import run
from hamgan.evaluation.command import main

if __name__ == "__main__":
    run(main)
