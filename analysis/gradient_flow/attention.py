"""The entropy of attention weights, seen where torch computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}


def attention_entropy(function: Callable, args: tuple, kwargs: Mapping[str, Any]) -> Tensor | None:
    r"""The entropy of each row of attention weights over its largest, the logarithm of the number of keys it may see.

    Taken from the arguments of ``scaled_dot_product_attention``, of ``multi_head_attention_forward`` (what
    ``nn.MultiheadAttention`` calls), or of a softmax over the last axis of scores with four axes, or with three of
    which the last two are equal. None for any other function. Rows that see one key are left out of the mean over
    queries.

    Shapes: (N, heads) where there are heads, else (N, 1).
    """
    if function is F.scaled_dot_product_attention:
        logits = _scores(*args, **kwargs)
        return _relative(logits.softmax(-1), _allowed(logits))
    if function is F.multi_head_attention_forward:
        asked = {**kwargs, "need_weights": True, "average_attn_weights": False}
        weights = function(*args, **asked)[1]
        even = function(args[0] * 0, args[1] * 0, *args[2:], **asked)[1]  # no query, no key: the mask alone is left
        return _relative(weights, even > 0)
    if function in _SOFTMAX:
        logits, axis = args[0], kwargs.get("dim", args[1] if len(args) > 1 else None)
        square = logits.ndim == 3 and logits.shape[-1] == logits.shape[-2]
        if axis in (-1, logits.ndim - 1) and (logits.ndim >= 4 or square):
            return _relative(logits.softmax(-1), _allowed(logits))
    return None


def _scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.mT * (scale if scale is not None else 1 / sqrt(query.shape[-1]))
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        return scores.masked_fill(hidden, -torch.inf)
    if attn_mask is None:
        return scores
    return scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask


def _allowed(logits: Tensor) -> Tensor:
    """Masks add −inf, or a number near the lowest there is."""
    return logits > torch.finfo(logits.dtype).min / 4


def _relative(weights: Tensor, allowed: Tensor) -> Tensor:
    weights = weights.detach().double()
    keys = allowed.expand_as(weights).sum(-1)
    entropy = -torch.xlogy(weights, weights).sum(-1)
    counted = (keys > 1) & weights.isfinite().all(-1)
    share = torch.where(counted, entropy / keys.clamp(min=2).double().log(), 0)
    mean = share.sum(-1) / counted.sum(-1).clamp(min=1)  # over the queries
    return mean if mean.ndim > 1 else mean[:, None]
