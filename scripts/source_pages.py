"""A hook of MkDocs: pages link to source files as `../learner/loop.py`, and the site gets a page for each linked file.

In a repository's web view such a link leads to the file. A site has no files above docs/, so this makes the page
source/learner/loop.py.html there and leads the link to it, to the very line where the link's text is the name of something
that the file defines.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(\.\./([\w./-]+\.py)\)")
RENDERED = re.compile(r'href="source/([\w./-]+\.py)\.html"><code>([\w.]+)</code>')
PAGE = """---
search: {{exclude: true}}
---
# `{path}`

~~~~~~~~ python linenums="1"
{text}~~~~~~~~
"""


class Definition(NamedTuple):
    """Something that a module defines."""

    node: ast.stmt
    lines: range
    """From the first decorator to the end of the docstring or body."""


def linked_sources(markdown: str) -> list[str]:
    """The source files that a page links to, each once."""
    return list(dict.fromkeys(LINK.findall(markdown)))


def within_site(markdown: str) -> str:
    """The page with its links to source files led to their pages in the site."""
    return LINK.sub(r"](source/\1.md)", markdown)


def to_the_line(html: str) -> str:
    """The rendered page with such links led to the line of the name that is their text."""

    def with_line(link: re.Match[str]) -> str:
        path, name = link.groups()
        found = definitions((ROOT / path).read_text(encoding="utf-8")).get(name)
        return link[0] if found is None else link[0].replace('.html"', f'.html#__codelineno-0-{found.lines.start}"')

    return RENDERED.sub(with_line, html)


def definitions(source: str) -> dict[str, Definition]:
    """What a module defines, by name: functions, classes and variables; methods and fields as Class.name."""
    return dict(_definitions(ast.parse(source), ""))


def _definitions(parent: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    body = getattr(parent, "body", [])
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min(each.lineno for each in (node, *node.decorator_list))
            yield prefix + node.name, Definition(node, range(first, (node.end_lineno or first) + 1))
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
            end = after.end_lineno if after is not None and isinstance(said, str) else node.end_lineno
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield prefix + target.id, Definition(node, range(node.lineno, (end or node.lineno) + 1))


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each source file that a page links to. MkDocs calls this."""
    from mkdocs.structure.files import File, InclusionLevel  # only the environment of `make docs` has it

    for page in list(files.documentation_pages()):
        for path in linked_sources(page.content_string):
            if files.get_file_from_path(f"source/{path}.md") is None:
                text = PAGE.format(path=path, text=(ROOT / path).read_text(encoding="utf-8"))
                shown = InclusionLevel.NOT_IN_NAV
                files.append(File.generated(config, f"source/{path}.md", content=text, inclusion=shown))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this for each page before it is rendered."""
    return within_site(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """MkDocs calls this for each page when it is rendered."""
    return to_the_line(html)
