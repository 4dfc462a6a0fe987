"""`python -m benchmarks parser`: one benchmark by its name."""

import argparse
import importlib
from pathlib import Path

NAMES = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    modules = {name: importlib.import_module(f"benchmarks.bench_{name}") for name in NAMES}
    for name, module in modules.items():
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__)
        module.add_options(command)
    options = parser.parse_args()
    modules[options.name].run(options)


if __name__ == "__main__":
    main()
