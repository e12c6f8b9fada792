"""The bidirectional encoder of BERT (Devlin et al. 2019), with its heads for masked tokens and for
sentence pairs; readable top to bottom.

Not for choosing which tokens are masked nor for the losses (`training`), nor for files
(`convert.py`).

Shape suffixes: B batch, T time, D model width, H heads, K head width, F feed-forward width,
V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.models.config import EncoderConfig
from isoflop.models.documents import positions_in_documents
from isoflop.models.layers import biased_attention, same_document_bias


class EncoderAttention(nn.Module):
    """Multi-head attention to every token of the same document, with biases."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.head_dim, width = config.head_dim, config.d_model
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, bias_B1TT: Tensor | None) -> Tensor:
        """What the tokens attend to, (B, T, D)."""
        q_BHTK, k_BHTK, v_BHTK = (
            torch.unflatten(project(x_BTD), -1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed_BHTK = biased_attention(q_BHTK, k_BHTK, v_BHTK, bias_B1TT)
        out: Tensor = self.o_proj(mixed_BHTK.transpose(1, 2).flatten(-2))
        return out


class EncoderFeedForward(nn.Module):
    """down(gelu(up(x))), with GELU in its exact form."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, config.d_ff)
        self.down_proj = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """What the stream brings forth, (B, T, D)."""
        out: Tensor = self.down_proj(F.gelu(self.up_proj(x_BTD)))
        return out


class EncoderBlock(nn.Module):
    """One layer: attention, then feed-forward, each added and then normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self_attn = EncoderAttention(config)
        self.self_attn_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.mlp = EncoderFeedForward(config)
        self.mlp_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)

    def forward(self, x_BTD: Tensor, bias_B1TT: Tensor | None) -> Tensor:
        """The stream after this layer."""
        x_BTD = self.self_attn_norm(x_BTD + self.self_attn(x_BTD, bias_B1TT))
        out: Tensor = self.mlp_norm(x_BTD + self.mlp(x_BTD))
        return out


class TokenHead(nn.Module):
    """Logits over the vocabulary: norm(gelu(dense(x))) · embeddingᵀ + bias."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x_ND: Tensor, embedding_VD: Tensor) -> Tensor:
        """(…, V) logits of the states (…, D)."""
        return F.linear(self.norm(F.gelu(self.dense(x_ND))), embedding_VD, self.bias)


class Encoder(nn.Module):
    """Token ids in, a state per token out; the heads turn states into logits."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config, width = config, config.d_model
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.embed_positions = nn.Embedding(config.max_seq_len, width)
        self.embed_types = nn.Embedding(config.n_types, width)
        self.embed_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.layers = nn.ModuleList(EncoderBlock(config) for _ in range(config.n_layers))
        self.token_head = TokenHead(config)
        self.pooler: nn.Linear | None = None
        self.pair_head: nn.Linear | None = None
        if config.pair_head:
            self.pooler = nn.Linear(width, width)
            self.pair_head = nn.Linear(width, 2)

    def hidden(
        self,
        ids_BT: Tensor,
        document_BT: Tensor | None = None,
        type_BT: Tensor | None = None,
    ) -> Tensor:
        """States (B, T, D) after the last layer.

        Args:
            ids_BT: Token ids.
            document_BT: Which document each token belongs to; tokens see only their own, and
                positions count from its start. Padding is a document of its own.
            type_BT: Token types, 0 for the first sentence and 1 for the second; all 0 when None.

        Raises:
            ValueError: More positions than `max_seq_len`.
        """
        length = ids_BT.shape[1]
        if length > self.config.max_seq_len:
            raise ValueError(f"{length} positions exceed max_seq_len = {self.config.max_seq_len}")
        place = torch.arange(length, device=ids_BT.device)
        bias_B1TT: Tensor | None = None
        x_BTD: Tensor = self.embed_tokens(ids_BT)
        if document_BT is not None:
            place = positions_in_documents(document_BT)
            bias_B1TT = same_document_bias(document_BT, document_BT, x_BTD.dtype)
        type_BT = torch.zeros_like(ids_BT) if type_BT is None else type_BT
        x_BTD = x_BTD + self.embed_positions(place) + self.embed_types(type_BT)
        x_BTD = self.embed_norm(x_BTD)
        for block in self.layers:
            x_BTD = block(x_BTD, bias_B1TT)
        return x_BTD

    def token_logits(self, x_ND: Tensor) -> Tensor:
        """(…, V) logits of the token that belongs at each state; the output matrix is tied."""
        logits: Tensor = self.token_head(x_ND, self.embed_tokens.weight)
        return logits

    def pair_logits(self, first_ND: Tensor) -> Tensor:
        """(N, 2) logits that the second sentence follows the first, or is a random one, from the
        states of the [CLS] tokens.

        Raises:
            ValueError: The model was made without this head.
        """
        if self.pooler is None or self.pair_head is None:
            raise ValueError("this encoder has no head for sentence pairs")
        out: Tensor = self.pair_head(torch.tanh(self.pooler(first_ND)))
        return out

    def forward(
        self,
        ids_BT: Tensor,
        document_BT: Tensor | None = None,
        type_BT: Tensor | None = None,
    ) -> Tensor:
        """Token logits (B, T, V) at every position."""
        return self.token_logits(self.hidden(ids_BT, document_BT, type_BT))
