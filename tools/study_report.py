"""The page of a study from its rows: means and paired differences over seeds as tables, a CSV file and charts.

Everything follows from `study.yaml` and the rows, so that the same rows give the same files. In `README.md` only what
stands between `<!-- tools/study.py: NAME -->` and `<!-- end -->` is written; the rest is for people to write.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from study_cells import Key, Study
from study_results import ACCURACY, COSTS, LEVEL, OUTCOMES, SECONDS, Difference, Measure, Results, mean_and_interval

from episodes.files import write_text
from lurefs.records import Row
from lurefs.reporting.charts.curves import Interval, Line, curves, intervals
from lurefs.reporting.charts.pareto import scatter

BETTER, WORSE, UNCLEAR = 2, 1, 5
"""Colours and markers of differences: a green triangle, a red square, a light cross."""


def write_report(folder: Path, study: Study, rows: Mapping[Key, Row]) -> Path:
    """Write the page, the differences and the charts of a study; return the page's path."""
    results = Results(study=study, rows=rows)
    figures = draw(results)
    for name, svg in figures.items():
        write_text(folder / "figures" / f"{name}.svg", svg)
    write_text(folder / "differences.csv", differences_csv(results))
    blocks = {"made": made(results, folder), "overview": overview(results)}
    blocks |= {f"regime {regime}": regime_block(results, regime, list(figures)) for regime in results.regimes}
    path = folder / "README.md"
    page = path.read_text(encoding="utf-8") if path.is_file() else f"# Study: {folder.name}\n"
    for name, text in blocks.items():
        page = put_block(page, name, text)
    write_text(path, page)
    return path


def put_block(page: str, name: str, text: str) -> str:
    """Replace what stands between a block's markers, or add the block with a heading at the end of the page."""
    begin, end = f"<!-- tools/study.py: {name} -->", "<!-- end -->"
    block = f"{begin}\n\n{text.strip()}\n\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), flags=re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: block, page, count=1)
    heading = name.removeprefix("regime ").replace("_", " ").capitalize()
    return f"{page.rstrip()}\n\n## {heading}\n\n{block}\n"


def made(results: Results, folder: Path) -> str:
    """Say what the numbers were made by, and what they mean."""
    study, rows = results.study, list(results.rows.values())
    machines = sorted({row["machine"] for row in rows})
    versions = sorted({", ".join(f"{name} {version}" for name, version in row["versions"].items()) for row in rows})
    minutes = sum(row["cell_cpu_seconds"] for row in rows) / 60
    missing = len(study.keys) - len(rows)
    reference = study.references[0]
    differing = [f"`{name}`" for name in differing_from_the_start(results, reference)]
    return f"""\
```
OMP_NUM_THREADS=1 uv run python tools/study.py docs/studies/{folder.resolve().name}
```

{len(rows)} cells{f" ({missing} are missing)" if missing else ""}: {len(study.regimes)} regimes, \
{len(study.strategies)} strategies, {results.n_seeds} seeds. They took {minutes:.0f} min of one core: \
{"; ".join(machines)}; {"; ".join(versions)}. What is compared: [study.yaml](study.yaml). One row a cell: \
[cells.jsonl](cells.jsonl). All differences, with p: [differences.csv](differences.csv).

± is half of the 95 % interval over training seeds (Student's t), on the same classes and episodes. Strategies of one \
seed share chunks, initial weights and augmentation, and differences are paired by seed. **Bold**: p < {LEVEL:g} by a \
paired t test over seeds, corrected by Holm for all strategies that are compared with the same reference by the same \
measure in the same regime. The interval is not corrected. CPU seconds are of learning \
alone, without few-shot episodes; other work on the machine changes them less than seconds of the clock.

In the charts of differences, a green triangle is better than `{reference}` in that sense, a red square worse, and a \
light blue cross is not told apart from it. The first chunk, before anything is unlearned, gave the same accuracy as \
with `{reference}` for every seed and regime{f", but for {', '.join(differing)}" if differing else ""}."""


def differing_from_the_start(results: Results, reference: str) -> list[str]:
    """Return the strategies whose first chunk went otherwise than the reference's: they learn by other settings."""

    def first(key: Key) -> float | None:
        return results.rows[key]["chunks"]["accuracy"][0] if key in results.rows else None

    found = {
        strategy
        for regime, strategy, seed in results.rows
        if first((regime, reference, seed)) not in (None, first((regime, strategy, seed)))
    }
    return [strategy for strategy in results.study.strategies if strategy in found]


def overview(results: Results) -> str:
    """Return, for accuracy and each benchmark, the differences from the first reference: one column a regime."""
    reference = results.study.references[0]
    parts = []
    for measure in (ACCURACY, *results.few_shot):
        columns = {regime: results.differences(regime, reference, measure) for regime in results.regimes}
        parts.append(f"Difference from `{reference}` in {measure.title}, points:")
        parts.append(difference_table(results, columns, dict.fromkeys(columns, measure)))
    return "\n\n".join(parts)


def regime_block(results: Results, regime: str, figures: Sequence[str]) -> str:
    """Return the charts and tables of one regime."""
    images = [name for name in figures if name.endswith(f"--{regime}")]
    parts = [
        "\n".join(f'<img src="figures/{name}.svg" width="49%" alt="{alternative(name)}">' for name in images),
        mean_table(results, regime, results.measured([*OUTCOMES, *results.few_shot])),
        mean_table(results, regime, results.measured(COSTS)),
    ]
    for reference in results.study.references:
        if reference not in results.strategies(regime):
            continue
        measures = {f"{measure.title}, {measure.unit_of_differences}": measure for measure in results.paired_measures}
        columns = {title: results.differences(regime, reference, measure) for title, measure in measures.items()}
        summary = f"<summary>Differences from <code>{reference}</code>, paired by seed</summary>"
        is_open = " open" if reference == results.study.references[0] else ""
        table = difference_table(results, columns, measures)
        parts.append(f"<details{is_open}>{summary}\n\n{table}\n\n</details>")
    return "\n\n".join(parts)


def alternative(figure: str) -> str:
    """Return what a screen reader says of a chart."""
    return figure.replace("--", ", ").replace("-", " ").replace("_", " ")


def mean_table(results: Results, regime: str, measures: Sequence[Measure]) -> str:
    """Return the mean over seeds of every measure, one row a strategy."""
    lines = []
    for strategy in results.strategies(regime):
        cells = [f"`{strategy}`"]
        for measure in measures:
            values = results.by_seed(regime, strategy, measure.of)
            mean, ci95 = mean_and_interval(values)
            cells.append("–" if mean is None else written(measure, mean, ci95) + of_seeds(results, len(values)))
        lines.append(cells)
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    heads = [f"{measure.title}, {measure.unit}{arrows[measure.better]}" for measure in measures]
    return markdown_table(["strategy", *heads], lines)


def difference_table(
    results: Results, columns: Mapping[str, Mapping[str, Difference]], measures: Mapping[str, Measure]
) -> str:
    """Return differences by column and strategy, one row a strategy."""
    lines = []
    for strategy in results.study.strategies:
        cells = [f"`{strategy}`"]
        for title, column in columns.items():
            entry = column.get(strategy)
            if entry is None:
                cells.append("–")
                continue
            text = written(measures[title], entry.mean, entry.ci95_seeds, sign="+")
            cells.append((f"**{text}**" if entry.is_told_apart else text) + of_seeds(results, entry.n_seeds))
        if any(cell != "–" for cell in cells[1:]):
            lines.append(cells)
    return markdown_table(["strategy", *columns], lines)


def written(measure: Measure, mean: float, ci95: float | None, sign: str = "") -> str:
    """Return a mean with its interval."""
    text = f"{mean:{sign}.{measure.n_digits}f}"
    return text if ci95 is None else f"{text} ± {ci95:.{measure.n_digits}f}"


def of_seeds(results: Results, n_seeds: int) -> str:
    """Return how many seeds a figure is of, where that is not all of them."""
    return "" if n_seeds == results.n_seeds else f" (n = {n_seeds})"


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *lines])


def differences_csv(results: Results) -> str:
    """Return all paired differences as CSV, in the units of the tables."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["regime", "measure", "unit", "strategy", "less", "n_seeds", "mean", "ci95_seeds", "p", "p_holm"])
    for regime in results.regimes:
        for reference in results.study.references:
            for measure in results.paired_measures:
                for strategy, entry in results.differences(regime, reference, measure).items():
                    figures = (entry.mean, entry.ci95_seeds, entry.p, entry.p_holm)
                    shown = ["" if value is None else f"{value:.4g}" for value in figures]
                    place = (regime, measure.key, measure.unit_of_differences, strategy, reference)
                    writer.writerow([*place, entry.n_seeds, *shown])
    return buffer.getvalue()


def draw(results: Results) -> dict[str, str]:
    """Return the charts as SVG texts by name."""
    study = results.study
    reference = study.references[0]
    styles = {strategy: style for style, strategy in enumerate(dict.fromkeys([*study.curves, *study.costs]))}
    figures = {}
    for regime in results.regimes:
        for measure in (ACCURACY, *results.few_shot[:1]):
            if rows := difference_intervals(results.differences(regime, reference, measure), measure):
                name = f"difference-in-{measure.title.replace(' ', '-')}--{regime}"
                label = f"{measure.title}\nless that of {reference}, points"
                figures[name] = intervals(rows, name=name, x_label=label, zero_line=True)
        present = results.strategies(regime)
        if lines := [curve(results, regime, name, styles[name]) for name in study.curves if name in present]:
            name = f"accuracy-over-chunks--{regime}"
            figures[name] = curves(lines, name=name, x_label="chunks seen", y_label="accuracy, %")
        if points := [cost_point(results, regime, name, styles[name]) for name in study.costs if name in present]:
            name = f"accuracy-and-cost--{regime}"
            figures[name] = scatter(points, name=name, x_label="learning, CPU seconds", y_label="final accuracy, %")
    return figures


def difference_intervals(differences: Mapping[str, Difference], measure: Measure) -> list[Interval]:
    """Return the differences that have an interval; colour and marker say which are told apart from nothing."""
    rows = []
    for strategy, entry in differences.items():
        is_better = (entry.mean > 0) == (measure.better == "higher")
        style = (BETTER if is_better else WORSE) if entry.is_told_apart else UNCLEAR
        if entry.ci95_seeds is not None:
            rows.append(Interval(label=strategy, value=entry.mean, inner=entry.ci95_seeds, outer=None, style=style))
    return rows


def curve(results: Results, regime: str, strategy: str, style: int) -> Line:
    """Return the mean accuracy after each chunk."""
    by_seed = results.by_seed(regime, strategy, lambda row: row["chunks"]["accuracy"])
    n_chunks = len(next(iter(by_seed.values())))
    found = [
        mean_and_interval({seed: 100 * values[chunk] for seed, values in by_seed.items()}) for chunk in range(n_chunks)
    ]
    return Line(
        label=strategy,
        x=range(1, n_chunks + 1),
        y=[mean for mean, _ in found],
        half_width=None if found[0][1] is None else [ci95 for _, ci95 in found],
        style=style,
    )


def cost_point(results: Results, regime: str, strategy: str, style: int) -> Line:
    """Return the mean final accuracy against the mean CPU seconds."""
    seconds, _ = mean_and_interval(results.by_seed(regime, strategy, SECONDS.of))
    mean, ci95 = mean_and_interval(results.by_seed(regime, strategy, ACCURACY.of))
    return Line(label=strategy, x=[seconds], y=[mean], half_width=None if ci95 is None else [ci95], style=style)
