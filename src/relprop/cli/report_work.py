"""What `relprop report` does with each input: the model for it, made once, and its explanations."""

from __future__ import annotations

from typing import Any

from PIL import Image

from relprop import zoo
from relprop.cli import options
from relprop.cli.network import Framing, Networks
from relprop.cli.pictures import open_picture
from relprop.cli.report_inputs import Source
from relprop.cli.text_network import TextNetworks, language_of, reads_text
from relprop.cli.ways import Ways
from relprop.errors import InvalidInput
from relprop.presets import AUTO
from relprop.view.gallery import Item
from relprop.view.sheet import short_name
from relprop.view.style import PHOTO_CLIP, Style

SMALL = 64  # pixels a side, up to which every value of a picture is seen


class Work:
    """Explains one input after the other. Raises RelpropError or typer.BadParameter for what can't be asked for."""

    def __init__(
        self,
        model: str | None,
        ways: Ways,
        target: str | None,
        clip: float | None,
        frame: Framing,
        bounds: tuple[float, float] | None,
        labels: str | None,
    ) -> None:
        if clip is not None:
            Style(clip=clip)
        self.ways, self.target, self.clip = ways, target, clip
        reads = model is not None and reads_text(model)
        # What is wrong with the model is said here, once, not for every input.
        self._readers = None if model is not None and not reads else TextNetworks(model, labels)
        self._viewers = None if reads else Networks(model, frame, bounds, labels)
        self._model = model

    def __call__(self, source: Source) -> Item:
        """The explanations of one input."""
        return self._of_text(source) if source.is_text else self._of_picture(source)

    def _of_picture(self, source: Source) -> Item:
        assert source.path is not None
        if self._viewers is None:
            raise InvalidInput(f"{self._model} reads text, and this is no .txt file; explain the pictures apart")
        picture = open_picture(source.path)
        net, explainer = self._viewers.of(picture)
        x = net.preprocess(picture)
        target = options.target_of(self.target, net.labels)
        found = _titled(self.ways.explain(explainer, x, target, net.rules, net.bounds))
        shown = _shown(net.name, picture)
        clip = self.clip if self.clip is not None else PHOTO_CLIP if max(x.shape[-2:]) > SMALL else None
        return Item(source.heading or source.name, found, net.name, source.truth, shown, clip=clip)

    def _of_text(self, source: Source) -> Item:
        text = source.read()
        if self._readers is None:
            raise InvalidInput(
                f"{self._model} looks at pictures, and this is a text; explain the texts apart, by a text model"
            )
        net, explainer = self._readers.of(text)
        target = options.target_of(self.target, explainer.explainer.labels)
        found = _titled(self.ways.explain(explainer, text, target, net.rules))
        return Item(source.heading or source.name, found, net.name, source.truth, language=language_of(text))


def _shown(name: str, picture: Image.Image) -> Image.Image | None:
    """What a model of the zoo sees of a picture; of another model, its input is drawn."""
    return zoo.picture_entry(name).display(picture) if name in zoo.names() else None


def _titled(compared: dict[str, Any]) -> dict[str, Any]:
    """Explanations by a short name: that of the preset which `auto` stands for, too."""
    return {short_name(each.rules) if name == AUTO else name: each for name, each in compared.items()}
