"""Methods that Captum computes, for the very score that relprop explains; needs `pip install "relprop[captum]"`."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from relprop.engine.call import Call
from relprop.engine.operation import tensors_in
from relprop.engine.registry import REGISTRY
from relprop.errors import InvalidInput, MissingExtra, UnsupportedModel
from relprop.methods.base import Method, require_count
from relprop.methods.baseline import Baseline, baseline_values
from relprop.methods.evaluation import Evaluation, Used
from relprop.methods.occlusion import sample_shape
from relprop.methods.plain import Key
from relprop.methods.windows import Sizes, positions, segments
from relprop.models.prepare import named_modules
from relprop.progress import Progress, telling

# Kinds of operations that are linear in what depends on the input, so that the gradient is right for DeepLIFT.
_LINEAR = ("carrier", "sum", "constant", "embedding")
_BATCH_NORM = ("batch_norm", "_native_batch_norm_legit_no_training")
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")


@dataclass(frozen=True, eq=False)
class _Surrogate(Method):
    """A linear model of what the score does when segments of the input are replaced by a baseline.

    segments: the parts that are replaced together, integers of the shape of a sample (or that broadcast against it), as
    superpixels of (height, width). By default patches of `patch` positions: an eighth of a picture's side, a word, a
    time step, a value. samples: forward passes for each sample of the batch. seed: of what is replaced. baseline: a
    number or an input of the same form; for token ids a tensor of ids is embedded. progress: True for a bar, or a
    function of (done, total).
    """

    samples: int = 500
    segments: Tensor | None = None
    patch: Sizes = None
    baseline: Baseline = 0.0
    seed: int = 0
    progress: bool | Progress | None = field(default=None, repr=False)
    captum: ClassVar[str] = ""

    def __post_init__(self) -> None:
        require_count(self.name, "samples", self.samples, 500)

    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        algorithm = getattr(_captum(), self.captum)
        _require("sklearn")
        base = baseline_values(evaluation, self.baseline)
        batch, done = len(evaluation.facts.score), itertools.count(1)
        with telling(self.progress, self.name) as tell:

            def passed() -> None:
                tell(min(next(done), batch * self.samples), batch * self.samples)  # Captum adds a few of its own

            rows = [self._one(evaluation, i, base, algorithm, passed) for i in range(batch)]
        return [torch.cat(parts) for parts in zip(*rows, strict=True)]

    def _one(
        self, evaluation: Evaluation, index: int, base: dict[Key, Tensor], algorithm: Any, passed: Callable[[], None]
    ) -> list[Tensor]:
        """The relevance of each input for one sample of the batch; calls `passed` after each forward pass."""
        one = evaluation.one(index)
        keys = list(one.facts.values)
        masks = self._masks(one)

        def score(*values: Tensor) -> Tensor:
            given = dict(zip(keys, values, strict=True))
            found = one.score(lambda key, _: given[key])
            passed()
            return found

        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            torch.manual_seed(self.seed)
            found = algorithm(score).attribute(
                tuple(one.facts.values[key] for key in keys),
                baselines=tuple(base[key][index : index + 1] for key in keys),
                feature_mask=tuple(masks[key] for key in keys),
                n_samples=self.samples,
            )
        by_key = {key: r.to(one.facts.score.dtype) for key, r in zip(keys, found, strict=True)}
        # All values of a segment get its coefficient; so does the word, once, whose embedding is a segment.
        return [by_key[used.keys[0]][..., 0] if used.tokens else by_key[used.keys[0]] for used in one.facts.used]

    def _masks(self, evaluation: Evaluation) -> dict[Key, Tensor]:
        """The number of the segment of each value."""
        facts = evaluation.facts
        if self.segments is not None and len(facts.used) > 1:
            raise InvalidInput(f"{self.name}: segments of one input were given, and {len(facts.used)} are explained")
        masks: dict[Key, Tensor] = {}
        first = 0
        for used in facts.used:
            numbers = self._numbers(sample_shape(evaluation, used)) + first
            first = int(numbers.max()) + 1
            for key in used.keys:
                value = facts.values[key]
                mask = numbers[..., None].expand(value.shape[1:]) if used.tokens else numbers
                masks[key] = mask[None].to(value.device)
        return masks

    def _numbers(self, shape: tuple[int, ...]) -> Tensor:
        if self.segments is None:
            return segments(shape, self.patch)
        if not isinstance(self.segments, Tensor) or self.segments.is_floating_point():
            raise InvalidInput(
                f"{self.name}: segments must be a tensor of integers, such as torch.from_numpy(slic(image))"
            )
        try:
            given = self.segments.cpu().expand(shape)
        except RuntimeError:
            raise InvalidInput(
                f"{self.name}: segments of shape {tuple(self.segments.shape)} do not fit a sample of shape {shape}"
            ) from None
        numbers: Tensor = torch.unique(given, return_inverse=True)[1]
        return numbers


@dataclass(frozen=True, eq=False)
class Lime(_Surrogate):
    """LIME (Ribeiro et al. 2016) by Captum: R_i = the coefficient of i's segment in a sparse linear model (lasso with
    alpha 0.01, samples weighted by their cosine similarity to the input)."""

    name: ClassVar[str] = "lime"
    captum: ClassVar[str] = "Lime"


@dataclass(frozen=True, eq=False)
class KernelShap(_Surrogate):
    """Kernel SHAP (Lundberg and Lee 2017) by Captum: R_i = the estimated Shapley value of i's segment. Take more
    samples than there are segments."""

    name: ClassVar[str] = "kernel_shap"
    captum: ClassVar[str] = "KernelShap"


@dataclass(frozen=True, eq=False)
class GradCam(Method):
    """Grad-CAM (Selvaraju et al. 2017) by Captum: the map of a convolution, interpolated to the input's size.

    layer: the name of the module whose output is weighed; by default the last convolution. positive: of the map, only
    what is positive, as in the paper. The map's value at a pixel is shared equally by its channels, so that their sum
    is the map; a word gets the map's value at its place.
    """

    name: ClassVar[str] = "grad_cam"
    hooks: ClassVar[bool] = True
    layer: str | None = None
    positive: bool = True

    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        captum = _captum()
        if len(evaluation.facts.used) > 1:
            raise InvalidInput(
                "grad_cam: a layer's map lies over one input, and several are explained. Close over the others: "
                "relprop.explain(lambda image: model(image, other), image, method='grad_cam')"
            )
        layer = _layer(evaluation, self.layer or _last_convolution(evaluation))

        def score(*_: Tensor) -> Tensor:
            with evaluation.at(_unchanged, gradient=True) as (_session, start):
                return start.tensor

        used = evaluation.facts.used[0]
        found: Tensor = captum.LayerGradCam(score, layer).attribute(
            tuple(evaluation.facts.values[key] for key in used.keys), relu_attributions=self.positive
        )
        return [_over_input(found.detach(), used)]


@dataclass(frozen=True, eq=False)
class DeepLift(Method):
    """DeepLIFT, rescale rule (Shrikumar et al. 2017), by Captum.

    Captum changes the gradient at modules such as nn.ReLU, each used once; a model that does it otherwise, as by
    torch.relu, is refused. baseline: a number or an input of the same form; for token ids a tensor of ids is embedded.
    The sum of relevance is f(x) - f(baseline), but for max pools, where Captum's rule misses it.
    """

    name: ClassVar[str] = "deeplift"
    hooks: ClassVar[bool] = True
    baseline: Baseline = 0.0

    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        captum = _captum()
        base = baseline_values(evaluation, self.baseline)
        _require_modules(evaluation)
        keys = list(evaluation.facts.values)
        scorer = _Scorer(evaluation, keys)
        with _cleaned(evaluation.model), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                found = captum.DeepLift(scorer).attribute(
                    tuple(evaluation.facts.values[key] for key in keys), baselines=tuple(base[key] for key in keys)
                )
            except RuntimeError as error:
                if "used only once" not in str(error):
                    raise
                raise UnsupportedModel(
                    "deeplift: Captum needs every activation module to be used once, and one is called several times. "
                    "Give each place a module of its own, or take method='integrated_gradients'"
                ) from error
        return evaluation.summed({key: r.detach() for key, r in zip(keys, found, strict=True)})


class _Scorer(nn.Module):
    """The score by the values that are explained, as a module around the model, with the batch twice in it: Captum puts
    the baselines behind the values."""

    def __init__(self, evaluation: Evaluation, keys: list[Key]) -> None:
        super().__init__()
        if isinstance(evaluation.model, nn.Module):
            self.model = evaluation.model
        self.twice = evaluation.rearranged(lambda t: torch.cat([t, t]))
        self.keys = keys

    def forward(self, *values: Tensor) -> Tensor:
        given = dict(zip(self.keys, values, strict=True))
        with self.twice.at(lambda key, _: given[key], gradient=True, connected=True) as (_, start):
            return start.tensor


@contextlib.contextmanager
def _cleaned(model: Any) -> Iterator[None]:
    """Takes away what Captum leaves on modules that its backward hooks did not come by."""
    modules = [module for module, _ in named_modules(model)]
    before = [set(vars(module)) for module in modules]
    try:
        yield
    finally:
        for module, known in zip(modules, before, strict=True):
            for name in {"input", "output"} & set(vars(module)) - known:
                delattr(module, name)


def _require_modules(evaluation: Evaluation) -> None:
    """UnsupportedModel where a non-linear function outside of the modules that Captum knows makes the score."""
    known = tuple(import_module("captum.attr._core.deep_lift").SUPPORTED_NON_LINEAR)
    nonlinear: dict[Any, str] = {}

    def observe(call: Call, out: Any) -> None:
        if call.place[1] not in known and not _is_linear(call):
            where = f"{call.title} in {call.where}"
            nonlinear.update((t.grad_fn, where) for t in tensors_in(out) if t.grad_fn is not None)

    with evaluation.at(_unchanged, gradient=True, observe=observe) as (_, start):
        stack, reached = [start.tensor.grad_fn], set()
        while stack:
            f = stack.pop()
            if f is None or f in reached:
                continue
            if f in nonlinear:
                raise UnsupportedModel(
                    f"deeplift: {nonlinear[f]} is not linear, and Captum knows only the modules "
                    f"{', '.join(module.__name__ for module in known)}. Use such a module there, or take "
                    "method='integrated_gradients'"
                )
            reached.add(f)
            stack += [next_f for next_f, _ in f.next_functions]


def _is_linear(call: Call) -> bool:
    """Whether a function is linear (but for constants) in its arguments that depend on the input."""
    entry = REGISTRY.get(call.name)
    kind = entry.kind if entry is not None else ""
    if kind in ("conv", "linear", "product"):
        live = [t for t in tensors_in(call.args, call.kwargs) if call.live(t)]
        return len(live) == 1 and (call.name != "div" or live[0] is call.args[0])
    return kind in _LINEAR or call.name in _BATCH_NORM


def _last_convolution(evaluation: Evaluation) -> str:
    """The name of the module that computes the last convolution."""
    places: list[tuple[str, type | None]] = []
    last = ""

    def observe(call: Call, out: Any) -> None:
        nonlocal last
        if call.name in _CONVOLUTIONS:
            places.append(call.place)
            last = f"{call.title} in {call.where}"

    with evaluation.at(_unchanged, observe=observe):
        pass
    if not places:
        raise UnsupportedModel(
            "grad_cam: the model has no convolution, whose map it would show. Take method='occlusion', or name a layer "
            "with maps of shape (batch, channels, ...): relprop.methods.GradCam(layer=...)"
        )
    name, kind = places[-1]
    if kind is None or not issubclass(kind, nn.modules.conv._ConvNd):
        raise UnsupportedModel(
            f"grad_cam: the last convolution is {last}, which is no module such as nn.Conv2d, and "
            "Captum looks at modules only. Name one: relprop.methods.GradCam(layer=...)"
        )
    if [place for place, _ in places].count(name) > 1:
        raise UnsupportedModel(
            f"grad_cam: the last convolution, {name!r}, is used several times, so that it has several maps. Name "
            "another module: relprop.methods.GradCam(layer=...)"
        )
    return name


def _layer(evaluation: Evaluation, name: str) -> nn.Module:
    modules = {each: module for module, each in named_modules(evaluation.model)}
    if name not in modules:
        close = difflib.get_close_matches(name, modules, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise InvalidInput(f"grad_cam: the model has no module named {name!r}.{hint}")
    return modules[name]


def _over_input(found: Tensor, used: Used) -> Tensor:
    """A layer's map (batch, 1, ...) interpolated to an input."""
    sides, shape = found.dim() - 2, used.shape[1:]
    places = tuple(range(len(shape))) if len(shape) == sides else positions(shape) if sides > 1 else (1,)
    if not 1 <= sides <= 3 or len(places) != sides or len(shape) > sides + 1:
        raise InvalidInput(
            f"grad_cam: the layer's map has {sides} sides, and an input of shape {tuple(used.shape)} can't be laid "
            "under it. Name another module: relprop.methods.GradCam(layer=...)"
        )
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[sides]
    captum = _captum()
    laid: Tensor = captum.LayerAttribution.interpolate(found, tuple(shape[d] for d in places), mode)[:, 0]
    features = [d for d in range(len(shape)) if d not in places]
    for d in features:
        laid = laid.unsqueeze(d + 1)
    return laid.expand(used.shape) / max(1, *(shape[d] for d in features), 1)


def _unchanged(key: Key, value: Tensor) -> Tensor:
    return value


def _captum() -> Any:
    _require("captum")
    return import_module("captum.attr")


def _require(package: str) -> None:
    try:
        import_module(package)
    except ImportError as error:
        raise MissingExtra(
            f'this method is computed by Captum, and {package} is not installed. Write: pip install "relprop[captum]"'
        ) from error
