"""The examples in docstrings do what they show."""

import doctest
import pkgutil
from importlib import import_module
from types import ModuleType

import pytest

import attfm
from attfm.ops import native_info

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(attfm.__path__, "attfm.")
    if not info.name.endswith(("__main__", "_native"))
)
# What users of explanations hold in their hands.
SHOWN = {
    "attfm.explain.explainer": ["Explainer", "explain_global"],
    "attfm.explain.effect": ["Effect"],
    "attfm.explain.explanation": ["Explanation"],
    "attfm.explain.faithfulness": ["Deletion", "Faithfulness", "check"],
    "attfm.explain.global_explanation": ["GlobalExplanation", "Importance", "PairSurface", "Shape"],
    "attfm.explain.stability": ["Stability.between"],
    "attfm.explain.what_if": ["Change", "Changes", "what_if"],
    "attfm.estimators.classifier": ["AFMClassifier"],
    "attfm.estimators.regressor": ["AFMRegressor"],
}


def examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]


def has_examples(name: str) -> bool:
    path = import_module(name).__file__ or ""
    with open(path, encoding="utf-8") as stream:
        return ">>> " in stream.read()


@pytest.mark.parametrize("name", [name for name in MODULES if has_examples(name)])
def test_examples_do_what_they_show(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    tests = examples(import_module(name))
    assert tests
    if name == "attfm.ops.scoring" and not native_info()["available"]:
        pytest.skip("attfm was installed without its compiled kernels")
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failed = sum(runner.run(test).failed for test in tests)
    assert not failed, capsys.readouterr().out


@pytest.mark.parametrize("name", list(SHOWN))
def test_what_users_meet_has_an_example_of_at_most_ten_lines(name: str) -> None:
    held = {test.name.removeprefix(f"{name}."): len(test.examples) for test in examples(import_module(name))}
    for public in SHOWN[name]:
        assert 1 <= held.get(public, 0) <= 10, public


def test_a_wrong_example_is_found() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner().run(test, out=lambda _: None).failed == 1
