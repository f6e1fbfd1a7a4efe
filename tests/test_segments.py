"""Segments: values are computed again instead of kept, and the explanation is the same to the last bit."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.engine.segments import Recomputed, Segment, memory_of
from relprop.errors import InvalidInput, RelpropError
from relprop.explainer import Explainer
from relprop.models.stages import stages
from relprop.rules import Epsilon, Gamma, SignalTakesAll

PRESETS = (
    "epsilon", "epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box", "epsilon-alpha2-beta1",
    "epsilon-alpha2-beta1-flat", "deep-taylor", "gamma", "w-square", "attn-lrp", "cp-lrp", "auto",
)  # fmt: skip


class Residual(nn.Module):
    """A block of a ResNet, which works in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.layer1 = nn.Sequential(*(Residual(6) for _ in range(4)))
        self.layer2 = nn.Sequential(*(Residual(6) for _ in range(4)))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(self.stem(x).relu())).mean((2, 3)))


def vgg() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((3, 6), (6, 6), (6, 8), (8, 8)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(True)]
        layers += [nn.MaxPool2d(2)] if after == 8 or before == 6 else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 4))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 24, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 9, enable_nested_tensor=False)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)[:, 0])


def settled(model: nn.Module) -> nn.Module:
    """In evaluation mode, with batch norms that have seen something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "resnet": lambda: (settled(ResNet()), torch.randn(2, 3, 16, 16).clamp(-2, 2)),
    "vgg": lambda: (settled(vgg()), torch.randn(2, 3, 16, 16).clamp(-2, 2)),
    "encoder": lambda: (settled(Encoder()), torch.randn(2, 7, 12).clamp(-2, 2)),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of segments, each time one is run again."""
    found: list[str] = []
    recompute = Segment.recompute

    def counted(segment: Segment) -> None:
        found.append(segment.stage.name)
        recompute(segment)

    monkeypatch.setattr(Segment, "recompute", counted)
    return found


@pytest.mark.parametrize(("name", "rules"), [(name, rules) for name in MODELS for rules in PRESETS])
def test_the_explanation_is_the_same_to_the_last_bit(name: str, rules: str, runs: list[str]) -> None:
    model, x = MODELS[name]()
    plain = Explainer(model, rules, bounds=(-2.0, 2.0))(x, targets=[None, 1])
    again = Explainer(model, rules, bounds=(-2.0, 2.0), segments="auto")(x, targets=[None, 1])
    for expected, found in zip(plain, again, strict=True):
        assert torch.equal(found.relevance, expected.relevance)
        assert torch.equal(found.score, expected.score)
        assert torch.equal(found.output, model(x))
    called = [stage.name for stage in stages(model, "auto")]
    assert runs == called[::-1] * 2  # once for each target, from the last to the first


class TestMemory:
    def kept(self, model: nn.Module, x: Tensor, segments: object = None) -> tuple[int, int]:
        explainer = Explainer(model, "epsilon", segments=segments)  # type: ignore[arg-type]
        with explainer._recorded(x, [explainer._map]) as session:
            return memory_of(session.trace, model)

    def test_it_grows_with_the_blocks_inputs_instead_of_with_all_that_is_in_them(self) -> None:
        model, x = MODELS["encoder"]()
        whole, _ = self.kept(model, x)
        some, _ = self.kept(model, x, "auto")
        # Nine blocks' inputs, and what one block keeps.
        assert some < 0.3 * whole

    def test_nothing_made_in_a_segment_outlives_it(self) -> None:
        model, x = MODELS["resnet"]()
        made: list[weakref.ref[Tensor]] = []
        hook = model.layer1[1].conv2.register_forward_hook(lambda m, args, out: made.append(weakref.ref(out)))
        explainer = Explainer(model, "epsilon", segments="auto")
        with explainer._recorded(x, [explainer._map]) as session:
            assert [ref() for ref in made] == [None]
            places = [each for refs in session.trace._kept.values() for ref in refs if (each := ref()) is not None]
            inside = [each for each in places if isinstance(each, Recomputed)]
            assert inside and not any(each.there for each in inside)
            start = session.start(1, "score", None)
            session.redistribute(start, explainer._map)
            filled = {each._segment.stage.name for each in inside if each.there}
            assert filled == {"layer1.0"}  # the others have been let go of again
            session.redistribute(start, explainer._map, last=True)
        hook.remove()

    def test_the_models_hooks_are_what_they_were(self) -> None:
        model, x = MODELS["resnet"]()
        relprop.explain(model, x, segments="auto")
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class TestStages:
    def names(self, model: nn.Module, segments: object = "auto") -> list[str]:
        return [stage.name for stage in stages(model, segments)]  # type: ignore[arg-type]

    def test_auto_finds_the_blocks(self) -> None:
        assert self.names(ResNet()) == [f"layer{i}.{j}" for i in (1, 2) for j in range(4)]
        assert self.names(Encoder()) == [f"encoder.layers.{i}" for i in range(9)]

    def test_few_stages_of_blocks_are_taken_apart(self) -> None:
        class Stage(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.blocks = nn.ModuleList([Residual(2) for _ in range(3)])

        class Staged(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stages = nn.ModuleList([Stage(), Stage()])

        assert self.names(Staged()) == [f"stages.{i}.blocks.{j}" for i in (0, 1) for j in range(3)]

    def test_simple_layers_are_cut_after_poolings_and_never_before_a_norm(self) -> None:
        found = [[type(module).__name__ for module in stage.modules] for stage in stages(vgg(), "auto")]
        block = ["Conv2d", "BatchNorm2d", "ReLU"]
        assert found[0] == [*block, *block, "MaxPool2d"]
        assert all(names[0] in ("Conv2d", "Linear") for names in found)

    def test_patterns_name_the_outermost(self) -> None:
        assert self.names(ResNet(), ["layer1.*", "layer1.2.conv1"]) == [f"layer1.{j}" for j in range(4)]
        assert self.names(ResNet(), "layer2") == ["layer2"]

    def test_a_shared_module_is_found_by_each_of_its_names(self) -> None:
        block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        model = Parts(blocks=nn.Sequential(block, nn.Linear(4, 4), block), head=nn.Linear(4, 2)).eval()
        assert self.names(model, ["blocks.2"]) == ["blocks.0"]
        assert self.names(model, ["blocks.2.0", "blocks.0"]) == ["blocks.0"]
        assert same(model, torch.randn(2, 4), ["blocks.2"])

    @pytest.mark.parametrize(
        ("segments", "message"),
        [
            (["layer9"], r"no module named 'layer9'.*Did you mean"),
            (
                ["block*"],
                r"no module named 'block\*'\. Its modules are 'stem', 'layer1', 'layer2', 'head', .*, \.\.\.$",
            ),
            ([], 'expected "auto" or names'),
            ([3], 'expected "auto" or names'),
            (3, 'got 3, expected "auto" or names'),
            (True, 'got True, expected "auto" or names'),
            ("layer*", r"expected .* list such as \['layer\*'\]"),
        ],
    )
    def test_what_is_no_module_is_refused(self, segments: object, message: str) -> None:
        with pytest.raises(InvalidInput, match=message):
            Explainer(ResNet(), segments=segments)  # type: ignore[arg-type]

    def test_a_function_has_no_modules(self) -> None:
        with pytest.raises(InvalidInput, match="It has none"):
            Explainer(torch.relu, segments=["layer1"])

    def test_a_model_without_lists_has_no_automatic_ones(self) -> None:
        with pytest.raises(InvalidInput, match="Name the modules"):
            Explainer(Residual(3).eval(), segments="auto")

    def test_a_module_that_is_not_called_is_refused(self) -> None:
        model = Encoder().eval()
        with pytest.raises(InvalidInput, match=r"'encoder.layers' was not called.*encoder.layers.\*"):
            relprop.explain(model, torch.randn(1, 3, 12), segments=["encoder.layers"])

    def test_segments_are_lrps(self) -> None:
        with pytest.raises(InvalidInput, match="segments are LRP's"):
            Explainer(ResNet(), method="gradient", segments="auto")


class TestEverythingElse:
    """What else can be asked of an explainer, with segments."""

    def both(self, name: str, **options: object) -> tuple[Explainer, Explainer, Tensor]:
        model, x = MODELS[name]()
        return Explainer(model, **options), Explainer(model, segments="auto", **options), x  # type: ignore[arg-type]

    def test_layers(self) -> None:
        plain, again, x = self.both("resnet", rules="epsilon-plus")
        wanted = ["layer1.*", "layer2", "layer2.1.bn1"]
        expected, found = plain(x, 1, layers=wanted), again(x, 1, layers=wanted)
        assert expected.layers.keys() == found.layers.keys()
        assert all(torch.equal(found.layers[name], r) for name, r in expected.layers.items())

    def test_attention(self) -> None:
        plain, again, x = self.both("encoder", rules="attn-lrp")
        expected, found = plain(x, 1, attention=True), again(x, 1, attention=True)
        assert len(expected.attention) == 9
        assert all(torch.equal(found.attention[name], r) for name, r in expected.attention.items())
        assert all(torch.equal(found.layers[name], r) for name, r in expected.layers.items())

    def test_compare_shares_one_forward(self) -> None:
        plain, again, x = self.both("resnet")
        calls: list[int] = []
        again.model.stem.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
        rules = ["epsilon", "epsilon-plus", "epsilon-alpha2-beta1"]
        found = again.compare(x, rules, target=1)
        assert len(calls) == 1
        for name, expected in plain.compare(x, rules, target=1).items():
            assert torch.equal(found[name].relevance, expected.relevance)

    @pytest.mark.parametrize("name", MODELS)
    def test_reports(self, name: str) -> None:
        plain, again, x = self.both(name)
        assert again.check(x, 1).operations == plain.check(x, 1).operations
        assert again(x, 1).conservation.operations == plain(x, 1).conservation.operations

    def test_seeds(self) -> None:
        plain, again, x = self.both("resnet")
        seed = torch.randn(2, 4)
        assert torch.equal(plain(x, seed=seed).relevance, again(x, seed=seed).relevance)

    def test_threads(self) -> None:
        plain, again, x = self.both("resnet")
        inputs = [x, x.flip(0), 2 * x]
        expected = [plain(each, 1).relevance for each in inputs]
        found: list[Tensor | None] = [None] * 3

        def explain(i: int) -> None:
            for _ in range(3):
                found[i] = again(inputs[i], 1).relevance

        threads = [threading.Thread(target=explain, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(r is not None and torch.equal(r, e) for r, e in zip(found, expected, strict=True))

    def test_autocast(self) -> None:
        plain, again, x = self.both("encoder", rules="attn-lrp")
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(plain(x, 1).relevance, again(x, 1).relevance)

    def test_under_no_grad(self) -> None:
        plain, again, x = self.both("vgg")
        with torch.inference_mode():
            assert torch.equal(plain(x, 1).relevance, again(x, 1).relevance)


class Parts(nn.Module):
    """Modules by name, called one after the other."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.parts = list(parts)
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.parts:
            x = self.get_submodule(name)(x)
        return x.flatten(1)


def same(model: nn.Module, x: Tensor, segments: list[str], rules: object = "epsilon-plus") -> bool:
    plain = relprop.explain(model, x, 1, rules=rules, bounds=(-4.0, 4.0))  # type: ignore[arg-type]
    again = relprop.explain(model, x, 1, rules=rules, bounds=(-4.0, 4.0), segments=segments)  # type: ignore[arg-type]
    return torch.equal(plain.relevance, again.relevance) and torch.equal(plain.output, again.output)


class TestBoundaries:
    """What is known across the border of a segment is known when it runs again."""

    conv, x = staticmethod(lambda: nn.Conv2d(3, 3, 3, padding=1)), torch.linspace(-3, 3, 96).reshape(2, 3, 4, 4)

    @pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus", "gamma", "epsilon-gamma-box", "w-square"])
    @pytest.mark.parametrize("segments", [["a"], ["b"], ["a", "b"], ["b", "c"], ["a", "b", "c"]])
    def test_a_batch_norm_folds_into_a_convolution_of_another_segment(self, segments: list[str], rules: str) -> None:
        model = settled(Parts(a=self.conv(), b=nn.BatchNorm2d(3), c=nn.ReLU(True), d=self.conv()))
        assert same(model, self.x, segments, rules)

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize("inplace", [False, True])
    def test_an_input_keeps_its_strides(self, count: int, inplace: bool) -> None:
        """By the strides of a single sample, convolutions choose their algorithm."""
        x = torch.randn(count, 4, 7, 7).contiguous(memory_format=torch.channels_last)
        assert same(Parts(a=nn.Conv2d(4, 6, 3, padding=1), b=nn.ReLU(), c=nn.Conv2d(6, 2, 7)).eval(), x, ["a", "c"])
        block = nn.Sequential(nn.ReLU(inplace), nn.Conv2d(4, 6, 3, padding=1))
        assert same(Parts(a=nn.Conv2d(4, 4, 1), b=block, c=nn.Conv2d(6, 2, 7)).eval(), x, ["b"])

    @pytest.mark.parametrize("segments", [["b"], ["a", "b"], ["b", "c", "d"]])
    def test_a_segment_that_overwrites_its_input(self, segments: list[str]) -> None:
        model = Parts(a=self.conv(), b=nn.ReLU(inplace=True), c=self.conv(), d=nn.ReLU(inplace=True)).eval()
        assert same(model, self.x, segments)

    def test_a_view_that_is_overwritten(self) -> None:
        class Half(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                x[:, 1:].mul_(2).relu_()
                return x + 1

        model = Parts(a=self.conv(), b=Half(), c=self.conv()).eval()
        assert same(model, self.x, ["b"])

    def test_what_comes_after_may_overwrite_the_output(self) -> None:
        model = Parts(a=self.conv(), b=nn.Sequential(self.conv(), nn.Tanh()), c=nn.ReLU(inplace=True), d=self.conv())
        assert same(model.eval(), self.x, ["b"], Epsilon(1e-3))

    def test_a_gate_from_before(self) -> None:
        class Gated(nn.Module):
            def forward(self, gate: Tensor, x: Tensor) -> Tensor:
                return gate * x + (1 - gate) * x.tanh()

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.gate, self.lift, self.mix = nn.Linear(5, 5), nn.Linear(5, 5), Gated()

            def forward(self, x: Tensor) -> Tensor:
                return self.mix(self.gate(x).sigmoid(), x=self.lift(x))

        for rules in ("epsilon", relprop.RuleMap([("gate", SignalTakesAll()), ("affine", Gamma())])):
            for segments in (["mix"], ["gate", "mix"], ["gate", "lift", "mix"]):
                assert same(Model().eval(), torch.randn(2, 5), segments, rules)

    def test_a_cell_of_linear_layers_in_segments(self) -> None:
        class Cell(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.x, self.h, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

            def forward(self, x: Tensor) -> Tensor:
                h = x.new_zeros(len(x), 4)
                for t in range(x.shape[1]):
                    h = (self.x(x[:, t]) + self.h(h)).tanh()
                return self.head(h)

        assert same(Cell().eval(), torch.randn(2, 3, 3), ["x", "h"], "epsilon")

    def test_a_softmax_by_hand_that_ends_outside(self) -> None:
        class Exponent(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.exp()

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lift, self.exp, self.head = nn.Linear(5, 5), Exponent(), nn.Linear(5, 3)

            def forward(self, x: Tensor) -> Tensor:
                e = self.exp(self.lift(x))
                return self.head(e / e.sum(-1, keepdim=True))

        assert same(Model().eval(), torch.randn(2, 5), ["exp"], "epsilon")

    def test_token_ids(self) -> None:
        class Reader(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.GELU())
                self.head = nn.Linear(4, 3)

            def forward(self, ids: Tensor) -> Tensor:
                return self.head(self.embed(ids).mean(1))

        assert same(Reader().eval(), torch.randint(9, (2, 5)), ["embed"], "epsilon")

    def test_one_module_many_times(self) -> None:
        block = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))

        class Repeated(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.block = block

            def forward(self, x: Tensor) -> Tensor:
                for _ in range(3):
                    x = x + self.block(x)
                return x

        assert same(Repeated().eval(), torch.randn(2, 4), ["block"], "epsilon")

    def test_randomness_of_torch_is_drawn_again(self) -> None:
        class Noisy(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x + torch.randn_like(x)).tanh()

        model = Parts(a=nn.Linear(4, 4), b=Noisy(), c=nn.Linear(4, 2)).eval()
        found = []
        for segments in (None, ["b"]):
            torch.manual_seed(3)
            found.append(relprop.explain(model, torch.ones(1, 4), 1, rules="epsilon", segments=segments).relevance)
            found.append(torch.rand(1))  # and what is drawn afterwards is what it would have been
        assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])


class TestRefusals:
    def explain(self, model: nn.Module, segments: list[str], x: Tensor | None = None) -> None:
        relprop.explain(model.eval(), torch.ones(1, 4) if x is None else x, 1, rules="epsilon", segments=segments)

    def test_a_module_that_remembers(self) -> None:
        class Counting(nn.Module):
            calls = 0

            def forward(self, x: Tensor) -> Tensor:
                self.calls += 1
                return (x * self.calls).tanh()

        with pytest.raises(RelpropError, match=r"segment 'b' did not compute the same.*without it"):
            self.explain(Parts(a=nn.Linear(4, 4), b=Counting(), c=nn.Linear(4, 2)), ["b"])

    def test_a_module_that_goes_another_way(self) -> None:
        class Changing(nn.Module):
            calls = 0

            def forward(self, x: Tensor) -> Tensor:
                self.calls += 1
                return x.sigmoid().mul(1.0) if self.calls > 1 else x.sigmoid()

        with pytest.raises(RelpropError, match="did not compute the same"):
            self.explain(Parts(a=nn.Linear(4, 4), b=Changing(), c=nn.Linear(4, 2)), ["b"])

    def test_a_module_that_writes_to_its_buffer(self) -> None:
        class Writing(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("count", torch.zeros(()))

            def forward(self, x: Tensor) -> Tensor:
                self.count += 1
                return x.tanh()

        with pytest.raises(InvalidInput, match=r"'b' writes to its buffer Writing.count"):
            self.explain(Parts(a=nn.Linear(4, 4), b=Writing(), c=nn.Linear(4, 2)), ["b"])

    def test_a_tensor_that_left_by_a_back_door(self) -> None:
        class Hiding(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(4, 4)

            def forward(self, x: Tensor) -> Tensor:
                self.hidden = self.linear(x)
                return self.hidden.tanh()

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.part = Hiding()

            def forward(self, x: Tensor) -> Tensor:
                return self.part(x) + self.part.hidden * 2  # a constant factor folds into the linear layer

        with pytest.raises(RelpropError, match="a tensor from inside of a segment"):
            self.explain(Model(), ["part"])

    def test_a_constant_that_is_overwritten_afterwards(self) -> None:
        class Shifted(nn.Module):
            def forward(self, x: Tensor, shift: Tensor) -> Tensor:
                return (x + shift).tanh()

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.part = Shifted()

            def forward(self, x: Tensor) -> Tensor:
                shift = torch.ones(4)
                y = self.part(x, shift)
                shift.zero_()
                return y

        with pytest.raises(RelpropError, match="overwritten in place since"):
            self.explain(Model(), ["part"])

    def test_a_sequential_whose_layers_are_called_in_another_way(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())

            def forward(self, x: Tensor) -> Tensor:
                x = self.layers[1](2 * self.layers[0](x))
                return self.layers[3](self.layers[2](x))

        with pytest.raises(InvalidInput, match="not called one after the other"):
            relprop.explain(Model().eval(), torch.ones(1, 4), 1, segments="auto")
