"""README's tree names every file with the first line that the file says of itself.

Write it anew with `python tests/test_readme.py`.
"""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("data", "serving", "training", "components", "pipelines", "mlflow")
SAID = {  # files whose form has no place for a line of their own
    "reviews.json": "The gold corpus, as Label Studio exports it",
    "summaries.json": "Written summaries and strengths of the gold corpus's restaurants",
}
BEGIN, END = "<!-- tree -->\n```\n", "```\n<!-- /tree -->"


def _first_line(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    if path.suffix == ".md":
        return text.split("\n")[0].lstrip("# ")
    if path.name in SAID:
        return SAID[path.name]
    if path.name == "requirements.txt":
        return "What requirements.in names, locked with hashes"
    said = r"({#- |#+ |// |/\* |<!-- )\w"
    comment = next((line for line in text.splitlines() if re.match(said, line)), "")
    return re.sub(r"(-#}|\*/|-->)$", "", comment.lstrip("{#-/*<! ")).strip()


def _files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *ROOMS],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return [ROOT / name for name in sorted(listed) if not name.endswith("__init__.py")]


def tree() -> str:
    lines = []
    for room in ROOMS:
        package = ROOT / room / "__init__.py"
        lines.append(f"{room}/  {_first_line(package) if package.exists() else ''}".rstrip())
        for path in _files():
            relative = path.relative_to(ROOT / room) if path.is_relative_to(ROOT / room) else None
            if relative is not None and path.exists():
                name = f"  {relative.as_posix()}"
                lines.append(f"{name:<44} {_first_line(path)}".rstrip())
    return "\n".join(lines) + "\n"


def test_the_tree_is_true() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split(BEGIN)[1].split(END)[0]
    assert shown == tree(), "write it anew: python tests/test_readme.py"


def test_every_file_says_what_it_is() -> None:
    silent = [path.relative_to(ROOT).as_posix() for path in _files() if not _first_line(path)]
    assert silent == []


def test_the_two_commands_come_first() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert any("make demo" in line for line in lines[:12])
    assert any("make test" in line for line in lines[:12])


def test_every_make_target_that_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named
    assert named <= targets


if __name__ == "__main__":
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    readme.write_text(before + BEGIN + tree() + END + rest.split(END)[1], encoding="utf-8")
