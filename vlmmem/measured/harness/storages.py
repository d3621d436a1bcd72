"""What is live in a pass, storage by storage: exact for tensors, on any device of PyTorch and under fake tensors.

Nothing here imports PyTorch before it is used, so that the modules load where it is not installed.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["ELSEWHERE", "LiveStorages", "bytes_of", "fused_attention", "integers_kept"]

ELSEWHERE = "elsewhere"
"""The window in which nobody named another."""

LARGEST_KEPT = 1 << 26
"""Bytes of an integer tensor that keeps its values among fake tensors: positions do, a mask of all tokens squared does
not."""


def bytes_of(tensors: Iterable[Any]) -> int:
    """Bytes of the storages of some tensors, each storage once."""
    held = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        held[id(storage)] = (storage.nbytes(), storage)
    return sum(size for size, _ in held.values())


def _watching(handle: Callable[..., Any]) -> Any:
    """A dispatch mode of PyTorch that hands each operation to a function."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):  # type: ignore[misc]  # torch is not where mypy runs
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return handle(func, args, kwargs or {})

    return Watch()


class LiveStorages:
    """Bytes of the storages that are live after each operation, and the most there were in each window.

    A dispatch mode sees each operation and enters the storages of its results; a weak reference takes a storage out
    when Python frees it. What is there before is not counted, nor is what a kernel holds while it runs.
    """

    def __init__(self, there_before: Iterable[Any]) -> None:
        """Start to count, without the storages of the tensors that are there before."""
        stores = (tensor.untyped_storage() for tensor in there_before)
        self._there_before = {id(store): store for store in stores}
        self._live: dict[int, tuple[int, Any]] = {}
        self._mode: Any = None
        self.bytes = 0
        self.window = ELSEWHERE
        self.peaks: dict[str, int] = {}

    def __enter__(self) -> "LiveStorages":
        self._mode = _watching(self._operation)
        self._mode.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._mode.__exit__(*raised)

    @property
    def peak(self) -> int:
        """The most bytes that were live after an operation, in any window."""
        return max(self.peaks.values(), default=0)

    def _forget(self, key: int) -> Callable[[Any], None]:
        def freed(_: Any) -> None:
            self.bytes -= self._live.pop(key)[0]

        return freed

    def _operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        import torch
        from torch.utils._pytree import tree_iter

        results = func(*args, **kwargs)
        for tensor in tree_iter(results):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = id(storage)
                if key not in self._there_before and key not in self._live:
                    size = storage.nbytes()
                    self._live[key] = (size, weakref.ref(storage, self._forget(key)))
                    self.bytes += size
        self.peaks[self.window] = max(self.peaks.get(self.window, 0), self.bytes)
        return results


def integers_kept() -> Any:
    """A dispatch mode, to be entered inside a FakeTensorMode, in which small tensors of integers keep their values.

    Some classes read the sizes of images and the places of their tokens from a tensor's values, which fake tensors do
    not have. Operations on tensors with values, and those that make integers, are computed where their results have at
    most `LARGEST_KEPT` bytes; every other one is left to the fake tensors.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.utils._python_dispatch import _disable_current_modes
    from torch.utils._pytree import tree_iter

    ranges = (torch.ops.aten.linspace.default,)

    def kept(results: Any, floats: bool) -> bool:
        found = [each for each in tree_iter(results) if isinstance(each, torch.Tensor)]
        return all(
            each.numel() * each.element_size() <= LARGEST_KEPT and (floats or not each.dtype.is_floating_point)
            for each in found
        )

    def operation(func: Any, args: Any, kwargs: Any) -> Any:
        given = [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
        if any(isinstance(each, FakeTensor) for each in given):
            return func(*args, **kwargs)
        try:
            shapes = func(*args, **kwargs)
        except Exception:  # what depends on values, fake tensors refuse in many ways
            shapes = None
        # what is made of integers may be a fraction of them; what is made of nothing is an activation or a buffer
        if kept(shapes, floats=bool(given) or func in ranges):
            with _disable_current_modes():
                return func(*args, **kwargs)
        return shapes

    return _watching(operation)


def fused_attention() -> Any:
    """A patch under which attention with values narrower than keys counts with its result alone.

    As in multi-head latent attention: the CPU's kernel writes all scores down there and a GPU's (memory-efficient)
    does not. For fake tensors only: the result has no values.
    """
    from unittest import mock

    import torch

    attention = torch.nn.functional.scaled_dot_product_attention

    def fused(query: Any, key: Any, value: Any, *more: Any, **named: Any) -> Any:
        if value.shape[-1] == query.shape[-1]:
            return attention(query, key, value, *more, **named)
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    return mock.patch("torch.nn.functional.scaled_dot_product_attention", fused)
