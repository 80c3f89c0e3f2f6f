"""The commands by name: `python -m lotcal_tf COMMAND …`, or `lotcal-tf COMMAND …`."""

import importlib
import sys

from lotcal_tf import __version__
from lotcal_tf.config.process import safe_streams

COMMANDS = {
    "train": "find lottery tickets",
    "sweep": "run many experiments, on this machine or a cluster",
    "evaluate": "measure a ticket, an exported file, or all tickets of runs",
    "export": "export a ticket as small, verified files",
    "report": "compare runs: one page with tables and figures",
}


def main() -> None:
    """Runs the command that the first argument names; without one, lists the commands."""
    arguments = sys.argv[1:]
    with safe_streams():
        name = _command(arguments)
    if name is not None:
        importlib.import_module(f"lotcal_tf.{name}").run(arguments[1:])


def _command(arguments: list[str]) -> str | None:
    """The name of the command; None after the list of commands or the version was printed.

    Raises:
      SystemExit: there is no such command.
    """
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        lines = [f"  {name:10} {summary}" for name, summary in COMMANDS.items()]
        print("\n".join(["usage: lotcal-tf COMMAND [--flag=value …]", "", *lines]))
        print("\nlotcal-tf COMMAND --help lists a command's flags.")
        return None
    name = arguments[0]
    if name == "--version":
        print(f"lotcal_tf {__version__}")
        return None
    if name not in COMMANDS:
        print(f"lotcal-tf: {name}: choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    return name


if __name__ == "__main__":
    main()
