"""torch-geometric and e3nn, imported without the warnings of their own code about torch.

Parts of torch-geometric are compiled by ``torch.jit`` when they are imported, which newer versions of torch call
deprecated. The warning is silenced during the import and nowhere else.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
    from e3nn import o3
    from e3nn.math import soft_one_hot_linspace
    from e3nn.nn import FullyConnectedNet, Gate
    from torch_geometric.nn import MessagePassing
    from torch_geometric.nn.models.schnet import GaussianSmearing

__all__ = ["FullyConnectedNet", "Gate", "GaussianSmearing", "MessagePassing", "o3", "soft_one_hot_linspace"]
