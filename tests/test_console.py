"""Console examples: run, compared, rewritten; gate g, the README's numbers."""

from pathlib import Path

from vlmmem.cite.book import pages
from vlmmem.cite.console import check_console, fix_console

ROOT = Path(__file__).resolve().parent.parent


def block(*lines: str) -> str:
    return "\n".join(("before", "", "```console", *lines, "```", "", "after"))


def test_the_output_that_a_command_prints_stands() -> None:
    assert check_console(fix_console(block("$ vlmmem figure inference:70b-kv", "old")), "x.md") == []


def test_another_output_is_told_with_its_line() -> None:
    right = fix_console(block("$ vlmmem cite inference:70b-kv"))
    assert "1.34 GB" in right
    problems = check_console(right.replace("1.34 GB", "1.33 GB"), "README.md")
    assert problems == ["README.md:4: '$ vlmmem cite inference:70b-kv' prints something else; 'make fix' rewrites it"]


def test_a_complaint_is_an_output_too() -> None:
    assert "vlmmem: error: figure 'no:such'" in fix_console(block("$ vlmmem figure no:such"))


def test_commands_of_others_show_no_output_that_nobody_checks() -> None:
    assert check_console(block("$ make book", "$ make test"), "x.md") == []
    (problem,) = check_console(block("$ make book", "built in 3 s"), "x.md")
    assert "nothing checks" in problem


def test_other_blocks_stay_as_they_are() -> None:
    text = "```text\n$ vlmmem figure no:such\nanything\n```\n"
    assert fix_console(text) == text
    assert check_console(text, "x.md") == []


def test_fixing_twice_changes_nothing() -> None:
    once = fix_console(block("$ make book", "$ vlmmem cite footprint:13b-total", "$ vlmmem gpus"))
    assert fix_console(once) == once


def test_the_readme_shows_commands_of_ours() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "$ vlmmem " in text
    assert ROOT / "README.md" in pages(ROOT)
    assert check_console(text, "README.md") == []


def test_a_changed_readme_is_red() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = text.index("$ vlmmem cite")
    changed = text[:start] + text[start:].replace(" GB (", " GiB (", 1)
    assert changed != text
    assert check_console(changed, "README.md")
