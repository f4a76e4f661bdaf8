"""Sentences on the data of a benchmark: images that occur twice, and sources that support or training share."""

from __future__ import annotations

from collections.abc import Sequence

from lurefs.comparing.groups import Group
from lurefs.comparing.texts import count, joined, percent
from lurefs.runs.summary import BenchmarkSummary, DuplicateCounts, SourceShares


def data_notes(groups: Sequence[Group], benchmark: str) -> list[str]:
    """Return the sentences on a benchmark, without full stops; where groups differ, each names its own."""
    said: dict[str, list[str]] = {}
    for group in groups:
        found = [measured for run in group.runs if (measured := run.benchmark(benchmark)) is not None]
        for words in dict.fromkeys(words for measured in found for words in _words(measured)):
            said.setdefault(words, []).append(group.label)
    n_measured = sum(any(run.benchmark(benchmark) is not None for run in group.runs) for group in groups)
    return [words if len(labels) == n_measured else f"{joined(labels)}: {words}" for words, labels in said.items()]


def duplicate_words(counts: DuplicateCounts) -> str:
    """Say how many images of a benchmark occur twice."""
    said = []
    if counts.in_base:
        said.append(f"{_of(counts.in_base, counts)} have the pixels of an image that base training saw")
    if counts.in_pool:
        said.append(f"{_of(counts.in_pool, counts)} have those of another image of the benchmark")
    if counts.in_other_class:
        said.append(f"{count(counts.in_other_class)} of these have those of an image of another class")
    if not said:
        of_base = "a base image or of " if counts.in_base is not None else ""
        said.append(f"none of {count(counts.n_images)} images has the pixels of {of_base}another one")
    if counts.distance is not None:
        near = [f"{count(counts.near_in_base)} are nearly a base image"] if counts.near_in_base is not None else []
        near.append(f"{count(counts.near_in_pool)} are nearly another image of the benchmark")
        said.append(f"{' and '.join(near)} (at most {counts.distance} of 64 bits of a difference hash differ)")
    return "duplicates: " + "; ".join(said)


def source_words(shares: SourceShares) -> str:
    """Say how many query images are by a source of their support or of the base images."""
    of_support = f"{percent(shares.support, 1)}\u00a0% by a source of their episode's support"
    if shares.base is None:
        return f"sources: of the query images, {of_support}"
    if shares.base == 0:
        return f"sources: no query image is by a source that base training saw; {of_support}"
    of_base = f"{percent(shares.base, 1)}\u00a0% of the query images are by a source that base training saw"
    return f"sources: {of_base}; {of_support}"


def data_sentence(words: str) -> str:
    """Return words of `data_notes` as a sentence; the name of a run keeps its first letter."""
    return f"{words[0].upper() if words.startswith(('sources: ', 'duplicates: ')) else words[0]}{words[1:]}."


def _words(measured: BenchmarkSummary) -> list[str]:
    said = [] if measured.sources is None else [source_words(measured.sources)]
    return said if measured.duplicates is None else [*said, duplicate_words(measured.duplicates)]


def _of(n_images: int, counts: DuplicateCounts) -> str:
    return f"{count(n_images)} of {count(counts.n_images)} images ({percent(n_images / counts.n_images, 1)}\u00a0%)"
