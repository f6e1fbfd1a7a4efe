"""Ten handwritten digits above the evidence for and against the class they were given: the README's picture.

python examples/digits_picture.py digits.png
"""

from __future__ import annotations

import sys

from PIL import Image

import relprop
from relprop import zoo

SIDE = 112


def main(path: str) -> None:
    model = zoo.load("mnist-cnn")
    images = zoo.digits()[0][::10]
    attribution = relprop.explain(model, images)
    sheet = Image.new("RGB", (len(images) * SIDE, 2 * SIDE), "white")
    for i, image in enumerate(images):
        grey = ((1 - image[0]) * 127.5).byte().numpy()
        sheet.paste(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.NEAREST), (i * SIDE, 0))
        heatmap = attribution.to_pil(i, scale=SIDE // image.shape[-1])
        sheet.paste(heatmap.resize((SIDE, SIDE), Image.Resampling.NEAREST), (i * SIDE, SIDE))
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
