"""The commands by name: `python -m lotcal_tf COMMAND …`, or `lotcal-tf COMMAND …`."""

import importlib
import sys

COMMANDS = {
    "train": "find lottery tickets",
    "evaluate": "measure a ticket or an exported file",
    "export": "export a ticket as small, verified files",
    "study": "compare finished runs under label noise",
}


def main() -> None:
    """Runs the command that the first argument names; without one, lists the commands."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        lines = [f"  {name:10} {summary}" for name, summary in COMMANDS.items()]
        print("\n".join(["usage: lotcal-tf COMMAND [--flag=value …]", "", *lines]))
        print("\nlotcal-tf COMMAND --help lists a command's flags.")
        return
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"lotcal-tf: {name}: choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(f"lotcal_tf.{name}").run(rest)


if __name__ == "__main__":
    main()
