"""LAMB against its equations in float64."""

from __future__ import annotations

import numpy as np
import torch

from isoflop.training.lamb import Lamb


def test_three_steps_are_algorithm_2_written_out() -> None:
    draw = np.random.default_rng(0)
    start = draw.normal(size=(5, 4))
    weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
    zero = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    groups = [{"params": [weight], "weight_decay": 0.1}, {"params": [zero], "weight_decay": 0.0}]
    optimizer = Lamb(groups, lr=0.02, betas=(0.9, 0.99), eps=1e-6)
    expected = [start, np.zeros(3)]
    m, v = [np.zeros_like(w) for w in expected], [np.zeros_like(w) for w in expected]
    for t in (1, 2, 3):
        gradients = [draw.normal(size=w.shape) for w in expected]
        weight.grad, zero.grad = (torch.from_numpy(g.copy()) for g in gradients)
        optimizer.step()
        for i, (g, decay) in enumerate(zip(gradients, (0.1, 0.0), strict=True)):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.99 * v[i] + 0.01 * g**2
            r = (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.99**t)) + 1e-6)
            r = r + decay * expected[i]
            size = np.linalg.norm(expected[i])
            trust = size / np.linalg.norm(r) if size > 0 else 1.0
            expected[i] = expected[i] - 0.02 * trust * r
    np.testing.assert_allclose(weight.detach().numpy(), expected[0], rtol=1e-12)
    np.testing.assert_allclose(zero.detach().numpy(), expected[1], rtol=1e-12)
