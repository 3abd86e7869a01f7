"""Whatever is done to a valid YAML: it loads, or what is wrong with it is said, with a place, and without a secret."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import load_config, read_fleet
from orchestrator.config.excerpt import LINE_END
from orchestrator.config.secrets import MASK
from orchestrator.errors import ConfigError
from orchestrator.visible import visible

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SECRET = "pA55w0rdHunter2"
ENVIRONMENT = {
    f"{prefix}WPE_API_{name}": SECRET for prefix in ("", "ACME_", "GLOBEX_") for name in ("USER_ID", "PASSWORD")
}
PIECES = [
    *(
        "\x00",
        "\t",
        "\r",
        "\n",
        " ",
        "  ",
        "- ",
        ": ",
        "? ",
        "#",
        "&a ",
        "*a",
        "!!set ",
        "!x ",
        "<<: ",
        "---\n",
        "...\n",
    ),
    *("{", "}", "[", "]", "'", '"', "|\n", ">\n", "%", "@", "`", "$", "$$", "${", "${X", "${X}", "${X:-y}", "\u2028"),
    *(
        ".nan",
        "-1",
        "012",
        "1:30",
        "no",
        "~",
        "null",
        "true",
        "\ufeff",
        "ä",
        "日",
        "\x85",
        "\x1b[2J",
        "{nmae}",
        "\ud7ff",
    ),
    *("id: x\n", "accounts:\n", "accounts: []\n", "  password: [\n", "installs:\n", "  - \n", "version: 1\n"),
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Return a file of ``configs/``, with the secrets written into it, after a few cuts, insertions and swaps."""
    text = draw(st.sampled_from(CONFIGS)).read_text()
    for name in ENVIRONMENT:
        text = text.replace("${" + name + "}", SECRET)
    for _ in range(draw(st.integers(0, 4))):
        lines = text.splitlines(keepends=True) or [""]
        at, until = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        match draw(st.integers(0, 4)):
            case 0:
                text = text[:at] + draw(st.sampled_from(PIECES)) + text[at:]
            case 1:
                text = text[:at] + text[min(until, at + 12) :]
            case 2:
                text = text[:at] + draw(st.text(max_size=6)) + text[at:]
            case 3:
                index = draw(st.integers(0, len(lines) - 1))
                text = "".join(lines[:index] + lines[index : index + 2] + lines[index:])
            case _:
                index = draw(st.integers(0, len(lines) - 1))
                lines[index] = draw(st.sampled_from(["", " ", "  ", "\t"])) + lines[index]
                text = "".join(lines)
    return text


def fault(raw: bytes, environment: dict[str, str]) -> ConfigError | None:
    try:
        load_config(raw, "f.yaml", environment)
    except ConfigError as error:
        return error
    return None


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_a_mutated_yaml_loads_or_says_where_it_is_wrong(text: str) -> None:
    error = fault(text.encode("utf-8", "surrogatepass"), ENVIRONMENT)
    if error is None:
        return
    lines = LINE_END.split(text.removeprefix("\ufeff"))
    assert error.problems
    assert SECRET not in str(error)
    for problem in error.problems:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert problem.message
        assert len(problem.excerpt.split("\n")) == (2 if problem.excerpt else 1)
        assert all(visible(line) == line for line in problem.excerpt.split("\n"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_place(raw: bytes) -> None:
    error = fault(raw, {})
    assert error is not None
    assert all(problem.line >= 1 and problem.column >= 1 for problem in error.problems)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CONFIGS), st.text("${}x5", max_size=8))
def test_what_is_shown_loads_to_the_same(path: Path, words: str) -> None:
    escaped = words.replace("$", "$$").replace("{", "{{").replace("}", "}}")
    text = path.read_text().replace("{date}", "{date} " + escaped)
    shown = read_fleet(text.encode(), str(path), ENVIRONMENT).shown()
    assert SECRET not in shown
    filled = shown.replace(f"'{MASK}'", SECRET)
    assert load_config(filled.encode(), str(path), {}) == load_config(text.encode(), str(path), ENVIRONMENT)
