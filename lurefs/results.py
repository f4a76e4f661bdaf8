"""Results of finished runs in Python: as numbers, as data frames, as files, and as the tables of the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from lurefs import console
from lurefs.errors import UserError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lurefs.comparing.finished_runs import Run
    from lurefs.comparing.standings import Standings

Part = Literal["runs", "groups", "pairs", "episodes", "transfers", "rankers"]
FRAMES = ("pandas", "polars")
"""Libraries of data frames; the first one that is installed is taken."""
OF_CARD = ("run", "group", "seed", "backbone", "strategy")
OF_RUN = (
    "benchmark",
    "probe",
    "n_episodes",
    "accuracy",
    "ci95_episodes",
    "ci95_classes",
    "ece",
    "temperature",
    "scaled_ece",
    "coverage",
    "set_size",
    "answered",
    "answered_accuracy",
    "base_test_accuracy",
    "changed_predictions",
    "logme",
    "h_score",
    "nearest_centroid",
    "n_parameters",
    "n_macs",
    "images_per_second",
    "ms_per_episode",
    "train_seconds",
    "note",
)
"""Figures that a single run has; differences and tests are those of groups."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Results:
    """Results of one or several finished runs; Python and notebooks show them as the tables of the command line.

    Attributes:
        runs: The runs: each has its `label`, `directory`, `config`, `summary`, and `accuracies(benchmark, probe)`.
        folder: The folder of all runs and of their page `report.html`; None if they were only compared.
        failures: Run name -> why it has no results; such runs are in no table.
        benchmark: The only benchmark in the tables; None for all.
        probe: The only probe in the tables; None for all.
        is_over_images: Whether groups have intervals on other images of the same classes, too, `ci95_images`.
    """

    runs: tuple[Run, ...]
    folder: Path | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    benchmark: str | None = None
    probe: str | None = None
    is_over_images: bool = False

    @cached_property
    def standings(self) -> Standings:
        """All figures as records: runs, groups of seeds, controls, and paired differences of all groups.

        Its `groups` are runs that differ only by their seed; the interval of several seeds is over seeds, and that of a
        single training over episodes. Its `pairs` are differences on the same episodes, with intervals and p-values
        that are corrected for all pairs (see the page on statistics).
        """
        from lurefs.comparing.over_images import with_intervals_over_images
        from lurefs.comparing.standings import standings

        found = standings(self.runs, benchmark=self.benchmark, probe=self.probe)
        return with_intervals_over_images(found, self.runs) if self.is_over_images else found

    def records(self, part: Part = "runs") -> list[dict[str, Any]]:
        """Return one part of the results in long form, as mappings with the same keys.

        Args:
            part: `runs`: one row per run, benchmark and probe, with accuracy, half widths of its 95 % intervals
                (`ci95_episodes` on this pool of classes, `ci95_classes` on new classes), n_episodes and seed.
                `groups`: one row per group of seeds and control, with the mean over seeds, its interval over seeds
                (`ci95_seeds`), and the difference from the reference. `pairs`: one row per two groups, with the paired
                difference, its intervals and p-values. `episodes`: one row per run, benchmark, probe and episode.
                `transfers`: one row per run, transfer and number of training images per class. `rankers`: one row per
                benchmark and score that chooses a backbone without episodes; none for fewer than five backbones.

        Accuracies, differences and half widths are fractions; None means not applicable or not measured. The columns
        are the fields of `Standing` and `Pair` in `lurefs.comparing.standing_rows`.

        Raises:
            UserError: There is no such part, or a file of a run is missing or damaged.
        """
        parts = {
            "runs": self._runs,
            "groups": self._groups,
            "pairs": lambda: [asdict(pair) for pair in self.standings.pairs],
            "episodes": self._episodes,
            "transfers": self._transfers,
            "rankers": self._rankers,
        }
        if part not in parts:
            raise unknown_name("part of the results", str(part), get_args(Part))
        return parts[part]()

    def frame(self, part: Part = "runs") -> Any:
        """Return `records` as a data frame of pandas, or of polars if pandas is not installed.

        Raises:
            UserError: Neither is installed; otherwise see `records`.
        """
        for name in FRAMES:
            try:
                library = import_module(name)
            except ImportError:
                continue
            return library.DataFrame(self.records(part))
        raise UserError(
            f"there is no library of data frames: neither {' nor '.join(FRAMES)} can be imported",
            "one of the two, which nothing else in lurefs needs",
            f"pip install pandas, or take results.records({part!r}), a list of mappings",
        )

    def save(self, folder: Path | str) -> dict[str, Path]:
        """Write the comparison of the runs as JSON, CSV, Markdown and LaTeX, and as a page; return kind -> path.

        Raises:
            UserError: The folder cannot be written, or a file of a run is damaged.
        """
        from lurefs.comparing.exports import write_exports
        from lurefs.reporting.page import write_page

        place = Path(folder).expanduser()
        paths = write_exports(self.standings, place)
        return {**paths, "report": write_page(self.runs, place, judged=self.standings.verdicts)}

    def __repr__(self) -> str:
        from lurefs.comparing.text_tables import legend, short_tables

        width, lines = console.width(), []
        for table in short_tables(self.standings):
            rows = console.table_lines(table.columns, table.rows, optional=table.optional, width=width)
            lines += [table.title, *rows, *table.notes, ""]
        return "\n".join([*lines, *legend(self.standings), *self._last_words()])

    def _repr_html_(self) -> str:
        """Return the tables of `repr` as HTML, which notebooks show."""
        from lurefs.comparing.text_tables import legend, text_tables

        tables = [
            _html_table(table.title, table.columns, table.rows, table.notes) for table in text_tables(self.standings)
        ]
        return "\n".join(
            [*tables, *(f"<p>{escape(line)}</p>" for line in [*legend(self.standings), *self._last_words()])]
        )

    def _last_words(self) -> list[str]:
        """Return lines on runs that failed, and on the place of the page."""
        failed = [f"failed: {name}: {reason.splitlines()[0]}" for name, reason in self.failures.items()]
        return failed + ([] if self.folder is None else [f"page: {self.folder / 'report.html'}"])

    def _runs(self) -> list[dict[str, Any]]:
        cards = {card.run: asdict(card) for card in self.standings.runs}
        for run in self.runs:
            if run.config.frozen:
                cards[run.label]["strategy"] = None
        return [
            {name: cards[row.name][name] for name in OF_CARD} | {name: _renamed(asdict(row))[name] for name in OF_RUN}
            for row in self.standings.rows
        ]

    def _groups(self) -> list[dict[str, Any]]:
        seeds: dict[str, list[str]] = {}
        for card in self.standings.runs:
            seeds.setdefault(card.group, []).append(str(card.seed))
        rows, reference = (*self.standings.groups, *self.standings.controls), self.standings.reference
        return [
            {**_renamed(asdict(row)), "seeds": ", ".join(seeds.get(row.name, [])), "reference": reference}
            for row in rows
        ]

    def _episodes(self) -> list[dict[str, Any]]:
        from lurefs.comparing.standings import chosen_cells

        groups = {card.run: card.group for card in self.standings.runs}
        rows = []
        for benchmark, probes in chosen_cells(self.runs, self.benchmark, self.probe).items():
            for probe in probes:
                for run in self.runs:
                    if run.result(benchmark, probe) is None:
                        continue
                    found = run.directory.read_episodes(benchmark, probe)
                    if benchmark in run.first:
                        found = found.first(run.first[benchmark])
                    shared = {"run": run.label, "group": groups[run.label], "seed": run.config.seed}
                    shared |= {"benchmark": benchmark, "probe": probe}
                    columns = (found.index, found.accuracy, found.nll, found.brier)
                    names = ("episode", "accuracy", "nll", "brier")
                    values = zip(*map(_without_nan, columns), strict=True)
                    rows += [{**shared, **dict(zip(names, row, strict=True))} for row in values]
        return rows

    def _rankers(self) -> list[dict[str, Any]]:
        return [asdict(row) for ranking in self.standings.rankings for row in ranking.rows]

    def _transfers(self) -> list[dict[str, Any]]:
        rows = []
        for run in self.runs:
            for name, transfer in run.summary.transfer.items():
                for size, figures in transfer.sizes.items():
                    low, high = figures.accuracy.ci95_images or (None, None)
                    rows.append(
                        {
                            "run": run.label,
                            "seed": run.config.seed,
                            "transfer": name,
                            "probe": transfer.probe,
                            "images_per_class": size,
                            "accuracy": figures.accuracy.mean,
                            "ci95_repeats": figures.accuracy.ci95_repeats,
                            "ci95_images_low": low,
                            "ci95_images_high": high,
                            "macro_accuracy": figures.macro_accuracy.mean,
                            "ece": None if figures.ece is None else figures.ece.mean,
                            "n_train": figures.n_train,
                            "n_test": figures.n_test,
                        }
                    )
        return rows


def _without_nan(values: NDArray[Any]) -> list[Any]:
    """Return numbers as a list, with None for those that were not measured."""
    return [None if value != value else value for value in values.tolist()]


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose `mean`, which is a method of data frames, is called `accuracy`."""
    return {"accuracy" if name == "mean" else name: value for name, value in row.items()}


def _html_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    def cells(kind: str, texts: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(text)}</{kind}>" for text in texts) + "</tr>"

    body = "\n".join(cells("td", row) for row in rows)
    said = "".join(f"<p>{escape(note)}</p>" for note in notes)
    head = f"<caption>{escape(title)}</caption>\n<thead>{cells('th', columns)}</thead>"
    return f"<table>\n{head}\n<tbody>\n{body}\n</tbody>\n</table>{said}"
