"""MkDocs hook: every page and the navigation, from the tree as it is at each build.

README, CHANGELOG, CONTRIBUTING and the files of the manual are pages, each notebook is one (it is
shown as it was saved, never run), and each public module has one with its docstrings. Files that a
page links to and that are none of these get a page that shows them.
"""

import json
import os
import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority, get_plugin_logger
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
MANUAL = ROOT / ".docs/manual"
PACKAGES = ("flaxnets", "torch_ref")
TEXTS = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
# Formulas are MathML, which browsers draw by themselves; what is verbatim has dollars of its own.
VERBATIM = re.compile(r"(<(?:pre|code|script|style)\b.*?</(?:pre|code|script|style)>)", re.DOTALL)
FORMULA = re.compile(r"\$\$([^$<]+)\$\$|\$([^$<]+)\$")
HREF = re.compile(r'href="([^"#:]+)')
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")
log = get_plugin_logger(__name__)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation: what is in the tree, packages as sections."""
    notebooks = [f"notebooks/{path.name}" for path in _notebooks()]
    config.nav = [
        {"Home": "index.md"},
        {"Manual": [_page(path) for path in _manual()]},
        *([{"Notebooks": notebooks}] if notebooks else []),
        {"API": [entry for package in PACKAGES for entry in _entries(ROOT / package)]},
        {"Changelog": "changelog.md"},
        {"Contributing": "contributing.md"},
    ]
    return config


@event_priority(100)  # before the plugin that takes the notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that the navigation names, and those that they link to."""
    texts = {path: path.read_text() for path in [*(ROOT / name for name in TEXTS), *_manual()]}
    pages = {_page(path): _moved(path, text) for path, text in texts.items()}
    texts |= {path: _prose(path) for path in _notebooks()}
    for source in [file for path, text in texts.items() for file in _linked(path.parent, text)]:
        if _page(source).startswith("files/"):
            pages[_page(source)] = _file_page(source)
    for package in PACKAGES:
        tree = griffe.load(package, search_paths=[ROOT])
        pages |= {_page(module.filepath): _module_page(module) for module in _modules(tree)}
    for page, content in pages.items():
        hidden = InclusionLevel.NOT_IN_NAV if page.startswith("files/") else InclusionLevel.INCLUDED
        files.append(File.generated(config, page, content=content, inclusion=hidden))
    for path in _notebooks():
        name = f"notebooks/{path.name}"
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    for path in (ROOT / ".docs").glob("*.png"):
        files.append(File.generated(config, f"docs/{path.name}", content=path.read_bytes()))
    return files


def on_page_content(html: str, page: Page, files: Files, **_: object) -> str:
    """A notebook's formulas as MathML, and its links to files of the repository as page links."""
    source = ROOT / page.file.src_uri
    if source.suffix != ".ipynb":
        return html

    def rewritten(found: re.Match) -> str:
        target = Path(os.path.normpath(source.parent / found[1]))
        to = files.get_file_from_path(_page(target)) if target.is_relative_to(ROOT) else None
        return f'href="{to.url_relative_to(page.file)}' if to else found[0]

    parts = VERBATIM.split(html)
    parts[::2] = [FORMULA.sub(_drawn, part) for part in parts[::2]]
    return HREF.sub(rewritten, "".join(parts))


def on_post_build(config: MkDocsConfig) -> None:
    """Follow every link within the site, those of notebooks and docstrings, too."""
    site = Path(config.site_dir).resolve()
    pages = {path: _Links(path.read_text()) for path in site.rglob("*.html")}
    for path, page in pages.items():
        if path.name == "404.html":  # its links start at the address of the site
            continue
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                log.warning(f"{path.relative_to(site)}: {link} leads nowhere")
            elif target in pages and not pages[target].has(unquote(parts.fragment)):
                log.warning(f"{path.relative_to(site)}: {link} has no such place")


class _Links(HTMLParser):
    """Where a page leads, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links |= {link for name in ("href", "src", "srcset") if (link := given.get(name))}
        self.anchors |= {place for name in ("id", "name") if (place := given.get(name))}

    def has(self, place: str) -> bool:
        return not place or place in self.anchors


def _notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def _manual() -> list[Path]:
    """The pages of the manual, in the order in which README lists them."""
    listed = re.findall(r"\(\.docs/manual/(\w+\.md)\) \|", (ROOT / "README.md").read_text())
    left_out = {path.name for path in MANUAL.glob("*.md")} ^ set(listed)
    if left_out:
        log.warning(f"README's list of the manual's pages is not the folder's: {left_out}")
    return [MANUAL / name for name in listed]


def _drawn(found: re.Match) -> str:
    return convert(unescape(found[1] or found[2]), display="block" if found[1] else "inline")


def _prose(notebook: Path) -> str:
    """What a notebook says between its cells of code."""
    cells = json.loads(notebook.read_text())["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def _page(source: Path) -> str:
    """The page of a file of the repository."""
    relative = source.relative_to(ROOT)
    if relative.name in TEXTS and len(relative.parts) == 1:
        return TEXTS[relative.name]
    if source.parent == MANUAL:
        return f"manual/{relative.name}"
    if relative.suffix == ".ipynb":
        return str(relative)
    if relative.suffix == ".py" and relative.parts[0] in PACKAGES:
        stem = "index" if relative.stem == "__init__" else relative.stem
        return str(Path("api", relative.with_name(f"{stem}.md")))
    return f"files/{relative}.md"


def _entries(folder: Path) -> Iterator[dict]:
    """A package's entry of the navigation: its own page, then its modules and packages."""
    inside: list = [_page(folder / "__init__.py")]
    for path in sorted(folder.iterdir()):
        if path.name.startswith("_"):
            continue
        if path.suffix == ".py":
            inside.append({path.stem: _page(path)})
        elif (path / "__init__.py").exists():
            inside += _entries(path)
    yield {folder.name: inside}


def _linked(folder: Path, text: str) -> Iterator[Path]:
    """The files of the repository that a text in a folder links to."""
    for _, link, _ in LINK.findall(text):
        if not urlsplit(link).scheme and (folder / link).is_file():
            yield (folder / link).resolve()


def _moved(source: Path, text: str) -> str:
    """A text with links to files of the repository as links to their pages, from its own page."""
    folder = os.path.dirname(_page(source))

    def rewritten(found: re.Match) -> str:
        before, link, after = found.groups()
        target = Path(os.path.normpath(source.parent / link))
        if urlsplit(link).scheme or not target.is_file():
            return found[0]
        return f"{before}{os.path.relpath(_page(target), folder)}{after}"

    return LINK.sub(rewritten, text).replace('".docs/', '"docs/')  # pictures


def _file_page(source: Path) -> str:
    language = {".py": "python"}.get(source.suffix, "text")
    return f"# {source.relative_to(ROOT)}\n\n````{language}\n{source.read_text()}\n````\n"


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for name, inside in sorted(module.modules.items()):
        if not name.startswith("_") and not inside.is_alias:
            yield from _modules(inside)


def _first_line(thing: griffe.Object) -> str:
    """What a thing is, for a cell of a table."""
    text = thing.docstring.value if thing.docstring else ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def _module_page(module: griffe.Module) -> str:
    """A module's docstrings; of a package also what it exports and which modules it has."""
    if not module.is_init_module:
        return f"::: {module.path}\n"
    own = [
        name
        for name, thing in module.members.items()
        if not (name.startswith("_") or thing.is_alias or thing.is_module) and thing.docstring
    ]
    taken = [name for name in module.exports or () if module.members[str(name)].is_alias]
    rows = []
    for name in taken:
        thing = module.members[str(name)].final_target
        rows.append(f"| [`{name}`][{thing.path}] | {_first_line(thing)} |")
    inside = [part for part in _modules(module) if part.parent is module]
    text = f"::: {module.path}\n    options:\n      members: {own or 'false'}\n"
    if rows:
        text += "\n## Names\n\n| name | |\n|---|---|\n" + "\n".join(rows) + "\n"
    if inside:
        text += "\n## Modules\n\n| module | |\n|---|---|\n"
        text += "".join(
            f"| [`{part.name}`][{part.path}] | {_first_line(part)} |\n" for part in inside
        )
    return text
