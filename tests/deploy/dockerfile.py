"""A Dockerfile, read, and its steps carried out by an ordinary user in a folder.

There need be no container engine where the tests run. What an engine does with the file is small:
each stage is a tree of files, RUN is a command of the shell in it, COPY copies into it, ENV, ARG
and WORKDIR hold for what follows. Here a stage is a folder, and a path of the image, wherever it
stands in a command, is written as one below that folder. So a step that cannot work, a file that
is not copied, a path that is misspelt or a package that is not pinned fails here too.

What is not carried out: commands that need root (`NEEDS_ROOT`), and the base image, in whose place
stands the Python of the tests. An instruction that is not known here is an error.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

# The first word of commands that only root can run, or that change the system.
NEEDS_ROOT = frozenset({"apt-get", "groupadd", "useradd"})
# Options of install(1) that only root can use.
_OWNER = re.compile(r" -[og] \d+")
# Instructions that say how the image is run, and do nothing when it is built.
_RUNNING = frozenset(
    {"USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD", "LABEL"}
)
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


class Unknown(Exception):
    """The file says something that this reader does not know."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction, its lines joined."""

    word: str
    rest: str


@dataclass
class Stage:
    """What one FROM begins.

    Attributes:
        root: Stands for ``/`` of the stage.
        running: The instructions that say how the image is run, the last of each.
        left_out: Commands that were not run, as the file has them.
    """

    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    running: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def read(text: str) -> list[Step]:
    """The instructions of a Dockerfile, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    parts = (line.strip().split(None, 1) for line in joined.splitlines() if line.strip())
    return [Step(word, " ".join(rest.split())) for word, rest in parts]


def context(source: Path, target: Path) -> None:
    """Copy what the build is given: the tree *source* but for what .dockerignore leaves out.

    Of its language this knows: the last rule that fits decides, ``!`` lets in, a folder stands for
    all in it.
    """
    rules = [
        line
        for line in (source / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    tops = {rule[1:].split("/")[0] for rule in rules if rule.startswith("!")}
    if rules[0] != "*":
        raise Unknown("a .dockerignore that does not begin by leaving all out")
    for top in sorted(tops):
        found = source / top
        for path in [found] if found.is_file() else sorted(found.rglob("*")):
            name = path.relative_to(source)
            if path.is_file() and _let_in(name, rules):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / name)


def _let_in(name: Path, rules: Sequence[str]) -> bool:
    inside = True
    for rule in rules:
        pattern = rule.removeprefix("!")
        folders = [name, *name.parents]
        if any(_fits(str(folder), pattern) for folder in folders if str(folder) != "."):
            inside = rule.startswith("!")
    return inside


def _fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatchcase(path.rpartition("/")[2], pattern[3:])
    return fnmatchcase(path, pattern)


class Builder:
    """Carries a Dockerfile out.

    Args:
        files: The context, as `context` made it.
        trees: A new folder for the trees of the stages.
        environ: What every command gets besides what the file sets.
        prefix: A command that runs what follows it with fewer rights.
    """

    def __init__(
        self,
        files: Path,
        trees: Path,
        environ: Mapping[str, str],
        prefix: Sequence[str] = (),
    ) -> None:
        self.stages: dict[str, Stage] = {}
        self._files = files
        self._trees = trees
        self._environ = environ
        self._prefix = prefix
        self._arguments: dict[str, str] = {}

    def build(self, text: str) -> Stage:
        """All steps; the last stage is the image."""
        stage: Stage | None = None
        for step in read(text):
            if step.word == "FROM":
                stage = self._begin(step.rest)
            elif stage is None:
                if step.word != "ARG":
                    raise Unknown(f"{step.word} before FROM")
                name, _, value = step.rest.partition("=")
                self._arguments[name] = value
            else:
                self._do(stage, step)
        if stage is None:
            raise Unknown("no FROM")
        return stage

    def _begin(self, rest: str) -> Stage:
        match = re.fullmatch(r"(\S+)(?: AS (\w+))?", rest)
        if match is None:
            raise Unknown(f"FROM {rest}")
        base = _VARIABLE.sub(lambda found: self._arguments[found[1]], match[1])
        if not re.fullmatch(r"python:3\.\d+-slim-\w+", base):
            raise Unknown(f"the base {base}")
        name = match[2] or "image"
        root = self._trees / name
        root.mkdir()
        self.stages[name] = stage = Stage(root)
        return stage

    def _do(self, stage: Stage, step: Step) -> None:
        match step.word:
            case "RUN":
                self._run(stage, step.rest)
            case "COPY":
                self._copy(stage, step.rest)
            case "ENV" | "ARG":
                for part in shlex.split(step.rest):
                    name, _, value = part.partition("=")
                    stage.variables[name] = self.fill(stage, value)
            case "WORKDIR":
                stage.folder = step.rest
                self.path(stage, step.rest).mkdir(parents=True, exist_ok=True)
            case word if word in _RUNNING:
                stage.running[word] = step.rest
            case word:
                raise Unknown(f"the instruction {word}")

    def _run(self, stage: Stage, rest: str) -> None:
        kept = []
        needs_root = False
        for command in rest.split(" && "):
            word = command.split()[0]
            # Once the system was changed, what cleans up after that has nothing to do here.
            needs_root = word in NEEDS_ROOT or (needs_root and word == "rm")
            if needs_root:
                stage.left_out.append(command)
            else:
                kept.append(_OWNER.sub("", command) if word == "install" else command)
        if kept:
            self.shell(stage, " && ".join(kept))

    def shell(self, stage: Stage, command: str) -> None:
        """One command of the stage, paths of the image put below its folder."""
        process = subprocess.Popen(
            [*self._prefix, "sh", "-c", self.below(stage, command)],
            cwd=self.path(stage, stage.folder),
            env=self.environ(stage),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=500)
        finally:
            with suppress(ProcessLookupError):  # what it started ends with it
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            raise AssertionError(f"RUN {command}\n{said[-6000:]}")

    def environ(self, stage: Stage) -> dict[str, str]:
        """The environment of a command in the stage."""
        set_here = {name: self.below(stage, text) for name, text in stage.variables.items()}
        return {**self._environ, **set_here}

    def fill(self, stage: Stage, text: str) -> str:
        known = {**self._environ, **stage.variables}
        return _VARIABLE.sub(lambda found: known[found[1]], text)

    def below(self, stage: Stage, text: str) -> str:
        """*text* with each path of the image in it written as one below the stage's folder."""
        return re.sub(
            r"(?<![\w./-])(/(?:build|opt/coatcheck|var/lib/coatcheck|trust)\b)",
            lambda found: str(stage.root) + found[1],
            text,
        )

    def path(self, stage: Stage, inside: str) -> Path:
        return stage.root / inside.lstrip("/")

    def _copy(self, stage: Stage, rest: str) -> None:
        words = rest.split()
        source = self._files
        origin: Stage | None = None
        if words[0].startswith("--from="):
            origin = self.stages[words.pop(0).partition("=")[2]]
            source = origin.root
        if len(words) < 2 or words[0].startswith("--"):
            raise Unknown(f"COPY {rest}")
        for word in words[:-1]:
            self._copy_one(stage, source / word.lstrip("/"), words[-1], origin)

    def _copy_one(self, stage: Stage, found: Path, to: str, origin: Stage | None) -> None:
        place = self.path(stage, to)
        target = place if to.startswith("/") else self.path(stage, stage.folder) / to
        if found.is_dir():
            # Of another stage: links to the same files. Nothing writes to them but `_rename`.
            copy = shutil.copy2 if origin is None else os.link
            shutil.copytree(found, target, symlinks=True, dirs_exist_ok=True, copy_function=copy)
        else:
            target = target / found.name if to.endswith("/") else target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, target)
        if origin is not None:
            _rename(target, str(origin.root), str(stage.root))

    def command(self, stage: Stage, *words: str) -> list[str]:
        """The command of ENTRYPOINT, or of HEALTHCHECK, in its exec form."""
        found: list[str] = []
        for word in words:
            text = stage.running[word]
            found += json.loads(text[text.index("[") :])
        return found


def _rename(folder: Path, before: str, after: str) -> None:
    """In the image both stages have the same ``/``: what names the one tree names the other now."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix in ("", ".cfg"):
            content = path.read_bytes()
            if before.encode() in content:
                mode = path.stat().st_mode
                path.unlink()
                path.write_bytes(content.replace(before.encode(), after.encode()))
                path.chmod(mode)
