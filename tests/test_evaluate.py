"""Does the measuring hold? Cases whose answers can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import relprop
from relprop import errors
from relprop.evaluate import pixel_flipping, toy, toy_training, word_deletion
from relprop.evaluate.__main__ import app
from relprop.evaluate.deletion import delete
from relprop.evaluate.flipping import aopc
from relprop.evaluate.measurement import Curves, Table, leads, with_error
from relprop.evaluate.reviews import written_words

# Word n of this vocabulary speaks for class 1 by WEIGHTS[n]; 0 is padding.
WEIGHTS = torch.tensor([0.0, 1.0, 2.0, 4.0, -1.0, -2.0, -4.0])


def bag_of_words(ids: Tensor) -> Tensor:
    """Scores (batch, 2): class 1 wins where the weights of the words sum to more than 0, or if there are none."""
    total = WEIGHTS[ids].sum(1)
    return torch.stack([-total, total + 0.5], 1)


def weights_for(ids: Tensor, target: Tensor) -> Tensor:
    """The true contribution of each word to its class."""
    return WEIGHTS[ids] * (2 * target - 1)[:, None]


IDS = torch.tensor(
    [
        [3, 2, 4, 1],  # 4 + 2 - 1 + 1: positive, until 3 and 2 are gone, when 1 - 1 is left: score 0.5 wins still
        [3, 5, 2, 4],  # 4 - 2 + 2 - 1: without 3: -1, negative
        [6, 1, 5, 2],  # -4 + 1 - 2 + 2: negative; without 6: 1, positive
        [3, 4, 1, 2],  # 6, labelled negative: falsely; the evidence against the truth is 3, 2, 1
    ]
)
LABELS = torch.tensor([1, 1, 0, 0])


def test_words_are_deleted_from_the_most_relevant_on_and_from_mistakes_from_the_least_relevant_on() -> None:
    found = word_deletion(bag_of_words, IDS, LABELS, {"true": weights_for}, max_deletions=3, random_orders=0)
    assert found.samples == (3, 1)
    assert found.accuracy == 0.75
    # After one: right, wrong, wrong. After two (3, 2): right; (3, 2): wrong; (6, 5): wrong. After three: [4]: wrong.
    assert found.correct.values["true"] == pytest.approx((1, 1 / 3, 1 / 3, 0))
    # The words 3, 2, 1 go: 2 and -1 are left, then -1 + 1, then -1.
    assert found.false.values["true"] == (0, 0, 0, 1)


def test_a_worse_order_deletes_other_words() -> None:
    opposite = word_deletion(
        bag_of_words, IDS, LABELS, {"opposite": lambda x, t: -weights_for(x, t)}, max_deletions=2, random_orders=0
    )
    assert opposite.correct.values["opposite"] == (1, 1, 1)
    assert opposite.false.values["opposite"] == (0, 0, 0)


def test_relevance_that_is_there_already_is_the_same_as_a_function() -> None:
    there = weights_for(IDS, LABELS)
    found = word_deletion(bag_of_words, IDS, LABELS, {"function": weights_for, "there": there}, max_deletions=3)
    assert found.correct.values["there"] == found.correct.values["function"]
    assert found.false.values["there"] == found.false.values["function"]


def test_samples_of_different_lengths_get_what_they_get_alone() -> None:
    """Fails if batches by length mix up samples, labels or given relevance."""
    chance = torch.Generator().manual_seed(0)
    samples = [torch.randint(1, 7, (int(n),), generator=chance) for n in torch.randint(3, 9, (40,), generator=chance)]
    labels = torch.randint(0, 2, (40,), generator=chance)
    there = [weights_for(s[None], y[None])[0] for s, y in zip(samples, labels, strict=True)]

    def measured(rows: list[int], **options: Any) -> Any:
        return word_deletion(
            bag_of_words,
            [samples[i] for i in rows],
            labels[rows],
            {"function": weights_for, "there": [there[i] for i in rows]},
            max_deletions=3,
            random_orders=0,
            **options,
        )

    together = measured(list(range(40)), batch_size=7)
    hits = torch.zeros(2, 4)
    for i in range(40):
        alone = measured([i])
        hits += torch.tensor([alone.correct.values["there"], alone.false.values["there"]])
    sizes = torch.tensor(together.samples)[:, None]
    for name in ("function", "there"):
        curves = torch.tensor([together.correct.values[name], together.false.values[name]])
        torch.testing.assert_close(curves * sizes, hits)


def test_short_samples_are_left_out_and_most_limits_each_kind() -> None:
    samples = [torch.tensor([3]), *IDS]
    labels = [1, *LABELS.tolist()]
    found = word_deletion(bag_of_words, samples, labels, {"true": weights_for}, max_deletions=3, most=2)
    assert found.samples == (2, 1)
    assert found.accuracy == 0.8  # of all five


def test_the_floor_is_the_mean_over_random_orders() -> None:
    """Of four words one decides: after one deletion a quarter of the orders have hit it."""
    ids = torch.tensor([[3, 4, 4, 4]]).repeat(50, 1)
    found = word_deletion(bag_of_words, ids, torch.ones(50, dtype=torch.long), {"true": weights_for}, max_deletions=1)
    assert found.correct.values["true"] == (1, 0)
    assert found.correct.values["random"][1] == pytest.approx(0.75, abs=0.06)  # 500 draws
    again = word_deletion(bag_of_words, ids, torch.ones(50, dtype=torch.long), {"true": weights_for}, max_deletions=1)
    assert again == found


def test_deleting_zeroes_or_closes_the_gap() -> None:
    ids = torch.tensor([[5, 6, 7, 0], [1, 2, 3, 4]])
    deleted = torch.tensor([[True, False, False, False], [False, True, False, True]])
    assert delete(ids, deleted).tolist() == [[0, 6, 7, 0], [1, 0, 3, 0]]
    assert delete(ids, deleted, "remove").tolist() == [[6, 7, 0, 0], [1, 3, 0, 0]]
    values = torch.arange(1.0, 9).reshape(1, 4, 2)
    deleted = torch.tensor([[True, False, True, False]])
    assert delete(values, deleted).tolist() == [[[0, 0], [3, 4], [0, 0], [7, 8]]]
    assert delete(values, deleted, "remove").tolist() == [[[3, 4], [7, 8], [0, 0], [0, 0]]]


class Pooled(nn.Module):
    """Class 1 scores the sum over time of w x."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).sum(1)  # type: ignore[no-any-return]


def test_time_steps_of_values_are_deleted_by_lrp() -> None:
    """On a linear model LRP finds the time steps that decide; the order it gives is that of w x."""
    torch.manual_seed(0)
    model, x = Pooled().eval(), torch.randn(30, 6, 3)
    labels = model(x).argmax(1)
    difference = model.linear.weight.detach()[1] - model.linear.weight.detach()[0]

    def exact(x: Tensor, target: Tensor) -> Tensor:
        return (
            x @ model.linear.weight.detach()[0] * (1 - target)[:, None]
            + x @ model.linear.weight.detach()[1] * target[:, None]
        )

    found = word_deletion(
        model, x, labels, {"lrp": relprop.Explainer(model, "epsilon"), "exact": exact}, max_deletions=4
    )
    assert found.samples == (30, 0)
    assert found.correct.values["lrp"] == found.correct.values["exact"]
    assert found.correct.values["lrp"][2] < found.correct.values["random"][2] - 0.1
    assert [curves.title for curves in found.curves()] == [found.correct.title]  # nothing was classified falsely
    # What an order by the margin itself would reach after one deletion, worked out directly.
    margin = x @ difference
    sign = (2 * labels - 1)[:, None]
    best = ((margin * sign).sum(1) - (margin * sign).amax(1) > 0).double().mean()
    by_margin = word_deletion(model, x, labels, {"margin": margin * sign}, max_deletions=1)
    assert by_margin.correct.values["margin"][1] == pytest.approx(float(best))


def test_given_words_alone_may_be_deleted() -> None:
    ids = torch.tensor([[3, 1, 6, 5]])
    relevance = torch.tensor([[9.0, -7.0, 8.0, -1.0]])
    words = torch.tensor([[False, True, True, True]])
    seen: list[list[int]] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x[0].tolist())
        return torch.tensor([[0.0, 1.0]])

    word_deletion(model, ids, [1], {"given": relevance}, max_deletions=3, words=words, random_orders=0)
    assert seen == [[3, 1, 6, 5], [3, 1, 0, 5], [3, 1, 0, 0], [3, 0, 0, 0]]


def test_words_of_several_tokens_are_deleted_whole_by_their_summed_relevance() -> None:
    """Word 7 is at places 1 and 2 (5 - 2 = 3), word 2 at 3 (4), word 9 at 4 and 6 (1 + 1 = 2); 0 and 5 stay."""
    ids = torch.tensor([[3, 1, 6, 5, 2, 4, 1]])
    relevance = torch.tensor([[90.0, 5.0, -2.0, 4.0, 1.0, 80.0, 1.0]])
    words = torch.tensor([[-1, 7, 7, 2, 9, -1, 9]])
    seen: list[list[int]] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x[0].tolist())
        return torch.tensor([[0.0, 1.0]])

    word_deletion(model, ids, [1], {"given": relevance}, max_deletions=3, words=words, random_orders=0)
    assert seen == [[3, 1, 6, 5, 2, 4, 1], [3, 1, 6, 0, 2, 4, 1], [3, 0, 0, 0, 2, 4, 1], [3, 0, 0, 0, 0, 4, 0]]
    with pytest.raises(errors.InvalidInput, match="max_deletions=3"):
        word_deletion(model, ids, [1], {"given": relevance}, max_deletions=4, words=words)


def test_random_orders_are_orders_of_words_not_of_tokens() -> None:
    """Of two words the one that decides has one token, the other nine: each is first in half of the orders."""
    ids = torch.tensor([[3, *[4] * 9]]).repeat(60, 1)
    words = torch.tensor([[0, *[1] * 9]]).repeat(60, 1)
    found = word_deletion(
        lambda x: torch.stack([torch.full((len(x),), 0.5), (x == 3).sum(1).float()], 1),
        *(ids, [1] * 60, {"any": words.double()}),
        max_deletions=1,
        words=words,
    )
    assert found.correct.values["any"] == (1, 1)
    assert found.correct.values["random"][1] == pytest.approx(0.5, abs=0.08)  # 600 draws


def test_the_lead_of_the_first_explanation_is_paired() -> None:
    """1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7, error sqrt(7 / 3) = 1.528; less 0, 2, 4 leaves 1, 0, 2."""
    assert with_error([1.0, 2.0, 6.0]) == "3.000 ± 1.528"
    assert with_error([2.0]) == "2.000"
    assert leads({"a": [1.0, 2.0, 6.0], "b": [0.0, 2.0, 4.0], "c": [2.0, 3.0, 7.0]}) == {
        "a": "-",
        "b": "1.000 ± 0.577",
        "c": "-1.000 ± 0.000",
    }


def test_mean_accuracies_say_what_is_ahead() -> None:
    """Of IDS the true order leaves (1 1 0 0), (1 0 0 0), (1 0 0 0) of the correct and makes (0 0 0 1) of the false."""
    found = word_deletion(
        bag_of_words,
        *(IDS, LABELS, {"true": weights_for, "opposite": lambda x, t: -weights_for(x, t)}),
        max_deletions=3,
        random_orders=0,
    )
    assert found.correct.areas["true"] == pytest.approx((0.75, 0.25, 0.25))
    assert found.false.areas["true"] == (0.25,)
    title, head, (true, opposite) = found.tables()[-1].title, found.tables()[-1].columns, found.tables()[-1].rows
    assert "0 to 3" in title
    assert head == ("", "classified correctly", "lead of true", "classified falsely", "lead of true")
    assert true == ("true", "0.417 ± 0.167", "-", "0.250", "-")
    assert found.correct.areas["opposite"] == (1, 1, 1)  # lower is better here: true is ahead by 1 - 0.417
    assert opposite == ("opposite", "1.000 ± 0.000", "0.583 ± 0.167", "0.000", "0.250")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [1, 1]}, "labels"),
        ({"labels": [0.5, 1.0, 0.0, 1.0]}, "labels"),
        ({"explanations": {}}, "explanations"),
        ({"explanations": {"a": torch.zeros(3, 4)}}, "3 samples of 4"),
        ({"explanations": {"a": torch.zeros(4, 5)}}, "shape"),
        ({"explanations": {"a": "lrp"}}, "'a'"),
        ({"max_deletions": 5}, "max_deletions=4"),
        ({"max_deletions": 0}, "max_deletions"),
        ({"deletion": "mask"}, "deletion"),
        ({"random_orders": -1}, "random_orders"),
        ({"words": torch.ones(4, 4)}, "words"),
        ({"model": lambda x: x.float().sum(1)}, "for each class"),
        ({"x": torch.tensor(3)}, "x:"),
    ],
)
def test_what_can_not_be_measured_is_said(change: dict[str, Any], message: str) -> None:
    given = {"model": bag_of_words, "x": IDS, "labels": LABELS, "explanations": {"a": weights_for}} | change
    given.setdefault("max_deletions", 2)
    with pytest.raises(errors.InvalidInput, match=message):
        word_deletion(**given)  # type: ignore[arg-type]


def test_relevance_that_orders_nothing_and_models_in_training_are_refused() -> None:
    with pytest.raises(errors.NonFinite, match="'a'"):
        word_deletion(bag_of_words, IDS, LABELS, {"a": torch.full((4, 4), torch.nan)}, max_deletions=2)
    with pytest.raises(errors.TrainingMode):
        word_deletion(Pooled().train(), torch.ones(2, 4, 3), [0, 1], {"a": torch.ones(2, 4)}, max_deletions=2)


def four_pixels(x: Tensor) -> Tensor:
    """Class 0 scores 1 a + 2 b + 4 c + 8 d of a picture [[a, b], [c, d]], class 1 nothing."""
    score = (x.flatten(1) * torch.tensor([1.0, 2.0, 4.0, 8.0])).sum(1)
    return torch.stack([score, torch.zeros_like(score)], 1)


def test_aopc_by_hand() -> None:
    """AOPC = 1/(L+1) sum_k f(x_0) - f(x_k): 15 falls by 0, 8, 12, 14, 15 from the largest on, 0, 1, 3, 7, 15 back."""
    x = torch.ones(1, 1, 2, 2)
    relevance = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    found = pixel_flipping(four_pixels, x, {"true": relevance}, region=1, fill=0.0, random_orders=0)
    assert found.most.values["true"] == (15, 7, 3, 1, 0)
    assert found.least.values["true"] == (15, 14, 12, 8, 0)
    assert found.aopc_most["true"] == pytest.approx((8 + 12 + 14 + 15) / 5)
    assert found.aopc_least["true"] == pytest.approx((1 + 3 + 7 + 15) / 5)
    two = pixel_flipping(four_pixels, x, {"true": relevance}, region=1, steps=2, fill=0.0, random_orders=0)
    assert two.aopc_most["true"] == pytest.approx((8 + 12) / 3)
    assert aopc((3.0, 1.0)) == 1.0


def test_areas_of_two_orders_are_compared_picture_by_picture() -> None:
    """The second picture is twice the first, so its areas are too: differences of 23 / 5 and 46 / 5."""
    x = torch.stack([torch.ones(1, 2, 2), 2 * torch.ones(1, 2, 2)])
    order = torch.tensor([[[1.0, 2.0], [4.0, 8.0]]]).repeat(2, 1, 1, 1)
    found = pixel_flipping(
        four_pixels, x, {"true": order, "none": 0 * order}, region=1, fill=0.0, batch_size=1, random_orders=0
    )
    assert found.differences["true"] == pytest.approx((4.6, 9.2))
    assert found.differences["none"] == (0, 0)  # the same order for both
    (table,) = found.tables()
    assert table.columns[-2:] == ("difference", "lead of true")
    assert [row[-2:] for row in table.rows] == [("6.900 ± 2.300", "-"), ("0.000 ± 0.000", "6.900 ± 2.300")]


def test_the_explained_class_is_followed() -> None:
    """By default each picture's own highest, else the targets; as a probability if asked for."""
    x = torch.stack([torch.ones(1, 2, 2), -torch.ones(1, 2, 2)])  # the second is of class 1, whose score stays 0
    relevance = torch.arange(4.0).reshape(1, 1, 2, 2).repeat(2, 1, 1, 1)
    options: dict[str, Any] = {"region": 1, "fill": 0.0, "random_orders": 0}
    own = pixel_flipping(four_pixels, x, {"a": relevance}, **options)
    assert own.most.values["a"] == (7.5, 3.5, 1.5, 0.5, 0)
    given = pixel_flipping(four_pixels, x, {"a": relevance}, torch.tensor([0, 0]), **options)
    assert given.most.values["a"] == (0, 0, 0, 0, 0)
    share = pixel_flipping(four_pixels, x[:1], {"a": relevance[:1]}, **options, probabilities=True)
    assert share.most.values["a"][-1] == pytest.approx(0.5)


def test_regions_hold_the_sum_of_their_pixels_over_all_channels() -> None:
    """A 3 x 5 picture in regions of 2 x 2, cut off at two borders: six of them, the right column of 2 and of 1."""
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x[0, 0].clone())
        return torch.tensor([[1.0, 0.0]])

    relevance = torch.zeros(1, 2, 3, 5)
    relevance[0, 0, 0, 0], relevance[0, 1, 1, 1] = 2.0, 2.0  # together 4
    relevance[0, 0, 2, 4] = 3.0
    relevance[0, :, 0, 2] = torch.tensor([5.0, -4.0])  # together 1
    pixel_flipping(model, torch.ones(1, 2, 3, 5), {"a": relevance}, region=2, steps=3, fill=0.0, random_orders=0)
    one, two, three = seen[2:5]  # before them, the classes and the picture as it is
    assert one.tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert two.tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert three.tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 0]]


def test_what_pixels_are_replaced_by() -> None:
    x = torch.tensor([[[[0.0, 4.0]], [[1.0, 1.0]]]])
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return torch.tensor([[1.0, 0.0]])

    def last(**options: Any) -> Tensor:
        seen.clear()
        pixel_flipping(model, x, {"a": x}, region=1, random_orders=0, **options)
        return seen[-1]

    assert last(fill="mean").tolist() == [[[[2, 2]], [[1, 1]]]]
    assert last(fill=-3.0).tolist() == [[[[-3, -3]], [[-3, -3]]]]
    drawn = last(bounds=(10.0, 11.0))
    assert bool(((drawn >= 10) & (drawn <= 11)).all())
    assert len(drawn.unique()) == 4
    assert torch.equal(last(bounds=(10.0, 11.0)), drawn)
    assert not torch.equal(last(bounds=(10.0, 11.0), seed=1), drawn)
    within = last()  # without bounds, those of the pictures
    assert bool(((within >= 0) & (within <= 4)).all())


def test_lrp_finds_the_pixels_of_digits_better_than_chance() -> None:
    from relprop import zoo

    model, x = zoo.load("mnist-cnn"), zoo.digits()[0][::10]
    found = pixel_flipping(
        model, x, {"lrp": relprop.Explainer(model)}, region=4, steps=10, bounds=(-1.0, 1.0), random_orders=3
    )
    assert found.aopc_most["lrp"] > 1.5 * found.aopc_most["random"]
    assert found.aopc_least["lrp"] < 0.5 * found.aopc_least["random"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(2, 2)}, "x:"),
        ({"region": 3}, "region"),
        ({"steps": 5}, "1 to 4"),
        ({"fill": "black"}, "fill"),
        ({"random_orders": -1}, "random_orders"),
        ({"targets": torch.tensor([0, 1])}, "targets"),
        ({"explanations": {"a": torch.ones(1, 2, 2)}}, "'a'"),
    ],
)
def test_what_can_not_be_flipped_is_said(change: dict[str, Any], message: str) -> None:
    given = {"model": four_pixels, "x": torch.ones(1, 1, 2, 2), "explanations": {"a": torch.ones(1, 1, 2, 2)}} | change
    given.setdefault("region", 1)
    with pytest.raises(errors.InvalidInput, match=message):
        pixel_flipping(**given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> toy.Sequences:
    return toy.sequences(3000, torch.Generator().manual_seed(1))


def test_toy_sequences_are_what_the_task_says(data: toy.Sequences) -> None:
    x, lengths, places = data
    assert set(lengths.tolist()) == set(range(4, 11))
    assert bool((places[:, 0] < places[:, 1]).all())
    assert bool((places[:, 1] < lengths).all())
    assert bool(((data.numbers.abs() >= 0.5) & (data.numbers.abs() <= 1)).all())
    assert data.numbers.sign().mean().abs() < 0.05
    rows = torch.arange(len(x))[:, None]
    assert bool((x[rows, places, 0] == 0).all())
    rest = x.clone()
    rest[rows, places] = 0
    assert bool((rest[..., 1] == 0).all())
    inside = torch.arange(10) < lengths[:, None]
    assert bool((x[~inside] == 0).all())
    distractors = rest[..., 0][inside.scatter(1, places, False)]
    assert bool(((distractors >= 0.5) & (distractors <= 1)).all())
    assert torch.equal(data.results(-1.0), data.numbers[:, 0] - data.numbers[:, 1])


def test_signed_distractors_differ_in_their_signs_only(data: toy.Sequences) -> None:
    signed = toy.sequences(3000, torch.Generator().manual_seed(1), signed=True)
    assert torch.equal(signed.x.abs(), data.x.abs())
    assert torch.equal(signed.numbers, data.numbers)
    distractors = signed.x[..., 0][signed.x[..., 0] != 0]
    assert distractors.sign().mean().abs() < 0.05


class Oracle(nn.Module):
    """Adds the second features, without any LSTM: explained exactly, R_a = n_a."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1].sum(1, keepdim=True)


def test_figures_of_a_network_that_adds_exactly(data: toy.Sequences) -> None:
    model = Oracle().eval()
    assert toy.error(model, data, 1.0) == pytest.approx(0, abs=1e-30)
    assert toy.error(model, data, -1.0) == pytest.approx(float((2 * data.numbers[:, 1]).square().mean()))
    for explain in (relprop.Explainer(model), relprop.Explainer(model, method="gradient_x_input")):
        found = toy.fidelity(explain, data, 1.0)
        assert (found.first, found.second, found.ratio) == pytest.approx((1, 1, 1))
    halved = toy.fidelity(lambda x, target: _scaled(relprop.explain(model, x, target), 0.5), data, 1.0)
    assert (halved.first, halved.ratio) == pytest.approx((1, 0.5))
    opposite = toy.fidelity(lambda x, target: relprop.explain(model, x, target), data, -1.0)
    assert opposite.second == pytest.approx(-1)


def _scaled(attribution: relprop.Attribution, factor: float) -> relprop.Attribution:
    assert isinstance(attribution.relevance, Tensor)
    attribution.relevance = attribution.relevance * factor
    return attribution


def test_correlation_is_pearsons() -> None:
    a, b = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert toy.correlation(a, b) == pytest.approx(float(torch.corrcoef(torch.stack([a, b]))[0, 1]))
    assert toy.correlation(a, torch.ones(50).double()) == 0.0


@pytest.mark.parametrize("biases", [False, True])
def test_the_trained_row_is_the_module(data: toy.Sequences, biases: bool) -> None:
    """The batched formulas of training and torch's own LSTM say the same."""
    row = torch.randn(toy_training.SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if not biases:
        row[list(toy_training.CONSTANTS)] = 0
    said = toy_training.outputs(row[None], data)[0]
    model = toy_training.as_module(row, biases)
    for length in (4, 7, 10):
        rows = data.lengths == length
        torch.testing.assert_close(model(data.x[rows, :length])[:, 0], said[rows], rtol=1e-12, atol=1e-12)


def test_signal_take_all_tells_the_numbers_of_a_trained_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ordering of Arras et al. 2019; fails if gates take relevance, or if initial states or biases count."""
    monkeypatch.setattr(toy_training, "STARTS", 2)
    (model,) = toy_training.train("addition", 1)
    found = toy.measure({"addition": [model]})
    assert found.errors["addition"][0] < 1e-4
    figures = {name: row[0] for name, row in found.figures["addition"].items()}
    exact = figures["signal-take-all"]
    assert exact.first > 0.99
    assert exact.second > 0.99
    assert exact.ratio == pytest.approx(1, abs=0.03)
    assert figures["occlusion"].ratio == pytest.approx(1, abs=0.03)
    for name in ("half", "absolute", "proportional"):
        assert figures[name].first < 0.9
        assert abs(figures[name].ratio) < 0.5
    assert "signal-take-all" in str(found)
    assert "| signal-take-all |" in found.to_markdown()


def test_training_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_training, "STARTS", 2)
    weights = [toy_training.train("addition", 1, converged=0.1, seed=3)[0].state_dict() for _ in range(2)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])


def test_too_few_converged_networks_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_training, "ITERATIONS", 1)
    monkeypatch.setattr(toy_training, "MOST_ROUNDS", 1)
    with pytest.raises(errors.RelpropError, match="of 3 networks learned subtraction"):
        toy_training.train("subtraction", 3)


def test_a_table_as_text_and_as_markdown() -> None:
    table = Table("Title", ("", "one", "two"), (("a", "1", "22"), ("long", "333", "4")))
    assert str(table) == "Title\n\n      one  two\na       1   22\nlong  333    4"
    assert table.to_markdown().splitlines()[2:] == [
        "|  | one | two |",
        "| :-- | --: | --: |",
        "| a | 1 | 22 |",
        "| long | 333 | 4 |",
    ]
    curves = Curves("Title", (0, 1), {"a": (1.0, 0.5)}, {"a": (0.75,)}, "deleted", "accuracy")
    assert curves.table() == Table("Title", ("deleted", "0", "1"), (("a", "1", "0.5"),))


def test_measurements_are_saved(tmp_path: Path) -> None:
    found = word_deletion(bag_of_words, IDS, LABELS, {"true": weights_for}, max_deletions=3)
    for name in ("a.png", "a.svg", "a.json", "a.md"):
        found.save(tmp_path / name)
    assert Image.open(tmp_path / "a.png").size[0] > 600
    assert "words deleted" in (tmp_path / "a.svg").read_text()
    assert json.loads((tmp_path / "a.json").read_text())["correct"]["values"]["true"] == list(
        found.correct.values["true"]
    )
    assert (tmp_path / "a.md").read_text() == found.to_markdown()
    first = (tmp_path / "a.svg").read_bytes()
    found.save(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes() == first
    with pytest.raises(errors.InvalidFile, match=r"a\.pdf"):
        found.save(tmp_path / "a.pdf")
    with pytest.raises(errors.InvalidFile, match="no curves"):
        toy.ToyFigures({}, {}).save(tmp_path / "toy.png")


def test_the_commands_print_and_save(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        [
            *["pixels", "--explanations", "epsilon,gradient", "--region", "7", "--steps", "3"],
            *["--out", str(tmp_path / "p.json")],
        ],
    )
    assert done.exit_code == 0, done.output
    assert "epsilon" in done.stdout
    figures = json.loads((tmp_path / "p.json").read_text())
    assert figures["samples"] == 100
    assert set(figures["aopc_most"]) == {"epsilon", "gradient", "random"}
    toyed = CliRunner().invoke(app, ["toy", "--task", "addition", "--networks", "1", "--error", "0.2", "--signed"])
    assert toyed.exit_code == 0, toyed.output
    assert "Addition, 1 network " in toyed.stdout
    assert "Subtraction" not in toyed.stdout
    refused = CliRunner().invoke(app, ["pixels", "--explanations", "epsilom"])
    assert refused.exit_code == 1
    assert "epsilom" in refused.output


def test_words_are_deleted_from_reviews_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each review with its own label: a model that finds "good" makes no mistake, and needs no other word."""
    from relprop import zoo
    from relprop.zoo.sentiment import network, tokenizer

    encode = tokenizer("reviews-en", "en")
    (good,) = encode.ids(["good"])
    model = network(len(encode.vocabulary)).eval()

    class FindsGood(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(len(encode.vocabulary), 1)
            with torch.no_grad():
                self.embedding.weight.zero_()[good] = 1.0

        def forward(self, ids: Tensor) -> Tensor:
            total = self.embedding(ids).sum(1)
            return torch.cat([0.5 - total, total - 0.5], 1)

    lines = ["text,label,source"]
    for n in range(8):
        lines += [f"a {'long ' * n}and good film,1,imdb", f"a {'long ' * n}and awful film,0,imdb"]
    data = tmp_path / "reviews.csv"
    data.write_text("\n".join(lines))
    command = ["words", "--data", str(data), "--deletions", "2", "--out", str(tmp_path / "w.json")]
    for chosen in (FindsGood().eval(), model):
        monkeypatch.setattr(zoo, "load", lambda name, chosen=chosen: chosen)
        done = CliRunner().invoke(app, [*command, "--explanations", "lrp,gradient_x_input"])
        assert done.exit_code == 0, done.output
        figures = json.loads((tmp_path / "w.json").read_text())
        assert sum(figures["samples"]) == 16
        if chosen is not model:
            assert figures["accuracy"] == 1.0
            assert figures["correct"]["values"]["lrp"] == [1.0, 0.5, 0.5]
            assert figures["correct"]["values"]["random"][1] > 0.75


@pytest.fixture
def sentence(tmp_path: Path) -> Path:
    data = tmp_path / "sentences.csv"
    data.write_text("text,label,source\ndon't miss this unforgettable film,1,rt\n")
    return data


def test_a_transformers_words_are_deleted_whole_and_its_special_tokens_stay(
    sentence: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relprop import zoo

    model = zoo.load("reviews-en-transformer")
    encoding = zoo.text_entry("reviews-en-transformer").tokenizer("don't miss this unforgettable film")
    numbers = written_words(encoding)
    assert numbers[:5].tolist() == [-1, 0, 0, 0, 1]  # [CLS] don ' t miss
    assert numbers[-2:].tolist() == [4, -1]  # film [SEP]
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.extend(given[0]))
    monkeypatch.setattr(zoo, "load", lambda name: model)
    command = ["words", "--model", "reviews-en-transformer", "--sentences", "--data", str(sentence)]
    options = ["--explanations", "attn-lrp", "--random-orders", "3", "--deletions", "5"]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    ids = torch.tensor(encoding.ids)
    left = set()
    for row in seen:
        kept = row == ids
        assert bool((kept | (row == 0)).all())
        assert set(numbers[kept].tolist()).isdisjoint(numbers[~kept].tolist())  # no word in part
        assert kept[[0, -1]].all()
        left.add(len(numbers[kept].unique()) - 1)
    assert left == {0, 1, 2, 3, 4, 5}


def test_there_are_no_korean_sentences(sentence: Path) -> None:
    pytest.importorskip("kiwipiepy")
    refused = CliRunner().invoke(app, ["words", "--model", "reviews-ko", "--sentences", "--data", str(sentence)])
    assert refused.exit_code == 1
    assert "--sentences" in refused.output


def test_on_the_vision_transformer_attn_lrp_finds_patches_better_than_gradients_and_chance() -> None:
    from relprop import zoo
    from relprop.evaluate.explanations import explainers

    model, x = zoo.load("mnist-vit"), zoo.digits()[0][::5]
    explained = explainers(model, ["attn-lrp", "gradient", "gradient_x_input"])
    found = pixel_flipping(model, x, explained, region=4, steps=12, bounds=(-1.0, 1.0), random_orders=2)
    ours = torch.tensor(found.differences["attn-lrp"])
    for name in ("gradient", "gradient_x_input", "random"):
        ahead = ours - torch.tensor(found.differences[name])
        assert ahead.mean() > 3 * ahead.std() / len(x) ** 0.5
