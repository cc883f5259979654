"""What the peers need, as files in ``peers`` pin it: Python environments and jars in ``.pipeline/bench``."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from jgo.maven import MavenContext

from pipeline.runtime.broker_files import Jar, java, locked_jars

PEERS = Path(__file__).with_name("peers")
FOLDER = Path(".pipeline/bench")
_ECJ = "org.eclipse.jdt.internal.compiler.batch.Main"
#: Without a JDK there is no ``--release``; every Java that runs Kafka 4 knows this level.
_JAVA_LEVEL = "21"
_SET_UP_S = 300


def environment(name: str) -> Path:
    """The Python of an environment with what ``peers/<name>.txt`` pins, made where it is not current."""
    pins = PEERS / f"{name}.txt"
    folder = (FOLDER / f"{name}-{_sum(pins)[:12]}").absolute()
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = str(Path(sys.executable).with_name("uv"))
        _run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)])
        _run([uv, "pip", "install", "-q", "--python", str(python), "-r", str(pins)])
        (folder / "complete").touch()
    return python


def kafka_streams() -> list[str]:
    """The command of the tally in Kafka Streams, without arguments; brings its jars, compiles its class."""
    return java_program(PEERS / "Tally.java", PEERS / "kafka-streams.lock", memory="1g")


def java_program(program: Path, lock: Path, *, memory: str) -> list[str]:
    """The command of *program*, without arguments; brings the jars that *lock* names, and compiles it."""
    jars = os.pathsep.join(str(_jar(jar)) for jar in locked_jars(lock.read_text()))
    classes = FOLDER / f"{lock.stem}-{_sum(program, lock)[:12]}"
    if not (classes / f"{program.stem}.class").exists():
        level = ["-source", _JAVA_LEVEL, "-target", _JAVA_LEVEL, "-nowarn"]
        _run([str(java()), "-cp", jars, _ECJ, *level, "-cp", jars, "-d", str(classes), str(program)])
    flags = [f"-Xmx{memory}", "--enable-native-access=ALL-UNNAMED", "-cp", f"{jars}{os.pathsep}{classes}"]
    return [str(java()), *flags, program.stem]


def _jar(jar: Jar) -> Path:
    """The file of *jar*, from the repository that the resolver knows, its sum compared."""
    maven = MavenContext(repo_cache=FOLDER / "maven")
    path = Path(maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())
    if _sum(path) != jar.sha256:
        path.unlink()
        raise RuntimeError(f"{jar.filename} is not the one that its lock names; run this again")
    return path


def _sum(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SET_UP_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} {command[1]}: {(done.stderr + done.stdout).strip()[-500:]}")
