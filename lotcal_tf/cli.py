"""The commands' common frame: flags made from `Experiment`'s fields, errors made one line.

Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 130 interrupted. `--help` and every
usage error answer before TensorFlow is imported.
"""

import os
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import flags as absl_flags

from lotcal_tf.errors import FieldError, LotcalError, UsageError
from lotcal_tf.experiment import FIELDS, Experiment
from lotcal_tf.recipes import resolve

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def experiment_flags() -> absl_flags.FlagValues:
    """A flag for each field of `Experiment`, all unset, and `--config`."""
    values = absl_flags.FlagValues()
    for name, field in FIELDS.items():
        text = field.metadata["help"]
        if field.metadata["choices"]:
            text += f" ({', '.join(field.metadata['choices'])})"
        absl_flags.DEFINE_string(name, None, text, flag_values=values)
    absl_flags.DEFINE_string(
        "config", None, "a recipe file of one's own (TOML)", flag_values=values
    )
    return values


def help_text(command: str, summary: str, values: absl_flags.FlagValues) -> str:
    """What `--help` prints: the summary and every flag with its default."""
    lines = [
        summary.strip(),
        "",
        f"usage: python -m lotcal_tf.{command} [--flag=value …]",
        "",
        "flags:",
    ]
    for name in sorted(values):
        default = FIELDS[name].default if name in FIELDS else None
        shown = "" if default in (None, "", ()) else f" [default without a recipe: {default}]"
        body = textwrap.wrap(f"{values[name].help}{shown}", 76)
        lines += [f"  --{name}", *(f"      {line}" for line in body)]
    return "\n".join(lines)


def parse(command: str, summary: str, argv: Sequence[str]) -> Experiment:
    """Turns a command line into an experiment.

    Raises:
      UsageError: a flag is unknown or its value wrong.
      SystemExit: with code 0, after printing `--help`.
    """
    values = experiment_flags()
    if any(word in ("--help", "-help", "-h", "--helpfull") for word in argv):
        print(help_text(command, summary, values))
        raise SystemExit(DONE)
    try:
        rest = values([command, *argv])[1:]
    except absl_flags.Error as error:
        raise UsageError(" ".join(str(error).split()) + " (--help lists the flags)") from error
    if rest:
        raise UsageError(f"{rest[0]!r} is not a flag: write --flag=value (--help lists the flags)")
    given = {name: values[name].value for name in FIELDS if values[name].present}
    return resolve(given, values["config"].value)


def run(
    command: str,
    summary: str,
    main: Callable[[Experiment], None],
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Runs a command and leaves with its exit code; what goes wrong is told in one line."""
    try:
        main(parse(command, summary, sys.argv[1:] if argv is None else argv))
        code = DONE
    except KeyboardInterrupt:
        code = _tell(
            command,
            "interrupted; the same command goes on from the last finished level",
            INTERRUPTED,
        )
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
