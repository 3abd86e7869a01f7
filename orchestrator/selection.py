"""Select installs of the plan by names, lists, globs, tags, environments, accounts and shards. Pure.

An install has to meet every option that is given, and one value of each. ``--exclude`` wins over the others. The
selected installs are cut to the shard first, then to the limit, in the order of the plan.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import shlex
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UsageError
from orchestrator.listings import install_name_in

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from orchestrator.model import Install

    Fits = Callable[[Install], bool]

MOST_WORDS = 5
"""The most words of one kind that a message lists or suggests a correction for. A correction takes half a second."""

LONGEST_WORD = 100
"""Characters of a word that are compared. A longer comparison takes time and finds nothing."""

_CRITERIA = ("only", "exclude", "tags", "environments", "accounts")
_NOTHING = "(?!)"
_BETWEEN = re.compile(r"[\s,;]+")
_GLOB = re.compile(r"[*?\[]")
_OF_IDS = re.compile(r"^[0-9]|[0-9a-fA-F-]{8}")
_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which installs are selected. An empty selection selects all.

    ``names`` are names or ids. ``listed`` are names or ids too, each with its place as ``file:line``, and ``None`` if
    there is no list. ``only`` and ``exclude`` are globs of names or ids. ``shard`` is I and N, from 1. ``words`` are
    other names of the fields for messages, such as the options of the command line.
    """

    names: tuple[str, ...] = ()
    listed: tuple[tuple[str, str], ...] | None = None
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    limit: int | None = None
    shard: tuple[int, int] | None = None
    words: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def called(self, key: str) -> str:
        """Return the name of the field ``key`` for messages: its word, else ``key`` itself."""
        return self.words.get(key, key)

    @property
    def is_given(self) -> bool:
        """Tell whether the selection has any criterion."""
        return self != Selection()

    def told(self) -> dict[str, Any]:
        """Return the selection as the summary and the journal store it.

        ``named`` tells whether there were names or a list. The names themselves are not stored, as the plan has them.
        """
        return {
            **{key: list(getattr(self, key)) for key in _CRITERIA},
            "limit": self.limit,
            "shard": self.shard and f"{self.shard[0]}/{self.shard[1]}",
            "named": self.is_named or self.listed is not None,
        }

    @property
    def is_named(self) -> bool:
        """Tell whether installs are named one by one as arguments. Such a run takes no lock."""
        return bool(self.names)


def selection_from(fields: object) -> Selection | None:
    """Return the selection that ``told`` returned as ``fields``, ``None`` if they are not usable.

    ``fields`` do not contain names or lists. If there were any, ``listed`` is empty: the installs that they mean are
    already planned, and no others are selected.
    """
    if not isinstance(fields, dict) or not isinstance(fields.get("named"), bool):
        return None
    texts, limit = {key: fields.get(key) for key in _CRITERIA}, fields.get("limit")
    shard = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})", str(fields.get("shard")), re.ASCII)
    are_texts = all(isinstance(each, list) and all(isinstance(word, str) for word in each) for each in texts.values())
    if not are_texts or not isinstance(limit, int | None) or (fields.get("shard") is not None and not shard):
        return None
    criteria: dict[str, Any] = {key: tuple(each or ()) for key, each in texts.items()}
    return Selection(
        **criteria,
        listed=() if fields["named"] else None,
        limit=limit,
        shard=(int(shard[1]), int(shard[2])) if shard else None,
    )


@dataclass(frozen=True, slots=True)
class Selected:
    """The result of a selection.

    ``unknown`` are the entries of the list that match no enabled install, each with the reason. ``disabled`` counts
    the disabled installs of this shard that would otherwise be selected.
    """

    installs: tuple[Install, ...]
    unknown: tuple[tuple[str, str], ...] = ()
    disabled: int = 0


def may_be_meant(install: Install, selection: Selection) -> bool:
    """Return ``False`` if the account or the tags rule out ``install``; this needs no listing."""
    accounts, tags = selection.accounts, selection.tags
    return (not accounts or install.account in accounts) and (not tags or not set(tags).isdisjoint(install.tags))


def selected(installs: Sequence[Install], selection: Selection) -> Selected:
    """Return the selected installs. ``installs`` are all installs of the plan, including the disabled ones.

    Raises ``UsageError`` if a name is not in the plan or is disabled, or if no install is selected in any shard.
    """
    enabled, disabled = ([each for each in installs if each.enabled is wanted] for wanted in (True, False))
    if enabled and not selection.is_given:
        return Selected(tuple(enabled), disabled=len(disabled))
    known, disabled_words = _words_of(enabled), _words_of(disabled)
    _check_names(selection, known, disabled_words)
    criteria = _criteria(selection)
    meant, not_enabled = ([each for each in some if _fits_all(each, criteria)] for some in (enabled, disabled))
    unknown = _not_in_plan(selection, known | disabled_words)
    unknown += _disabled_entries(selection, _words_of(not_enabled) - known)
    if not meant:
        raise UsageError(_nothing(enabled, criteria, unknown, len(not_enabled)))
    part = [each for each in meant if _is_in_shard(_key(each), selection.shard)]
    return Selected(
        installs=tuple(part[: selection.limit]),
        unknown=tuple(each for each in unknown if _is_in_shard(_plain(each[0]), selection.shard)),
        disabled=sum(_is_in_shard(_key(each), selection.shard) for each in not_enabled),
    )


def check_values(installs: Sequence[Install], selection: Selection) -> None:
    """Raise ``UsageError`` for values that match no install because they are written wrongly.

    Such a value contains several values, or a name in capitals or as a domain. Without this check, such an
    ``--exclude`` would silently exclude nothing.
    """
    tags = {tag for each in installs for tag in each.tags}

    def is_glob_of_any(glob: str) -> bool:
        fits = matcher([glob])
        return any(fits(each.name, each.id) for each in installs)

    given: tuple[tuple[str, Sequence[str], Callable[[str], bool]], ...] = (
        (selection.called("tags"), selection.tags, tags.__contains__),
        (selection.called("only"), selection.only, is_glob_of_any),
        (selection.called("exclude"), selection.exclude, is_glob_of_any),
    )
    faults = [
        f"{option} {shlex.quote(value)} matches no install: {remedy}"
        for option, values, fits in given
        for value in values
        if not fits(value) and (remedy := _remedy(option, value, fits))
    ]
    if faults:
        raise UsageError("\n".join(faults))


def _remedy(option: str, value: str, fits: Callable[[str], bool]) -> str | None:
    """Return how to write ``value``, which matches no install, or ``None`` if that is unclear."""
    words = _parts(value)
    if "," in value or (len(words) > 1 and any(map(fits, words))):
        return f"repeat {option} for each value"
    name = install_name_in(value)
    return f"did you mean {name}?" if name and fits(name) else None


def _parts(value: str) -> list[str]:
    """Split ``value`` at spaces, commas and semicolons."""
    return [word for word in _BETWEEN.split(value) if word]


def _fits_all(install: Install, criteria: Sequence[tuple[str, Fits]]) -> bool:
    return all(fits(install) for _, fits in criteria)


def _criteria(selection: Selection) -> list[tuple[str, Fits]]:
    """Return the tests that an install has to meet, each with the options that ask for it."""
    environments = frozenset(selection.environments)
    is_wanted, is_excluded = matcher(selection.only), matcher(selection.exclude)
    every: tuple[tuple[str, Fits], ...] = (
        (_few(map(shlex.quote, selection.names), " "), _answers_to(selection.names)),
        (
            "" if selection.listed is None else selection.called("listed"),
            _answers_to(each for each, _ in selection.listed or ()),
        ),
        (
            _typed(selection.called("accounts"), selection.accounts),
            partial(may_be_meant, selection=Selection(accounts=selection.accounts)),
        ),
        (
            _typed(selection.called("tags"), selection.tags),
            partial(may_be_meant, selection=Selection(tags=selection.tags)),
        ),
        (
            _typed(selection.called("environments"), selection.environments),
            lambda install: _may_be_of(install, environments),
        ),
        (_typed(selection.called("only"), selection.only), lambda install: is_wanted(install.name, install.id)),
        (
            _typed(selection.called("exclude"), selection.exclude),
            lambda install: not is_excluded(install.name, install.id),
        ),
    )
    return [(words, fits) for words, fits in every if words]


def _may_be_of(install: Install, environments: frozenset[str]) -> bool:
    """Tell whether ``install`` has one of ``environments``, or may have one because no listing has shown it yet."""
    is_unknown = install.id is None and install.environment is None
    return is_unknown or install.environment in environments


def _answers_to(entries: Iterable[str]) -> Fits:
    wanted = frozenset(map(_plain, entries))
    return lambda install: not wanted.isdisjoint(_words(install))


def matcher(globs: Iterable[str]) -> Callable[[str | None, str | None], bool]:
    """Return a test of whether any of ``globs`` matches a name, whose case counts, or an id, whose case does not.

    A glob matches ids only if it begins with a digit, as no name does, or has eight characters of ids in a row.
    Otherwise ``--exclude 'a*'`` would exclude a sixteenth of a fleet by chance. Every glob matches the id of an install
    without a name.
    """
    names = _compiled(globs)
    every_id = _compiled(glob.lower() for glob in globs)
    ids = _compiled(glob.lower() for glob in globs if _OF_IDS.search(glob))

    def matches(name: str | None, install_id: str | None) -> bool:
        if name is None:
            return bool(install_id and every_id.match(install_id))
        return bool(names.match(name) or (install_id and ids.match(install_id)))

    return matches


def _compiled(globs: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, globs)) or _NOTHING)


def _plain(word: str) -> str:
    """Return ``word`` ready for comparison: ids in lower case, names unchanged."""
    return word.lower() if _ID.fullmatch(word) else word


def _words(install: Install) -> list[str]:
    """Return the id and the name of ``install``, as far as it has them."""
    return [_plain(word) for word in (install.id, install.name) if word]


def _words_of(installs: Iterable[Install]) -> set[str]:
    return {word for each in installs for word in _words(each)}


def _not_in_plan(selection: Selection, known: set[str]) -> list[tuple[str, str]]:
    """Return the list's entries that match no install and are not ruled out by globs, each with the reason."""
    if selection.names:
        return []
    is_wanted, is_excluded = matcher(selection.only or ("*",)), matcher(selection.exclude)
    return [
        (entry, f"is not in the plan ({place}){_hint(entry, known)}")
        for entry, place in _once(selection.listed)
        if _plain(entry) not in known and is_wanted(entry, _plain(entry)) and not is_excluded(entry, _plain(entry))
    ]


def _hint(entry: str, known: Collection[str]) -> str:
    """Return a hint for an entry of the list that is not among ``known``, or an empty text."""
    words = _parts(entry)
    if "," in entry or (len(words) > 1 and any(_plain(word) in known for word in words)):
        return "; write one name or id per line"
    name = install_name_in(entry)
    return f"; did you mean {name}?" if name in known else ""


def _disabled_entries(selection: Selection, disabled: set[str]) -> list[tuple[str, str]]:
    """Return the list's entries that match only ``disabled`` installs, each with the reason."""
    return [
        (entry, f"is disabled with enabled: false ({place})")
        for entry, place in _once(selection.listed)
        if _plain(entry) in disabled
    ]


def _once(listed: Iterable[tuple[str, str]] | None) -> Iterable[tuple[str, str]]:
    """Return each entry with the first of its places."""
    first: dict[str, tuple[str, str]] = {}
    for entry, place in listed or ():
        first.setdefault(_plain(entry), (entry, place))
    return first.values()


def _key(install: Install) -> str:
    """Return the key that decides the shard of ``install``."""
    return install.id or install.name or ""


def _is_in_shard(key: str, shard: tuple[int, int] | None) -> bool:
    """Tell whether the hash of ``key`` is in ``shard``. So a new or removed install moves no other to another shard."""
    if shard is None:
        return True
    number, count = shard
    return int.from_bytes(hashlib.sha256(key.encode()).digest()) % count == number - 1


def _check_names(selection: Selection, enabled: set[str], disabled: set[str]) -> None:
    """Raise ``UsageError`` with every name that matches no enabled install."""
    missing = [name for name in dict.fromkeys(selection.names) if _plain(name) not in enabled]
    off = [name for name in missing if _plain(name) in disabled]
    gone = [name for name in missing if _plain(name) not in disabled]
    faults = [f"disabled in the configuration (enabled: false): {_quoted(off)}"] if off else []
    if gone:
        near = [_nearest(name, enabled) for name in gone[:MOST_WORDS]]
        meant = f"did you mean {_quoted(dict.fromkeys(each for each in near if each))}?"
        remedy = meant if any(near) else selection.called("see the plan")
        globs = f"; for a glob, use {selection.called('only')}" if any(map(_GLOB.search, gone)) else ""
        globs += "; separate several names with spaces, not commas" if any("," in name for name in gone) else ""
        faults.append(f"not in the plan: {_quoted(gone)}; {remedy}{globs}")
    if faults:
        raise UsageError("\n".join(faults))


def _nearest(name: str, known: Collection[str]) -> str | None:
    written = install_name_in(name)
    if written in known:
        return written
    near = get_close_matches(_plain(name)[:LONGEST_WORD].lower(), known, n=1, cutoff=0.75)
    return near[0] if near else None


def _nothing(
    enabled: Sequence[Install], criteria: Sequence[tuple[str, Fits]], unknown: Sequence[tuple[str, str]], disabled: int
) -> str:
    """Return the message for an empty selection: how many installs each option leaves by itself."""
    if not enabled:
        return "there is no install to back up" + (f"; disabled (enabled: false): {disabled}" if disabled else "")
    counts = (f"{words} leaves {sum(map(fits, enabled))}" for words, fits in criteria)
    parts = [f"no install is selected: of {len(enabled)} in the plan, {', '.join(counts)}"]
    if disabled:
        parts.append(f"matching but disabled (enabled: false): {disabled}")
    if unknown:
        parts.append(_few(f"{shlex.quote(entry)} {why}" for entry, why in unknown))
    return "; ".join(parts)


def _typed(option: str, values: Iterable[str]) -> str:
    """Return an option with ``values``, as a user may have typed it."""
    return _few((f"{option} {shlex.quote(value)}" for value in values), between=" ")


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(map(shlex.quote, words))


def _few(words: Iterable[str], between: str = ", ") -> str:
    first = list(islice(words, MOST_WORDS + 1))
    return between.join([*first[:MOST_WORDS], *("…" for _ in first[MOST_WORDS:])])
