"""Bringing models in: from arrays, scikit-learn, Keras and files. Wrappers go; what can't be traced is refused."""

from relprop.models.forward import ForwardReport, check_forward
from relprop.models.keras import load_keras
from relprop.models.prepare import blocks, module_names, named_modules, parts_of_sequences, prepare, refuse_training
from relprop.models.program import load_program
from relprop.models.recurrent import RecurrentNetwork, gru, lstm
from relprop.models.scikit import from_sklearn
from relprop.models.sequential import Conv, Linear, sequential

__all__ = [
    "Conv",
    "ForwardReport",
    "Linear",
    "RecurrentNetwork",
    "blocks",
    "check_forward",
    "from_sklearn",
    "gru",
    "load_keras",
    "load_program",
    "lstm",
    "module_names",
    "named_modules",
    "parts_of_sequences",
    "prepare",
    "refuse_training",
    "sequential",
]
