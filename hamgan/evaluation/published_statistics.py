"""Read statistics of real images that others publish, and fill in how they were made.

The arrays in a file tell whose format it is; where the numbers alone do not say it, the publisher's own scheme of file
names tells the data, split and preparation. What contradicts the content is refused. Facts are from the code that
wrote the files: guided-diffusion's ``evaluator.py`` (ADM), EDM's and EDM2's, dgm-eval's ``representations.py``,
clean-fid's ``features.py`` and StudioGAN's ``preparation.py``.
"""

import hashlib
import importlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamgan.errors import ConfigError, one_line
from hamgan.evaluation.features.extractor import ARCHITECTURES
from hamgan.evaluation.features.resizing import RESIZING
from hamgan.evaluation.features.weights import PublishedWeights
from hamgan.evaluation.statistics import FeatureStatistics
from hamgan.files import JsonObject

Arrays = Mapping[str, np.ndarray]
FEATURE_ARRAYS = ("reps", "feats", "real_feats")
"""Names of features: of dgm-eval, clean-fid's KID, StudioGAN."""
TORCH_BILINEAR = "bilinear without antialiasing (torch, as pytorch-fid) to 299"
PILLOW_BILINEAR = "bilinear, antialiased (Pillow on floats, StudioGAN's friendly) to 299"
"""Two rules that nothing here resizes by: files that name them cannot be compared, and say why."""
IMAGENET_TRAIN = {"split": "train", "count": 1_281_167, "preparation": "ADM's centre crop"}
EDM_DATA = {"cifar10": {"split": "train", "count": 50_000}, "ffhq": {"split": "train", "count": 70_000}}
EDM_DATA |= {"imagenet": IMAGENET_TRAIN, "afhqv2": {"split": "train"}}


@dataclass
class Part:
    """Hold what a file says of one extractor: statistics or features, and the facts about them."""

    mean: Tensor | None = None
    covariance: Tensor | None = None
    features: Tensor | None = None
    facts: JsonObject = field(default_factory=dict)


def load_published(file: Path, extractor: str | None = None) -> FeatureStatistics:
    """Read the statistics of an extractor (a name in `ARCHITECTURES`) from an ``.npz`` or EDM2's ``.pkl``.

    A file of one extractor is returned whatever its name: who compares it says what differs. Raises ConfigError naming
    the file and what it lacks, and where its name contradicts its content.
    """
    parts = _read_pickle(file) if file.suffix == ".pkl" else _read_npz(file)
    if extractor is not None and len(parts) > 1 and extractor not in parts:
        raise ConfigError(f"{file} holds statistics of {' and '.join(parts)}, not of {extractor}")
    part = parts.get(extractor or "") or next(iter(parts.values()))
    facts: JsonObject = {"kind": "statistics", "source": str(file), "preparation": "not stated"} | part.facts
    count = facts.pop("count", None)
    if part.features is not None:
        return _from_features(part.features, file, facts)
    assert part.mean is not None
    assert part.covariance is not None
    digest = hashlib.sha256(part.mean.numpy().tobytes() + part.covariance.numpy().tobytes()).hexdigest()[:16]
    return FeatureStatistics(count, part.mean, part.covariance, facts | {"hash": digest})


def _read_npz(file: Path) -> dict[str, Part]:
    try:
        with np.load(file) as content:
            names = [name for name in ("mu", "sigma", "mu_s", "sigma_s", *FEATURE_ARRAYS) if name in content]
            arrays = {name: content[name] for name in names}
            model = str(content["model"]) if "model" in content and "reps" in content else None
            size = _size_of_images(file) if "arr_0" in content.files else None
            files = content.files
    except Exception as error:  # NumPy and zipfile raise nearly anything for damaged bytes
        raise ConfigError(f"{file} cannot be read as an .npz file: {one_line(error)}") from error
    found = next((name for name in FEATURE_ARRAYS if name in arrays), None)
    if found and not {"mu", "sigma"} <= set(arrays):
        rows = torch.from_numpy(arrays[found])
        if rows.ndim != 2 or len(rows) < 2:
            raise ConfigError(f"{file}: {found} {list(rows.shape)} are not the features of two images or more")
        facts = _facts_of_dgm_eval(file, model) if model else _facts_of_name(file, rows.shape[1])
        return {_name(facts): Part(features=rows, facts=facts)}
    if missing := {"mu", "sigma"} - set(arrays):
        raise ConfigError(f"{file} has no {' and '.join(sorted(missing))}; it has {', '.join(files)}")
    spatial = ARCHITECTURES["inception-spatial"].dimension
    if "mu_s" in arrays and arrays["mu_s"].shape == (spatial,) and arrays["mu"].shape == (2048,):
        own = {"origin": "ADM's statistics"} | ({"resolution": size} if size else {}) | _data_of_adm(file, size)
        return {
            name: _part(arrays["mu" + end], arrays["sigma" + end], _facts(name, "tensorflow") | own, file)
            for name, end in (("inception", ""), ("inception-spatial", "_s"))
        }
    facts = _facts_of_name(file, arrays["mu"].size)
    return {_name(facts): _part(arrays["mu"], arrays["sigma"], facts, file)}


def _part(mean: np.ndarray, covariance: np.ndarray, facts: JsonObject, file: Path) -> Part:
    try:
        return Part(torch.from_numpy(mean).double(), torch.from_numpy(covariance).double(), facts=facts)
    except TypeError as error:
        raise ConfigError(f"{file} cannot be read as statistics: {one_line(error)}") from error


def _size_of_images(file: Path) -> int | None:
    """Return the pixels a side of ADM's ``arr_0`` [N, H, W, 3], from its header alone: the array may be large."""
    import zipfile

    with zipfile.ZipFile(file) as archive, archive.open("arr_0.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape = read(stream)[0]
    return int(shape[1]) if len(shape) == 4 and shape[1] == shape[2] else None


def _facts(extractor: str, resizer: str) -> JsonObject:
    """Return what statistics by a published extractor say of it; ``resizer``: a name in `RESIZING`, or words."""
    architecture = ARCHITECTURES[extractor]
    assert isinstance(architecture.weights, PublishedWeights)
    words = RESIZING[resizer][1].format(architecture.size) if resizer in RESIZING else resizer
    facts = {"extractor": architecture.label, "extractor_weights": architecture.weights.sha256[:16], "resizer": words}
    return facts | {"precision": "fp32"}


def _name(facts: Mapping[str, Any]) -> str:
    """Return the extractor's name of facts; an empty string where they do not say it."""
    return next((name for name, item in ARCHITECTURES.items() if item.label == facts.get("extractor")), "")


def _data_of_adm(file: Path, size: int | None) -> JsonObject:
    named = re.match(r"VIRTUAL_imagenet(\d+)", file.name)
    if not named:
        return {}
    if size not in (None, int(named[1])):
        raise ConfigError(f"{file} is named as ADM's ImageNet at {named[1]} pixels, but its images have {size}")
    return IMAGENET_TRAIN | {"origin": "ADM's statistics of ImageNet", "resolution": int(named[1])}


def _facts_of_dgm_eval(file: Path, model: str) -> JsonObject:
    known = {"dinov2": ("dinov2-vit-l-14", "pillow"), "inception": ("inception", TORCH_BILINEAR)}
    facts = _facts(*known[model]) if model in known else {"extractor": f"dgm-eval's {model}"}
    scheme = r"reps_(?P<data>.+)_" + re.escape(model) + r"(_ckpt-.+)?_nimage-\d+_(?P<split>train|test)"
    named = re.match(scheme, file.stem)
    origin = "dgm-eval's features" + (f" of {named['data']}" if named else "")
    return facts | {"origin": origin} | ({"split": named["split"]} if named else {})


CLEAN_FID = re.compile(
    r"(?P<data>.+)_(?P<mode>clean|legacy_tensorflow|legacy_pytorch)(?P<clip>_clip_vit_b_32)?_(?P<split>[a-z0-9]+)"
    r"_(?P<size>\d+|na)(_kid)?"
)
STUDIO_GAN = re.compile(
    r"(?P<data>.+)_(?P<size>\d+)_[a-z-]+_(?P<split>train|valid|test)_(?P<mode>legacy|clean|friendly)_InceptionV3_tf"
    r"_(moments|feats)"
)
EDM = re.compile(r"(?P<data>cifar10|ffhq|afhqv2|imagenet)-(?P<size>\d+)x(?P=size)")
INCEPTION_RESIZERS = {
    "clean": "clean",
    "legacy_tensorflow": "tensorflow",
    "legacy_pytorch": TORCH_BILINEAR,
    "legacy": TORCH_BILINEAR,
    "friendly": PILLOW_BILINEAR,
}


def _facts_of_name(file: Path, dimension: int) -> JsonObject:
    """Return the facts that a publisher's scheme of file names tells; none for other names."""
    for title, scheme in (("clean-fid", CLEAN_FID), ("StudioGAN", STUDIO_GAN), ("EDM", EDM)):
        named = scheme.fullmatch(file.stem)
        if not named:
            continue
        parts = named.groupdict()
        extractor = "clip-vit-b-32" if parts.get("clip") else "inception"
        resizer = "pillow" if parts.get("clip") else INCEPTION_RESIZERS[parts.get("mode", "legacy_tensorflow")]
        if ARCHITECTURES[extractor].dimension != dimension:
            raise ConfigError(f"{file} is named as {title}'s of {extractor}, but its features have length {dimension}")
        facts = _facts(extractor, resizer) | {"origin": f"{title}'s statistics of {parts['data']}"}
        facts |= EDM_DATA[parts["data"]] if scheme is EDM else {"split": _split(parts["split"])}
        return facts | ({"resolution": int(parts["size"])} if parts["size"] != "na" else {})
    return {}


def _split(name: str) -> str:
    return {"valid": "val"}.get(name, name)


class _ArraysOnly(pickle.Unpickler):
    """Unpickle dicts of NumPy arrays and numbers, and raise for anything else: a pickle may run code."""

    ALLOWED = re.compile(
        r"numpy\.(ndarray|dtype)|numpy\._?core\.multiarray\.(_reconstruct|scalar)|numpy\._?core\.numeric\._frombuffer"
        r"|_codecs\.encode"
    )
    """Names that pickled NumPy arrays refer to, in every protocol."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the allowed functions."""
        if not self.ALLOWED.fullmatch(f"{module}.{name}"):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")
        return getattr(importlib.import_module(module.replace("numpy.core", "numpy._core")), name)


def _read_pickle(file: Path) -> dict[str, Part]:
    try:
        with file.open("rb") as stream:
            content = _ArraysOnly(stream).load()
        known = {"fid": ("inception", "tensorflow"), "fd_dinov2": ("dinov2-vit-l-14", "antialiased")}
        size = re.match(r"img(\d+)", file.name)
        data = IMAGENET_TRAIN | {"resolution": int(size[1])} if size else {}
        origin = "EDM2's statistics" + (" of ImageNet" if size else "")
        facts = data | {"origin": origin, "count": int(content["num_images"])}
        return {
            known[key][0]: _part(np.asarray(value["mu"]), np.asarray(value["sigma"]), _facts(*known[key]) | facts, file)
            for key, value in content.items()
            if key in known
        }
    except ConfigError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ConfigError(f"{file} is a pickle of statistics that is not opened: {one_line(error)}") from error


def _from_features(features: Tensor, file: Path, facts: JsonObject) -> FeatureStatistics:
    digest = hashlib.sha256(features.numpy().tobytes()).hexdigest()[:16]
    rows = features.double()
    description = facts | {"hash": digest}
    return FeatureStatistics(len(rows), rows.mean(0), torch.cov(rows.mT), description, features=features.float())
