"""What mkdocs does besides: files of `results/` that pages link to, and tables of settings.

A page links to `../results/NAME/table.md` as on GitHub. The site has such a file at `results/`, and
links are changed to that. A line `::: fields PATH CLASS [PREFIX]` becomes a table of the fields of
a configuration class, read from its source.
"""

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?:\.\./)+(results/[^)#\s]+)([)#])")
PICTURE = re.compile(r"\]\((?!http|#)([^)\s]+)\)")
FIELDS = re.compile(r"^::: fields (\S+) (\S+)(?: (\S+))?$", flags=re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """The files of `results/` that pages link to, and the pictures in them, join the site."""
    from mkdocs.structure.files import File

    wanted = set()
    for page in Path(config.docs_dir).rglob("*.md"):
        wanted |= {name for name, _ in LINK.findall(page.read_text())}
    for name in sorted(wanted):
        if name.endswith(".md"):
            beside = Path(name).parent
            pictures = PICTURE.findall((ROOT / name).read_text())
            wanted |= {str(beside / picture) for picture in pictures}
    for name in sorted(wanted):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to `results/` as the site has them, and tables instead of their directives."""
    up = "../" * page.file.src_uri.count("/")
    markdown = LINK.sub(lambda found: f"]({up}{found[1]}{found[2]}", markdown)
    return FIELDS.sub(lambda found: fields_table(*found.groups()), markdown)


def fields_table(path: str, name: str, prefix: str | None) -> str:
    """The fields of the dataclass `name` in the file `path`: option, type, default, meaning."""
    tree = ast.parse((ROOT / path).read_text())
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    rows = ["| option | type | default | what |", "|---|---|---|---|"]
    for field, what in zip(found.body, [*found.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        kind = ast.unparse(field.annotation)
        if kind.startswith("ClassVar") or "Suppress" in kind:
            continue
        default = "" if field.value is None else ast.unparse(field.value)
        if "default_factory" in default:
            continue
        said = ""
        if isinstance(what, ast.Expr) and isinstance(what.value, ast.Constant):
            said = " ".join(str(what.value.value).split())
        option = ".".join(filter(None, [prefix, field.target.id])).replace("_", "-")
        cells = [f"`--{option}`", f"`{kind}`", f"`{default}`" if default else "", said]
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows)
