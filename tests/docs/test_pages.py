"""The documentation holds together: links lead somewhere, named files exist, and every page can be found."""

import re
from pathlib import Path

import pytest
import yaml

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
def test_a_page_links_to_no_file_outside_the_site(page: Path) -> None:
    for target in links(page):
        assert (page.parent / target.partition("#")[0]).resolve().is_relative_to(DOCS), target


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
