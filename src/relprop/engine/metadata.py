"""Metadata: calls that ask about a tensor's form, and values that leave torch."""

from __future__ import annotations

# Properties whose value is a tensor computed from this one; all others are metadata.
_TENSOR_PROPERTIES = {"T", "mT", "H", "mH", "data", "real", "imag"}

_METADATA = {
    "__hash__", "__len__", "__repr__", "__str__", "__format__", "__dir__", "__reduce_ex__", "__dlpack_device__",
    "size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "element_size", "get_device",
    "is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_same_size", "is_inference", "is_pinned",
    "is_set_to", "is_shared", "has_names", "data_ptr", "untyped_storage", "result_type", "can_cast", "is_tensor",
    "sym_size", "sym_numel", "sym_stride", "register_hook", "retain_grad", "_is_view", "_assert_tensor_metadata",
    "_assert_scalar", "_set_grad_enabled", "is_storage", "dense_dim", "sparse_dim", "handle_torch_function",
    "compute_required_storage_length", "_version",
}  # fmt: skip

# Reading a number into Python: harmless for control flow, noted in the report.
PYTHON_VALUES = {
    "item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__complex__", "_local_scalar_dense",
    "is_nonzero", "equal", "allclose", "__contains__",
}  # fmt: skip

# Values that go where no trace can follow.
LEAVES_TORCH = {"numpy", "__array__", "__dlpack__", "__cuda_array_interface__", "storage", "set data"}


def is_metadata(name: str) -> bool:
    """Whether a call of this name involves no values."""
    if name.startswith("get "):
        return name[4:] not in _TENSOR_PROPERTIES
    return name in _METADATA or name == "set requires_grad"


# What no word of the user's could make right.
NOT_YET = {
    "bilinear": "both factors of its product are signals; write it with einsum of two tensors at a time",
}
