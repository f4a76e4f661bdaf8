"""The report page in a real browser: it needs no network and no script, nor eyes, mouse or colours."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes.manifest import Manifest
from episodes.metrics import Reliability
from episodes.sampler import EpisodeSpec
from episodes.table import EpisodeTable
from lurefs.comparing.finished_runs import read_runs
from lurefs.reporting.page import write_page
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import ChunkOutcome
from made_up_runs import outcome, write_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no chromium, chromium-browser or google-chrome", allow_module_level=True)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = '<script>window.wasRun = true</script>"\'><img src=x onerror="window.wasRun = true">'
NAMES = ("warm", "lure", HOSTILE, "convnext_atto")
BENCHMARKS = {"one-shot": 1, "five-shot": 5}
N_EPISODES = 40
OPEN_ALL = "() => document.querySelectorAll('details').forEach((part) => { part.open = true; })"


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of four runs on two benchmarks by two probes; the last run has no cost card."""
    folder = tmp_path_factory.mktemp("browser")
    runs = read_runs([_make_run(folder / str(place), place) for place in range(len(NAMES))])
    named = [replace(run, label=name) for run, name in zip(runs, NAMES, strict=True)]
    return write_page(named, folder / "out")


def _make_run(path: Path, place: int) -> RunDirectory:
    benchmarks = {key: {"n_way": 2, "n_shot": shot, "n_query": 5, "n_episodes": 40} for key, shot in BENCHMARKS.items()}
    probes = {"centroid": {"name": "nearest_centroid"}, "ridge": {"name": "ridge"}}
    values = {
        "name": f"run {place}",
        "dataset": {"name": "npz", "params": {"path": "gone.npz"}},
        "backbone": {"name": "test_resnet", "params": {"width": place}},
        "unlearn": {"name": "by_saliency" if place else "nothing"},
        "benchmarks": benchmarks,
        "probes": probes,
    }
    manifests = {key: _manifest(shot) for key, shot in BENCHMARKS.items()}
    directory = write_run(
        path,
        values,
        {key: dict.fromkeys(probes, _table(manifest, place)) for key, manifest in manifests.items()},
        manifests,
        outcomes=[_outcome(chunk, place) for chunk in range(2)],
        seconds=60.0,
        ece=0.1,
        ms_per_episode=1.0 + place,
    )
    if place < 3:
        card = {
            "n_parameters": 10**6 * (3 - place),
            "n_macs": 10**8 * (place + 1),
            "images_per_second": 300.0 / (place + 1),
        }
        directory.cost_path.write_text(json.dumps(card))
    return directory


def _manifest(shot: int) -> Manifest:
    generator = np.random.default_rng(shot)
    classes = np.stack([generator.permutation(4)[:2] for _ in range(N_EPISODES)])
    images = np.stack([[20 * label + generator.permutation(20)[: shot + 5] for label in row] for row in classes])
    return Manifest(
        spec=EpisodeSpec(n_way=2, n_shot=shot, n_query=5, n_episodes=N_EPISODES),
        seed=0,
        images_digest="0" * 64,
        classes=classes,
        support=images[:, :, :shot].reshape(N_EPISODES, -1),
        query=images[:, :, shot:].reshape(N_EPISODES, -1),
    )


def _table(manifest: Manifest, place: int) -> EpisodeTable:
    """Return results whose accuracies rise by 10 points from run to run."""
    right = np.random.default_rng(5).integers(4, 7, N_EPISODES) + place
    n, confidence = np.zeros(15, dtype=np.int64), np.zeros(15)
    n[[7, 12]], confidence[[7, 12]] = 200, (100.0, 160.0)
    return EpisodeTable(
        index=np.arange(N_EPISODES),
        classes=manifest.classes,
        accuracy=right / 10,
        nll=np.full(N_EPISODES, np.nan),
        brier=np.full(N_EPISODES, np.nan),
        converged=np.ones(N_EPISODES, dtype=bool),
        seconds=np.full(N_EPISODES, 0.001),
        reliability=Reliability(n=n, confidence=confidence, correct=n // 2 + 10 * place),
        identity={"manifest": manifest.hash},
    )


def _outcome(chunk: int, place: int) -> ChunkOutcome:
    return outcome(
        chunk,
        n_images_seen=1000,
        n_test_errors=30 - 10 * chunk,
        n_test=80,
        test_ece=0.0625,
        test_nll=1.25,
        train_seconds=10.0 + place,
        seconds=10.0 + place,
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, page_path: Path) -> Iterator[Any]:
    """Open the page; afterwards nothing was requested but the file, and the console is empty."""
    contexts, requests, messages = [], [], []

    def opened(
        path: Path = page_path, *, width: int = 1200, scheme: str = "light", scripts: bool = True, **options: Any
    ) -> Any:
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, java_script_enabled=scripts, **options)
        contexts.append(context)
        context.set_default_timeout(4000)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert len([url for url in requests if not url.startswith("data:")]) == len(contexts)
    assert messages == []


def names(page: Any) -> list[str]:
    """Return the first letters of the visible rows of the leaderboard."""
    cells = page.locator(".board tbody tr[data-group]:visible th").all_inner_texts()
    return [next(name for name in NAMES if name[:6] in cell) for cell in cells]


def status(page: Any) -> str:
    text: str = page.locator("#status").inner_text()
    return text


@pytest.mark.parametrize(
    ("width", "scheme", "has_script"),
    [(1200, "light", True), (400, "dark", True), (1200, "dark", False), (400, "light", False)],
)
def test_the_rules_of_accessibility_hold(
    open_page: Any, page_path: Path, tmp_path: Path, width: int, scheme: str, has_script: bool
) -> None:
    source = page_path.read_text(encoding="utf-8")
    plain = tmp_path / "plain.html"
    # The checker is a script itself, so the browser's own switch would stop it as well.
    plain.write_text(source if has_script else re.sub("<script>.*?</script>\n", "", source, flags=re.DOTALL))
    page = open_page(plain, width=width, scheme=scheme)
    assert page.locator("#controls").is_visible() == has_script
    page.evaluate(OPEN_ALL)
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(entry["id"], [node["html"][:200] for node in entry["nodes"][:3]]) for entry in found] == []


@pytest.mark.parametrize("width", [1200, 400])
def test_nothing_is_wider_than_the_window(open_page: Any, width: int) -> None:
    page = open_page(width=width)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("() => document.documentElement.scrollWidth") == width


def test_without_a_script_everything_is_there_and_nothing_is_dead(open_page: Any) -> None:
    page = open_page(scripts=False)
    assert names(page) == list(reversed(NAMES)) * 2
    assert page.locator("#controls").is_hidden()
    assert page.locator("button").count() == 0
    assert page.locator(".mark title").count() > 50


def test_a_hostile_name_is_shown_and_not_run(open_page: Any) -> None:
    page = open_page()
    assert HOSTILE in page.locator(".board").inner_text()
    assert page.evaluate("() => window.wasRun") is None
    assert page.locator("img[src=x]").count() == 0


def test_the_page_lets_no_other_script_run(open_page: Any) -> None:
    page = open_page()
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert policy.startswith("default-src 'none'; img-src data:;")


class TestSorting:
    def test_a_header_sorts_by_its_numbers_and_says_so(self, open_page: Any) -> None:
        page = open_page()
        header = page.locator(".board thead tr:last-child th").nth(2)
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == "descending"
        assert names(page) == ["convnext_atto", HOSTILE, "lure", "warm"]
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == "ascending"
        assert names(page) == ["warm", "lure", HOSTILE, "convnext_atto"]
        assert status(page) == "Sorted by Accuracy, %, ascending."
        assert page.locator("[aria-sort]").count() == 1

    def test_keys_do_it_too_and_what_is_missing_stays_last(self, open_page: Any) -> None:
        page = open_page()
        button = page.get_by_role("button", name="GMACs").first
        button.focus()
        page.keyboard.press("Enter")
        assert names(page) == ["warm", "lure", HOSTILE, "convnext_atto"]
        page.keyboard.press("Space")
        assert names(page) == [HOSTILE, "lure", "warm", "convnext_atto"]


class TestFiltering:
    def test_words_choose_rows_and_the_number_is_told(self, open_page: Any) -> None:
        page = open_page()
        assert status(page) == "4 of 4 rows are shown."
        page.get_by_label("Runs whose name holds").fill("Atto convnext")
        assert names(page) == ["convnext_atto"]
        assert status(page) == "1 of 4 rows are shown."
        group = page.locator(".board tbody tr[data-group]:visible").get_attribute("data-group")
        faded = page.locator("svg .mark.out").count()
        assert faded > 0 and page.locator(f'svg .mark.out[data-group="{group}"]').count() == 0
        page.get_by_label("Runs whose name holds").fill("")
        assert len(names(page)) == 4 and page.locator(".out").count() == 0

    def test_a_benchmark_hides_the_columns_and_the_parts_of_the_others(self, open_page: Any) -> None:
        page = open_page()
        page.locator("#filter-benchmark").select_option("five-shot")
        assert page.locator(".board thead .of:visible").all_inner_texts() == ["five-shot", "cost", "timed once"]
        assert page.locator(".benchmark:visible h3").all_inner_texts() == ["five-shot"]

    def test_the_first_probe_is_shown_until_another_is_chosen(self, open_page: Any) -> None:
        page = open_page()
        shown = page.locator(".board tbody:visible")
        assert shown.count() == 1 and shown.get_attribute("data-probe") == "centroid"
        page.locator("#filter-probe").select_option("ridge")
        assert shown.count() == 1 and shown.get_attribute("data-probe") == "ridge"
        page.locator("#filter-probe").select_option("all")
        assert status(page) == "8 of 8 rows are shown."


class TestMarks:
    def test_pointing_at_a_mark_tells_its_value_and_highlights_its_run(self, open_page: Any) -> None:
        page = open_page()
        mark = page.locator('svg .mark[aria-label^="lure:"]').first
        mark.hover()
        assert page.locator("#tip").inner_text() == mark.get_attribute("aria-label")
        assert page.locator(".board tr.on:visible th").inner_text().endswith("lure")
        page.keyboard.press("Escape")
        assert page.locator("#tip").is_hidden() and page.locator(".on").count() == 0

    def test_a_chart_is_one_stop_of_the_tab_key_and_arrows_go_through_it(self, open_page: Any) -> None:
        page = open_page()
        chart = page.locator("svg.chart").first
        stops = chart.locator('.mark[tabindex="0"]')
        assert stops.count() == 1
        stops.focus()
        first = page.locator("#tip").inner_text()
        page.keyboard.press("ArrowRight")
        assert page.locator("#tip").inner_text() not in ("", first)
        assert stops.count() == 1
        page.keyboard.press("ArrowLeft")
        assert page.locator("#tip").inner_text() == first

    def test_the_tab_key_goes_from_the_filters_to_the_headers(self, open_page: Any) -> None:
        page = open_page()
        page.get_by_label("Runs whose name holds").focus()
        at = "() => [document.activeElement].map((at) => at.id || at.className || at.innerText)[0]"
        reached = []
        for _ in range(4):
            page.keyboard.press("Tab")
            reached.append(page.evaluate(at))
        assert reached == ["filter-benchmark", "filter-probe", "scroll", "Run"]


def test_nothing_moves_for_those_who_asked_for_that(open_page: Any) -> None:
    page = open_page(reduced_motion="reduce")
    durations = "() => [...document.querySelectorAll('*')].map((part) => getComputedStyle(part).transitionDuration)"
    assert set(page.evaluate(durations)) == {"0s"}


def test_on_paper_the_controls_are_left_out(open_page: Any) -> None:
    page = open_page()
    page.emulate_media(media="print")
    assert page.locator("#controls").is_hidden()
    assert page.locator(".board").is_visible()
