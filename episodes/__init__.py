"""Measure representations with few-shot episodes: features and labels in, per-episode results with intervals out.

Needs arrays only: no config, no command line, no network, no knowledge of where the features come from.
"""

from episodes.bank import FeatureBank
from episodes.manifest import Manifest, make_manifest
from episodes.probes import Probe
from episodes.sampler import Episode, EpisodeSampler, EpisodeSpec
from episodes.scoring import EpisodeTable, score
from episodes.summary import PairedDifference, Summary, paired_difference, summarise

__all__ = [
    "Episode",
    "EpisodeSampler",
    "EpisodeSpec",
    "EpisodeTable",
    "FeatureBank",
    "Manifest",
    "PairedDifference",
    "Probe",
    "Summary",
    "make_manifest",
    "paired_difference",
    "score",
    "summarise",
]
