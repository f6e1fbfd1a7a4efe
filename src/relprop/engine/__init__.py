"""The engine: one recorded forward pass, backward passes that carry relevance; one file for each kind of operation."""

from relprop.engine import (  # noqa: F401  (each registers its operations)
    activation,
    affine,
    attention,
    carrier,
    complex,
    embedding,
    matrix,
    normaliser,
    product,
    recurrent,
    selection,
    softmax,
    statistic,
    sum,
)
