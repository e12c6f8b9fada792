"""Pipeline parallel: micro-batches taken through the stages of a model in torch's schedules.

GPipe (Huang et al. 2019), 1F1B and interleaved 1F1B (Narayanan et al. 2021). Not for which layers a
stage has (`deal.py`), nor for what it computes (`stage.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
)
from torch.distributed.pipelining.stage import _PipelineStageBase
from torch.distributed.tensor import DTensor

from isoflop.models.decoder import Decoder
from isoflop.training.objectives import TokenBatch
from isoflop.training.parallel.recipe import ParallelConfig
from isoflop.training.parallel.stage import Stage


class Pipeline:
    """One rank's stages of a model, and the ranks before and after.

    Args:
        model: What this rank holds of it.
        stages: Its stages, in the order of the layers.
        mesh: Of all ranks, with an axis `pp`.
        positions: Of a sequence, those whose stream a rank passes on.
    """

    def __init__(
        self,
        model: Decoder,
        stages: Sequence[Stage],
        parallel: ParallelConfig,
        mesh: DeviceMesh,
        positions: int,
    ) -> None:
        self._model, self._stages, self._parallel = model, stages, parallel
        self._mesh, self._positions = mesh["pp"], positions
        self._schedules: dict[tuple[int, int], _Schedule] = {}
        self._losses: list[Tensor] = []
        self._scale = 1.0
        self._ends: dist.ProcessGroup | None = None
        if model.config.tie_embeddings:
            ends = mesh.mesh[[0, -1]].flatten(1).t().tolist()
            self._ends, _ = dist.new_subgroups_by_enumeration(ends)  # type: ignore[no-untyped-call]

    def passes(self, batches: Sequence[TokenBatch], counts: Sequence[bool], scale: float) -> float:
        """All micro-batches of a step forward and backward, the gradients of their losses times
        `scale` added up.

        Args:
            counts: Whether each one's loss counts.

        Returns:
            The summed loss in nats of those that count, unscaled; 0 but on the last stage.
        """
        self._scale = scale
        rows, device = len(batches[0].ids_BT), batches[0].ids_BT.device
        key = len(batches), rows
        if key not in self._schedules:
            self._schedules[key] = self._schedule(*key, batches[0].ids_BT)
        ids, labels, documents = (
            torch.cat([getattr(batch, name) for batch in batches])
            for name in ("ids_BT", "labels_BT", "document_BT")
        )
        self._schedules[key](
            *([ids] if self._stages[0].is_first else []),
            target=labels if self._stages[-1].is_last else None,
            return_outputs=False,
            document_BT=documents,
            labels_BT=labels,
            counts_1=torch.tensor(counts, dtype=torch.float32, device=device),
        )
        self._sum_shared()
        found = sum((loss.double().item() for loss in self._losses), 0.0)
        self._losses.clear()
        return found

    def _schedule(self, n_batches: int, rows: int, ids_BT: Tensor) -> _Schedule:
        config, mesh = self._model.config, self._mesh
        n_stages = mesh.size() * len(self._stages)
        parts: list[_PipelineStageBase] = []
        for turn, module in enumerate(self._stages):
            shape = rows, self._positions, config.d_model
            stream = torch.empty(shape, device="meta", requires_grad=True)
            sums = torch.empty(1, device="meta", requires_grad=True)
            passed = (stream,) if config.experts is None else (stream, sums)
            parts.append(
                PipelineStage(
                    module,
                    mesh.get_local_rank() + turn * mesh.size(),
                    n_stages,
                    ids_BT.device,
                    input_args=ids_BT.to("meta") if module.is_first else passed,
                    output_args=sums if module.is_last else passed,
                    group=mesh.get_group(),
                )
            )
        if len(parts) > 1:
            return ScheduleInterleaved1F1B(parts, n_batches, self._loss, scale_grads=False).step
        kind = ScheduleGPipe if self._parallel.schedule == "gpipe" else Schedule1F1B
        return kind(parts[0], n_batches, self._loss, scale_grads=False).step

    def _loss(self, loss_1: Tensor, labels_BT: Tensor) -> Tensor:
        self._losses.append(loss_1.detach())
        return loss_1.sum() * self._scale

    def _sum_shared(self) -> None:
        """Add up the gradient of the matrix that the first and the last stage both have."""
        if self._ends is None or not isinstance(self._model.embed_tokens, nn.Embedding):
            return
        weight = self._model.embed_tokens.weight
        gradient = weight.grad
        if gradient is None:
            return
        if isinstance(gradient, DTensor) and isinstance(weight, DTensor):
            weight.grad = gradient = gradient.redistribute(placements=weight.placements)
            gradient = gradient.to_local()
        dist.all_reduce(gradient, group=self._ends)


_Schedule = Callable[..., object]
