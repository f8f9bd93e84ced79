"""Every type that a public method takes or returns has an address `attfm.X`, found at first use."""

import ast
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import attfm
from attfm import errors
from attfm.explain.effect import Effect

ROOT = Path(__file__).parents[1]
SEEN_BY_TYPE_CHECKERS = {"Axes": object}  # matplotlib's
# Modules that `import attfm` and `attfm --help` do without.
LATER = ("torch", "matplotlib", "sklearn", "pandas", "attfm.ops")


def public_members(kind: type) -> Iterator[tuple[str, object]]:
    """Yield the public methods and properties of a class of attfm, those of its bases in attfm too."""
    for name, member in inspect.getmembers(kind):
        plain = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and getattr(plain, "__module__", "").startswith("attfm."):
            yield name, plain


def types_in(annotation: object) -> set[type]:
    """Return the classes of attfm that an annotation names, at whatever depth."""
    found = {annotation} if isinstance(annotation, type) and annotation.__module__.startswith("attfm.") else set()
    return found.union(*(types_in(part) for part in typing.get_args(annotation)))


def types_told(kind: type, *, taken: bool = False, attributes: bool = True) -> set[type]:
    """Return the classes of attfm that a class's public methods and properties return.

    taken : those of the methods' parameters too; attributes : those of its attributes too
    """
    hints = typing.get_type_hints(kind) if attributes else {}
    annotations = [hint for name, hint in hints.items() if not name.startswith("_")]
    for _, member in public_members(kind):
        if callable(member):
            told = typing.get_type_hints(member, localns=SEEN_BY_TYPE_CHECKERS)
            annotations += [hint for name, hint in told.items() if taken or name == "return"]
    return set().union(*(types_in(annotation) for annotation in annotations))


def without_address(kinds: set[type]) -> list[str]:
    """Return the names of classes that `attfm.X` does not give."""
    exported = [getattr(attfm, name) for name in attfm.__all__]
    return sorted(kind.__name__ for kind in kinds if kind not in exported)


@pytest.mark.parametrize("estimator", [attfm.AFMClassifier, attfm.AFMRegressor])
def test_what_estimators_take_and_return_has_an_address(estimator: type) -> None:
    told = types_told(estimator, taken=True)
    assert {attfm.Explanation, attfm.GlobalExplanation, attfm.Changes, attfm.Faithfulness, attfm.Model} <= told
    assert without_address(told) == []


@pytest.mark.parametrize(
    "kind", [attfm.Explanation, attfm.Changes, attfm.Faithfulness, attfm.Stability, attfm.Config, attfm.Effect]
)
def test_what_their_results_hold_and_return_has_an_address(kind: type) -> None:
    assert without_address(types_told(kind)) == []


def test_what_the_model_as_a_whole_returns_has_an_address() -> None:
    told = types_told(attfm.GlobalExplanation, attributes=False)
    assert {attfm.Importance, attfm.Shape, attfm.PairSurface, attfm.Stability} <= told
    assert without_address(told) == []


def test_a_type_without_an_address_is_found() -> None:
    class Hidden:
        __module__ = "attfm.hidden"

    class Estimator:
        def explain(self) -> dict[str, list[Hidden] | None]: ...

    Estimator.explain.__annotations__["return"] = dict[str, list[Hidden] | None]
    Estimator.explain.__module__ = "attfm.hidden"
    assert types_told(Estimator) == {Hidden}
    assert without_address(types_told(Estimator) | {Effect}) == ["Hidden"]


def test_all_names_are_listed_sorted_and_there() -> None:
    assert attfm.__all__ == sorted(set(attfm.__all__), key=lambda name: (name[0].islower(), name))
    assert dir(attfm) == sorted([*attfm.__all__, "__version__"])
    for name in attfm.__all__:
        value = getattr(attfm, name)
        assert value.__name__ == name
        assert value.__module__.startswith("attfm.")
    with pytest.raises(AttributeError, match="module 'attfm' has no attribute 'AFMClasifier'"):
        attfm.AFMClasifier  # noqa: B018


def test_all_errors_have_an_address() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.AttfmError)]
    assert without_address(set(kinds)) == []


def test_type_checkers_see_the_names_that_are_loaded_at_first_use() -> None:
    tree = ast.parse(Path(attfm.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told == attfm._LAZY
    known = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(attfm.__all__) == set(told) | (known & set(attfm.__all__))


@pytest.mark.parametrize(
    "code", ["import attfm", "from attfm.cli import main; assert main(['--help']) == 0"], ids=["import", "help"]
)
def test_no_large_library_is_loaded_before_it_is_used(code: str) -> None:
    code += f"; import sys; assert not set({LATER!r}) & set(sys.modules), set({LATER!r}) & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def texts() -> list[Path]:
    """Return the README, the pages of the docs, and the sources, whose docstrings name things too."""
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("src/**/*.py"))]


def is_there(address: str) -> bool:
    """Return whether attfm has what `attfm.a.b` names: a module or package, or something that one holds."""
    if address == "attfm.__version__" or find_spec_of(address):
        return True
    module, _, name = address.rpartition(".")
    if module == "attfm":
        return name in attfm.__all__
    if find_spec_of(module):
        return hasattr(import_module(module), name)
    owner, _, kind = module.rpartition(".")
    held = getattr(import_module(owner), kind, None) if owner and find_spec_of(owner) else None
    return held is not None and hasattr(held, name)


def find_spec_of(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_texts_name_only_what_is_there() -> None:
    absent = []
    for path in texts():
        text = path.read_text(encoding="utf-8")
        # In sources only what stands in backticks is prose: other text may be code, or a key in a file.
        start = "`" if path.suffix == ".py" else r"(?<![\w./:-])"
        named = re.findall(start + r"(attfm(?:\.[A-Za-z_]\w*)+)(?=[^\w.-]|\.\s|$)", text)
        for line in re.findall(r"from attfm import ([\w, ]+)", text):
            named += [f"attfm.{name.strip()}" for name in line.split(",")]
        absent += [f"{path.relative_to(ROOT)}: {address}" for address in sorted(set(named)) if not is_there(address)]
    assert absent == []
