"""Measure representations with few-shot episodes: features and labels in, per-episode results with intervals out.

Needs arrays only: no config, no command line, no network, no knowledge of where the features come from.
"""

from episodes.bank import FeatureBank
from episodes.comparison import PairedDifference, compare_tables, paired_difference, paired_differences
from episodes.confusion import Confusion, count_confusions
from episodes.manifest import Manifest, draw_manifest, make_manifest
from episodes.probes import Probe
from episodes.sampler import Episode, EpisodeSampler, EpisodeSpec
from episodes.scoring import evaluate, score, score_in_parallel
from episodes.summary import Summary, summarise
from episodes.table import EpisodeTable, collect

__all__ = [
    "Confusion",
    "Episode",
    "EpisodeSampler",
    "EpisodeSpec",
    "EpisodeTable",
    "FeatureBank",
    "Manifest",
    "PairedDifference",
    "Probe",
    "Summary",
    "collect",
    "compare_tables",
    "count_confusions",
    "draw_manifest",
    "evaluate",
    "make_manifest",
    "paired_difference",
    "paired_differences",
    "score",
    "score_in_parallel",
    "summarise",
]
