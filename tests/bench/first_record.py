"""
How long a subscriber takes from nothing to a first record, following docs/subscribe.md.

``python -m tests.bench.first_record HOST:PORT`` with a Kafka that holds ``contacts.enriched``, such as the
demo's. The wheel is made beforehand: subscribers get it from an index.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "subscribe.md"
_SET_UP_S = 200


def snippets() -> list[str]:
    """Every program of the guide, in its order."""
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def wheel(folder: Path) -> Path:
    """The wheel of this project, made in *folder*."""
    uv = str(Path(sys.executable).with_name("uv"))
    _run([uv, "build", "-q", "--wheel", "--out-dir", str(folder), str(ROOT)])
    (made,) = folder.glob("*.whl")
    return made


def installed(wheel_: Path, folder: Path) -> Path:
    """The Python of a fresh environment in *folder* with *wheel_*, as pip installs it without extras."""
    _run([sys.executable, "-m", "venv", str(folder)])
    python = folder / "bin" / "python"
    _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", str(wheel_)])
    return python


def first_line(python: Path, program: Path, servers: str) -> str:
    """What *program* prints first."""
    environment = {**os.environ, "PIPELINE_KAFKA__BOOTSTRAP_SERVERS": servers}
    with subprocess.Popen(
        [str(python), str(program)], stdout=subprocess.PIPE, text=True, cwd=program.parent, env=environment
    ) as child:
        assert child.stdout is not None
        try:
            return child.stdout.readline().rstrip()
        finally:
            child.kill()


def measured(servers: str, made: Path, folder: Path) -> dict[str, float]:
    """Seconds of each step of a subscriber who has *made* at hand, in *folder*."""
    begun = time.monotonic()
    python = installed(made, folder / "venv")
    ready = time.monotonic()
    program = folder / "contacts.py"
    program.write_text(snippets()[0].replace("my-team", f"t{uuid.uuid4().hex}"))
    line = first_line(python, program, servers)
    assert line, "it ended without a record"
    done = time.monotonic()
    return {"install_s": ready - begun, "first_record_s": done - ready, "together_s": done - begun}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SET_UP_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} {command[1]}: {(done.stderr + done.stdout).strip()[-500:]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        figures = measured(sys.argv[1], wheel(Path(scratch)), Path(scratch))
    print("  ".join(f"{name} {value:.1f}" for name, value in figures.items()))
