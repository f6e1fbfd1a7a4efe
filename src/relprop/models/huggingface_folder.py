"""Hugging Face's models from local folders, as save_pretrained writes them; nothing is downloaded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from relprop.errors import InvalidFile, MissingExtra, UnsupportedModel

# A tokenizer of transformers is made of one of these; without any it would be an empty one.
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def load_folder(folder: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of transformers in a folder, the model in float32 and in evaluation mode.

    Raises InvalidFile for a folder that is not whole, UnsupportedModel for one whose class transformers does not have,
    MissingExtra without transformers.
    """
    architecture = _architecture(folder)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise InvalidFile(
            f"{folder} holds no tokenizer (tokenizer.json); write tokenizer.save_pretrained({str(folder)!r})"
        )
    transformers = _transformers()
    made = getattr(transformers, architecture, None)
    if made is None:
        raise UnsupportedModel(
            f"{folder} is a {architecture}, which transformers {transformers.__version__} does not have; load it with "
            "the code it belongs to, and write relprop.explain_text(model, tokenizer, text)"
        )
    try:
        with _quiet(transformers.utils.logging):
            model, told = made.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise InvalidFile(f"{folder} can't be read by transformers: {' '.join(str(error).split())}") from error
    lacking = sorted(told["missing_keys"]) + sorted(str(each) for each in told.get("mismatched_keys", ()))
    if lacking:
        raise InvalidFile(
            f"the weights in {folder} do not make a {architecture}: {lacking[0]} is missing, and would be random"
            + (f", as {len(lacking) - 1} more" if len(lacking) > 1 else "")
        )
    return model.float().eval(), tokenizer


def _architecture(folder: Path) -> str:
    """The name of the class that config.json says."""
    file = folder / "config.json"
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        names = told.get("architectures")
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidFile(
            f"{folder} is no folder of a Hugging Face model, as its config.json can't be read ({error}); write "
            f"model.save_pretrained({str(folder)!r})"
        ) from error
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise InvalidFile(
            f"{file} does not say which model it is of (architectures); write model.save_pretrained({str(folder)!r})"
        )
    return names[0]


@contextlib.contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without progress bars and reports of what was loaded, which an error says."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise MissingExtra(
            'models of Hugging Face need transformers; install them with: pip install "relprop[huggingface]"'
        ) from error
