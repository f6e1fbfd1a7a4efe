"""The known traps: what other implementations of LRP get wrong, each as a claim, with values worked out by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, in_float64
from torch import Tensor, nn

import relprop
from relprop import RuleMap
from relprop.errors import RelpropError, UnsupportedFunction
from relprop.presets import PRESETS
from relprop.rules import Epsilon, Flat, Gamma, Layer, Rule, WSquare, Zero, ZPlus

BOUNDS = (-5.0, 5.0)
Function = Callable[[Tensor], Tensor]
ANYWHERE = RuleMap([(lambda op: True, Zero())], name="LRP-0")


@pytest.fixture(autouse=True)
def in_double_precision() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def relevance(model: Any, x: Any, rules: Any = None, target: Any = None) -> Any:
    return relprop.explain(model, x, target, rules=ANYWHERE if rules is None else rules, bounds=BOUNDS).relevance


def row(*values: float) -> Tensor:
    """A batch of one vector."""
    return torch.tensor([values], dtype=torch.float64)


def close(found: Tensor, expected: Any, tolerance: float = 1e-12) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found, expected.reshape(found.shape), rtol=tolerance, atol=tolerance)


def gradient_x_input(model: Callable[..., Tensor], x: Tensor, target: int | None = None) -> Tensor:
    leaf = x.clone().requires_grad_()
    output = model(leaf.clone())  # a leaf that requires grad may not be changed in place
    score = output.flatten(1).amax(1) if target is None else output[:, target]
    return torch.autograd.grad(score.sum(), leaf)[0] * x


# ---- sums


@pytest.mark.parametrize(
    "add",
    [
        lambda x: x[:, :1] + x[:, 1:],
        lambda x: torch.add(x[:, :1], x[:, 1:]),
        lambda x: x[:, :1].clone().add_(x[:, 1:]),
        lambda x: x.sum(1, keepdim=True),
        lambda x: torch.stack([x[:, 0], x[:, 1]]).sum(0)[:, None],
        lambda x: x[:, :1] - (-x[:, 1:]),
        lambda x: 2 * x.mean(1, keepdim=True),
        lambda x: x.cumsum(1)[:, 1:],
        lambda x: x @ torch.ones(2, 1),
        lambda x: sum(x.unbind(1))[:, None],
    ],
    ids=["+", "torch.add", "add_", "sum", "stack", "sub", "mean", "cumsum", "matmul", "python sum"],
)
def test_add_3_and_minus_1_shares_3_and_minus_1(add: Function) -> None:
    """Fails if a sum's relevance is the gradient (1, 1), is split in halves, or by absolute values (1.5, 0.5)."""
    close(relevance(add, row(3, -1)), [3, -1])


@pytest.mark.parametrize("rules", ["auto", "epsilon", "epsilon-plus-flat", Zero()], ids=str)
def test_a_model_without_any_layer_can_be_explained(rules: Any) -> None:
    """Fails if presets and single rules ask for an affine operation to be there."""
    close(relevance(lambda x: x[:, :1] + x[:, 1:], row(3, -1), rules), [3, -1], 1e-5)


@pytest.mark.parametrize("rule", [Zero(), Epsilon(1e-9)], ids=repr)
@pytest.mark.parametrize("spelling", ["module", "linear", "add", "sub", "in place", "addmm", "conv"])
def test_a_bias_of_minus_3_in_y_is_2_minus_3_leaves_the_input_plus_2(spelling: str, rule: Rule) -> None:
    """Fails if the bias's share is spread over the inputs (-1), or shared by size (autolrp: -0.4)."""
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(2)
        layer.bias.fill_(-3)
    w, b = layer.weight, layer.bias

    def in_place(x: Tensor) -> Tensor:
        y = x @ w
        y += b
        return y

    models: dict[str, Callable[..., Tensor]] = {
        "module": layer.eval(),
        "linear": lambda x: F.linear(x, w, b),
        "add": lambda x: x * 2 + (-3),
        "sub": lambda x: w * x - 3,
        "in place": in_place,
        "addmm": lambda x: torch.addmm(b, x, w),
        "conv": lambda x: F.conv1d(x[:, None], w[None], b)[:, 0],
    }
    rules = RuleMap([(lambda op: True, rule)])
    found = relprop.explain(models[spelling], row(1), 0, rules=rules)
    close(found.score, [-1])
    close(found.relevance, [2], 1e-8)
    assert found.conservation.absorbed["bias"] == pytest.approx(-3, abs=1e-8)


POOLS: dict[str, Function] = {
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "AdaptiveAvgPool2d": nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()).eval(),
    "mean": lambda x: x.mean((2, 3)),
    "mean twice": lambda x: x.mean(-1).mean(-1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2)[:, :, 0, 0],
    "sum": lambda x: x.flatten(2).sum(-1) / 4,
    "view mean": lambda x: x.view(x.shape[0], x.shape[1], -1).mean(-1),
}


@pytest.mark.parametrize("rule", [Zero(), Epsilon(1e-9)], ids=repr)
@pytest.mark.parametrize("pool", POOLS)
def test_a_global_average_pool_gives_dead_positions_nothing(pool: str, rule: Rule) -> None:
    """Fails if a pool hands every position the same share, which conserves and is wrong (autolrp)."""
    x = torch.tensor([[[[4.0, 0.0], [-2.0, 0.0]]]])
    found = relevance(lambda x: POOLS[pool](F.relu(x)), x, RuleMap([("sum", rule)]))
    close(found, [[1, 0], [0, 0]], 1e-8)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_pixel_that_no_relu_lets_through_gets_nothing_in_the_hidden_layers(name: str) -> None:
    """Fails if relevance is divided evenly anywhere between the first layer and the pool."""
    first, second = nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.abs_()
    x = torch.rand(1, 1, 4, 4)
    x[..., 2:] *= -1  # dead after the first ReLU
    if name == "w-square":
        pytest.skip("w^2 in hidden layers gives relevance to what is zero, by its definition")
    found = relevance(model.eval(), x, name, 0)
    assert bool((found[..., 2:] == 0).all())
    assert bool((found[..., :2] != 0).any())


def test_functional_add_cat_and_mean_take_part() -> None:
    """Fails if a function that is no module counts as the plain gradient (Captum, Zennit).

    y = mean(cat(2a + b, -a)) = (2a + b - a) / 2, with a = 3, b = -1: shares 1.5 and -0.5, in score 1.
    """

    def model(x: Tensor) -> Tensor:
        a, b = x[:, :1], x[:, 1:]
        return torch.cat([2 * a + b, -a], dim=1).mean(1, keepdim=True)

    close(relevance(model, row(3, -1)), [1.5, -0.5])


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width, bias=False)
        self.fc2 = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.relu(self.fc1(x)))


@pytest.mark.parametrize("rules", [Zero(), Epsilon(1e-9), Gamma(0.25, 1e-12)], ids=repr)
def test_x_plus_f_of_x_conserves_in_a_chain_of_four(rules: Rule) -> None:
    """Fails if both branches of an addition get all of its relevance (from -0.66 to -31.8 in Captum and Zennit)."""
    model = nn.Sequential(*(Residual(6) for _ in range(4)), nn.Linear(6, 3, bias=False)).eval()
    found = relprop.explain(model, torch.randn(5, 6), 1, rules=rules)
    close(found.relevance.sum(1), found.score, 1e-7)


def test_a_residual_sum_shares_by_value() -> None:
    """x + f(x) with x = 2, f(x) = 4x - 7 = 1 by a bias: x gets 2 from the skip and 8 through f; the bias the rest."""
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(4)
        layer.bias.fill_(-7)
    found = relprop.explain(lambda x: x + layer(x), row(2), 0, rules=Zero())
    close(found.score, [3])
    close(found.relevance, [10])
    assert found.conservation.absorbed == pytest.approx({"bias": -7.0})


# ---- reuse


def test_a_module_used_twice_explains_both_calls() -> None:
    """Fails if the second call's input overwrites what was remembered of the first (Zennit).

    f(x) = relu(w x); y = f(f(x)) with w = [[1, 2], [-1, 3]], x = (1, 1): h = (3, 2), z = (7, 3).
    y_0 = 1 h_0 + 2 h_1 = 1 (x_0 + 2 x_1) + 2 (-x_0 + 3 x_1) = -x_0 + 8 x_1.
    """
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 3.0]]))
    act = nn.ReLU(inplace=True)
    model = nn.Sequential(layer, act, layer, act).eval()
    close(relevance(model, row(1, 1), target=0), [-1, 8])


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus", "gamma", "w-square", "deep-taylor"])
def test_a_module_used_twice_equals_two_modules_with_the_same_weights(rules: str) -> None:
    """Fails if anything is remembered per module instead of per call."""
    layer = nn.Linear(4, 4)
    once = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), layer).eval()
    apart = nn.Sequential(*(copy.deepcopy(m) for m in once)).eval()
    x = torch.randn(3, 4)
    assert torch.equal(relevance(once, x, rules, 1), relevance(apart, x, rules, 1))


def test_a_tensor_used_twice_gets_the_sum() -> None:
    """y = 3 h + relu(h - 1 * h2), h = 2x and used in three places, worked out: x_0 = 2, x_1 = 1.

    h = (4, 2); y = 3 h_0 + h_0 * 0.5 - h_1 = 3.5 * 4 - 2 = 12: x_0 gets 14, x_1 gets -2.
    """

    def model(x: Tensor) -> Tensor:
        h = 2 * x
        return (3 * h[:, :1]) + F.relu(h[:, :1] * 0.5) - h[:, 1:]

    close(relevance(model, row(2, 1)), [14, -2])


def test_two_inputs_each_get_their_share() -> None:
    """y = 2 a - 3 b + 4 a relu(b)-free; with a = 1.5, b = -1: a gets 3, b gets 3."""
    a, b = relevance(lambda a, b: 2 * a - 3 * b, (row(1.5), row(-1)))
    close(a, [3])
    close(b, [3])


def test_two_inputs_by_name_in_any_order() -> None:
    """Fails if named inputs are taken by position."""

    def model(left: Tensor, right: Tensor) -> Tensor:
        return 2 * left - 3 * right

    found = relevance(model, {"right": row(-1), "left": row(1.5)})
    assert list(found) == ["right", "left"]
    close(found["left"], [3])
    close(found["right"], [3])


def test_the_same_tensor_as_both_inputs_is_told_apart() -> None:
    """Fails if inputs are known by the identity of what the user passed."""
    x = row(2)
    a, b = relevance(lambda a, b: 2 * a - 3 * b, (x, x))
    close(a, [4])
    close(b, [-6])


def test_an_input_that_reaches_nothing_gets_zeros() -> None:
    """Fails if an unused input raises or has no entry."""
    a, b = relevance(lambda a, b: 2 * a, (row(2), row(1, 2)))
    close(a, [4])
    close(b, [0, 0])


def test_a_product_of_two_signals_gives_each_half() -> None:
    """a b with a = 3, b = -2: -3 each (Achtibat et al. 2024, prop. 3.2)."""
    close(relevance(lambda x: x[:, :1] * x[:, 1:], row(3, -2)), [-3, -3])


def test_a_square_is_no_product_of_two() -> None:
    """x x and x^2 are the same function: 9 for x = 3, once."""
    close(relevance(lambda x: x * x, row(3)), [9])
    close(relevance(lambda x: x**2, row(3)), [9])


# ---- in-place code equals the same function out of place


def test_an_in_place_relu_changes_nothing() -> None:
    """Fails if the pre-activation is read after the ReLU wrote over it."""
    conv1, conv2 = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 3)
    x = torch.randn(2, 1, 6, 6)
    tails = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plain = nn.Sequential(conv1, nn.ReLU(), conv2, nn.ReLU(), *tails).eval()
    in_place = nn.Sequential(conv1, nn.ReLU(inplace=True), conv2, nn.ReLU(inplace=True), *tails).eval()
    for rules in (*PRESETS, Zero(), Epsilon(0.1), Gamma(1.0)):
        assert torch.equal(relevance(in_place, x, rules, 0), relevance(plain, x, rules, 0)), rules


CONV = nn.Conv2d(2, 2, 3, padding=1, bias=False).double()
CONV2 = nn.Conv2d(2, 2, 3, padding=1, bias=False).double()
for _module, _seed in ((CONV, 1), (CONV2, 2)):
    with torch.no_grad():
        _generator = torch.Generator().manual_seed(_seed)
        _module.weight.copy_(torch.randn(_module.weight.shape, generator=_generator, dtype=torch.float64))


def _residual_in_place(x: Tensor) -> Tensor:
    y = CONV(x)
    y += x
    y.relu_()
    return CONV2(y)


def _residual(x: Tensor) -> Tensor:
    return CONV2((CONV(x) + x).relu())


def _assigned_in_place(x: Tensor) -> Tensor:
    y = CONV(x)
    y[:, 0] = 0
    y[:, 1:] *= 3
    return CONV2(y)


def _assigned(x: Tensor) -> Tensor:
    y = CONV(x)
    return CONV2(torch.cat([torch.zeros_like(y[:, :1]), 3 * y[:, 1:]], 1))


def _view_in_place(x: Tensor) -> Tensor:
    y = CONV(x)
    half = y[:, :1]
    half.mul_(2)
    half.add_(x[:, 1:])
    return CONV2(F.relu(y))


def _view(x: Tensor) -> Tensor:
    y = CONV(x)
    return CONV2(F.relu(torch.cat([2 * y[:, :1] + x[:, 1:], y[:, 1:]], 1)))


def _base_changed(x: Tensor) -> Tensor:
    y = CONV(x)
    late = y[:, :1]
    y.relu_()
    y.add_(x)
    return CONV2(torch.cat([late, y[:, 1:]], 1))


def _base(x: Tensor) -> Tensor:
    return CONV2(CONV(x).relu() + x)


def _buffer_in_place(x: Tensor) -> Tensor:
    y = CONV(x)
    buffer = torch.zeros(x.shape[0], 3, *x.shape[2:])
    buffer[:, :2] = y
    buffer[:, 2] = F.relu(x[:, 0])
    return CONV2(F.relu(buffer[:, 1:]))


def _buffer(x: Tensor) -> Tensor:
    return CONV2(F.relu(torch.cat([CONV(x)[:, 1:], F.relu(x[:, :1])], 1)))


def _input_overwritten_after(x: Tensor) -> Tensor:
    h = CONV(x)
    z = CONV2(h)
    F.relu_(h)
    return z + h


def _input_kept(x: Tensor) -> Tensor:
    h = CONV(x)
    return CONV2(h) + F.relu(h)


def _model_input_overwritten(x: Tensor) -> Tensor:
    z = CONV(x)
    F.relu_(x)
    return CONV2(z) + x


def _model_input_kept(x: Tensor) -> Tensor:
    return CONV2(CONV(x)) + F.relu(x)


def _z_used_before_and_after(x: Tensor) -> Tensor:
    z = CONV(x)
    early = CONV2(z)
    z.mul_(2)
    late = CONV2(z)
    z.clamp_(min=0)
    return early + late + z


def _z_out_of_place(x: Tensor) -> Tensor:
    z = CONV(x)
    return CONV2(z) + CONV2(2 * z) + (2 * z).clamp(min=0)


def _transposed_in_place(x: Tensor) -> Tensor:
    y = CONV(x)
    y.permute(0, 2, 3, 1).mul_(torch.tensor([2.0, -1.0]))
    y.view(y.shape[0], -1).relu_()
    return CONV2(y)


def _transposed(x: Tensor) -> Tensor:
    y = CONV(x).permute(0, 2, 3, 1) * torch.tensor([2.0, -1.0])
    return CONV2(F.relu(y.permute(0, 3, 1, 2)))


def _scattered_in_place(x: Tensor) -> Tensor:
    y = CONV(x)
    y.masked_fill_(torch.ones_like(y).triu().bool(), 0)
    y[:, 0].copy_(x[:, 1])
    return CONV2(y)


def _scattered(x: Tensor) -> Tensor:
    y = CONV(x)
    y = y * (1 - torch.ones_like(y).triu())
    return CONV2(torch.stack([x[:, 1], y[:, 1]], 1))


def _accumulated(x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for k in range(3):
        total += CONV(x) * (k + 1)
    total /= 2
    return CONV2(total.relu_())


def _accumulated_out_of_place(x: Tensor) -> Tensor:
    return CONV2(F.relu((CONV(x) + CONV(x) * 2 + CONV(x) * 3) / 2))


def _negative_index(x: Tensor) -> Tensor:
    y = CONV(x)
    y[..., -1] = y[..., 0].clone()
    y[..., 1:-1] += y[..., 2:].clone()
    return CONV2(y)


def _negative_index_out_of_place(x: Tensor) -> Tensor:
    y = CONV(x)
    y = torch.cat([y[..., :-1], y[..., :1]], -1)
    return CONV2(torch.cat([y[..., :1], y[..., 1:-1] + y[..., 2:], y[..., -1:]], -1))


def _source_overwritten(x: Tensor) -> Tensor:
    h = CONV(x)
    y = h.flip(1)
    h.relu_()
    return CONV2(y) + h


def _source_kept(x: Tensor) -> Tensor:
    h = CONV(x)
    return CONV2(h.flip(1)) + F.relu(h)


def _model_input_scaled(x: Tensor) -> Tensor:
    y = x.flip(1)
    z = CONV(x)
    x.mul_(3)
    return CONV2(y) + z + x


def _model_input_not_scaled(x: Tensor) -> Tensor:
    return CONV2(x.flip(1)) + CONV(x) + 3 * x


IN_PLACE: dict[str, tuple[Function, Function]] = {
    "y = conv(x); y += x; y.relu_()": (_residual_in_place, _residual),
    "y[:, 0] = 0; y[:, 1:] *= 3": (_assigned_in_place, _assigned),
    "a view is changed, then its base used": (_view_in_place, _view),
    "a base is changed, then an earlier view used": (_base_changed, _base),
    "buffer[:, :k] = f(x)": (_buffer_in_place, _buffer),
    "a convolution's input is overwritten after it": (_input_overwritten_after, _input_kept),
    "the model's input is overwritten after the convolution": (_model_input_overwritten, _model_input_kept),
    "z is used before and after it is changed": (_z_used_before_and_after, _z_out_of_place),
    "a permuted and a flattened view are changed": (_transposed_in_place, _transposed),
    "masked_fill_ and copy_": (_scattered_in_place, _scattered),
    "a sum accumulated in a loop": (_accumulated, _accumulated_out_of_place),
    "what was copied from is overwritten": (_source_overwritten, _source_kept),
    "the model's input is scaled after two layers took it": (_model_input_scaled, _model_input_not_scaled),
    "overlapping slices": (_negative_index, _negative_index_out_of_place),
}


THROUGH_A_VIEW = ["y[:, 0] = 0; y[:, 1:] *= 3", "a permuted and a flattened view are changed", "masked_fill_ and copy_"]


def pooled(function: Function) -> Function:
    """Two scores of a map-valued function, weighted differently at each position."""

    def scores(x: Tensor) -> Tensor:
        y = function(x)
        weight = torch.linspace(-1, 2, y[0, 0].numel()).reshape(y.shape[2:])
        return (y * weight).sum((2, 3))

    return scores


@pytest.mark.parametrize("case", IN_PLACE)
def test_in_place_code_is_lrp_0_of_its_values(case: str) -> None:
    """Fails if a rule reads memory after it was overwritten, or relevance goes to a stale tensor."""
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(8))
    in_place, plain = map(pooled, IN_PLACE[case])
    expected = gradient_x_input(plain, x, 1)
    for model in (plain, in_place):
        found = relprop.explain(model, x, 1, rules=ANYWHERE)
        assert torch.equal(found.output, model(x.clone()))
        close(found.relevance, expected, 1e-10)


@pytest.mark.parametrize("case", IN_PLACE)
def test_in_place_code_equals_the_same_out_of_place(case: str) -> None:
    """Under rules that read x and z, unlike LRP-0; the same function must get the same relevance."""
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(8))
    in_place, plain = map(pooled, IN_PLACE[case])
    close(in_place(x.clone()), plain(x))
    maps: list[Any] = [Epsilon(0.05), Gamma(0.5), ZPlus()]
    if case != "a sum accumulated in a loop":  # zeros + a + b + c has a sum more to stabilise than a + b + c
        maps += [RuleMap([("affine", Epsilon(0.05)), ("sum", Epsilon(0.1))]), "epsilon-plus-flat", "epsilon-gamma-box"]
    for rules in maps:
        try:
            close(relevance(in_place, x, rules, 1), relevance(plain, x, rules, 1), 1e-9)
        except AssertionError as error:
            raise AssertionError(f"{case}, {rules}: {error}") from None


@pytest.mark.parametrize("rules", [Epsilon(0.05, bias="distribute"), WSquare()], ids=repr)
@pytest.mark.parametrize("case", [case for case in IN_PLACE if case not in THROUGH_A_VIEW])
def test_in_place_code_equals_the_same_out_of_place_for_rules_that_give_to_zeros(case: str, rules: Rule) -> None:
    """As above under rules that need relevance paths: fails if a path ends at an in-place change."""
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(8))
    in_place, plain = map(pooled, IN_PLACE[case])
    close(relevance(in_place, x, rules, 1), relevance(plain, x, rules, 1), 1e-9)


@pytest.mark.parametrize("case", THROUGH_A_VIEW)
def test_relevance_given_to_zeros_that_were_written_through_a_view_is_lost_with_a_word(case: str) -> None:
    """A relevance path ends where a view was changed in place; fails if what meets a zero there goes missing unsaid."""
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(8))
    found = relprop.explain(pooled(IN_PLACE[case][0]), x, 1, rules=WSquare()).conservation
    assert found.absorbed["value zero"] != 0
    assert sum(found.absorbed.values()) == pytest.approx(found.difference, abs=1e-9)


@pytest.mark.parametrize("case", IN_PLACE)
def test_in_place_code_gives_the_same_report(case: str) -> None:
    """Fails if measuring a flow changes it, or double-counts what was overwritten."""
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(8))
    in_place, plain = map(pooled, IN_PLACE[case])
    found = relprop.explain(in_place, x, 1, rules="epsilon").conservation
    expected = relprop.explain(plain, x, 1, rules="epsilon").conservation
    assert found.relevance == pytest.approx(expected.relevance)
    assert sum(found.absorbed.values()) == pytest.approx(found.difference, abs=1e-9)


def test_a_product_written_into_a_view_is_shared_once() -> None:
    """y = (a b, b) with a = 3, b = -2 and score -8: a gets -3, b gets -3 - 2.

    Fails if relevance that comes by way of the base passes by a hook on the view.
    """

    def model(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :1].mul_(x[:, 1:])
        return y.sum(1, keepdim=True)

    close(relevance(model, row(3, -2)), [-3, -5])


def test_the_users_tensor_is_not_changed_when_the_model_changes_its_input() -> None:
    """Fails if the model is handed the user's own memory."""

    def model(x: Tensor) -> Tensor:
        x.sub_(0.5)
        x /= 2
        x[:, 0] = 0
        return x

    x = row(5, 1.5)
    before = x.clone()
    found = relprop.explain(model, x, 1, rules=ANYWHERE)
    assert torch.equal(x, before)
    close(found.score, [0.5])
    close(found.relevance, [0, 0.75])
    close(found.inputs, before)


def test_an_in_place_batch_norm_by_hand_is_the_module() -> None:
    """mul_ and add_ with buffers fold into the convolution: fails if z+ sees the weights without the scale."""
    conv, bn = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4).eval()
    randomise(bn)

    def by_hand(x: Tensor) -> Tensor:
        z = conv(x)
        z.sub_(bn.running_mean[:, None, None])
        z.div_((bn.running_var[:, None, None] + bn.eps).sqrt())
        z.mul_(bn.weight[:, None, None])
        z.add_(bn.bias[:, None, None])
        return z.relu_().mean((2, 3))

    def by_buffers(x: Tensor) -> Tensor:
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        shift = bn.bias - bn.running_mean * scale
        z = conv(x)
        z.mul_(scale.view(1, -1, 1, 1)).add_(shift.view(1, -1, 1, 1))
        return F.relu(z).mean((2, 3))

    module = nn.Sequential(conv, bn, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = torch.randn(3, 2, 6, 6)
    for rules in (Epsilon(0.1), ZPlus(), Gamma(1.0), "epsilon-plus", "w-square", "epsilon-gamma-box"):
        expected = relevance(module, x, rules, 1)
        close(relevance(by_hand, x, rules, 1), expected, 1e-9)
        close(relevance(by_buffers, x, rules, 1), expected, 1e-9)


# ---- batch norm


def randomise(bn: nn.Module) -> None:
    with torch.no_grad():
        bn.weight.copy_(torch.randn_like(bn.weight) + 0.5)
        bn.bias.normal_()
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.3, 2)


def fused(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Module:
    return torch.nn.utils.fuse_conv_bn_eval(conv.eval(), bn.eval())


class Registered(nn.Module):
    """conv1, bn1, conv2, bn2 in the graph; registered in another order, the norms in a module of their own."""

    def __init__(self, conv1: nn.Module, bn1: nn.Module, conv2: nn.Module, bn2: nn.Module, order: str) -> None:
        super().__init__()
        if order == "norms first":
            self.bn2, self.bn1, self.conv2, self.conv1 = bn2, bn1, conv2, conv1
        elif order == "norms elsewhere":
            self.norms = nn.ModuleDict({"second": bn2, "first": bn1})
            self.convs = nn.ModuleList([conv2, conv1])
        else:
            self.conv1, self.conv2, self.bn1, self.bn2 = conv1, conv2, bn1, bn2
        self.chain = lambda x: F.relu(bn2(conv2(F.relu(bn1(conv1(x)), inplace=True)))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x)


@pytest.mark.parametrize("rules", [*PRESETS, Gamma(1.0)], ids=str)
@pytest.mark.parametrize("order", ["norms first", "norms elsewhere", "convolutions first"])
def test_conv_and_batch_norm_need_not_be_adjacent_in_registration_order(order: str, rules: Any) -> None:
    """Fails if what is folded, or which layer is the first, is read off named_modules (Zennit's canonizers)."""
    conv1, bn1, conv2, bn2 = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3).eval(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    randomise(bn1)
    randomise(bn2)
    model = Registered(conv1, bn1, conv2, bn2, order).eval()
    tails = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    reference = nn.Sequential(fused(conv1, bn1), nn.ReLU(), fused(conv2, bn2), *tails).eval()
    x = torch.randn(2, 2, 7, 7)
    close(relevance(model, x, rules, 1), relevance(reference, x, rules, 1), 1e-9)


@pytest.mark.parametrize("name", ["resnet", "vgg_bn", "densenet", "inception", "mobilenet_v2"])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_batch_norm_nets_stay_of_the_size_of_the_score(name: str, preset: str) -> None:
    """Fails where an unmerged batch norm divides by sums near zero (Zennit on ResNets: up to 10^10)."""
    if "alpha2" in preset:
        pytest.skip("alpha-beta amplifies by its definition, |R| up to 3 times a layer")
    model, x = in_float64(*ARCHITECTURES[name](True))
    found = relprop.explain(model, x, 1, rules=preset, bounds=BOUNDS)
    total = found.relevance.flatten(1).sum(1)
    assert bool((total.abs() <= 10 * found.score.abs()).all())


# ---- activations


def gelu_by_erf(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))


def gelu_by_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def gelu_by_cube(x: Tensor) -> Tensor:
    return x * 0.5 * (torch.tanh(0.7978845608028654 * x * (1 + 0.044715 * x * x)) + 1)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "F.gelu": (F.gelu, nn.GELU()),
    "torch tanh gelu": (lambda x: F.gelu(x, approximate="tanh"), nn.GELU("tanh")),
    "gelu by erf": (gelu_by_erf, nn.GELU()),
    "gelu by tanh": (gelu_by_tanh, nn.GELU("tanh")),
    "quick gelu": (quick_gelu, quick_gelu),
    "silu by sigmoid": (lambda x: x * x.sigmoid(), nn.SiLU()),
    "silu by exp": (lambda x: x / (1 + torch.exp(-x)), nn.SiLU()),
    "mish by hand": (lambda x: x * torch.tanh(F.softplus(x)), nn.Mish()),
    "hardswish by hand": (lambda x: x * F.relu6(x + 3) / 6, nn.Hardswish()),
    "relu by max": (lambda x: torch.maximum(x, torch.zeros_like(x)), nn.ReLU()),
    "relu by where": (lambda x: torch.where(x > 0, x, torch.zeros_like(x)), nn.ReLU()),
    "relu by mask": (lambda x: x * (x > 0), nn.ReLU()),
}
TOLERANCES = {"mish by hand": 1e-5}  # softplus, which is not zero at zero, divides with a stabiliser


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_handwritten_activation_passes_relevance_like_the_module(name: str) -> None:
    """Fails if the two factors of x * gate(x) share, or relevance flows into the gate. relevance of x is a itself."""
    by_hand, module = ACTIVATIONS[name]
    x = torch.tensor([[-3.5, -1.0, -0.1, 0.0, 0.3, 2.0, 4.0]])
    pick = lambda a: a.cumsum(1)[:, -1:]  # noqa: E731
    close(relevance(lambda x: pick(by_hand(x)), x), module(x), TOLERANCES.get(name, 1e-9))
    close(relevance(lambda x: pick(module(x)), x), module(x), 1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_handwritten_activation_between_layers_equals_the_module(name: str) -> None:
    """As above with rules in the layers around, and through a relevance path."""
    by_hand, module = ACTIVATIONS[name]
    fc1, fc2 = nn.Linear(4, 6), nn.Linear(6, 3)
    x = torch.randn(2, 4)
    # 0.5 z in a handwritten GELU is an affine operation of its own, to which an eps is twice as large: keep it small.
    maps = [RuleMap([("affine", rule)]) for rule in (Epsilon(1e-12), Gamma(0.5, 1e-12), ZPlus(1e-12))]
    maps.append(RuleMap([("first", Flat(1e-12)), ("affine", Epsilon(1e-12))]))
    for rules in maps:
        found = relevance(lambda x: fc2(by_hand(fc1(x))), x, rules, 1)
        close(found, relevance(lambda x: fc2(module(fc1(x))), x, rules, 1), TOLERANCES.get(name, 1e-9))


def test_a_functional_gelu_conserves() -> None:
    """Fails if a functional activation is the plain gradient (LXT: sum off by 49 %)."""
    fc1, fc2 = nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)
    found = relprop.explain(lambda x: fc2(F.gelu(fc1(x))), torch.randn(3, 4), 0, rules=Zero())
    close(found.relevance.sum(1), found.score, 1e-10)


# ---- modules for which other libraries have no rule


def test_flatten_identity_upsample_and_conv1d_modules_need_no_rule() -> None:
    """Captum: "Module of type ... has no rule". Piecewise linear, so LRP-0 is gradient x input."""
    model = nn.Sequential(
        nn.Identity(),
        nn.Conv1d(2, 4, 3, bias=False),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Dropout(0.3),
        nn.Unflatten(1, (2, 2)),
        nn.Flatten(1, 2),
        nn.ConstantPad1d(2, 0.0),
        nn.Upsample(size=5, mode="linear", align_corners=True),
        nn.Flatten(),
        nn.Linear(20, 3, bias=False),
    ).eval()
    x = torch.randn(2, 2, 8)
    close(relevance(model, x, target=2), gradient_x_input(model, x, 2), 1e-10)


@pytest.mark.parametrize(
    "module",
    [
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(size=(7, 5), mode="bicubic", align_corners=False),
        nn.PixelShuffle(2),
        nn.PixelUnshuffle(2),
        nn.ZeroPad2d(1),
        nn.ReflectionPad2d(1),
        nn.ReplicationPad2d(2),
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 1, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.LPPool2d(1, 2),
        nn.AdaptiveMaxPool2d(2),
        nn.AdaptiveAvgPool2d((3, 2)),
        nn.Unfold(2),
        nn.ChannelShuffle(2),
        nn.Dropout2d(0.5),
        nn.LeakyReLU(0.2),
        nn.PReLU(4),
        nn.RReLU(),
        nn.Hardtanh(-10, 10),
        nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1, bias=False),
        nn.Conv2d(4, 4, 2, padding="same", bias=False),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular", bias=False),
    ],
    ids=lambda m: repr(m)[:60],
)
def test_linear_and_selecting_modules_are_gradient_x_input(module: nn.Module) -> None:
    """Fails if a module of the standard library is unknown, or its relevance is not that of its values."""
    module = module.double().eval()
    x = torch.rand(2, 4, 4, 4) + 0.1

    def model(x: Tensor) -> Tensor:
        y = module(x).flatten(1)
        return (y * torch.linspace(-1, 2, y.shape[1]))[:, ::3].sum(1, keepdim=True)

    close(relevance(model, x), gradient_x_input(model, x, 0), 1e-10)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_zero_padding_by_a_module_is_the_convolutions_own(preset: str) -> None:
    """Fails if the rules of the first layer hand relevance to padding, from where it reaches no input."""
    conv, rest = nn.Conv2d(1, 3, 3, bias=False), nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(75, 2))
    own = nn.Conv2d(1, 3, 3, padding=1, bias=False)
    own.weight = conv.weight
    x = torch.randn(2, 1, 5, 5)
    expected = relprop.explain(nn.Sequential(own, rest).eval(), x, 1, rules=preset, bounds=BOUNDS)
    found = relprop.explain(nn.Sequential(nn.ZeroPad2d(1), conv, rest).eval(), x, 1, rules=preset, bounds=BOUNDS)
    balance = found.conservation
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9)
    close(found.relevance, expected.relevance, 1e-9)


# ---- several explanations at a time


def test_two_forwards_before_one_backward_do_not_meet() -> None:
    """Fails if what a forward remembers is kept on the model (Zennit, Captum): two explanations interleaved.

    The outer target function explains the same model for another input in the middle of its own forward.
    """
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    inner: list[Tensor] = []

    def target(output: Tensor) -> Tensor:
        inner.append(relevance(model, b, Gamma(0.5), 1))
        return output[:, 0]

    outer = relevance(model, a, Epsilon(1e-3), target)
    close(outer, relevance(model, a, Epsilon(1e-3), 0))
    close(inner[0], relevance(model, b, Gamma(0.5), 1))


def test_two_forwards_of_a_model_inside_one_explanation() -> None:
    """f(x) - f(-x) with f(x) = relu(2 x), x = (3, -1): 6 at the first, 2 (from -x = 1) at the second."""
    f = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(inplace=True)).eval()
    with torch.no_grad():
        f[0].weight.fill_(2)
    close(relevance(lambda x: f(x[:, :1]) + f(-x[:, 1:]), row(3, -1)), [6, 2])
    close(relevance(lambda x: f(x) - f(-x), row(3)), [6])
    close(relevance(lambda x: f(x) - f(-x), row(-3)), [-6])


# ---- the model is left as it was


class Interrupted(nn.Module):
    """Raises in the middle of its forward pass when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        if self.fail:
            raise KeyError("the model's own error")
        return x


@dataclass(frozen=True)
class Broken(Rule):
    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        raise ZeroDivisionError("the rule's own error")


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), Interrupted(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2),
    )  # fmt: skip


def explain_well(model: nn.Module, x: Tensor) -> None:
    for preset in PRESETS:
        relprop.explain(model, x, 0, rules=preset, bounds=BOUNDS, layers=["0", "1", "5"])
    relprop.explain(model, x, 0, rules="epsilon-plus").conservation  # noqa: B018
    relprop.check(model, x)
    relprop.Explainer(model).compare(x, ["epsilon", "gamma"])


def raise_in_forward(model: nn.Module, x: Tensor) -> None:
    model[3].fail = True
    with pytest.raises(KeyError, match="own error"):
        relprop.explain(model, x, 0, layers=["0", "5"])
    model[3].fail = False


def raise_in_a_rule(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ZeroDivisionError, match="own error"):
        relprop.explain(model, x, 0, rules=[("conv", Broken()), ("linear", Zero())], layers=["0", "5"])


def raise_unsupported(model: nn.Module, x: Tensor) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.matrix_exp(torch.diag_embed(self.inner(x))).flatten(1)

    with pytest.raises(UnsupportedFunction, match=r"matrix_exp"):
        relprop.explain(Outer().eval(), x, 0, layers=["inner.0"])


def raise_for_the_layers(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(RelpropError, match="no module named"):
        relprop.explain(model, x, 0, layers=["0", "5", "nowhere"])


def raise_for_the_target(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(RelpropError, match="out of range"):
        relprop.explain(model, x, 17, layers=["0"])


def raise_in_the_target(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(IndexError):
        relprop.explain(model, x, lambda output: output[:, 17], layers=["0"])


WAYS = [
    explain_well,
    raise_in_forward,
    raise_in_a_rule,
    raise_unsupported,
    raise_for_the_layers,
    raise_for_the_target,
    raise_in_the_target,
]
HOOKS = [name for name in vars(nn.Identity()) if name.endswith("_hooks")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_of_the_model_is_changed(way: Callable[[nn.Module, Tensor], None]) -> None:
    """Fails if a parameter is replaced, a flag is flipped, a buffer written, or a hook left behind."""
    model, x = small_net().eval(), torch.randn(2, 1, 6, 6)
    model[0].weight.requires_grad_(False)
    model[8].bias.grad = torch.ones(2)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    versions = {k: v._version for k, v in model.state_dict().items()}
    parameters = list(model.parameters())
    flags = [p.requires_grad for p in parameters]
    gradients = [p.grad for p in parameters]
    attributes = {name: dict(vars(m)) for name, m in model.named_modules()}
    output = model(x)

    way(model, x)

    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    assert [p.requires_grad for p in parameters] == flags
    assert all(p.grad is g for p, g in zip(parameters, gradients, strict=True))
    assert all(p.is_leaf for p in parameters)
    assert {k: v._version for k, v in model.state_dict().items()} == versions
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert {name: dict(vars(m)) for name, m in model.named_modules()} == attributes
    assert not any(getattr(m, hooks) for m in model.modules() for hooks in HOOKS)
    assert not any(m.training for m in model.modules())
    assert torch.equal(model(x), output)
    assert torch.is_grad_enabled()
    torch.nn.functional.linear(x, torch.ones(2, 6))  # no interception is left on


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_an_optimizer_made_before_still_trains(way: Callable[[nn.Module, Tensor], None]) -> None:
    """Fails if the parameters that the optimizer holds are no longer the model's (Zennit 1.0)."""
    model, x, y = small_net(), torch.randn(8, 1, 6, 6), torch.tensor([0, 1] * 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    before = [p.detach().clone() for p in model.parameters()]

    def step() -> float:
        model.train()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.eval()
        return loss.item()

    first = step()
    way(model, x)
    losses = [step() for _ in range(15)]
    assert losses[-1] < first
    assert all(not torch.equal(p, b) for p, b in zip(list(model.parameters())[-4:], before[-4:], strict=True))


def test_training_goes_the_same_way_with_explanations_in_between() -> None:
    """Fails if an explanation leaves a gradient, a random number drawn, or a statistic moved."""
    x, y = torch.randn(8, 1, 6, 6), torch.tensor([0, 1] * 4)
    start = small_net()

    def train(between: Callable[[nn.Module], Any]) -> dict[str, Tensor]:
        torch.manual_seed(3)
        model = copy.deepcopy(start)
        model.insert(6, nn.Dropout(0.5))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(4):
            between(model.eval())
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return model.state_dict()

    plain = train(lambda model: None)
    found = train(lambda model: relprop.explain(model, x, 0, rules="epsilon-plus-flat", layers=["0"]))
    assert all(torch.equal(found[k], plain[k]) for k in plain)


# ---- zeros, NaN, infinities

ZEROS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {}


def zero_case(build: Callable[[], tuple[nn.Module, Tensor]]) -> Callable[[], tuple[nn.Module, Tensor]]:
    ZEROS[build.__name__] = build
    return build


@zero_case
def an_input_of_zeros() -> tuple[nn.Module, Tensor]:
    return small_net(), torch.zeros(2, 1, 6, 6)


@zero_case
def an_input_of_zeros_without_biases() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2, bias=False))
    return model, torch.zeros(2, 1, 6, 6)


@zero_case
def weights_of_zeros() -> tuple[nn.Module, Tensor]:
    model = small_net()
    for p in model.parameters():
        nn.init.zeros_(p)
    return model, torch.randn(2, 1, 6, 6)


@zero_case
def one_layer_of_zeros() -> tuple[nn.Module, Tensor]:
    model = small_net()
    nn.init.zeros_(model[6].weight)
    return model, torch.randn(2, 1, 6, 6)


@zero_case
def a_dead_layer() -> tuple[nn.Module, Tensor]:
    model = small_net()
    nn.init.constant_(model[1].bias, -100)
    return model, torch.randn(2, 1, 6, 6)


@zero_case
def a_dead_channel_of_a_batch_norm() -> tuple[nn.Module, Tensor]:
    model = small_net()
    with torch.no_grad():
        model[1].weight[1] = 0
        model[1].bias[1] = 0
    return model, torch.randn(2, 1, 6, 6)


@zero_case
def a_sum_that_cancels() -> tuple[nn.Module, Tensor]:
    class Cancels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1, bias=False)
            self.fc = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.conv(x)
            return self.fc(F.relu(h - h).mean((2, 3)) + (h - h.clone()).sum((2, 3)))

    return Cancels(), torch.randn(2, 1, 4, 4)


@zero_case
def opposite_weights() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1.0], [2.0, -2.0], [0.0, 0.0]]))
        model[0].bias.zero_()
    return model, torch.ones(2, 2)


@zero_case
def a_layer_norm_of_a_constant() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    nn.init.ones_(model[0].weight)
    nn.init.ones_(model[0].bias)
    return model, torch.ones(2, 3)


@pytest.mark.parametrize("preset", [*PRESETS, "auto"])
@pytest.mark.parametrize("case", ZEROS)
def test_zero_denominators_give_no_nan(case: str, preset: str) -> None:
    """Fails if 0/0 is computed anywhere, also in the report."""
    model, x = ZEROS[case]()
    model.eval()
    found = relprop.explain(model, x, 0, rules=preset, bounds=BOUNDS)
    assert bool(torch.isfinite(found.relevance).all())
    assert all(math.isfinite(op.received) and math.isfinite(op.passed) for op in found.conservation.operations)


@pytest.mark.parametrize("case", ZEROS)
def test_zero_denominators_give_no_nan_without_any_stabiliser(case: str) -> None:
    """Fails if a rule needs eps to avoid 0/0."""
    model, x = ZEROS[case]()
    model.eval()
    for rule in (Zero(), Epsilon(0.0), Gamma(0.5, eps=0.0), ZPlus(eps=0.0)):
        assert bool(torch.isfinite(relevance(model, x, rule, 0)).all()), rule


def test_minus_infinity_in_a_final_masked_softmax_is_peeled() -> None:
    """Fails if the softmax's mask is differentiated: -inf times 0 is NaN. y_0 = 2 x_0 is what is explained."""

    def model(x: Tensor) -> Tensor:
        return (2 * x).masked_fill(torch.tensor([False, False, True]), -math.inf).softmax(-1)

    found = relprop.explain(model, row(3, -1, 5), 0, rules=ANYWHERE)
    close(found.score, [6])
    close(found.relevance, [6, 0, 0])


def test_minus_infinity_in_a_softmax_inside_gives_no_nan() -> None:
    """Masked attention weights are zero; what is masked gets nothing."""
    mask = torch.tensor([[0.0, -math.inf, 0.0]])

    def model(x: Tensor) -> Tensor:
        weights = (x + mask).softmax(-1)
        return (weights * x.detach().abs()).sum(-1, keepdim=True)

    found = relevance(model, row(0.5, 3, -1))
    assert bool(torch.isfinite(found).all())
    assert found[0, 1] == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_in_input_parameter_or_score_is_an_error(bad: float) -> None:
    """Fails if a map of NaN is returned (captum #1138, #1180; LXT #29)."""
    model, x = small_net().eval(), torch.randn(2, 1, 6, 6)
    broken = x.clone()
    broken[0, 0, 2, 2] = bad
    with pytest.raises(relprop.errors.NonFinite, match="NaN or infinite"):
        relprop.explain(model, broken)
    with torch.no_grad():
        model[8].bias[0] = bad
    with pytest.raises(relprop.errors.NonFinite, match="score of sample 0"):
        relprop.explain(model, x, 0)
