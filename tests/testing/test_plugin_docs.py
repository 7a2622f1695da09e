"""The guide to testing teaches what works: each of its code blocks is run, and fails where it says that it fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rustpbx.testing.house  # noqa: F401 - numpy cannot be loaded twice, and the inner runs forget what they loaded

pytest_plugins = ["pytester"]

GUIDE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
FILES = {block.split("\n", 1)[0].removeprefix("# "): block for kind, block in BLOCKS if kind == "python"}
OUTPUT = [block for kind, block in BLOCKS if kind == "text"]
FAILING = {"test_failing.py": OUTPUT[:3], "test_forgetting.py": OUTPUT[3:]}


@pytest.fixture
def guide(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with every file of the guide."""
    for name, text in FILES.items():
        (pytester.path / name).write_text(text)
    return pytester


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("test_") and name not in FAILING])
def test_the_examples_pass(guide: pytest.Pytester, name: str) -> None:
    """Every test of the file passes, with the plugin as it is installed."""
    result = guide.runpytest_inprocess(name, "-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=FILES[name].count("async def test_") + FILES[name].count("stalls(after=1.0)"))


@pytest.mark.parametrize("name", FAILING)
def test_the_failures_say_what_the_guide_says(guide: pytest.Pytester, name: str) -> None:
    """The file's test fails, and its output holds the lines shown."""
    result = guide.runpytest_inprocess(name, "-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(failed=1)
    for lines in FAILING[name]:
        shown = re.sub(r"[0-9a-f]{32}@\S+:", "<call>:", result.stdout.str())
        shown = re.sub(r"on port \d+", "on port <port>", shown)
        shown = re.sub(r"RTP x \d+", "RTP x <n>", shown)
        assert lines in shown
