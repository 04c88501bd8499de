"""Numbers for people: the screen, results.jsonl, tables, curves and sheets."""

import json
from pathlib import Path
from typing import Any

NAMES = {
    "fid": "FID",
    "fid_inf": "FID at infinitely many samples",
    "class_distance": "Squared distance of class means, average over classes",
    "inception_score": "Inception Score",
    "kid": "KID",
    "precision": "Precision",
    "recall": "Recall",
    "class_accuracy": "Class right (nearest class mean)",
    "class_accuracy_real": "Class right, real held-out images",
}


def describe_numbers(row: dict[str, Any]) -> list[str]:
    """One line per number of a row, named with its extractor where that is not the usual one, with its spread."""
    lines = []
    for key, value in row.items():
        name, suffix = _split_key(key)
        if name is None or not isinstance(value, float):
            continue
        spread, over_seeds = row.get(f"{name}_std{suffix}"), row.get(f"{name}_seeds_std{suffix}")
        extractor = f" ({row['extractor']})" if suffix else ""
        line = f"{NAMES[name]}{extractor}: {value:.5g}" + (f" ± {spread:.2g}" if spread is not None else "")
        lines.append(line + (f" (± {over_seeds:.2g} over {row['repeats']} seeds)" if over_seeds is not None else ""))
    return lines


def _split_key(key: str) -> tuple[str | None, str]:
    """`fid_efficientnet_lite0` to (`fid`, `_efficientnet_lite0`); (None, "") for a key that is no number."""
    for name in sorted(NAMES, key=len, reverse=True):
        suffix = key[len(name) :]
        if key.startswith(name) and (not suffix or suffix.startswith(("_efficientnet", "_inception"))):
            return name, suffix
    return None, ""


def print_row(row: dict[str, Any]) -> None:
    """Print the numbers, the protocol that belongs to them, and the warnings."""
    for line in describe_numbers(row):
        print(line)
    for title in ("best", "worst"):
        classes = next((value for key, value in row.items() if key.startswith(f"{title}_classes")), None)
        if classes:
            print(f"{title} classes: {', '.join(classes)}")
    print(f"protocol: {row['protocol']}")
    print(f"{row['seconds']:.1f} s, {row['images_per_second']:.1f} images/s on {row['device']}")
    for warning in row["warnings"]:
        print(f"warning: {warning}")


def append_row(row: dict[str, Any], file: str | Path) -> Path:
    """Append a row to a JSON-lines file."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    return file
