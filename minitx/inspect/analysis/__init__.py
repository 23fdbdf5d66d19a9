"""Analyses of the values inside a model: lenses, attribution, patching, attention, probes, autoencoders.

Each takes a model, inputs (texts, ids or the arguments of a forward), and returns a small result that prints
as a table.
"""

from minitx.inspect.analysis.direct import DirectLogitAttribution, direct_logit_attribution
from minitx.inspect.analysis.features.autoencoder import FeatureRecord, SparseAutoencoder, splice
from minitx.inspect.analysis.features.collect import collect_activations
from minitx.inspect.analysis.features.probe import Probe, train_probe
from minitx.inspect.analysis.features.search import ActivatingText, NeuronSearch, neuron_search
from minitx.inspect.analysis.gradients import (
    TokenAttribution,
    input_x_gradient,
    integrated_gradients,
    saliency,
)
from minitx.inspect.analysis.head_scores import HeadScores, head_scores
from minitx.inspect.analysis.lens.logit import LogitLens, logit_lens
from minitx.inspect.analysis.lens.tuned import TunedLens, train_tuned_lens
from minitx.inspect.analysis.metrics import logit_difference
from minitx.inspect.analysis.patching.activation import attribution_patching, patching_grid
from minitx.inspect.analysis.patching.cells import PatchingGrid
from minitx.inspect.analysis.patching.path import path_patching
from minitx.inspect.analysis.rollout import AttentionRollout, attention_rollout
from minitx.inspect.analysis.table import Grid

__all__ = [
    "ActivatingText",
    "AttentionRollout",
    "DirectLogitAttribution",
    "FeatureRecord",
    "Grid",
    "HeadScores",
    "LogitLens",
    "NeuronSearch",
    "PatchingGrid",
    "Probe",
    "SparseAutoencoder",
    "TokenAttribution",
    "TunedLens",
    "attention_rollout",
    "attribution_patching",
    "collect_activations",
    "direct_logit_attribution",
    "head_scores",
    "input_x_gradient",
    "integrated_gradients",
    "logit_difference",
    "logit_lens",
    "neuron_search",
    "patching_grid",
    "path_patching",
    "saliency",
    "splice",
    "train_probe",
    "train_tuned_lens",
]
