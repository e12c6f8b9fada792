"""A decoder with more layers on top, which computes what it did; not for training them.

Growing a network without changing its function is Net2Net (Chen et al. 2016, section 2.3.2); blocks
added to a trained language model that begin as the identity, LLaMA Pro (Wu et al. 2024).
"""

from __future__ import annotations

from dataclasses import replace

from isoflop.core.errors import RecipeError
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise


def deepened(model: Decoder, extra_layers: int, seed: int) -> Decoder:
    """The same function with `extra_layers` blocks more, to be trained further.

    The new blocks are drawn from (seed, name) as in pre-training: what they write into the residual
    stream is zero until they are trained.

    Raises:
        RecipeError: Its blocks normalise after the sums, so that none is the identity.
    """
    if not extra_layers:
        return model
    if model.config.post_norm:
        raise RecipeError(
            "blocks that normalise after their sums cannot begin as the identity",
            where="model.extra_layers",
        )
    deeper = Decoder(replace(model.config, n_layers=model.config.n_layers + extra_layers))
    initialise(deeper, seed)
    deeper.load_state_dict({**deeper.state_dict(), **model.state_dict()})
    return deeper.train(model.training)
