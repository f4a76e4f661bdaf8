from __future__ import annotations

import operator
import socket
import warnings
from collections.abc import Iterator
from threading import Thread
from typing import Any

import numpy as np
import pytest

from episodes import EpisodeSpec, FeatureBank, Manifest, Probe, collect, make_manifest, score, score_in_parallel
from episodes.executors import Executor, check_cluster, dask, joblib, serial
from episodes.probes import lda, logistic_regression


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 20)
    return FeatureBank.from_arrays(rng.normal(size=(160, 12)) + rng.normal(size=(8, 12))[labels], labels)


@pytest.fixture(scope="module")
def manifest(bank: FeatureBank) -> Manifest:
    spec = EpisodeSpec(n_way=4, n_shot=3, n_query=5, n_episodes=150)
    return make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)


@pytest.fixture(scope="module", params=["serial", "joblib, one worker", "joblib, two workers", "dask, two workers"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "serial":
        yield serial()
    elif request.param.startswith("joblib"):
        yield joblib(n_workers=1 if "one" in request.param else 2)
    else:
        distributed = pytest.importorskip("distributed")
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50
        )
        with cluster:
            yield dask(address=cluster.scheduler_address)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classifier", [lda(), logistic_regression()], ids=["scikit-learn", "batched"])
def test_results_do_not_depend_on_the_executor(
    bank: FeatureBank, manifest: Manifest, executor: Executor, classifier: Any
) -> None:
    probe = Probe(name="probe", classifier=classifier)
    expected = collect(score(bank, manifest, probe), {})
    found = collect(score_in_parallel(bank, manifest, probe, executor), {})
    for name in ("index", "classes", "accuracy", "converged", "predicted"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.nll, expected.nll, atol=1e-6)
    assert found.n_by_solver == expected.n_by_solver


@pytest.mark.filterwarnings("ignore")
def test_queries_of_another_bank_reach_every_executor(
    bank: FeatureBank, manifest: Manifest, executor: Executor
) -> None:
    other = FeatureBank.from_arrays(bank.features + np.float32(0.5), bank.labels)
    probe = Probe(name="probe", classifier=logistic_regression())
    expected = collect(score(bank, manifest, probe, query_bank=other), {})
    found = collect(score_in_parallel(bank, manifest, probe, executor, query_bank=other), {})
    assert np.array_equal(found.accuracy, expected.accuracy)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("classifier", "target"), [(lda(), 0.013), (logistic_regression(), 0.0085)], ids=["scikit-learn", "batched"]
)
def test_the_episode_that_ends_the_scoring_does_not_depend_on_the_executor(
    bank: FeatureBank, executor: Executor, classifier: Any, target: float
) -> None:
    spec = EpisodeSpec(n_way=3, n_shot=2, n_query=5, n_episodes=1500)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    probe = Probe(name="probe", classifier=classifier)
    expected = collect(score(bank, manifest, probe, target_ci95=target), {})
    found = collect(score_in_parallel(bank, manifest, probe, executor, target_ci95=target), {})
    assert 200 < len(expected) < 1500 and len(expected) % 100 == 0
    assert expected.summary().ci95_episodes <= target
    assert np.array_equal(found.accuracy, expected.accuracy)
    assert found.n_by_solver == expected.n_by_solver


@pytest.mark.filterwarnings("ignore")
def test_results_come_in_the_order_of_the_items(executor: Executor) -> None:
    assert list(executor(operator.add, (10,), [3, 1, 2])) == [13, 11, 12]


def test_work_that_nobody_takes_is_ended_without_a_warning() -> None:
    results = joblib(2)(pow, (2,), range(200))
    assert next(results) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results.close()  # type: ignore[attr-defined]
    assert not [each for each in caught if "tasks" in str(each.message)]


@pytest.mark.parametrize("address", ["nonsense", "", "foo://x", "tcp://127.0.0.1:port", "tcp://127.0.0.1:1"])
def test_an_address_without_a_cluster_is_refused(address: str) -> None:
    settings = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    with (
        settings.config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(OSError, match="no Dask scheduler answers at"),
    ):
        check_cluster(address)


def test_another_program_is_no_cluster() -> None:
    pytest.importorskip("distributed")

    def answer(server: socket.socket) -> None:
        with server.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=answer, args=(server,), daemon=True).start()
        with pytest.raises(OSError, match="no Dask scheduler answers at"):
            check_cluster(f"tcp://127.0.0.1:{server.getsockname()[1]}")
