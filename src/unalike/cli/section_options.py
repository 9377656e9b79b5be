"""Command-line options and help of a command built from its section of the spec: name, default, bounds, text of each field."""

import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, cast, get_args, get_origin

import typer
from pydantic import ValidationError

from unalike.cli.shared_options import (
    Download,
    Offline,
    Quiet,
    SpecFile,
    Verbose,
    refuse_empty,
    set_downloads,
    set_verbosity,
    split_overrides,
)
from unalike.errors import SpecError
from unalike.spec.actions import command_of
from unalike.spec.declare import BOXES_FORM, CLASS_FORM, MODEL, Section
from unalike.spec.nodes import FieldsNotSet, SpecNode, walk

if TYPE_CHECKING:
    from unalike.spec import Experiment

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
# Values of an option whose field may be null: as specs write it, and as Python does.
NULL = ("null", "none")


class Option(NamedTuple):
    """How a field is written on the command line where that does not follow from its name and type."""

    flags: tuple[str, ...] = ()
    metavar: str = ""
    repeatable: bool = False  # of a list: one value each time the option is written


class Flag(NamedTuple):
    """An option without a value that sets a field to ``value``."""

    name: str
    field: str
    value: Any
    help: str


def section_command(
    action: str, *, arguments: Mapping[str, str], options: Mapping[str, Option] | None = None, flags: Sequence[Flag] = (),
    section: type[Section] | None = None, names: bool = False, environment: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:  # fmt: skip
    """Make a command of a function that gets the action's spec as its first argument.

    Every field of the section becomes an option, besides those in ``arguments`` and, unless ``options`` names it,
    ``results_dir``. Where a field takes a network, --download and --offline are added. ``-e FILE`` and positional overrides
    ``key=value`` are added. Options take precedence over overrides, and overrides over the file.

    Args:
        action: One of STANDALONE_ACTIONS.
        arguments: Field -> metavar of the positional arguments, in their order; a list takes all that remain.
        options: Field -> how its option is written, where that does not follow from its name and type.
        flags: Options without a value. A boolean field has ``--name`` (default false) or ``--no-name`` by itself.
        section: Class of the section, for a command that must start fast: the function gets an instance of it in place of
            the spec, and the rest of the spec is imported only for a spec file, overrides or an error.
        names: Whether positional arguments are names, which may hold ``=``: only what begins with the action and a dot is an
            override then.
        environment: Prefix of variables that set a field, whose name in capitals follows; empty: there are none. The file and
            the overrides take precedence.
    """
    nodes = {node.name: node for node in _nodes(action, section)}
    flag_fields = {flag.field for flag in flags}
    built = {
        name: _option(node, (options or {}).get(name, Option()))
        for name, node in nodes.items()
        if name not in arguments
        and not (node.kind is bool and name in flag_fields)
        and (name != "results_dir" or name in (options or {}))
    }
    repeatable = {name for name, option in (options or {}).items() if option.repeatable}
    switches = {_variable(flag): flag for flag in flags}
    # A network may be a pretrained trunk, whose weights may have to be downloaded.
    takes_network = any(node.facts.get("takes") == MODEL for node in nodes.values())
    last = {**({"download": Download, "offline": Offline} if takes_network else {}), "verbose": Verbose, "quiet": Quiet}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        own_names = [parameter.name for parameter in own]

        def command(ctx: typer.Context, **values: Any) -> None:
            set_verbosity(values["verbose"], values["quiet"])
            if takes_network:
                set_downloads(values["download"], values["offline"])
            positional, overrides = split_overrides(values["arguments"], f"{action}." if names else "")
            fields = [
                *_positional_fields(action, positional, arguments, nodes),
                *_option_fields(ctx, values, built, nodes, switches, repeatable),
            ]
            # Of class names the declaration says so.
            texts = {f"{action}.{name}": value for name, value in fields if nodes[name].facts.get("form") != CLASS_FORM}
            refuse_empty({**texts, "--spec": values["spec"]})
            _refuse_swapped(action, dict(fields))
            spec = _load(action, section, values["spec"], overrides, fields, _environment_fields(nodes, environment))
            try:
                function(spec, **{name: values[name] for name in own_names})
            except FieldsNotSet as error:
                raise SpecError(
                    error.found, expected=_call(action, arguments, options or {}, nodes), remedy=error.remedy
                ) from error

        parameters = {
            "ctx": typer.Context,
            "arguments": Annotated[list[str] | None, typer.Argument(metavar=_metavar(arguments), help=_help(arguments, nodes))],
            **built,
            **{name: Annotated[bool, typer.Option(flag.name, help=flag.help)] for name, flag in switches.items()},
            "spec": SpecFile,
        }  # fmt: skip
        defaults = {"arguments": None, "spec": None} | {name: _default(nodes[name]) for name in built}
        defaults |= dict.fromkeys(switches, False)
        command.__signature__ = _signature(parameters, defaults, own, last)  # type: ignore[attr-defined]
        command.__name__, command.__doc__, command.__module__ = function.__name__, function.__doc__, function.__module__
        command.__annotations__ = {
            parameter.name: parameter.annotation for parameter in inspect.signature(command).parameters.values()
        }
        return command

    return decorate


def _signature(
    parameters: Mapping[str, Any],
    defaults: Mapping[str, Any],
    own: Sequence[inspect.Parameter],
    last: Mapping[str, Any],
) -> inspect.Signature:
    """The signature from which typer makes the options: those of the section, the function's own, and switches at the end."""
    keyword, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    return inspect.Signature([
        *(inspect.Parameter(name, keyword, annotation=kind, default=defaults.get(name, empty)) for name, kind in parameters.items()),
        *(parameter.replace(kind=keyword) for parameter in own),
        *(inspect.Parameter(name, keyword, annotation=kind, default=False) for name, kind in last.items()),
    ])  # fmt: skip


def _nodes(action: str, section: type[Section] | None) -> list[SpecNode]:
    """The fields of an action's section."""
    if section is not None:
        return list(walk(section, f"{action}."))
    from unalike.spec.fields import fields_of

    return [node for path, node in fields_of(action).items() if path.startswith(f"{action}.")]


def _load(
    action: str, section: type[Section] | None, file: str | None, overrides: Sequence[str], values: Sequence[tuple[str, Any]],
    environment: Sequence[tuple[str, Any]] = (),
) -> "Experiment | Section":  # fmt: skip
    """The spec of an action, or with ``section`` that section of it."""
    if section is not None and file is None and not overrides:
        try:
            return section.model_validate(dict([*environment, *values]))
        except ValidationError:
            pass  # load_spec finds the same faults and reports them
    from unalike.spec.load import load_spec

    if file is not None and environment:
        from unalike.spec.reading import read_file

        tree = read_file(file)
        in_file = tree.get(action) if isinstance(tree, Mapping) else None
        names = set(in_file) if isinstance(in_file, Mapping) else set()
        environment = [(name, value) for name, value in environment if name not in names]
    own = [(f"{action}.{name}", value) for name, value in values]
    spec = load_spec(action, file, [*((f"{action}.{name}", value) for name, value in environment), *overrides, *own])
    return spec if section is None else cast(Section, getattr(spec, action))


def _environment_fields(nodes: Mapping[str, SpecNode], prefix: str) -> list[tuple[str, Any]]:
    """(field, value) of the variables that set one; lists are separated by commas."""
    fields: list[tuple[str, Any]] = []
    for name, node in nodes.items() if prefix else ():
        text = os.environ.get(f"{prefix}{name.upper()}")
        if text is None:
            continue
        value: Any = text
        if takes_null(node) and text.lower() in NULL:
            value = None
        elif get_origin(node.kind) is list:
            value = [part.strip() for part in text.split(",") if part.strip()]
        elif node.kind in (int, float, bool):
            value = _plain_value(text, node.kind)
        fields.append((name, value))
    return fields


def _plain_value(text: str, kind: Any) -> Any:
    """A number or truth value, or the text itself, which the declaration then refuses."""
    if kind is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower(), text)
    try:
        return kind(text)
    except ValueError:
        return text


# ---- one field ----


def _option(node: SpecNode, option: Option) -> Any:
    """The annotated type of a field's option."""
    kind: Any = node.kind if node.kind in (int, float, bool) else str
    option_name = node.name.replace("_", "-")
    flags = option.flags or (f"--{option_name}",)
    if kind is bool:
        return Annotated[
            bool, typer.Option(*(flags if not node.info.default else (f"--no-{option_name}",)), help=node.help)
        ]
    if option.repeatable or _is_list(node):
        kind = list[str]
    metavar, text = option.metavar or _metavar_of(node), _option_help(node)
    if kind in (int, float) and node.nullable:
        return Annotated[Any, typer.Option(*flags, parser=_parser_of(kind), metavar=metavar, help=text)]
    return Annotated[kind | None, typer.Option(*flags, metavar=metavar, help=text)]


def _is_list(node: SpecNode) -> bool:
    return get_origin(node.kind) is list


def _joined(node: SpecNode, values: Sequence[str]) -> str:
    """The values of an option for a list, which is written once (``--kinds a,b``) or several times: each counts."""
    return (";" if node.facts.get("form") == BOXES_FORM else ",").join(values)


def takes_null(node: SpecNode) -> bool:
    """Whether the option of a field takes ``null``; of names only where its help says so: a file or class may have that name."""
    is_name = node.kind is str or node.kind == list[str]
    return node.nullable and (not is_name or "null" in node.help)


def _parser_of(kind: Any) -> Callable[[str], Any]:
    """Reads a number, or null."""

    def parse(text: str) -> Any:
        if str(text).lower() in NULL:
            return None
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise typer.BadParameter(f"{text!r} is not {what}, nor null") from None

    return parse


def _metavar_of(node: SpecNode) -> str:
    if node.kind in (int, float):
        return str(node.facts.get("units", "N")).upper()
    return "WORD" if get_origin(node.kind) is Literal else "A,B" if get_origin(node.kind) is list else "TEXT"


def _option_help(node: SpecNode) -> str:
    """The field's help, with its choices and its bounds."""
    text = node.help.rstrip(".")
    if get_origin(node.kind) is Literal:
        text += f": {', '.join(map(str, get_args(node.kind)))}"
    if node.kind in (int, float):
        bounds = {sign: getattr(item, sign) for item in node.metadata for sign in _SIGNS if hasattr(item, sign)}
        text += f" ({_range(bounds)})" if bounds else ""
    return text + "."


def _range(bounds: Mapping[str, Any]) -> str:
    if bounds.keys() == {"ge", "le"}:
        return f"{bounds['ge']} to {bounds['le']}"
    return " and ".join(f"{_SIGNS[sign]} {bound}" for sign, bound in bounds.items())


def _default(node: SpecNode) -> Any:
    """The default as --help shows it."""
    default = node.info.default
    if node.kind is bool:
        return False
    return [",".join(map(str, default))] if isinstance(default, list) else default


def _variable(flag: Flag) -> str:
    return flag.name.lstrip("-").replace("-", "_")


# ---- the positional arguments ----


def _metavar(arguments: Mapping[str, str]) -> str:
    return " ".join([*(f"[{metavar.strip('[]')}]" for metavar in arguments.values()), "[KEY=VALUE]..."])


def _call(
    action: str, arguments: Mapping[str, str], options: Mapping[str, Option], nodes: Mapping[str, SpecNode]
) -> str:
    """The command with its positional arguments and the options of mandatory fields."""
    words = [metavar.strip("[]") for metavar in arguments.values()]
    for name, node in nodes.items():
        if node.facts.get("mandatory") and name not in arguments:
            option = options.get(name, Option())
            flag = option.flags[0] if option.flags else f"--{name.replace('_', '-')}"
            words.append(f"{flag} {option.metavar or _metavar_of(node)}")
    return " ".join([f"unalike {command_of(action)}", *words])


def _help(arguments: Mapping[str, str], nodes: Mapping[str, SpecNode]) -> str:
    lines = [
        f"{metavar.strip('[]').rstrip('.')}: {nodes[name].help.rstrip('.')}" for name, metavar in arguments.items()
    ]
    return ". ".join([*lines, "KEY=VALUE: any field of the spec."])


def _positional_fields(
    action: str, values: Sequence[str], arguments: Mapping[str, str], nodes: Mapping[str, SpecNode]
) -> list[tuple[str, Any]]:
    """(field, value) of the positional arguments."""
    rest = list(values)
    fields: list[tuple[str, Any]] = []
    for name in arguments:
        if get_origin(nodes[name].kind) is list:
            fields += [(name, rest)] if rest else []
            rest = []
        elif rest:
            fields.append((name, rest.pop(0)))
    if rest:
        _refuse_swapped(action, {**dict(fields), "model": rest[0]})
        raise SpecError(
            f"unexpected argument {rest[0]!r}", expected=f"unalike {command_of(action)} {_metavar(arguments)}"
        )
    return fields


def _refuse_swapped(action: str, fields: Mapping[str, Any]) -> None:
    """Refuse inputs in each other's place; nothing is imported for a call without a file."""
    if fields:
        from unalike.actions.swapped_inputs import refuse_swapped

        refuse_swapped(action, fields)


def _option_fields(
    ctx: typer.Context, values: Mapping[str, Any], options: Mapping[str, Any], nodes: Mapping[str, SpecNode],
    flags: Mapping[str, Flag], repeatable: Collection[str],
) -> list[tuple[str, Any]]:  # fmt: skip
    """(field, value) of the options on the command line; flags come last and so take precedence."""

    def is_on_command_line(name: str) -> bool:
        source = ctx.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    fields = []
    for name in filter(is_on_command_line, options):
        node, value = nodes[name], values[name]
        if _is_list(node) and name not in repeatable:
            value = _joined(node, value)
        if isinstance(value, str) and value.lower() in NULL and takes_null(node):
            value = None
        is_negative = node.kind is bool and node.info.default
        fields.append((name, value is not True if is_negative else value))
    set_by: dict[str, Flag] = {}
    for flag in (flag for name, flag in flags.items() if is_on_command_line(name)):
        if flag.field in set_by:
            raise SpecError(f"{set_by[flag.field].name} and {flag.name} together", remedy="choose one")
        set_by[flag.field] = flag
        fields.append((flag.field, flag.value))
    return fields
