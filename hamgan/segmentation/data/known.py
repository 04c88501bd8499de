"""Hold the classes of public data sets, in the order of their labels."""

import numpy as np

from hamgan.segmentation.data.source import IGNORED, Classes, make_palette, plain_classes

ADE20K = """wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth,
door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field,
armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard,
chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case,
pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill,
bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel,
light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel, pole,
land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer,
plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank,
trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase,
traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock,
flag"""
VOC = """background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"""
CONTEXT = {
    2: "aeroplane", 9: "bag", 18: "bed", 19: "bedclothes", 22: "bench", 23: "bicycle", 25: "bird", 31: "boat",
    33: "book", 34: "bottle", 44: "building", 45: "bus", 46: "cabinet", 59: "car", 65: "cat", 68: "ceiling",
    72: "chair", 80: "cloth", 85: "computer", 98: "cow", 104: "cup", 105: "curtain", 113: "dog", 115: "door",
    144: "fence", 158: "floor", 159: "flower", 162: "food", 187: "grass", 189: "ground", 207: "horse",
    220: "keyboard", 232: "light", 258: "motorbike", 259: "mountain", 260: "mouse", 284: "person", 295: "plate",
    296: "platform", 308: "pottedplant", 324: "road", 326: "rock", 347: "sheep", 349: "shelves", 354: "sidewalk",
    355: "sign", 360: "sky", 366: "snow", 368: "sofa", 397: "table", 415: "track", 416: "train", 420: "tree",
    424: "truck", 427: "tvmonitor", 440: "wall", 445: "water", 454: "window", 458: "wood",
}  # fmt: skip
"""PASCAL Context's 59 frequent classes, keyed by their number among all 459."""
CONTEXT_VALUES = 460
CITYSCAPES = {
    "road": (7, (128, 64, 128)), "sidewalk": (8, (244, 35, 232)), "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)), "fence": (13, (190, 153, 153)), "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)), "traffic sign": (20, (220, 220, 0)), "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)), "sky": (23, (70, 130, 180)), "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)), "car": (26, (0, 0, 142)), "truck": (27, (0, 0, 70)), "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)), "motorcycle": (32, (0, 0, 230)), "bicycle": (33, (119, 11, 32)),
}  # fmt: skip
"""The 19 evaluated classes: name -> (number in ``labelIds`` files, colour)."""
CITYSCAPES_VALUES = 34


def ade20k() -> Classes:
    """Return the 150 classes; value 0, other, is ignored."""
    return plain_classes(_names(ADE20K), first=1)


def voc() -> Classes:
    """Return background and 20 classes; value 255, borders, is ignored."""
    return plain_classes(_names(VOC))


def pascal_context(background: bool, *, raw: bool) -> Classes:
    """Return the 59 classes, with the background as class 0 or ignored.

    With ``raw``, values are numbers among the 459 classes of the original files, else those of the usual conversion: 0
    for the background, then the 59 classes in the order of those numbers.
    """
    names = (["background"] if background else []) + list(CONTEXT.values())
    rest, first = (0, 1) if background else (IGNORED, 0)
    order = list(CONTEXT) if raw else list(range(1, len(CONTEXT) + 1))
    # The background is everything except the 59 classes.
    values = dict.fromkeys(range(CONTEXT_VALUES), rest) if raw else {0: rest, IGNORED: IGNORED}
    values |= {value: first + number for number, value in enumerate(order)}
    return Classes(names, make_palette(len(names)), values)


def cityscapes(*, train_ids: bool) -> Classes:
    """Return the 19 evaluated classes, with the values of ``labelTrainIds`` files or of ``labelIds`` files."""
    names, palette = list(CITYSCAPES), np.asarray([colour for _, colour in CITYSCAPES.values()], np.uint8)
    if train_ids:
        return plain_classes(names, palette)
    values = dict.fromkeys(range(CITYSCAPES_VALUES), IGNORED) | {IGNORED: IGNORED}
    return Classes(names, palette, values | {value: i for i, (value, _) in enumerate(CITYSCAPES.values())})


def _names(text: str) -> list[str]:
    return [" ".join(name.split()) for name in text.split(",")]
