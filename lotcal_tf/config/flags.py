"""Common to all commands: flags for the fields of `Experiment`, and errors in one line.

Exit codes: 0 success, 1 a failed run, 2 a usage error, 130 interrupted (Ctrl-C), 143 ended by SIGTERM,
129 by SIGHUP. `--help` and usage errors need no TensorFlow.
"""

import contextlib
import dataclasses
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from absl import flags as absl_flags

from lotcal_tf.config import registry
from lotcal_tf.config.experiment import FIELDS, Experiment, setting_fields
from lotcal_tf.config.fields import SECTIONS, Check, fields_of, path, text
from lotcal_tf.config.process import Stopped, safe_streams, stoppable
from lotcal_tf.errors import FieldError, LotcalError, UsageError, shown

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130

_HELP = ("--help", "-help", "-h")
_CONFIG = "a recipe file (TOML), instead of --dataset"
_SET = "NAME=VALUE, a hyperparameter of a custom strategy or criterion; may be repeated"
_BOOLEAN = {name for name, hint in get_type_hints(Experiment).items() if hint is bool}

# An entry of the help: the flag, its text, and what names it takes mean.
_Entry = tuple[str, str, Mapping[str, str]]


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of one command that is not a field of an experiment.

    Attributes:
      name: its name, without the two dashes.
      help: one line.
      default: its value as text if it is not given.
      choices: the valid values; empty: any.
      switch: whether it takes no value; its value is then a bool.
      names: what its names mean, for `--helpfull`.
      short: one letter, an abbreviation used with a single dash.
      check: tests a value, see `fields`; `fields.path` for paths.
    """

    name: str
    help: str
    default: str | None = None
    choices: tuple[str, ...] = ()
    switch: bool = False
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    short: str | None = None
    check: Check = text


CUSTOM_OBJECTS = Flag(
    "custom_objects",
    "classes and functions of the model that are not Keras's: module:Class[,module:Class]",
)


@dataclasses.dataclass(frozen=True)
class Command:
    """The flags of a command and the text of its `--help`.

    Attributes:
      name: the name of its module in `lotcal_tf`.
      summary: the first lines of `--help`; None with `python -OO`, which drops docstrings.
      own: its own flags.
      fields: the fields of `Experiment` that it takes. If these are all fields, it takes hyperparameters
        and `--set` too.
      operands: its arguments without a flag, paths, as shown by `--help`, e.g. `RUN…`; empty: none.
    """

    name: str
    summary: str | None
    own: Sequence[Flag] = ()
    fields: Collection[str] = tuple(FIELDS)
    operands: str = ""

    @property
    def takes_experiment(self) -> bool:
        """Whether it takes every field of an experiment."""
        return set(self.fields) == set(FIELDS)

    def read(self, argv: Sequence[str]) -> "Request":
        """Reads a command line.

        Raises:
          UsageError: a flag is unknown or its value is not valid.
          SystemExit: with code 0, after printing `--help` or `--helpfull`.
        """
        values = self.parser()
        if any(word in (*_HELP, "--helpfull") for word in argv):
            print(self.help(full="--helpfull" in argv))
            raise SystemExit(DONE)
        values.set_gnu_getopt(bool(self.operands))  # flags may follow operands
        try:
            rest = values([self.name, *argv])[1:]
        except absl_flags.IllegalFlagValueError as error:
            if wrong := re.match(r"flag --(\w+)=(.*): \('Non-boolean", str(error), re.DOTALL):
                raise FieldError(wrong[1], wrong[2], "must be true or false") from error
            raise UsageError(str(error)) from error
        except absl_flags.Error as error:
            hint = "--helpfull lists all"
            if self.takes_experiment and any(":" in word for word in argv):
                hint += "; a hyperparameter of an own class is --set=NAME=VALUE"
            raise UsageError(f"{' '.join(str(error).split())} ({hint})") from error
        if rest and not self.operands:
            raise UsageError(f"{rest[0]!r} is not a flag: write --flag=value (--help lists flags)")
        for flag in self.own:
            if not flag.switch:
                _check_own(flag, values[flag.name].value)
        for operand in rest:
            if problem := path(operand):
                raise UsageError(f"{shown(operand)}: {problem}")
        own = {flag.name: values[flag.name].value for flag in self.own}
        own |= {flag.name: bool(own[flag.name]) for flag in self.own if flag.switch}
        given = {name: values[name].value for name in self.field_flags() if values[name].present}
        if self.takes_experiment:
            given |= _settings(values["set"].value)
        config = values["config"].value if "dataset" in self.fields else None
        return Request(given, config, own, rest)

    def flag_of(self, field: str) -> str:
        """The prefix of a field on the command line: `--`, or `--set=` for custom hyperparameters."""
        known = {*self.field_flags(), *(flag.name for flag in self.own), "config", "set"}
        return "--set=" if self.takes_experiment and field not in known else "--"

    def field_flags(self) -> dict[str, "dataclasses.Field[Any]"]:
        """The fields and hyperparameters that have a flag in this command."""
        found = {name: FIELDS[name] for name in self.fields}
        return found | setting_fields() if self.takes_experiment else found

    def parser(self) -> absl_flags.FlagValues:
        """All flags of the command, not yet parsed."""
        values = absl_flags.FlagValues()
        for name, field in self.field_flags().items():
            define = absl_flags.DEFINE_bool if name in _BOOLEAN else absl_flags.DEFINE_string
            define(name, None, field.metadata["help"], flag_values=values)
        if "dataset" in self.fields:
            absl_flags.DEFINE_string("config", None, _CONFIG, flag_values=values)
        if self.takes_experiment:
            absl_flags.DEFINE_multi_string("set", [], _SET, flag_values=values)
        for flag in self.own:
            define = absl_flags.DEFINE_bool if flag.switch else absl_flags.DEFINE_string
            default = None if flag.switch else flag.default
            define(flag.name, default, flag.help, flag_values=values, short_name=flag.short)
        return values

    def help(self, full: bool = False) -> str:
        """The text of `--help`: the summary and the main flags by topic; all flags if `full`."""
        operands = f"{self.operands} " if self.operands else ""
        lines = [
            (self.summary or f"lotcal_tf.{self.name}").strip(),
            "",
            f"usage: python -m lotcal_tf.{self.name} {operands}[--flag=value …]",
        ]
        everything = full or not self.takes_experiment
        for title, entries in self._topics(everything):
            lines += ["", f"{title}:"]
            for named, words, names in entries:
                lines += [f"  --{named}", *(f"      {line}" for line in textwrap.wrap(words, 76))]
                for name, meaning in names.items() if everything else ():
                    first, *others = textwrap.wrap(f"{name}: {meaning}", 70)
                    lines += [f"        {first}", *(f"            {line}" for line in others)]
        if self.takes_experiment and not full:
            lines += ["", "--helpfull lists all flags."]
        return "\n".join(lines)

    def _topics(self, everything: bool) -> Iterator[tuple[str, list[_Entry]]]:
        """The entries of each topic: all flags, or the main ones."""
        if self.own:
            yield "Flags", [_own_entry(flag) for flag in self.own]
        for section in SECTIONS:
            entries = [
                (name, _field_text(name, field, self.takes_experiment), field.metadata["names"])
                for name, field in self.field_flags().items()
                if field.metadata["section"] == section and (everything or field.metadata["main"])
            ]
            if section == "Data" and "dataset" in self.fields:
                entries.insert(1, ("config", _CONFIG, {}))
            if section == "Calibration" and self.takes_experiment and everything:
                entries.append(("set", _SET, {}))
            if entries:
                yield section, entries


@dataclasses.dataclass(frozen=True)
class Request:
    """A parsed command line.

    Attributes:
      given: the fields and hyperparameters that flags set, by name, as strings.
      config: the recipe file; None if none was given.
      own: the values of the command's own flags, by name.
      operands: the arguments without a flag, in order.
    """

    given: Mapping[str, Any]
    config: str | None
    own: Mapping[str, Any]
    operands: Sequence[str] = ()


def _check_own(flag: Flag, value: str | None) -> None:
    """Checks the value of a command's own flag; None: it was not given.

    Raises:
      FieldError: it is not valid.
    """
    if value is None:
        return
    if flag.choices and value not in flag.choices:
        raise FieldError(flag.name, value, f"choose one of {', '.join(flag.choices)}")
    problem = flag.check(value)
    if not value and flag.default is None:
        problem = "must not be empty; leave it out for the default"
    if problem:
        raise FieldError(flag.name, value, problem)


def _settings(texts: Sequence[str]) -> dict[str, str]:
    """The hyperparameters set by `--set`."""
    names = [text.partition("=")[0] for text in texts]
    for name in names:
        if names.count(name) > 1:
            raise FieldError("set", name, "is given more than once")
    for given in texts:
        if not given.partition("=")[0].isidentifier() or "=" not in given:
            raise FieldError("set", given, "write --set=NAME=VALUE, e.g. --set=gamma=2")
        if problem := text(given):
            raise FieldError("set", given, problem)
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _own_entry(flag: Flag) -> _Entry:
    text = _with_choices(flag.help, flag.choices)
    if flag.default is not None and not flag.switch:
        text += f" [default: {flag.default}]"
    return f"{flag.name}, -{flag.short}" if flag.short else flag.name, text, flag.names


def _field_text(name: str, field: "dataclasses.Field[Any]", defaults: bool) -> str:
    """A field's line of help with its choices and, on request, its defaults."""
    text = _with_choices(field.metadata["help"], field.metadata["choices"])
    if not defaults:
        return text
    if name in FIELDS:
        shown = "" if field.default in (None, "", ()) else str(field.default)
        return f"{text} [default: {shown}]" if shown else text
    by_method = {
        method: fields_of(row.hyperparameters)[name].default
        for method, row in (*registry.STRATEGIES.items(), *registry.CRITERIA.items())
        if name in fields_of(row.hyperparameters)
    }
    shown = ", ".join(f"{method} {'uniform' if v == () else v}" for method, v in by_method.items())
    return f"{text} [defaults: {shown}]"


def _with_choices(text: str, choices: Sequence[str]) -> str:
    return f"{text} ({', '.join(choices)})" if choices else text


def run(
    command: Command,
    main: Callable[[Request], None],
    argv: Sequence[str] | None = None,
    *,
    interrupted: str = "run the same command again",
) -> NoReturn:
    """Runs a command and exits with its exit code.

    An error is printed in one line that begins with the command's name.

    Args:
      command: the command.
      main: the function that does the work.
      argv: the arguments without the program's name; None: those of the process.
      interrupted: what to do after Ctrl-C or a signal that ended the command.
    """
    with safe_streams() as output:
        try:
            with stoppable():
                code = _attempt(command, main, argv)
        except Stopped as stop:
            how = "interrupted" if stop.code == INTERRUPTED else f"ended by {stop.name}"
            code = _report(command, f"{how}; {interrupted}", stop.code)
        except KeyboardInterrupt:
            code = _report(command, f"interrupted; {interrupted}", INTERRUPTED)
        output.flush()
        if output.full is not None:
            problem = f"standard output cannot be written: {output.full.strerror}"
            code = _report(command, problem, FAILED)
    sys.exit(code)


def _search_working_directory_last() -> None:
    """Lets no module in the working directory take the place of an installed one.

    `python -m` searches the working directory first, which may be a directory of strangers' files.
    """
    here = [place for place in sys.path if place in ("", str(Path.cwd()))]
    sys.path[:] = [place for place in sys.path if place not in here] + here[:1]


def _attempt(command: Command, main: Callable[[Request], None], argv: Sequence[str] | None) -> int:
    """Runs a command, reports an error, and returns the exit code."""
    code = DONE
    if not command.takes_experiment:
        _search_working_directory_last()
    try:
        main(command.read(sys.argv[1:] if argv is None else argv))
    except SystemExit as ended:  # after --help
        code = int(ended.code or DONE)
    except FieldError as error:
        code = _report(command, f"{command.flag_of(error.field)}{error}", WRONG)
    except UsageError as error:
        code = _report(command, str(error), WRONG)
    except LotcalError as error:
        code = _report(command, str(error), FAILED)
    except MemoryError:
        problem = (
            "out of memory: choose a smaller network or batch_size; or stream the data, with a smaller "
            "memory_limit_mb and shuffle_buffer, into another --out"
        )
        code = _report(command, problem, FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _report(command, f"{where}{error.strerror or error}", FAILED)
    return code


def start_tensorflow() -> None:
    """Imports TensorFlow for a command, and hides the notices that it prints at start-up.

    C++ code prints them before any log level applies, so standard error itself is redirected. If the
    import fails, they are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            notices.seek(0)
            with contextlib.suppress(OSError):
                os.write(terminal, notices.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _report(command: Command, line: str, code: int) -> int:
    # A message may quote several lines of another library, and names from files with any characters.
    text = "".join(sign if sign.isprintable() else " " for sign in " ".join(line.splitlines()))
    print(f"{command.name}: {text}", file=sys.stderr)
    return code
