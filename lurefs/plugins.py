"""Table of all plug-ins that a config can name: kind -> name -> "module:attribute", imported when used.

A name with a colon is itself such a path, so a plug-in of another package needs no registration; the few names of
`NAMED` stand before a colon, too. Every plug-in is a factory, called with the config's `params` as keyword arguments.

A config may come from anyone. So a path may name this table's plug-ins, scikit-learn's classes, and modules beside the
recipe; all other code needs the user's permission, `--allow-code`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lurefs.errors import UserError, first_line, nearest, unknown_name
from lurefs.records import convert, is_plain

TABLE: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "dataset": {
            "icons": "lurefs.data.icons:icons",
            "glyphs": "lurefs.data.glyphs:glyphs",
            "digits": "lurefs.data.digits:digits",
            "folder": "lurefs.data.folder:folder",
            "npz": "lurefs.data.npz:npz",
            "features": "lurefs.data.features_file:features",
            "table": "lurefs.data.table:table",
            "archive": "lurefs.data.archive:archive",
            "webdataset": "lurefs.data.webdataset:webdataset",
            "arrow": "lurefs.data.arrow:arrow",
            "hf": "lurefs.data.hub:hf",
            "idx": "lurefs.data.idx:idx",
            "fashion_mnist": "lurefs.data.idx:fashion_mnist",
            "torchvision": "lurefs.data.torchvision_set:torchvision",
            "timm": "lurefs.data.timm_reader:timm",
            "learn2learn": "lurefs.data.few_shot_set:learn2learn",
        },
        "unlearn": {
            "nothing": "lurefs.learning.unlearn.whole:nothing",
            "from_scratch": "lurefs.learning.unlearn.whole:from_scratch",
            "by_saliency": "lurefs.learning.unlearn.masks:by_saliency",
            "random_mask": "lurefs.learning.unlearn.masks:random_mask",
            "by_magnitude": "lurefs.learning.unlearn.masks:by_magnitude",
            "inverse_saliency": "lurefs.learning.unlearn.masks:inverse_saliency",
            "last_layers": "lurefs.learning.unlearn.parts:last_layers",
            "head": "lurefs.learning.unlearn.parts:head",
            "shrink_perturb": "lurefs.learning.unlearn.shrink:shrink_perturb",
            "dash": "lurefs.learning.unlearn.shrink:dash",
            "fire": "lurefs.learning.unlearn.fire:fire",
            "redo": "lurefs.learning.unlearn.redo:redo",
            "turn_back": "lurefs.learning.unlearn.turn:turn_back",
        },
        "probe": {
            "logistic_regression": "episodes.probes:logistic_regression",
            "ridge": "episodes.probes:ridge",
            "nearest_centroid": "episodes.probes:nearest_centroid",
            "knn": "episodes.probes:knn",
            "linear_svm": "episodes.probes:linear_svm",
            "lda": "episodes.probes:lda",
            "fine_tuning": "lurefs.config.fine_tuning:FineTuningConfig",
        },
        "executor": {
            "serial": "episodes.executors:serial",
            "joblib": "episodes.executors:joblib",
            "dask": "episodes.executors:dask",
        },
    }
)
NAMED: Mapping[str, tuple[str, ...]] = MappingProxyType({"dataset": ("hf", "torchvision", "timm", "learn2learn")})
"""Plug-ins that may be written `NAME:FIRST`, with their first argument."""
RESULTS: Mapping[str, str] = MappingProxyType({"dataset": "lurefs.data.dataset:ImageDataset"})
"""The type that the factories of a kind return."""
OTHER_NAMES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "unlearn": {
            "lure": "did you mean 'by_saliency'? It is the method of LURE",
            "warm_start": "did you mean 'nothing'? A warm start unlearns nothing",
        },
    }
)
"""What to answer to names from papers. They are no second names: equal settings must give equal digests of a run."""
ALLOW_CODE = "LUREFS_ALLOW_CODE"
"""Environment variable that permits code of any module if it is `1`; the processes of a run inherit it."""
ALLOW_CODE_HELP = "let the config name code of any installed module"
_folders: list[Path] = []
"""Folders of `modules_in`."""
_permitted: dict[str, str] = {}
"""Packages of other code that this process may use: name -> file."""


def names(kind: str) -> list[str]:
    """Return the names of all plug-ins of one kind, in the table's order."""
    return list(TABLE[kind])


def is_named(kind: str, name: str) -> bool:
    """Return whether a plug-in comes with lurefs, rather than from a path."""
    return name in TABLE[kind] or name.partition(":")[0] in NAMED.get(kind, ())


def resolve(kind: str, name: str) -> Any:
    """Import and return the plug-in that a config calls `name`.

    Raises:
        UserError: The name is not in the table, or its path cannot be imported.
    """
    prefix, _, first = name.partition(":")
    if prefix in NAMED.get(kind, ()) and first:
        return partial(resolve(kind, prefix), first)
    path = name if ":" in name else TABLE[kind].get(name)
    if path is None:
        unknown = unknown_name(kind, name, TABLE[kind])
        raise UserError(unknown.problem, unknown.expected, OTHER_NAMES.get(kind, {}).get(name.casefold(), unknown.fix))
    is_ours = path in TABLE[kind].values()
    module_name, _, attribute = path.partition(":")
    is_estimator = kind == "probe" and module_name.partition(".")[0] == "sklearn"
    if not (is_ours or is_estimator):
        _ask_permission(kind, name, module_name.partition(".")[0])
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # a module of the user's may raise anything
        raise UserError(
            f"{kind} {name!r} cannot be imported: {first_line(error)}",
            "'package.module:attribute' of a module that Python finds",
            "check the spelling; install the package, put the module beside the recipe, or its folder on PYTHONPATH",
        ) from error
    if is_estimator and not is_ours and "sklearn.base.BaseEstimator" not in _classes_above(found):
        _ask_permission(kind, name, "sklearn")
    return found


def _classes_above(found: Any) -> list[str]:
    return [f"{base.__module__}.{base.__qualname__}" for base in found.__mro__] if inspect.isclass(found) else []


def _ask_permission(kind: str, name: str, package: str) -> None:
    """Raise unless the code of a package may be used, and say once that it will be.

    Raises:
        UserError: It is not installed, or it neither lies beside the recipe nor is permitted by the user.
    """
    if package in _permitted:
        return
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:
        spec, reason = None, first_line(error)
    else:
        reason = f"no module named {package!r}"
    if spec is None:
        raise UserError(
            f"{kind} {name!r} cannot be imported: {reason}",
            "'package.module:attribute' of a module that Python finds",
            "check the spelling; install the package, put the module beside the recipe, or its folder on PYTHONPATH",
        )
    [place, *_] = spec.submodule_search_locations or [spec.origin or package]
    file = spec.origin or place
    is_beside = Path(place).resolve().parent in {folder.resolve() for folder in _folders}
    if not is_beside and os.environ.get(ALLOW_CODE) != "1":
        raise UserError(
            f"{kind} {name!r} would run code of {file}, which is neither a plug-in of lurefs nor beside the recipe",
            f"one of {', '.join(TABLE[kind])}, or your permission",
            "if you know this code and trust it, repeat the command with --allow-code (from Python: allow_code=True)",
        )
    _permitted[package] = file
    if parent_process() is None:
        print(f"note: {kind} {name!r} runs code of {file}", file=sys.stderr)


@contextmanager
def code_allowed(is_allowed: bool) -> Iterator[None]:
    """Let configs name code of any module within the block, also in processes that start there, if it is allowed."""
    before, permitted = os.environ.get(ALLOW_CODE), dict(_permitted)
    if is_allowed:
        os.environ[ALLOW_CODE] = "1"
    try:
        yield
    finally:
        if is_allowed:
            _permitted.clear()
            _permitted.update(permitted)
            if before is None:
                del os.environ[ALLOW_CODE]
            else:
                os.environ[ALLOW_CODE] = before


@contextmanager
def modules_in(*folders: Path) -> Iterator[None]:
    """Let plug-in modules in some folders be imported within the block; installed modules come first."""
    texts = [str(folder) for folder in folders]
    sys.path += texts
    before, _folders[:] = [*_folders], [*_folders, *folders]
    try:
        yield
    finally:
        _folders[:] = before
        for text in texts:
            sys.path.remove(text)


def folders_of(names: Iterable[str]) -> tuple[Path, ...]:
    """Return the folders of imported plug-in modules that only `modules_in` found; other processes need them, too."""
    modules = [sys.modules.get(name.partition(":")[0].partition(".")[0]) for name in names if ":" in name]
    files = [Path(module.__file__) for module in modules if module is not None and module.__file__ is not None]
    roots = [file.parent.parent if file.name == "__init__.py" else file.parent for file in files]
    return tuple(dict.fromkeys(root for root in roots if str(root) not in sys.path))


def check(kind: str, name: str, params: Mapping[str, Any], *, where: str, chosen: Collection[str] = ()) -> None:
    """Raise if a plug-in does not accept the given parameters, without calling it.

    Args:
        kind: A key of `TABLE`.
        name: The plug-in's name or import path.
        params: Keyword arguments of the plug-in.
        where: The plug-in's dotted path in the config, for the error message.
        chosen: Parameters that the config has below `choose` instead of `params`.

    Raises:
        UserError: The name is unknown, it is no factory, or the factory does not accept the parameters or their types.
    """
    signature = _signature(kind, name)
    try:
        signature.bind(**params)
    except TypeError as error:
        accepted = [str(parameter) for parameter in signature.parameters.values()]
        wrong = next((key for key in params if key not in signature.parameters), None)
        guess = nearest(wrong, signature.parameters) if wrong else None
        raise UserError(
            f"{where}.params of {name!r}: {error}",
            f"parameters {', '.join(accepted)}" if accepted else "no parameters",
            f"did you mean {guess!r}?" if guess else f"change {where}.params",
        ) from error
    for part in ("params", "choose"):
        of_part = {key: value for key, value in params.items() if (key in chosen) == (part == "choose")}
        check_types(signature, of_part, where=f"{where}.{part}")


def check_types(signature: inspect.Signature, params: Mapping[str, Any], *, where: str) -> None:
    """Raise if a parameter is of another type than its annotation says, where that is a plain type.

    Raises:
        UserError: One is.
    """
    for key, value in params.items():
        parameter = signature.parameters.get(key)
        if parameter is not None and is_plain(parameter.annotation):
            convert(parameter.annotation, value, f"{where}.{key}")


def own_parameters(kind: str, name: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a plug-in of the table; none for others, whose code is not run to describe them."""
    return inspect.signature(resolve(kind, name)).parameters if name in TABLE[kind] else {}


def _signature(kind: str, name: str) -> inspect.Signature:
    """Return the signature of a factory, with its annotations as types where these can be found."""
    factory = resolve(kind, name)
    try:
        try:
            return inspect.signature(factory, eval_str=True)
        except (NameError, AttributeError):  # annotations of names that are imported for type checkers only
            return inspect.signature(factory)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{kind} {name!r} is no factory: {first_line(error)}", "a function or class with parameters", "name one"
        ) from error


def build(kind: str, name: str, params: Mapping[str, Any]) -> Any:
    """Build a plug-in: call its factory with the config's parameters.

    Raises:
        UserError: The parameters do not suit the factory, or it returns something of another type.
    """
    check(kind, name, params, where=kind)
    factory: Callable[..., Any] = resolve(kind, name)
    try:
        built = factory(**params)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if name in TABLE[kind] or name.partition(":")[0] in NAMED.get(kind, ()):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}, line {last.lineno}"
        raise UserError(
            f"{kind} {name!r} failed: {type(error).__name__}: {first_line(error)} ({place})",
            "a factory that returns without an error for these parameters",
            "correct it, or its parameters",
        ) from error
    module_name, _, attribute = RESULTS.get(kind, "").partition(":")
    if attribute and not isinstance(built, expected := getattr(importlib.import_module(module_name), attribute)):
        raise UserError(
            f"{kind} {name!r} returned {type(built).__module__}.{type(built).__qualname__}",
            f"a factory that returns {expected.__module__}.{expected.__qualname__}",
            f"name one of {', '.join(names(kind))}, or return that type",
        )
    if kind == "unlearn" and built is not None and not callable(built):
        raise UserError(
            f"unlearn {name!r} returned {type(built).__name__}, which cannot be called",
            "a factory that returns a strategy: a function of a boundary",
            f"name one of {', '.join(names(kind))}, or return a function",
        )
    return built
