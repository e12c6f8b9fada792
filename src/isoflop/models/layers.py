"""The parts every architecture is made of: norms, rotary positions, document-aware attention.

Not for whole models (see `decoder.py`) nor for their initial values (`initialise.py`).

Shape suffixes, here and in every model file: B batch, T time, S keys' time, D model width,
H query heads, G key–value heads, K head width, P = K/2 rotary pairs, F feed-forward width,
V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.models import config


class RotaryPositions(nn.Module):
    """Rotary position embedding, half-split form (Su et al. 2021; the layout of Llama and Qwen).

    Coordinate i of the first half of a head is rotated together with coordinate i of the second
    half by the angle position · theta^(−2i/K).
    """

    cos_PT: Tensor
    sin_PT: Tensor

    def __init__(self, head_dim: int, max_seq_len: int, theta: float) -> None:
        super().__init__()
        # Computed in float64: float32 angles are off by 1e-4 at position 4096.
        frequency_P = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angle_PT = torch.outer(frequency_P, torch.arange(max_seq_len, dtype=torch.float64))
        self.register_buffer("cos_PT", angle_PT.cos().float(), persistent=False)
        self.register_buffer("sin_PT", angle_PT.sin().float(), persistent=False)

    def turn(self, start: int, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine (P, T) of every pair's angle at `length` positions from `start`."""
        here = slice(start, start + length)
        return self.cos_PT[:, here].to(dtype), self.sin_PT[:, here].to(dtype)

    def forward(self, x_BHTK: Tensor, start: int = 0) -> Tensor:
        """Rotate queries or keys whose first position is `start`."""
        cos_PT, sin_PT = self.turn(start, x_BHTK.shape[-2], x_BHTK.dtype)
        cos, sin = cos_PT.t(), sin_PT.t()
        low, high = x_BHTK.chunk(2, dim=-1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


def fused_applies(x_BTD: Tensor) -> bool:
    """Whether a whole window of the stream takes the fast CPU forms of `fused.py`
    and `fused_attention.py`.

    Other devices have kernels of their own, narrower formats need autocast's care, and long
    windows an attention that does not keep its shares.
    """
    return (
        x_BTD.device.type == "cpu"
        and x_BTD.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and config.FEWEST_FUSED <= x_BTD.shape[1] <= config.LONGEST_FUSED
    )


class DocumentMask:
    """Which rows of a batch hold several documents, and what their tokens may attend to.

    Rows that hold one document need no mask and take the fast causal kernel; a batch source
    that puts them first (`training/objectives.py` does) gets them in one slice.

    Args:
        document_BT: Integer document counter of every token; equal means same document.
        dtype: That of the queries.
    """

    def __init__(self, document_BT: Tensor, dtype: torch.dtype) -> None:
        rows, length = document_BT.shape
        whole = (document_BT[:, 0] == document_BT[:, -1]).tolist()
        self.n_whole = whole.index(False) if False in whole else rows
        """How many leading rows hold a single document each."""
        self.n_mixed = rows - self.n_whole
        causal_TT = torch.ones(length, length, dtype=torch.bool, device=document_BT.device).tril()
        mixed_RT = document_BT[self.n_whole :]
        same_RTT = mixed_RT[:, :, None] == mixed_RT[:, None, :]
        hidden_R1TT = ~(same_RTT & causal_TT)[:, None]
        # Added to the scores. Made once here: of a mask of booleans every layer would make, and
        # keep for its backward pass, such a tensor of its own.
        self.bias_R1TT = torch.zeros(
            hidden_R1TT.shape, dtype=dtype, device=document_BT.device
        ).masked_fill_(hidden_R1TT, -torch.inf)


def causal_attention(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, documents: DocumentMask | None = None
) -> Tensor:
    """Softmax attention of each token to itself and earlier tokens of its document.

    With more keys than queries (a cache), the queries are the last positions.

    Returns:
        Values mixed per head, (B, H, T, K).
    """
    grouped = k_BGSK.shape[1] != q_BHTK.shape[1]
    if documents is not None and documents.n_mixed:
        sizes = [documents.n_whole, documents.n_mixed]
        (q1, q2), (k1, k2), (v1, v2) = (torch.split(x, sizes) for x in (q_BHTK, k_BGSK, v_BGSK))
        mixed = F.scaled_dot_product_attention(
            q2, k2, v2, attn_mask=documents.bias_R1TT, enable_gqa=grouped
        )
        if not documents.n_whole:
            return mixed
        whole = F.scaled_dot_product_attention(q1, k1, v1, is_causal=True, enable_gqa=grouped)
        return torch.cat((whole, mixed))
    n_queries, n_keys = q_BHTK.shape[-2], k_BGSK.shape[-2]
    if n_queries == n_keys or n_queries == 1:
        return F.scaled_dot_product_attention(
            q_BHTK, k_BGSK, v_BGSK, is_causal=n_queries > 1, enable_gqa=grouped
        )
    last_TS = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q_BHTK.device)
    return F.scaled_dot_product_attention(
        q_BHTK, k_BGSK, v_BGSK, attn_mask=last_TS.tril(n_keys - n_queries), enable_gqa=grouped
    )
