"""The scores that relprop.targets names are the ones a reader would pick from the output by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import relprop
from relprop import targets
from relprop.errors import InvalidTarget

BATCH, PLACES, CLASSES = 3, 5, 4


class Outputs(nn.Module):
    """A linear layer's outputs in the form of some head."""

    def __init__(self, form: Callable[[Tensor], Any], size: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(6, size)
        self.form = form
        self.double().eval()

    def forward(self, x: Tensor) -> Any:
        return self.form(self.linear(x))


def sequence(names: tuple[str, ...] = ()) -> Outputs:
    model = Outputs(lambda z: {"logits": z.view(-1, PLACES, CLASSES), "hidden": z}, PLACES * CLASSES)
    if names:
        model.labels = names
    return model


def edges() -> Outputs:
    return Outputs(lambda z: {"start_logits": z[:, :PLACES], "end_logits": z[:, PLACES:]}, 2 * PLACES)


def pairs() -> Outputs:
    return Outputs(lambda z: {"logits_per_image": z, "logits_per_text": z.T}, BATCH)


X = torch.randn(BATCH, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def same(model: nn.Module, target: Any, by_hand: Callable[[Any], Tensor]) -> None:
    """The target explains what the function picks."""
    found = relprop.explain(model, X, target, rules="epsilon")
    expected = relprop.explain(model, X, by_hand, rules="epsilon")
    assert torch.equal(found.score, by_hand(model(X)).detach())
    assert torch.allclose(found.relevance, expected.relevance, rtol=1e-12, atol=1e-14)
    assert found.relevance.abs().sum() > 0


class TestAt:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(-PLACES, PLACES - 1), st.integers(0, CLASSES - 1))
    def test_one_place_and_class_for_all(self, place: int, index: int) -> None:
        same(sequence(), targets.at(place, index), lambda o: o["logits"][:, place, index])
        same(sequence(), targets.next_token(index, place), lambda o: o["logits"][:, place, index])

    def test_the_last_place_is_the_default_of_next_token(self) -> None:
        same(sequence(), targets.next_token(2), lambda o: o["logits"][:, -1, 2])

    @pytest.mark.parametrize("places", [[0, 4, 2], torch.tensor([0, -1, 2])])
    def test_one_for_each_sample(self, places: Any) -> None:
        rows = torch.arange(BATCH)
        same(sequence(), targets.at(places, [3, 0, 1]), lambda o: o["logits"][rows, [0, 4, 2], [3, 0, 1]])

    def test_a_class_by_its_name(self) -> None:
        model = sequence(("O", "LOC", "PER", "ORG"))
        same(model, targets.at(1, "PER"), lambda o: o["logits"][:, 1, 2])

    def test_names_of_something_else_are_not_taken_for_those_of_tokens(self) -> None:
        same(sequence(("no", "yes")), targets.at(1, 3), lambda o: o["logits"][:, 1, 3])

    def test_a_softmax_at_the_end_is_left_out(self) -> None:
        model = Outputs(lambda z: z.view(-1, PLACES, CLASSES).softmax(-1), PLACES * CLASSES)
        found = relprop.explain(model, X, targets.at(1, 3), rules="epsilon")
        assert torch.allclose(found.score, model.linear(X).view(-1, PLACES, CLASSES)[:, 1, 3])

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            (targets.at(1), "say which class or token, as relprop.targets.at"),
            (targets.at(5, 1), "no position 5: the model scores 5, 0 to 4"),
            (targets.at(-6, 1), "no position -6"),
            (targets.at([0, 1], 1), "2 positions for a batch of 3"),
            (targets.at(True, 1), "no position True"),
            (targets.at(1, 4), "target 4 is out of range"),
            (targets.at("word", 1), "'word' is a word, which only explain_text can find"),
            (targets.next_token(" Paris"), r"tokenizer\(' Paris', add_special_tokens=False\).input_ids\[0\]"),
        ],
    )
    def test_what_is_not_there_is_said(self, target: Any, said: str) -> None:
        with pytest.raises(InvalidTarget, match=said):
            relprop.explain(sequence(), X, target)

    def test_a_model_without_positions(self) -> None:
        with pytest.raises(InvalidTarget, match="leave the position away"):
            relprop.explain(nn.Linear(6, 4).double().eval(), X, targets.at(1, 2))


class TestContrast:
    @pytest.mark.parametrize("pair", [(2, 1), ([2, 1, 0], [0, 0, 3])])
    def test_the_difference_of_two_scores(self, pair: tuple[Any, Any]) -> None:
        mine, other = (torch.tensor(each).expand(BATCH) for each in pair)
        rows = torch.arange(BATCH)
        model = Outputs(lambda z: z, CLASSES)
        same(model, targets.contrast(*pair), lambda o: o[rows, mine] - o[rows, other])

    def test_by_names_functions_and_places(self) -> None:
        model = Outputs(lambda z: z, CLASSES)
        model.labels = ("a", "b", "c", "d")
        same(model, targets.contrast("c", "a"), lambda o: o[:, 2] - o[:, 0])
        same(model, targets.contrast(lambda o: o[:, 3], "a"), lambda o: o[:, 3] - o[:, 0])
        both = targets.contrast(targets.next_token(3), targets.at(0, 1))
        same(sequence(), both, lambda o: o["logits"][:, -1, 3] - o["logits"][:, 0, 1])

    def test_logits_are_compared_not_probabilities(self) -> None:
        model = Outputs(lambda z: z.softmax(-1), CLASSES)
        found = relprop.explain(model, X, targets.contrast(2, 1), rules="epsilon")
        z = model.linear(X)
        assert torch.allclose(found.score, z[:, 2] - z[:, 1])

    @pytest.mark.parametrize("pair", [(None, 1), (1, None)])
    def test_both_sides_are_said(self, pair: tuple[Any, Any]) -> None:
        with pytest.raises(InvalidTarget, match=r"relprop\.targets\.contrast\(3, 5\)"):
            relprop.explain(Outputs(lambda z: z, CLASSES), X, targets.contrast(*pair))

    def test_other_methods_explain_it_too(self) -> None:
        model = Outputs(lambda z: z, CLASSES)
        found = relprop.explain(model, X, targets.contrast(2, 1), method="gradient_x_input")
        weight = model.linear.weight.detach()
        assert torch.allclose(found.relevance, X * (weight[2] - weight[1]), rtol=1e-12)


class TestAnswer:
    def test_start_and_end_add_up(self) -> None:
        same(edges(), targets.answer(1, 3), lambda o: o["start_logits"][:, 1] + o["end_logits"][:, 3])

    def test_one_of_them_alone(self) -> None:
        same(edges(), targets.answer(start=2), lambda o: o["start_logits"][:, 2])
        same(edges(), targets.answer(end=-1), lambda o: o["end_logits"][:, -1])

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            (targets.answer(), "say where it starts or ends"),
            (targets.answer(5), "no place 5: the model scores 5, 0 to 4"),
            (targets.answer("Paris"), "'Paris' is a word, which only explain_text can find"),
        ],
    )
    def test_what_is_not_there_is_said(self, target: Any, said: str) -> None:
        with pytest.raises(InvalidTarget, match=said):
            relprop.explain(edges(), X, target)

    def test_a_model_that_answers_nothing(self) -> None:
        with pytest.raises(InvalidTarget, match=r"needs start_logits.*output\['logits'\] \(3, 5, 4\)"):
            relprop.explain(sequence(), X, targets.answer(1))


class TestSimilarity:
    def test_each_picture_with_its_text(self) -> None:
        same(pairs(), targets.similarity(), lambda o: o["logits_per_image"].diagonal())

    def test_as_many_texts_as_pictures(self) -> None:
        model = Outputs(lambda z: {"logits_per_image": z}, 2)
        with pytest.raises(InvalidTarget, match="3 pictures for 2 texts"):
            relprop.explain(model, X, targets.similarity())


class TestAdvice:
    """A model whose scores are not one a class says which target to write."""

    @pytest.mark.parametrize(
        ("model", "said"),
        [
            (sequence(), r"output\['logits'\]\[:, position, 3\], or relprop\.targets\.at\(position, 3\).*next_token"),
            (Outputs(lambda z: z.view(-1, 1, 2, 2), 4), r"target=lambda output: output\[:, 3\]\.sum\(\(1, 2\)\)"),
            (edges(), r"relprop\.targets\.answer\(start, end\)"),
            (pairs(), r"relprop\.targets\.similarity\(\)"),
            (Outputs(lambda z: {"last_hidden_state": z.view(-1, 2, 2)}, 4), "no head.*AutoModelForSequenceClass"),
        ],
    )
    def test_the_line_to_write(self, model: nn.Module, said: str) -> None:
        with pytest.raises(InvalidTarget, match=said):
            relprop.explain(model, X)
