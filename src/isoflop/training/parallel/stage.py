"""A part of a decoder that one rank takes forward: some neighbouring layers, with the embedding
before the first and the loss behind the last.

The whole model is one such part where there is no pipeline. Not for when it is called
(`pipeline.py`) nor for how its tensors are cut (`tensor.py`, `context.py`, `experts.py`).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate

from isoflop.data.loader import IGNORED
from isoflop.models.decoder import Decoder, View, through
from isoflop.models.documents import DocumentMask
from isoflop.models.moe import auxiliary_loss
from isoflop.models.output_loss import linear_cross_entropy
from isoflop.training.parallel.context import Context


class Stage(nn.Module):
    """Some neighbouring layers of a decoder.

    Args:
        model: The decoder, of which this rank holds what its stages need.
        layers: Which of its layers.
        tensor_mesh: The ranks among which its tensors are cut, where they are.
        context: The ranks among which its sequences are cut, where they are.
    """

    def __init__(
        self, model: Decoder, layers: range, tensor_mesh: DeviceMesh | None, context: Context | None
    ) -> None:
        super().__init__()
        self.config = model.config
        self.is_first, self.is_last = layers.start == 0, layers.stop == model.config.n_layers
        self.layers = nn.ModuleList(model.layers[number] for number in layers)
        # All that has weights outside layers, so that sharding this module shards them too.
        self.outer = nn.ModuleDict()
        if self.is_first:
            self.outer["embed_tokens"] = model.embed_tokens
            if model.embed_positions is not None:
                self.outer["embed_positions"] = model.embed_positions
        if self.is_last:
            if model.norm is not None:
                self.outer["norm"] = model.norm
            self.outer["lm_head"] = model.lm_head
            if model.config.tie_embeddings:
                self.outer["embed_tokens"] = model.embed_tokens
        self._model = (model,)  # no child of this one: its other stages have parts of it too
        self._tensor_mesh, self._context = tensor_mesh, context

    def forward(
        self,
        x: Tensor,
        auxiliary_1: Tensor | None = None,
        *,
        document_BT: Tensor,
        labels_BT: Tensor,
        counts_1: Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The stream after these layers, or at the end the summed loss in nats, (1,).

        Args:
            x: Token ids (B, T) of the first stage; the stream (B, t, D) of others, at the t
                positions that lie here.
            auxiliary_1: Auxiliary losses of the experts of the stages before, (1,).
            document_BT: Document counter of every token of the whole sequences.
            labels_BT: What is to be foretold, for whole sequences.
            counts_1: 0 where the loss is not to count, else 1, (1,).

        Returns:
            Of a mixture of experts also its auxiliary losses so far, (1,).
        """
        (model,) = self._model
        rotary, context = model.rotary, self._context
        if context is not None:
            rotary = context.rotary
            if self.is_first:
                x = x[:, context.own_t]
        if self.is_first:
            x = model.embed(x, 0, document_BT)
        blocks = tuple(self.layers)
        x, routing = through(blocks, blocks, x, rotary, self._view(x, document_BT))
        if self.config.experts is not None:  # a mean over all layers
            share = len(routing) / self.config.n_layers
            own_1 = (auxiliary_loss(routing, self.config.experts) * share).reshape(1)
            auxiliary_1 = own_1 if auxiliary_1 is None else auxiliary_1 + own_1
        if not self.is_last:
            return x if auxiliary_1 is None else (x, auxiliary_1)
        loss_1 = self._loss(model.normalised(x), labels_BT).reshape(1)
        if auxiliary_1 is not None:  # its gradient alone, as in `next_token_loss`
            loss_1 = loss_1 + (auxiliary_1 - auxiliary_1.detach())
        return loss_1 * counts_1

    def _view(self, x_BtD: Tensor, document_BT: Tensor) -> View:
        (model,) = self._model
        if self._context is not None:
            return View(0, None, None, None, self._context.attention(document_BT))
        if self._tensor_mesh is not None:  # the stream holds some positions, the attention all
            return View(0, None, DocumentMask(document_BT, x_BtD.dtype), None)
        return model.view(x_BtD, document_BT, None)

    def _loss(self, x_BtD: Tensor, labels_BT: Tensor) -> Tensor:
        """The loss at the positions that lie here.

        A cut output layer is gathered for it and its gradient scattered again, so that no rank
        computes logits of another's positions.
        """
        (model,) = self._model
        mesh = self._tensor_mesh
        if self._context is not None:
            labels_BT = labels_BT[:, self._context.own_t]
        if mesh is not None:
            labels_BT = labels_BT.chunk(mesh.size(), dim=1)[mesh.get_local_rank()]
        weight_VD = model.lm_head.weight
        if isinstance(weight_VD, DTensor):
            gathered = weight_VD.redistribute(placements=[Replicate()])
            weight_VD = gathered.to_local(grad_placements=[Partial()])
        return linear_cross_entropy(
            x_BtD.flatten(0, 1), weight_VD, labels_BT.flatten(), ignored=IGNORED
        )
