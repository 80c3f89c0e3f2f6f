"""The commands' common frame: flags made from `Experiment`'s fields, errors made one line.

Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 130 interrupted. `--help` and every
usage error answer before TensorFlow is imported.
"""

import dataclasses
import os
import sys
import tempfile
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

from absl import flags as absl_flags

from lotcal_tf.config.experiment import FIELDS, Experiment
from lotcal_tf.config.recipes import resolve
from lotcal_tf.errors import FieldError, LotcalError, UsageError

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of one command's own, beside those of the experiment's fields.

    Attributes:
      name: what is written behind the two dashes.
      help: one line.
      default: its text where it is not given.
      choices: the values it can have; empty: any.
      switch: whether it stands alone, without a value; its value is then a bool.
      short: one letter that stands for the name behind a single dash.
    """

    name: str
    help: str
    default: str | None = None
    choices: tuple[str, ...] = ()
    switch: bool = False
    short: str | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
      experiment: flags and recipe joined.
      given: the fields that flags set, by name, as text; with `config` where that was given.
      own: the values of the command's own flags, by name.
      operands: what stands there without a flag, in its order.
    """

    experiment: Experiment
    given: Mapping[str, str]
    own: Mapping[str, Any]
    operands: Sequence[str] = ()


def experiment_flags(
    own: Sequence[Flag] = (), fields: Collection[str] = FIELDS.keys()
) -> absl_flags.FlagValues:
    """A flag for each of the fields of `Experiment`, all unset, and the command's own.

    Where there are fields there is `--config` too.
    """
    values = absl_flags.FlagValues()
    for name in fields:
        field = FIELDS[name]
        text = _with_choices(field.metadata["help"], field.metadata["choices"])
        absl_flags.DEFINE_string(name, None, text, flag_values=values)
    if fields:
        absl_flags.DEFINE_string(
            "config", None, "a recipe file of one's own (TOML)", flag_values=values
        )
    for flag in own:
        text = _with_choices(flag.help, flag.choices)
        default = None if flag.switch else flag.default
        define = absl_flags.DEFINE_bool if flag.switch else absl_flags.DEFINE_string
        define(flag.name, default, text, flag_values=values, short_name=flag.short)
    return values


def _with_choices(text: str, choices: Sequence[str]) -> str:
    return f"{text} ({', '.join(choices)})" if choices else text


def help_text(
    command: str,
    summary: str,
    values: absl_flags.FlagValues,
    own: Sequence[Flag] = (),
    operands: str = "",
) -> str:
    """What `--help` prints: the summary and every flag with its default.

    A command with flags of its own says in its summary where fields that are not given come from.
    """
    lines = [
        summary.strip(),
        "",
        f"usage: python -m lotcal_tf.{command} {operands + ' ' if operands else ''}[--flag=value …]",
        "",
        "flags:",
    ]
    for name in sorted({values[name].name for name in values}):
        of_field = name in FIELDS and not own
        default = FIELDS[name].default if of_field else values[name].default
        words = "default without a recipe" if of_field else "default"
        shown = "" if default in (None, "", ()) else f" [{words}: {default}]"
        body = textwrap.wrap(f"{values[name].help}{shown}", 76)
        short = values[name].short_name
        named = f"  --{name}, -{short}" if short else f"  --{name}"
        lines += [named, *(f"      {line}" for line in body)]
    return "\n".join(lines)


def read(
    command: str,
    summary: str,
    argv: Sequence[str],
    own: Sequence[Flag] = (),
    fields: Collection[str] = FIELDS.keys(),
    operands: str = "",
) -> Request:
    """Reads a command line.

    Args:
      command, summary: for `--help`.
      argv: without the program's name.
      own: the command's own flags.
      fields: the fields of `Experiment` that it takes.
      operands: what it takes without a flag, as `--help` writes it, e.g. `RUN…`; empty: nothing.

    Raises:
      UsageError: a flag is unknown or its value wrong.
      SystemExit: with code 0, after printing `--help`.
    """
    values = experiment_flags(own, fields)
    if any(word in ("--help", "-help", "-h", "--helpfull") for word in argv):
        print(help_text(command, summary, values, own, operands))
        raise SystemExit(DONE)
    values.set_gnu_getopt(bool(operands))  # flags may stand after operands
    try:
        rest = values([command, *argv])[1:]
    except absl_flags.Error as error:
        raise UsageError(" ".join(str(error).split()) + " (--help lists the flags)") from error
    if rest and not operands:
        raise UsageError(f"{rest[0]!r} is not a flag: write --flag=value (--help lists the flags)")
    for flag in own:
        value = values[flag.name].value
        if flag.choices and value not in flag.choices:
            raise FieldError(flag.name, value, f"choose one of {', '.join(flag.choices)}")
    given = {name: values[name].value for name in fields if values[name].present}
    config = values["config"].value if fields else None
    experiment = resolve(given, config)
    if config is not None:
        given["config"] = config
    found = {flag.name: values[flag.name].value for flag in own}
    switches = {flag.name: bool(found[flag.name]) for flag in own if flag.switch}
    return Request(experiment, given, found | switches, rest)


def parse(command: str, summary: str, argv: Sequence[str]) -> Experiment:
    """Turns the command line of a command without flags of its own into an experiment; see `read`."""
    return read(command, summary, argv).experiment


def run(
    command: str,
    summary: str,
    main: Callable[[Experiment], None],
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Runs a command that takes an experiment and nothing else; see `leave`."""
    given = sys.argv[1:] if argv is None else argv
    leave(
        command,
        lambda: main(parse(command, summary, given)),
        interrupted="interrupted; the same command goes on from the last finished level",
    )


def leave(command: str, work: Callable[[], None], *, interrupted: str = "interrupted") -> NoReturn:
    """Does a command's work and leaves with its exit code; what goes wrong is told in one line.

    Args:
      command: its name, which the line begins with.
      work: what it does, the reading of its flags included.
      interrupted: what is said after Ctrl-C.
    """
    try:
        work()
        code = DONE
    except KeyboardInterrupt:
        code = _tell(command, interrupted, INTERRUPTED)
    except FieldError as error:
        code = _tell(command, f"--{error}", WRONG)
    except UsageError as error:
        code = _tell(command, str(error), WRONG)
    except LotcalError as error:
        code = _tell(command, str(error), FAILED)
    sys.exit(code)


def start_tensorflow() -> None:
    """Imports TensorFlow for a command, without the notices it writes while it starts.

    They come from C++ before any log level counts, so standard error itself is turned away; where
    the import fails, they are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            # Two runs of one experiment on one machine agree to the bit.
            tf.config.experimental.enable_op_determinism()
        except BaseException:
            notices.seek(0)
            os.write(terminal, notices.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _tell(command: str, line: str, code: int) -> int:
    # A message may quote what others wrote over several lines.
    print(f"{command}: {' '.join(line.splitlines())}", file=sys.stderr)
    return code
