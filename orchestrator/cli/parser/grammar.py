"""What the parser is made of: options in groups, plain help, and commands whose work is imported when they run."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from click.shell_completion import CompletionItem

PROGRAM = "wpe-backup"
PACKAGE = "orchestrator.cli"

NOTE = """
Each option can come from an environment variable, such as {option} from
{variable}.{repeatable}
All options in detail: docs/cli.md
"""
REPEATABLE = """
Options with ... can be repeated. In the variable of such an option, separate
the values by commas."""


def function(reference: str) -> Callable[..., Any]:
    """Return the function that ``reference`` names, as ``module:function`` below ``orchestrator.cli``."""
    module, _, name = reference.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"{PACKAGE}.{module}"), name)
    return found


class Converted(click.ParamType[Any]):
    """A type whose texts are converted by a function that is imported when a value is given."""

    def __init__(self, metavar: str, reference: str) -> None:
        """Convert by the function that ``reference`` names; it raises ``click.BadParameter`` for a wrong text."""
        self.name = metavar
        self.reference = reference

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:  # noqa: ARG002 - click's signature
        """Return what stands for the value in the help."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's signature
        """Return the converted text; a default is converted already, and completion needs no conversion."""
        is_text = isinstance(value, str) and not (ctx and ctx.resilient_parsing)
        return function(self.reference)(value, param) if is_text else value


DURATION = Converted("DURATION", "options:duration")
RATE = Converted("N", "options:rate")


class Option(click.Option):
    """An option that ``WPE_BACKUP_<OPTION>`` gives, too; its values are not empty.

    An empty value is the trace of a shell variable that is not set. A repeatable option is marked with ``...``, and its
    variable separates the values by commas.
    """

    def __init__(self, *names: str, more: str = "", **settings: Any) -> None:  # noqa: ANN401 - click's own settings
        """Say in ``more`` what the one line of ``help`` has no room for; ``docs/cli.md`` shows both."""
        name = next(name for name in names if name.startswith("--"))
        variable = "WPE_BACKUP_" + name.removeprefix("--").replace("-", "_").upper()
        super().__init__(names, envvar=variable, **settings)
        self.more = more

    def head(self, ctx: click.Context) -> str:
        """Return the option as the help shows it: its names and what stands for its value."""
        names = ", ".join(sorted(self.opts, key=len))
        value = "" if self.is_flag else f" {self.make_metavar(ctx)}"
        return names + value + (" ..." if self.multiple else "")

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:  # noqa: ANN401 - as click's own
        """Return the value as its type has it. Raises ``click.BadParameter`` for an empty one."""
        given = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(each, str) and not each.strip() for each in given):
            message = "the value is empty: leave the option out, or check whether a variable in the value is not set"
            raise click.BadParameter(message, ctx, self)
        return super().type_cast_value(ctx, value)

    def value_from_envvar(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click's own
        """Return the variable's value, or its values by commas; ``None`` if there are none."""
        if not self.multiple:
            return super().value_from_envvar(ctx)
        values = (self.resolve_envvar_value(ctx) or "").split(",")
        return [value.strip() for value in values if value.strip()] or None


def completed_by(name: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return the completion that ``name`` in ``orchestrator.cli.completers`` does, imported when Tab is pressed."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found: list[CompletionItem] = function(f"completers:{name}")(ctx, param, incomplete)
        return found

    return complete


def argument(name: str, metavar: str, completer: str, **settings: Any) -> click.Argument:  # noqa: ANN401 - click's own settings
    """Return an argument that the completer of that name completes."""
    return click.Argument([name], metavar=metavar, shell_complete=completed_by(completer), **settings)


class _Formatter(click.HelpFormatter):
    def write_heading(self, heading: str) -> None:
        """Write a heading in bold; click drops that where there is no terminal."""
        self.write(f"{'':>{self.current_indent}}{click.style(f'{heading}:', bold=True)}\n")


class _Context(click.Context):
    formatter_class = _Formatter


class Command(click.Command):
    """A command with its options in groups. Its work is the function of its name in ``orchestrator.cli.<module>``."""

    context_class = _Context

    def __init__(  # noqa: PLR0913 - the parts of a command's help
        self,
        name: str,
        *,
        help: str,  # noqa: A002 - click's word
        arguments: Iterable[click.Argument] = (),
        groups: Mapping[str, Sequence[Option]] | None = None,
        examples: Sequence[str] = (),
        exit_codes: Sequence[str] = (),
        module: str | None = None,
    ) -> None:
        """Take the command's name, help and parts. ``examples`` are whole command lines."""
        self.groups = dict(groups or {})
        self.examples = tuple(examples)
        self.exit_codes = tuple(exit_codes)
        self.work = f"{module or name}:{name}"
        options = [option for group in self.groups.values() for option in group]
        super().__init__(name, params=[*arguments, *options], help=help)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click's own
        """Import the command's work, and do it with the values that were given."""
        return ctx.invoke(function(self.work), **ctx.params)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return ``--help``, in the words of the other options."""
        return _in_our_words(super().get_help_option(ctx))

    def grouped(self, ctx: click.Context) -> Iterator[tuple[str, list[click.Option]]]:
        """Yield the title and the options of each group, ``--help`` among the last."""
        own = self.get_help_option(ctx)
        more = [] if own is None else [own]
        titles = list(self.groups) or ["Options"]
        for title in titles:
            yield title, [*self.groups.get(title, ()), *(more if title == titles[-1] else [])]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options group by group, all in the same columns."""
        _write_groups(
            formatter,
            [
                (title, [(_head(option, ctx), option.help or "") for option in options])
                for title, options in self.grouped(ctx)
            ],
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the exit codes, the examples, and the rule for environment variables."""
        _write_lines(formatter, "Exit codes", self.exit_codes)
        _write_lines(formatter, "Examples", self.examples)
        options = [each for each in self.params if isinstance(each, Option)]
        if options:
            named = options[-1]
            repeatable = REPEATABLE if any(each.multiple for each in options) else ""
            formatter.write(NOTE.format(option=named.opts[-1], variable=named.envvar, repeatable=repeatable))


def _in_our_words(help_option: click.Option | None) -> click.Option | None:
    if help_option is not None:
        help_option.help = "Show this help"
    return help_option


def _head(option: click.Option, ctx: click.Context) -> str:
    return option.head(ctx) if isinstance(option, Option) else ", ".join(sorted(option.opts, key=len))


def _write_groups(formatter: click.HelpFormatter, groups: Iterable[tuple[str, list[tuple[str, str]]]]) -> None:
    groups = list(groups)
    width = max((len(head) for _, rows in groups for head, _ in rows), default=0)
    for title, rows in groups:
        with formatter.section(title):
            formatter.write_dl([(head.ljust(width), text) for head, text in rows], col_max=width)


def _write_lines(formatter: click.HelpFormatter, title: str, lines: Sequence[str]) -> None:
    if lines:
        with formatter.section(title):
            formatter.write("".join(f"{'':>{formatter.current_indent}}{line}\n" for line in lines))


class Group(click.Group):
    """A group of commands, listed in sections."""

    context_class = _Context

    def __init__(self, name: str, *, help: str, commands: Sequence[click.Command] = (), **settings: Any) -> None:  # noqa: A002, ANN401 - click's words
        """Take the group's name, help and commands."""
        super().__init__(name, help=help, commands=list(commands), **settings)
        self.sections: Mapping[str, Sequence[str]] = {"Commands": tuple(self.commands)}
        self.examples: Sequence[str] = ()

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands, in the order of the help."""
        return [name for names in self.sections.values() for name in names]

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return ``--help``, in the words of the other options."""
        return _in_our_words(super().get_help_option(ctx))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands section by section, each with the first line of its help, then the few options."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        sections = [
            (title, [(name, summary(command)) for name in names if (command := self.get_command(ctx, name))])
            for title, names in self.sections.items()
        ]
        _write_groups(formatter, [*sections, ("Options", [(_head(each, ctx), each.help or "") for each in options])])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and where the options of a command are."""
        _write_lines(formatter, "Examples", self.examples)
        formatter.write(f"\nOptions of a command: {ctx.command_path} COMMAND --help\n")


class Commands(Group):
    """The command line: each section of commands is a module of this package, imported when it is needed."""

    def __init__(self, *, help: str, sections: Mapping[str, Sequence[str]], examples: Sequence[str]) -> None:  # noqa: A002 - click's word
        """Take the names of the commands by the title of their section: those of "Set up" are in ``set_up``."""
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
        super().__init__(PROGRAM, help=help, context_settings=settings)
        self.sections = dict(sections)
        self.examples = tuple(examples)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Return the command of that name, ``None`` if there is none."""
        titles = [title for title, names in self.sections.items() if cmd_name in names]
        if not titles:
            self.load_parsers()  # click looks among them for a name that is near
        elif cmd_name not in self.commands:
            module = import_module(f"{__package__}.{titles[0].lower().replace(' ', '_')}")
            self.add_command(getattr(module, cmd_name))
        return self.commands.get(cmd_name)

    def load_parsers(self) -> None:
        """Import the parser of every command."""
        context = click.Context(self)
        for name in self.list_commands(context):
            self.get_command(context, name)


def summary(command: click.Command) -> str:
    """Return the first line of a command's help, without its full stop."""
    return (command.help or "").partition("\n")[0].removesuffix(".")


def uses_color() -> bool | None:
    """Return whether help and usage errors are coloured; ``None`` leaves it to click, which looks for a terminal."""
    return False if os.environ.get("NO_COLOR") else None
