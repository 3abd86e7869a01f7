"""Count our functions that run for one install, from its YAML to its report line, by package.

    .venv/bin/python benchmarks/journey.py [--list]

The benchmark runs the real command with one install against the stand-in, which is a process of its own. It counts the
distinct functions that are called after the configuration is read, in every thread. It does not count comprehensions,
lambdas and the generated methods of data classes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

import orchestrator
from orchestrator.cli import main as command

OURS = str(Path(orchestrator.__file__).parent) + os.sep
FLEET = """\
version: 1
accounts: {{default: {{base_url: "{base_url}", user_id: a-user, password: a-password}}}}
defaults: {{notification_emails: []}}
installs: [{{id: 00000000-0000-4000-8000-000000000001, name: shop01}}]
"""


@contextlib.contextmanager
def stand_in() -> Iterator[str]:
    """Run the stand-in as a process, and yield its base URL."""
    command = [sys.executable, "-m", "orchestrator", "simulate", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # noqa: S603 - our own
        line = process.stdout.readline() if process.stdout else ""
        try:
            yield next(word for word in line.split() if word.startswith("http"))
        finally:
            process.terminate()


class Journey:
    """Our functions that were called after ``load_config`` returned."""

    def __init__(self) -> None:
        """Start with an empty set."""
        self.passed: set[tuple[str, str]] = set()
        self._is_loaded = False

    def follow(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note a call. This is the callback of ``sys.setprofile``."""
        code = frame.f_code
        if event == "return" and code.co_name == "load_config":
            self._is_loaded = True
        elif event == "call" and self._is_loaded and is_a_function_of_ours(code):
            self.passed.add((code.co_filename.removeprefix(OURS), code.co_qualname))

    def follow_command(self) -> None:
        """Run the command in this process, and note its calls in every thread."""
        threading.setprofile(self.follow)
        sys.setprofile(self.follow)
        try:
            with contextlib.suppress(SystemExit):
                command()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def is_a_function_of_ours(code: CodeType) -> bool:
    """Tell whether ``code`` is a named function in one of our files."""
    return code.co_filename.startswith(OURS) and not code.co_name.startswith("<")


def print_counts(journey: Journey, outcome: str) -> None:
    """Print how many functions of each package were called."""
    packages = Counter(name.partition("/")[0] for name, _ in journey.passed)
    for package, count in packages.most_common():
        print(f"{package:20}{count:5}")
    files = {name for name, _ in journey.passed}
    print(f"{'in all':20}{len(journey.passed):5}   in {len(files)} files; the outcome is {outcome}")


def main() -> int:
    """Run the command for one install, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print each function")
    is_listed = parser.parse_args().list
    journey, outcome = Journey(), ""
    with stand_in() as base_url, TemporaryDirectory() as folder:
        fleet = Path(folder, "fleet.yaml")
        fleet.write_text(FLEET.format(base_url=base_url), encoding="utf-8")
        fleet.chmod(0o600)
        sys.argv[1:] = ["run", "-c", str(fleet), "--state-dir", f"{folder}/state", "-o", f"{folder}/report.jsonl"]
        journey.follow_command()
        outcome = json.loads(Path(folder, "report.jsonl").read_text(encoding="utf-8").splitlines()[0])["outcome"]
    print_counts(journey, outcome)
    if is_listed:
        print("\n".join(f"{name}: {function}" for name, function in sorted(journey.passed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
