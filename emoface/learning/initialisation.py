"""Networks whose parameters get their values from a file, so that random ones would be drawn for nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_RANDOM: frozenset[Callable[..., Tensor]] = frozenset(
    {Tensor.uniform_, Tensor.normal_, nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_}
)
"""The other functions of ``nn.init`` end in these methods; torch hands these three to a mode as they are."""


class WithoutRandomParameters(TorchFunctionMode):
    """Within it, the parameters of a network that is built keep whatever was in their memory.

    Drawing the random values of a large network takes longer than reading all its weights. Random numbers for anything
    but parameters are drawn as usual, and no parameter may be used before a value is loaded into it.

    Example:
        >>> with WithoutRandomParameters():
        ...     layer = nn.Linear(2, 1)
        >>> import torch
        >>> layer.load_state_dict({"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
        <All keys matched successfully>
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        values = args[0] if args else given.get("tensor")
        if func in _RANDOM and isinstance(values, nn.Parameter):
            return values
        return func(*args, **given)
