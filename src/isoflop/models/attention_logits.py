"""The largest attention logit of a decoder on some text, by the plain form of attention.

Logits that grow without end make attention one-hot and then the training diverge (Dehghani et al.
2023, section 3.1; Wortsman et al. 2023). The fast kernels never show them, hence this second
computation; not for training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isoflop.models.decoder import Block, Decoder
from isoflop.models.layers import causal_bias


@torch.no_grad()
def largest_attention_logits(model: Decoder, ids_BT: Tensor, document_BT: Tensor) -> Tensor:
    """(L,) by layer the largest q · k / √K, with what positions add, of a token and one it sees.

    Args:
        model: Any decoder.
        ids_BT: Token ids, (B, T).
        document_BT: Document counter of each.
    """
    x_BTD = model.embed(ids_BT, 0, document_BT)
    view = model.view(x_BTD, document_BT, None)
    length = ids_BT.shape[1]
    seen = causal_bias(model.config, length, length, document_BT, x_BTD.dtype, x_BTD.device)
    found = []
    for block in model.layers:
        if not isinstance(block, Block):
            raise TypeError(f"{type(block).__name__} is no layer of a decoder")
        attention = block.self_attn
        h_BTD = x_BTD if block.post_norm else block.input_layernorm(x_BTD)
        q_BHTK, k_BGTK, _ = attention.heads(h_BTD, model.rotary, view.start)
        bias = seen
        if attention.relative is not None:
            bias = bias + attention.relative(q_BHTK, length)
            q_BHTK = q_BHTK + attention.relative.content_bias[:, None]
        k_BHTK = k_BGTK.repeat_interleave(q_BHTK.shape[1] // k_BGTK.shape[1], 1)
        logits_BHTS = q_BHTK @ k_BHTK.mT * attention.head_dim**-0.5 + bias
        found.append(logits_BHTS.amax().to(torch.float32))
        x_BTD, _ = block(x_BTD, model.rotary, view)
    return torch.stack(found)
