"""Ways to make a training image of a JPEG, beside ours: the obvious pipeline and the fast libraries."""

import io
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
from PIL import Image
from torchvision.transforms import v2

from hamgan.data.decoding.decode import Preparation, decode, jpeg_pixels
from hamgan.data.decoding.resize import Filter, central_square, resize_square
from hamgan.data.photos import photo_folder

Decoder = Callable[[bytes], np.ndarray]

PLAIN = {"lanczos": "PIL + torchvision, Lanczos", "bilinear": "PIL + torchvision, bilinear"}
OURS = {"lanczos": "hamgan, Lanczos", "bilinear": "hamgan, bilinear"}
WIDTH, HEIGHT = 500, 375
"""Of the median picture of ImageNet, in pixels."""


def sample_jpegs(count: int) -> list[bytes]:
    """Crops of the embedded colour photographs as ImageNet has its pictures: 500 x 375 pixels, quality 95."""
    names = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "retina.jpg", "hubble_deep_field.jpg")
    random = np.random.default_rng(0)
    encoded = []
    for number in range(count):
        image = Image.open(photo_folder() / names[number % len(names)]).convert("RGB")
        scale = min(image.width / WIDTH, image.height / HEIGHT) * random.uniform(0.75, 1)
        width, height = int(WIDTH * scale), int(HEIGHT * scale)
        left, top = (int(random.integers(0, rest + 1)) for rest in (image.width - width, image.height - height))
        crop = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, (left, top, left + width, top + height))
        file = io.BytesIO()
        crop.save(file, "JPEG", quality=95)
        encoded.append(file.getvalue())
    return encoded


def _plain(resolution: int, interpolation: v2.InterpolationMode) -> Decoder:
    steps = v2.Compose([v2.CenterCrop(HEIGHT), v2.Resize(resolution, interpolation, antialias=True)])

    def decoder(data: bytes) -> np.ndarray:
        return np.asarray(steps(Image.open(io.BytesIO(data)).convert("RGB")))

    return decoder


def _draft(data: bytes, resolution: int) -> np.ndarray:
    """Pillow lets libjpeg decode at a half, a quarter or an eighth."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (resolution, resolution))
    return resize_square(central_square(np.asarray(image.convert("RGB"))), resolution, "lanczos")


def _resized(data: bytes, resolution: int, pixels: Decoder) -> np.ndarray:
    return resize_square(central_square(pixels(data)), resolution, "lanczos")


def _opencv(data: bytes, resolution: int) -> np.ndarray:
    import cv2  # type: ignore[import-not-found]  # optional

    pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return cv2.resize(central_square(pixels), (resolution, resolution), interpolation=cv2.INTER_AREA)


def decoders(resolution: int) -> dict[str, tuple[Decoder, Filter]]:
    """Every decoder that is installed by name, and the filter of the plain pipeline that it is compared with."""
    found: dict[str, tuple[Decoder, Filter]] = {
        PLAIN["lanczos"]: (_plain(resolution, v2.InterpolationMode.LANCZOS), "lanczos"),
        PLAIN["bilinear"]: (_plain(resolution, v2.InterpolationMode.BILINEAR), "bilinear"),
        OURS["lanczos"]: (partial(decode, preparation=Preparation(resolution)), "lanczos"),
        OURS["bilinear"]: (partial(decode, preparation=Preparation(resolution, filter="bilinear")), "bilinear"),
        "torchvision decode, bare": (partial(_resized, resolution=resolution, pixels=jpeg_pixels), "lanczos"),
        "Pillow draft mode": (partial(_draft, resolution=resolution), "lanczos"),
    }
    if find_spec("simplejpeg"):
        import simplejpeg  # type: ignore[import-not-found]  # optional

        exact = partial(simplejpeg.decode_jpeg, fastdct=False, fastupsample=False)
        found["simplejpeg decode, bare"] = (partial(_resized, resolution=resolution, pixels=exact), "lanczos")
    if find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        found["OpenCV, area"] = (partial(_opencv, resolution=resolution), "lanczos")
    return found


def grey_levels_apart(decoder: Decoder, reference: Decoder, jpegs: list[bytes]) -> float:
    """Mean absolute difference of two decoders' images, in 0 to 255."""
    pairs = ((decoder(data).astype(float), reference(data).astype(float)) for data in jpegs)
    return float(np.mean([np.abs(one - other).mean() for one, other in pairs]))
