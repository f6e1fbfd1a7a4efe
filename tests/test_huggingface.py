"""Hugging Face's models, given what their tokenizers return: what carries relevance, what is left as it was."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_models import LABELS, bert, bpe, clip, gpt2, reloaded, t5, transformers, vit, wordpiece
from PIL import Image
from torch import Tensor, nn

import relprop
from relprop import targets
from relprop.errors import InvalidInput, InvalidTarget, UnsupportedModel

TEXTS = ["The film is wonderful.", "I did not like the plot of this film at all."]


def encoded(texts: str | list[str], **options: Any) -> Any:
    return wordpiece()(texts, return_tensors="pt", **options)


def classifier(**options: Any) -> Any:
    return bert("BertForSequenceClassification", id2label=LABELS, **options)


def by_embeddings(model: Any, ids: Tensor, score: Any, **beside: Any) -> Tensor:
    """(batch, tokens): gradient x input at the embeddings of the tokens, by autograd."""
    vectors = model.get_input_embeddings()(ids).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(score(model(inputs_embeds=vectors, **beside)).sum(), vectors)
    return (gradient * vectors).sum(-1).detach()


class TestInputs:
    def test_what_a_tokenizer_returns_is_taken_as_it_is(self) -> None:
        model, given = classifier(), encoded(TEXTS[0])
        assert not isinstance(given, dict)
        found = relprop.explain(model, given)
        assert torch.equal(found.output.logits, model(**given).logits.detach())
        assert isinstance(found.output, type(model(**given)))
        assert torch.equal(found.score, model(**given).logits.max(1).values.detach())
        assert found.relevance["input_ids"].shape == given["input_ids"].shape
        again = relprop.explain(model, dict(given))
        assert torch.equal(found.relevance["input_ids"], again.relevance["input_ids"])

    def test_ids_alone(self) -> None:
        model, ids = classifier(), encoded(TEXTS[0])["input_ids"]
        named = relprop.explain(model, {"input_ids": ids})
        assert torch.equal(relprop.explain(model, ids).relevance, named.relevance["input_ids"])

    def test_gradient_x_input_is_that_of_the_embeddings(self) -> None:
        model, given = classifier(), encoded(TEXTS, padding=True)
        found = relprop.explain(model, given, "MIXED", method="gradient_x_input")
        beside = {name: given[name] for name in ("attention_mask", "token_type_ids")}
        expected = by_embeddings(model, given["input_ids"], lambda out: out.logits[:, 2], **beside)
        assert torch.allclose(found.relevance["input_ids"], expected, rtol=1e-10, atol=1e-12)

    def test_masks_kinds_and_positions_carry_none(self) -> None:
        model, given = classifier(), encoded(TEXTS[0])
        plain = relprop.explain(model, {"input_ids": given["input_ids"]})
        places = torch.arange(given["input_ids"].shape[1])[None]
        full = {**given, "position_ids": places, "attention_mask": given["attention_mask"].double()}
        found = relprop.explain(model, full)
        assert set(found.relevance) == {"input_ids"}
        assert torch.allclose(found.relevance["input_ids"], plain.relevance["input_ids"], rtol=1e-10, atol=1e-14)
        assert found.conservation.relevance == pytest.approx(float(found.total.sum()))

    def test_token_types_reach_the_model_all_the_same(self) -> None:
        model, given = classifier(), encoded(TEXTS[0])
        other = {**given, "token_type_ids": torch.ones_like(given["token_type_ids"])}
        assert not torch.equal(relprop.explain(model, given, 0).score, relprop.explain(model, other, 0).score)
        assert torch.equal(relprop.explain(model, other, 0).score, model(**other).logits[:, 0].detach())

    def test_a_batch_with_padding_is_explained_as_each_text_alone(self) -> None:
        for attention in ("eager", "sdpa"):
            model = classifier(attn_implementation=attention)
            together = relprop.explain(model, encoded(TEXTS, padding=True), "POSITIVE")
            for row, text in enumerate(TEXTS):
                alone = relprop.explain(model, encoded(text), "POSITIVE")
                size = alone.relevance["input_ids"].shape[1]
                padded = together.relevance["input_ids"][row]
                assert torch.allclose(padded[:size], alone.relevance["input_ids"][0], rtol=0, atol=1e-12)
                assert torch.equal(padded[size:], torch.zeros_like(padded[size:]))

    def test_eager_and_fused_attention_agree(self) -> None:
        given = encoded(TEXTS, padding=True)
        eager, fused = (relprop.explain(classifier(attn_implementation=a), given, 1) for a in ("eager", "sdpa"))
        assert torch.allclose(eager.relevance["input_ids"], fused.relevance["input_ids"], rtol=0, atol=1e-10)

    def test_other_methods_see_the_masks_of_every_sample(self) -> None:
        model = classifier()
        together = relprop.explain(model, encoded(TEXTS, padding=True), 1, method="occlusion")
        alone = relprop.explain(model, encoded(TEXTS[0]), 1, method="occlusion").relevance["input_ids"]
        assert torch.allclose(together.relevance["input_ids"][:1, : alone.shape[1]], alone, atol=1e-12)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"past_key_values": object()}, "past_key_values, computed from tokens.*give all tokens"),
            ({"labels": torch.tensor([1])}, "labels, by which a model is trained; leave it away"),
        ],
    )
    def test_what_relevance_could_not_reach_is_refused(self, given: dict[str, Any], said: str) -> None:
        with pytest.raises(InvalidInput, match=said):
            relprop.explain(classifier(), {**encoded(TEXTS[0]), **given})

    def test_lists_in_place_of_tensors(self) -> None:
        with pytest.raises(InvalidInput, match='return_tensors="pt"'):
            relprop.explain(classifier(), wordpiece()(TEXTS[0]))

    def test_a_text(self) -> None:
        with pytest.raises(InvalidInput, match=r"relprop\.explain_text\(model, tokenizer, text\)"):
            relprop.explain(classifier(), TEXTS[0])


class TestModel:
    def test_nothing_is_left_on_it(self) -> None:
        model = classifier()
        before = copy.deepcopy(model.state_dict())
        relprop.explain(model, encoded(TEXTS[0]))
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_two_threads_give_it_different_masks(self) -> None:
        model = classifier()
        given = [encoded(text, padding="max_length", max_length=30) for text in TEXTS * 3]
        expected = [relprop.explain(model, each, 1).relevance["input_ids"] for each in given]
        found: list[Any] = [None] * len(given)

        def work(place: int) -> None:
            found[place] = relprop.explain(model, given[place], 1).relevance["input_ids"]

        threads = [threading.Thread(target=work, args=(place,)) for place in range(len(given))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))

    def test_no_keys_are_kept_of_a_language_model(self) -> None:
        ids = bpe()("Paris is the capital of", return_tensors="pt")
        model = gpt2()
        assert model(**ids).past_key_values is not None
        assert relprop.explain(model, ids, targets.next_token(7)).output.past_key_values is None

    def test_names_of_classes_are_those_of_the_head(self) -> None:
        found = relprop.explain(classifier(), encoded(TEXTS[0]), "MIXED")
        assert (found.label(), int(found.target)) == ("MIXED", 2)
        with pytest.raises(InvalidTarget, match="Did you mean 'POSITIVE'"):
            relprop.explain(classifier(), encoded(TEXTS[0]), "POSTIVE")
        assert relprop.Explainer(gpt2(id2label={0: "no", 1: "yes"})).labels is None

    def test_one_made_from_it(self) -> None:
        class Scored(transformers.BertPreTrainedModel):
            def __init__(self, config: Any) -> None:
                super().__init__(config)
                self.bert = transformers.BertModel(config)
                self.score = nn.Linear(config.hidden_size, 3)
                self.post_init()

            def forward(self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None) -> Any:
                return self.score(self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state[:, 0])

        model = Scored(classifier().config).double().eval()
        found = relprop.explain(model, encoded(TEXTS[0]), "POSITIVE")
        assert set(found.relevance) == {"input_ids"}
        assert torch.equal(found.score, model(**encoded(TEXTS[0]))[:, 1].detach())

    def test_a_head_of_ones_own_on_top_of_it(self) -> None:
        class Topped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder = bert("BertModel")
                self.head = nn.Linear(16, 2).double()

            def forward(self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None) -> Any:
                return self.head(self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state[:, 0])

        model, given = Topped().eval(), encoded(TEXTS, padding=True)
        found = relprop.explain(model, given, 1)
        assert set(found.relevance) == {"input_ids"}
        assert torch.equal(found.score, model(**given)[:, 1].detach())
        text = relprop.explain_text(model, wordpiece(), TEXTS[1], target=1)
        assert torch.allclose(text.relevance, found.relevance["input_ids"][1:], atol=1e-12)

    def test_explaining_other_models_does_not_import_transformers(self) -> None:
        code = """
import sys, torch, relprop
relprop.explain(torch.nn.Linear(2, 2).eval(), torch.ones(1, 2))
relprop.explain_text(torch.nn.EmbeddingBag(9, 2).eval(), lambda text: ([1, 2], ["a", "b"]), "a b")
assert "transformers" not in sys.modules
"""
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""

    def test_saved_and_read_again_it_explains_the_same(self, tmp_path: Path) -> None:
        model, given = classifier(), encoded(TEXTS[0])
        found, again = (relprop.explain(each, given) for each in (model, reloaded(model, tmp_path)))
        assert again.label() == found.label()
        assert torch.allclose(found.relevance["input_ids"], again.relevance["input_ids"], rtol=0, atol=1e-13)


class TestEncoderAndDecoder:
    def test_both_inputs_get_relevance(self) -> None:
        model = t5()
        given = {"input_ids": torch.tensor([[4, 9, 7, 1]]), "decoder_input_ids": torch.tensor([[0, 5, 6]])}
        found = relprop.explain(model, given, targets.next_token(8))
        by_hand = relprop.explain(model, given, lambda out: out.logits[:, -1, 8])
        assert {name: tuple(r.shape) for name, r in found.relevance.items()} == {
            "input_ids": (1, 4),
            "decoder_input_ids": (1, 3),
        }
        for name, relevance in found.relevance.items():
            assert torch.equal(relevance, by_hand.relevance[name])
            assert relevance.abs().sum() > 0
        assert torch.allclose(found.score, model(**given).logits[:, -1, 8], rtol=1e-13)


class TestPictures:
    def pipeline(self, **options: Any) -> Any:
        processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
        return transformers.pipeline("image-classification", model=vit().float(), image_processor=processor, **options)

    def picture(self, seed: int = 0) -> Image.Image:
        return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 20, 3), dtype=np.uint8))

    def test_pixel_values_by_place_and_by_name(self) -> None:
        model, pixels = vit(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
        found = relprop.explain(model, pixels, "dog")
        assert found.relevance.shape == pixels.shape
        named = relprop.explain(model, transformers.BatchFeature({"pixel_values": pixels}), "dog")
        assert torch.equal(found.relevance, named.relevance["pixel_values"])

    def test_a_pipeline_prepares_its_pictures(self) -> None:
        pipe = self.pipeline()
        pictures = [self.picture(0), self.picture(1).convert("L")]
        found = relprop.explain(pipe, pictures)
        pixels = pipe.image_processor(images=[p.convert("RGB") for p in pictures], return_tensors="pt")["pixel_values"]
        assert torch.equal(found.relevance, relprop.explain(pipe.model, pixels).relevance)
        said = pipe(pictures, top_k=1)
        assert [found.label(i) for i in range(2)] == [answers[0]["label"] for answers in said]
        assert torch.equal(found[0].relevance, relprop.explain(pipe, pictures[0]).relevance)

    def test_it_takes_tensors_too(self) -> None:
        pipe, pixels = self.pipeline(), torch.randn(1, 3, 16, 16)
        assert torch.equal(relprop.explain(pipe, pixels).relevance, relprop.explain(pipe.model, pixels).relevance)

    def test_anything_else_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match=r"got a str.*relprop\.explain\(pipeline, PIL\.Image\.open\(path\)\)"):
            relprop.explain(self.pipeline(), "cat.png")
        with pytest.raises(UnsupportedModel, match=r"has no tokenizer.*relprop\.explain\(pipeline, picture\)"):
            relprop.explain_text(self.pipeline(), "a cat")

    def test_a_processor_that_needs_torchvision(self) -> None:
        pipe = self.pipeline()

        class Fast:
            def __call__(self, **given: Any) -> Any:
                raise ImportError("torchvision\n" * 20)

        pipe.image_processor = Fast()
        with pytest.raises(UnsupportedModel, match=r"Fast needs torchvision.*backend=\"pil\"") as caught:
            relprop.explain(pipe, self.picture())
        assert len(str(caught.value)) < 300
        pipe.image_processor = None
        with pytest.raises(UnsupportedModel, match="has no image processor; make it with one"):
            relprop.explain(pipe, self.picture())


class TestPicturesAndTexts:
    """CLIP: the similarity is a product of two signals, each of which gets half of what it alone would get."""

    def given(self, size: int) -> dict[str, Tensor]:
        pixels = torch.randn(size, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return {**encoded(TEXTS[:size], padding=True), "pixel_values": pixels}

    def test_similarity_is_shared_by_halves(self) -> None:
        model, given = clip(), self.given(2)
        del given["token_type_ids"]
        found = relprop.explain(model, given, targets.similarity())
        assert {name: tuple(r.shape) for name, r in found.relevance.items()} == {
            "input_ids": tuple(given["input_ids"].shape),
            "pixel_values": (2, 3, 16, 16),
        }
        assert torch.equal(found.score, model(**given).logits_per_image.diagonal().detach())
        texts = {name: each for name, each in given.items() if name != "pixel_values"}
        pixels = given["pixel_values"]
        by_pixels = relprop.explain(
            lambda x: model(pixel_values=x, **texts).logits_per_image.diagonal()[:, None], pixels, rules="attn-lrp"
        )
        by_tokens = relprop.explain(
            lambda ids: model(
                input_ids=ids, attention_mask=texts["attention_mask"], pixel_values=pixels
            ).logits_per_image.diagonal()[:, None],
            texts["input_ids"],
            rules="attn-lrp",
        )
        # A stabiliser of 1e-6 beside the score itself is met on one of the two ways; the score hangs on the vocabulary.
        rounding = 1e-6 * max(1.0, 1 / float(found.score.abs().min()))
        assert torch.allclose(2 * found.relevance["pixel_values"], by_pixels.relevance, rtol=rounding, atol=1e-10)
        assert torch.allclose(2 * found.relevance["input_ids"], by_tokens.relevance, rtol=rounding, atol=1e-10)

    def test_without_a_target_it_says_which(self) -> None:
        given = self.given(1)
        del given["token_type_ids"]
        with pytest.raises(InvalidTarget, match=r"relprop\.targets\.similarity\(\)"):
            relprop.explain(clip(), given)
