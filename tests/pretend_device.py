"""A device for machines without one: tensors that say they lie on `meta`, keep their values on the host, and refuse to
meet tensors of the host, as a GPU's do. Whoever forgets a device is found out without a GPU, and values are a CPU's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

THERE = torch.device("meta")
aten = torch.ops.aten
INDICES = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}  # these take indices of the host
BETWEEN = {aten.copy_.default, aten._to_copy.default}


class There(torch.Tensor):
    """A tensor that lies on the device."""

    host: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> There:
        about = {"strides": host.stride(), "storage_offset": host.storage_offset(), "dtype": host.dtype}
        with torch.inference_mode(False):  # views of tensors from outside have their counters
            made = torch.Tensor._make_wrapper_subclass(cls, host.shape, device=THERE, **about)
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.host.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"There({self.host!r})"


class Pretend(TorchDispatchMode):
    """While it is active, `device="meta"` is such a device. moved: (number of entries, type) of each tensor that went
    there, or that came back."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[tuple[int, torch.dtype]] = []
        self.back: list[tuple[int, torch.dtype]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in BETWEEN:
            source = args[1] if func is aten.copy_.default else args[0]
            target = args[0].device if func is aten.copy_.default else kwargs.get("device") or source.device
            if source.device != target and source.ndim:
                (self.moved if target == THERE else self.back).append((source.numel(), source.dtype))
        return run(func, args, kwargs)


class Literals(TorchFunctionMode):
    """torch.tensor, as_tensor and new_tensor make theirs where no dispatch is seen: on the host, and then they move."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        made = func is torch.tensor or func is torch.as_tensor and not isinstance(args[0], torch.Tensor)
        if made and torch.device(kwargs.get("device") or "cpu") == THERE:
            del kwargs["device"]
            return func(*args, **kwargs).to(THERE)
        if func is torch.Tensor.new_tensor and isinstance(args[0], There):
            return torch.tensor(args[1], dtype=args[0].dtype).to(THERE)
        return func(*args, **kwargs)


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """The operation on the host's values; its result is there if its arguments were, or if that was asked for."""
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    there = any(isinstance(each, There) for each in tensors)
    if func in INDICES:
        there = isinstance(args[0], There)
        mixed = not there and any(isinstance(each, There) for each in tensors)
    else:
        mixed = there and any(each.ndim > 0 and not isinstance(each, There) for each in tensors)
    if mixed and func not in BETWEEN:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == THERE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*tree_map(host_of, args), **tree_map(host_of, kwargs))
    written = [
        kwargs.get(a.name, args[i] if i < len(args) else None)
        for i, a in enumerate(func._schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    ]
    if written and written[0] is not None and isinstance(result, torch.Tensor):
        return written[0]
    return tree_map(lambda each: There(each) if there and isinstance(each, torch.Tensor) else each, result)


def host_of(value: Any) -> Any:
    return value.host if isinstance(value, There) else value


@contextmanager
def pretending() -> Iterator[Pretend]:
    """With a device `THERE`."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # `param.data = …` would leave the values behind
    try:
        with Pretend() as mode, Literals():
            yield mode
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
