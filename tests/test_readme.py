"""The README's commands run in the order in which they are printed, and print the README's figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.image_sets import class_folders, image
from helpers.shades import shades
from helpers.tiny_hf import write_clip as write_clip_model
from impart.evaluate.cache import EmbeddingCache

pytestmark = pytest.mark.timeout(1200)  # the first test waits for all commands, training among them
ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALLS = re.compile(r"^(python3 -m venv|\. \.venv|pip install|ruff |mypy|pytest)")
SMALL = (
    " --set loop.epochs=1 --set loop.batch=16 --set data.validation_images=8 --set ram.k=2 --set log.tensorboard=false"
)
"""Added to the training command: the README trains on a person's own pairs, for longer."""

GROUPS = ("impart data",)
"""Commands that do nothing alone."""

LASTING = {"impart serve": "serving", "impart watch": "watching"}
"""Commands that run until Ctrl-C, and a word that they print when they are ready."""

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def blocks(language: str) -> Iterator[str]:
    for found in re.finditer(rf"```{language}\n(.*?)```", README, flags=re.DOTALL):
        yield found.group(1)


def commands() -> Iterator[str]:
    """Commands of the sh blocks and of the tables, as printed, in their order; installing and testing left out."""
    pattern = r"```sh\n(?P<block>.*?)```|^\| [^|\n]* \| (?P<cell>[^\n]*) \|$"
    for found in re.finditer(pattern, README, flags=re.DOTALL | re.MULTILINE):
        if found["block"]:
            for line in found["block"].splitlines():
                for one in re.sub(r"\s+#.*", "", line).split(" && "):
                    if one and not INSTALLS.match(one) and one != "impart demo":
                        yield one
        else:
            yield from (one for one in re.findall(r"`(impart [^`]+)`", found["cell"]) if one not in GROUPS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's folder with everything that the README's commands name, in small."""
    root = tmp_path_factory.mktemp("readme")
    videos = root / "home" / "Videos"
    videos.mkdir(parents=True)
    write_clip(videos / "red.mp4", colours=["red", "blue"])
    write_clip(root / "clip.mp4", colours=["red", "blue", "green", "yellow"], seconds_each=3.5, fps=8)
    shutil.copy(root / "clip.mp4", videos / "clip.mp4")
    for name in ("photo.jpg", "car.jpg"):
        image(root / name, "red")
    image(root / "a.jpg", "green")
    image(root / "b.jpg", "blue")
    class_folders(root / "my-things", ("red", "blue", "green"), each=3)
    (root / "FILE").write_text("a red square\nsomething blue\n", encoding="utf-8")
    shades(root / "photos", each=8)
    for name, classes in (("caltech101", ("chair", "crab")), ("cifar10", CIFAR10), ("cifar100", ("apple", "bear"))):
        class_folders(root / "DATA" / name / "test", classes, each=2)
    class_folders(root / "images", ("red", "blue"), each=2)
    shutil.copytree(videos, root / "films")
    return root


@pytest.fixture(scope="module")
def environment(place: Path) -> dict[str, str]:
    """Environment with a home of its own, the command on the PATH, and a hub's cache with a small CLIP."""
    programs = place / "bin"
    programs.mkdir()
    (programs / "impart").write_text(
        f"#!{sys.executable}\nimport sys\nfrom impart.cli.main import main\nsys.exit(main())\n", encoding="utf-8"
    )
    (programs / "impart").chmod(0o755)
    pytest.importorskip("transformers")
    cache = place / "hub" / "models--openai--clip-vit-base-patch32"
    write_clip_model(cache / "snapshots" / "0" / ".." / "0")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0", encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("IMPART_", "XDG_", "HF_"))}
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(place / "home"),
        "HF_HUB_CACHE": str(place / "hub"),
        "HF_HUB_OFFLINE": "1",
        "BROWSER": "true",
    }


def run_until(word: str, command: str, place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command until it prints a word, then press Ctrl-C."""
    output = place / "output"
    with output.open("w") as file:
        running = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=place, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        end_s = time.monotonic() + 120
        while word not in output.read_text() and running.poll() is None and time.monotonic() < end_s:
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        code = running.wait(timeout=60)
    text = output.read_text()
    return subprocess.CompletedProcess(command, code if word in text else 1, text, "")


@pytest.fixture(scope="module")
def printed(place: Path, environment: dict[str, str]) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run every command of the README in its order and return what each printed."""
    pytest.importorskip("accelerate")
    pytest.importorskip("onnxscript")
    results = {}
    for command in commands():
        small = SMALL if command.startswith("impart train") else ""
        word = next((word for start, word in LASTING.items() if command.startswith(start)), None)
        results[command] = (
            run_until(word, command, place, environment)
            if word is not None
            else subprocess.run(
                ["bash", "-c", command + small], cwd=place, env=environment, capture_output=True, text=True, check=False
            )
        )
    return results


@pytest.mark.parametrize("command", list(commands()))
def test_a_command_does_what_is_printed(command: str, printed: dict[str, subprocess.CompletedProcess[str]]) -> None:
    done = printed[command]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


def test_every_section_with_commands_is_run() -> None:
    assert len(list(commands())) >= 18


def test_the_python_block_runs(place: Path, environment: dict[str, str], printed: object) -> None:
    (block,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", block + "\nprint([hit.path for hit in hits], hits[0].why)\nprint(report)"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "red.mp4" in done.stdout


def test_the_figures_of_three_images_per_class(
    data_dir: Path, tmp_path: Path, environment: dict[str, str], embeddings: EmbeddingCache
) -> None:
    """The commands that the README names print its figures, within what other processors round differently."""
    sentence = " ".join(README[README.index("Measured with three images") :].split("\n\n")[0].split())
    stated = [float(figure) for figure in re.findall(r"([\d.]+)%", sentence)]
    images = data_dir / "images"

    def run(*arguments: str) -> str:
        command = ["impart", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    run("refset", "build", str(images / "caltech101" / "train"), "--per-class", "3", "--out", "things.refset")
    measured = []
    for name in ("caltech101", "cifar100", "cifar10"):
        printed = run(
            "eval", "zeroshot", "--data", f"{name}:{images / name / 'test'}", "--encoders", "mini,mini+vanilla",
            "--refset", "things.refset", "--no-report", "--bootstrap", "0", "--json", "--cache", str(embeddings.folder),
        )  # fmt: skip
        measured += [100 * row["figures"]["top-1"]["value"] for row in json.loads(printed)["results"]]
    base, taught, cifar100, cifar100_taught, cifar10, cifar10_taught = measured
    expected = [base, taught, cifar100_taught, cifar100, cifar10_taught, cifar10]
    assert len(stated) == len(expected)
    assert stated == pytest.approx(expected, abs=0.35)
