"""The documentation holds together: links lead somewhere, named files exist, and every page can be found."""

import re
from pathlib import Path

import pytest
import yaml

from scripts.source_pages import definitions, linked_sources, to_the_line, within_site

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
ALL = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]
ROOMS = "services|learner|rollout|verifier|tests|deploy|examples|benchmarks|scripts|requirements"


def prose(page: Path) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that a site and a repository's host both give to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in plain}


def links(page: Path) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in target]


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {target}; {there.name} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_links_to_no_file_outside_the_site_but_source_files(page: Path) -> None:
    """For those the site has pages of its own (scripts/source_pages.py)."""
    for target in links(page):
        inside = (page.parent / target.partition("#")[0]).resolve().is_relative_to(DOCS)
        assert inside or target.removeprefix("../") in linked_sources(page.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_to_a_source_file_is_called_by_a_name_of_it_or_by_the_file(page: Path) -> None:
    for text, path in re.findall(r"\[([^\]]*)\]\(\.\./([\w./-]+\.py)\)", prose(page)):
        names = definitions((ROOT / path).read_text(encoding="utf-8"))
        assert text.strip("`") in {*names, Path(path).name, path}, f"{page.name}: {path} does not define {text}"


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    if page.name == "log.md":
        return  # it tells what was, commands of former layouts included
    for name in re.findall(rf"`((?:{ROOMS})/[\w./-]*)`", prose(page)):
        placeholder = re.search(r"[A-Z]{4,}", name)
        assert placeholder or (ROOT / name).exists(), f"{page.name} names {name}, which does not exist"


def test_every_page_is_in_the_navigation_the_index_and_the_readme() -> None:
    names = {page.name for page in PAGES}
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed: list[str] = []
    for section in navigation:
        for entry in section.values():
            listed += [entry] if isinstance(entry, str) else [path for page in entry for path in page.values()]
    assert sorted(listed) == sorted(names)
    assert {target.partition("#")[0] for target in links(DOCS / "index.md")} == names - {"index.md"}
    in_readme = {target.partition("#")[0] for target in links(ROOT / "README.md")}
    assert {f"docs/{name}" for name in names - {"index.md"}} <= in_readme


def test_a_link_to_a_source_file_leads_to_its_page_in_the_site_and_to_the_line_of_its_name() -> None:
    markdown = "[`Score`](../services/wire/verdict.py), [`verdict.py`](../services/wire/verdict.py), [x](index.md)"
    assert linked_sources(markdown) == ["services/wire/verdict.py"]
    assert within_site(markdown).count("](source/services/wire/verdict.py.md)") == 2
    line = definitions((ROOT / "services/wire/verdict.py").read_text(encoding="utf-8"))["Score"].lines.start
    to = 'href="source/services/wire/verdict.py.html'
    assert to_the_line(f'<a {to}"><code>Score</code></a>') == f'<a {to}#__codelineno-0-{line}"><code>Score</code></a>'
    assert to_the_line(f'<a {to}"><code>verdict.py</code></a>') == f'<a {to}"><code>verdict.py</code></a>'


def test_a_definition_has_its_decorators_and_its_docstring() -> None:
    source = (
        '@cache\ndef f():\n    pass\n\n\nclass A:\n    b: int = 1\n    """Says b\n    in two lines."""\n    c: int\n'
    )
    lines = {name: (each.lines.start, each.lines.stop - 1) for name, each in definitions(source).items()}
    assert lines == {"f": (1, 3), "A": (6, 10), "A.b": (7, 9), "A.c": (10, 10)}
