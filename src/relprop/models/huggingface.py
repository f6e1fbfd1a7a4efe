"""Hugging Face's models and pipelines, told by their classes: transformers is imported to read a folder only."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from relprop.errors import InvalidInput, UnsupportedModel

# Inputs that say where tokens stand and which of them count, and are no evidence themselves.
_PASSIVE = {"token_type_ids", "position_ids", "decoder_position_ids", "cache_position"}
_OF_TRAINING = ("labels", "start_positions", "end_positions")
_COMPUTED = ("past_key_values", "encoder_outputs")


def is_huggingface(model: Any) -> bool:
    """Whether a model is one of transformers, or of a class made from one."""
    return isinstance(model, nn.Module) and _of_transformers(model)


def holds_huggingface(model: Any) -> bool:
    """Whether a model is made of one of transformers, as a head of one's own on top of it."""
    return isinstance(model, nn.Module) and any(_of_transformers(module) for module in model.modules())


def is_pipeline(model: Any) -> bool:
    """Whether this is a pipeline of transformers."""
    return not isinstance(model, nn.Module) and hasattr(model, "task") and _of_transformers(model)


def _of_transformers(model: Any) -> bool:
    return any(each.__module__.split(".")[0] == "transformers" for each in type(model).__mro__)


def names_of_classes(model: Any) -> tuple[str, ...] | None:
    """config.id2label by index; None for heads of transformers that score no classes, where it means nothing."""
    by_id = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(by_id, Mapping) or sorted(by_id) != list(range(len(by_id))):
        return None
    if type(model).__module__.startswith("transformers.") and "Classification" not in head_name(model):
        return None
    return tuple(str(by_id[index]) for index in range(len(by_id)))


def head_name(model: Any) -> str:
    """The names of a model's classes, in which transformers says what the head does."""
    return " ".join(each.__name__ for each in type(model).__mro__)


def model_of(pipeline: Any, text: bool) -> Any:
    """A pipeline's model, if it can be explained by its texts, or by its pictures. Raises UnsupportedModel."""
    task = pipeline.task
    if text and task == "zero-shot-classification":
        raise UnsupportedModel(
            "a zero-shot pipeline asks its model once for each label. Explain the answer for one of them: "
            'relprop.explain_text(pipeline.model, pipeline.tokenizer, {"text": text, "text_pair": "This example is '
            'sport."}, target="entailment")'
        )
    if text and getattr(pipeline, "tokenizer", None) is None:
        raise UnsupportedModel(
            f"this {task} pipeline has no tokenizer, so it reads no text; for a picture write "
            "relprop.explain(pipeline, picture)"
        )
    if not text and task != "image-classification":
        reads = getattr(pipeline, "tokenizer", None) is not None
        line = "relprop.explain_text(pipeline, text)" if reads else "relprop.explain(pipeline.model, x, target=...)"
        raise UnsupportedModel(f"got a {task} pipeline, and explain takes one for image-classification; write {line}")
    return pipeline.model


def truncates(pipeline: Any) -> bool:
    """Whether a pipeline was made to cut texts that are too long."""
    options = getattr(pipeline, "_preprocess_params", None) or {}
    return bool(options.get("truncation") or (options.get("tokenizer_kwargs") or {}).get("truncation"))


def pixels_of(pipeline: Any, x: Any) -> Any:
    """Pictures as the input of an image-classification pipeline's model; tensors are taken as they are."""
    several = list(x) if isinstance(x, (list, tuple)) else [x]
    if not all(hasattr(each, "convert") for each in several):  # no pictures of Pillow
        if isinstance(x, (Tensor, Mapping)):
            return x
        raise InvalidInput(
            f"got a {type(several[0] if several else x).__name__} for an image-classification pipeline, expected a "
            "picture or a list of them: relprop.explain(pipeline, PIL.Image.open(path))"
        )
    processor = getattr(pipeline, "image_processor", None)
    if processor is None:
        raise UnsupportedModel(
            'the pipeline has no image processor; make it with one: pipeline("image-classification", model=model, '
            'image_processor=AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True))'
        )
    try:
        made = processor(images=[each.convert("RGB") for each in several], return_tensors="pt")
    except ImportError as error:
        raise UnsupportedModel(
            f"the image processor {type(processor).__name__} needs torchvision. Take the one without it: "
            'AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)'
        ) from error
    device = next((each.device for each in pipeline.model.parameters()), None)
    moved = {name: each.to(device) for name, each in made.items()}
    return moved["pixel_values"] if set(moved) == {"pixel_values"} else moved


@contextlib.contextmanager
def apart(model: Any, x: Any) -> Iterator[Any]:
    """The inputs that carry relevance; the others reach the model all the same, and no cache of keys is kept.

    Raises InvalidInput for what was computed before (past_key_values), and for what training needs (labels).
    """
    beside: dict[str, Any] = {}
    if is_huggingface(model):
        _refuse(x)
        beside = {"use_cache": False} if takes(model, "use_cache") else {}
    if isinstance(x, dict) and holds_huggingface(model):
        beside.update({name: value for name, value in x.items() if name in _PASSIVE or name.endswith("_mask")})
        x = {name: value for name, value in x.items() if name not in beside}
    if not beside:
        yield x
        return
    thread = threading.get_ident()

    # Another thread may meet the hook before torch has noted that it takes keywords, and call it without.
    def add(module: nn.Module, args: Any, kwargs: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]] | None:
        return (args, {**beside, **(kwargs or {})}) if threading.get_ident() == thread else None

    handle = model.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield x
    finally:
        handle.remove()


def _refuse(x: Any) -> None:
    """InvalidInput for what was computed from tokens before, in place of the tokens, and for what training needs."""
    given = [name for name in (*_COMPUTED, *_OF_TRAINING) if isinstance(x, dict) and x.get(name) is not None]
    for name in given:
        if name in _OF_TRAINING:
            raise InvalidInput(f"the input holds {name}, by which a model is trained; leave it away")
        raise InvalidInput(
            f"the input holds {name}, computed from tokens that relevance would not reach. Leave it away, and give all "
            "tokens from the start as input_ids"
        )


def takes(model: Any, name: str) -> bool:
    """Whether a model's forward has a parameter of this name."""
    function = model.forward if isinstance(model, nn.Module) else model
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
