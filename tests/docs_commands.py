"""Every command of README and docs/, in order, in a copy of the checkout against the offline gallery.

    python tests/docs_commands.py                      # README, then each page of docs/ in a workspace that README left
    python tests/docs_commands.py README.md docs/sort.md

Each command is run by a shell, as it is printed, and has to end as `ENDINGS` says: with 0 where it is not named there.
What cannot be run here is named in `NOT_RUN` with the reason. Exit code 1 where one ended otherwise. The environment
leads the commands to the gallery (`GLEANER_HOST` and so on), and nothing else is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import drawing  # noqa: E402

from demo.app import running_gallery  # noqa: E402
from demo.queries import write_queries  # noqa: E402

SECONDS = 300  # a command that takes longer hangs
# Commands that cannot be run here, each with the reason.
NOT_RUN = {
    "python3 0_setup.py demo": "installs packages; tests/test_pipeline.py runs the same steps",
    "python3 0_setup.py test": "runs this very suite",
    "python3 0_setup.py --core": "installs packages",
    "python3 0_setup.py": "installs 7.5 GB of packages",
    "python bench/dedup.py PHOTOS … --peers PYTHON": "minutes, and a set of photographs",
    "python bench/ingest.py --folder /tmp/bench --keep": "minutes",
    "python bench/report.py /tmp/bench/workspace": "needs what the line above made",
    "python bench/download.py --img2dataset PATH --disk FRESH": "needs img2dataset in an environment of its own",
    "python bench/download.py --img2dataset PATH --disk FRESH --sizes 300 --files 500": "the same",
    "python bench/download.py --img2dataset PATH --https --files 400 --only tmpfs": "the same",
    "python bench/download.py --memory": "minutes",
    "python 1_collect.py --headed --pause-on-captcha": "needs a person and a screen",
    "python 1_collect.py --replay saved.har --engine yandex --keywords boat": "needs a HAR file (tests/test_replay.py)",
    "python -m demo": "serves until Ctrl-C; tests/test_demo_gallery.py starts it",
    "python -m demo --port 8080 --queries /tmp/queries": "the same",
    "python -m demo --fault captcha@2x1 --fault 429=5@xhr:1x2 --fault 500@picturex3 --fault captcha@baidu/:1": "too",
    "python 2_ingest_db.py --import PATH": "PATH stands for a path of one's own",
    "python -m pytest tests/torture": "part of this very suite",
    "python -m pytest tests/torture --torture all": "half an hour",
    "python -m pytest tests/torture --torture all -k dedup-hard": "minutes",
    "GLEANER_VLM_URL=http://127.0.0.1:11434/v1 python3 0_setup.py run recipes/scenes.toml --workspace scenes": (
        "needs a vision model; tests/test_recipe.py gives it one"
    ),
    "python 4_db_cleanup.py --restore gleaner-20260101T120000Z.db": "a backup of one's own",
    "python 2_ingest_db.py --watch 60": "waits for a minute; tests/test_ingest.py watches for less",
}
# How commands end that do not end with 0: the exit code, and a part of what they say.
LACKS = (2, "are not here; put that file from ")  # weights are never fetched by themselves: their lack is named
TAKEN = (2, "give another --to, or --replace")  # the example before it has written there
SHARED = (3, "same bytes")  # the two folders share a picture, and the page says that this is exit code 3
ENDINGS: Mapping[str, tuple[int, str]] = {
    "python 6_dedup.py train/ test/ --leak": SHARED,
    "python 6_dedup.py train test --leak": SHARED,
    'python 7_sort_quality.py filter --keep "an indoor room" --drop "a floor plan" --where "quality = high"': LACKS,
    'python 7_sort_quality.py filter --keep "an indoor room" --drop "a floor plan" --margin 0.02': LACKS,
    "python 7_sort_quality.py quality --metric musiq,clipiqa --models-dir weights": LACKS,
    "python 7_sort_quality.py topic --eps auto": LACKS,
    "python 7_sort_quality.py objects --classes person,dog --min-objects 2": LACKS,
    'python 7_sort_quality.py vlm --vlm-model qwen2.5vl --subject "mountain lakes" --max-images 200': (
        1, "cannot be reached",  # no server is there
    ),
    'python 7_sort_quality.py export --where "quality = high and topic = on_topic"': (2, "no picture fulfils --where"),
    "python 7_sort_quality.py export --as webdataset --split 1 --resize 256 --resize-mode center-crop": TAKEN,
    'python 7_sort_quality.py export --as parquet --parquet-pictures reference --title "Lakes"': TAKEN,
    "python 7_sort_quality.py export --label quality --take 1000 --balance": TAKEN,
    "python 7_sort_quality.py export --convert jpeg": TAKEN,
    'python 7_sort_quality.py filter --name indoor --keep "an indoor room" --drop "a street"': LACKS,
    'python 7_sort_quality.py filter --name clutter --keep "a tidy room" --drop "a heap of things"': LACKS,
    'python 7_sort_quality.py export --where "filter:indoor = keep and filter:clutter.score >= 0.02"': (
        2, "no filter with a name has been run",
    ),
    "python 6_dedup.py --restore holiday/beach.jpg": (2, "step 6 has no such picture"),  # a picture of one's own
    # The gallery has no boats, no bridges, and its searches were fewer.
    "python 1_collect.py --expand 10 --keywords boat": (2, "no titles were found for this yet"),
    'python 3_domain_report.py --compare "old bridge" "stone bridge" --by host': (2, "no search is 'old bridge'"),
    'python 3_domain_report.py --results 7 "old bridge" --json': (2, "no search is"),
    "python 3_domain_report.py --compare run:1 run:12 --by engine": (2, "run 12 stored no answers"),
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command as a page prints it, without the comment behind it."""

    page: str
    line: int
    text: str


def commands_of(page: Path) -> Iterator[Command]:
    """The commands of a page: all lines of its bash blocks, and indented lines that run Python."""
    in_bash = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            in_bash = line == "```bash"
            continue
        if in_bash or re.match(r" {4}([A-Z_]+=\S+ )*python3? ", line):
            text = re.sub(r"(^|\s)#\s.*$", "", line).strip()
            if text:
                yield Command(page.relative_to(ROOT).as_posix(), number, text)


def pages() -> list[Path]:
    """README first, since the others build on what it made."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def copy_checkout(to: Path) -> None:
    """The files of the checkout as a clone has them, changes included, and the environment of this interpreter."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file() and not name.startswith((".venv", "tests/")):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name)
    (to / ".venv").symlink_to(sys.prefix)


def write_inputs(folder: Path, queries: Sequence[Path], addresses: Sequence[str]) -> None:
    """The files that the texts speak of."""
    for name in ("photos", "holiday", "more-photos", "new-photos", "dataset", "my-dataset", "train", "test", "lists"):
        (folder / name).mkdir()
    for path in queries:
        shutil.copy(path, folder / "photos")
    shutil.copy(queries[0], folder / "photos" / "cat.jpg")
    shutil.copy(queries[0], folder / "cat.jpg")
    for seed, name in enumerate(("holiday", "more-photos", "new-photos", "dataset", "my-dataset", "train", "test")):
        drawing(seed).save(folder / name / "one.jpg")
        drawing(seed + 20).save(folder / name / "two.jpg")
        drawing(seed + 20).save(folder / name / "again.png")
    shutil.copy(folder / "train" / "one.jpg", folder / "test" / "one.jpg")
    table = "url,caption\n" + "".join(f"{address},Picture {n}\n" for n, address in enumerate(addresses))
    for name in ("urls.csv", "more.csv", "lists/a.csv"):
        (folder / name).write_text(table, encoding="utf-8")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"url": list(addresses)}), folder / "part-1.parquet")
    (folder / "blocked.txt").write_text("ads.example\n", encoding="utf-8")
    (folder / "words.txt").write_text("garden\n", encoding="utf-8")
    (folder / "mine.toml").write_text('[mine]\nsha256 = ["' + "0" * 64 + '"]\n', encoding="utf-8")
    for recipe in (folder / "recipes").glob("*.toml"):
        # As a person copies them beside their files; and smaller, to be quick.
        text = re.sub(r"^target = \d+", "target = 10", recipe.read_text(encoding="utf-8"), flags=re.MULTILINE)
        recipe.write_text(text, encoding="utf-8")
        shutil.copy(recipe, folder)


@dataclass
class Session:
    """A folder in which commands are run, with what `export` and `source` have set so far."""

    folder: Path
    environment: dict[str, str]
    lasting: tuple[str, ...] = ()

    def run(self, command: Command) -> str:
        """Runs a command; gives the complaint where it ended otherwise than it should."""
        if command.text.startswith(("export ", "source ")):
            self.lasting += (command.text,)
        script = "\n".join(["set -e", *self.lasting, command.text])
        try:
            done = subprocess.run(
                ["bash", "-c", script], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, errors="replace", timeout=SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"took more than {SECONDS} s"
        said = done.stdout + done.stderr
        code, part = ENDINGS.get(command.text, (0, ""))
        if "Traceback" in said or done.returncode != code or part not in said:
            return f"ended with {done.returncode}, not with {code} and {part!r}:\n{said[-1500:]}"
        return ""


def check(chosen: Sequence[Path], say: bool = False) -> list[str]:
    """Runs the commands of pages, README's first where it is among them; gives the complaints."""
    complaints: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gleaner-docs-") as place, running_gallery(pictures=90) as gallery:
        folder = Path(place, "gleaner")
        folder.mkdir()
        copy_checkout(folder)
        sound = [gallery.site.link(one.original) for one in gallery.site.pictures if not one.trouble]
        write_inputs(folder, write_queries(gallery.site.pictures, Path(place, "queries")), sound[:8])
        given = {
            "GLEANER_HOST": gallery.url,
            "GLEANER_ALLOW_PRIVATE": "1",
            "PATH": f"{folder}/.venv/bin:{os.environ['PATH']}",
        }
        # Neither weights nor a server of this machine's, so that it ends alike everywhere.
        given |= {name: str(Path(place, "none")) for name in ("GLEANER_MODELS_DIR", "TORCH_HOME", "HF_HOME")}
        given |= {"GLEANER_VLM_URL": "http://127.0.0.1:9/v1"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GLEANER_", "HF_"))}
        for page in chosen:
            here = folder if page.name == "README.md" else Path(place, page.stem)
            if here != folder:
                shutil.copytree(folder, here, symlinks=True)
            session = Session(here, kept | given | {"GLEANER_CONTACT": "someone@example.org"})
            for command in commands_of(page):
                if command.text in NOT_RUN:
                    continue
                started = time.monotonic()
                complaint = session.run(command)
                if say:
                    mark = "FAILED" if complaint else "ok"
                    print(
                        f"{mark:<7}{time.monotonic() - started:6.1f} s  {command.page}:{command.line}  {command.text}",
                        flush=True,
                    )
                if complaint:
                    complaints.append(f"{command.page}:{command.line}: `{command.text}` {complaint}")
    return complaints


def main() -> int:
    named = [ROOT / name for name in sys.argv[1:]]
    complaints = check(named or pages(), say=True)
    print("\n\n".join(["", *complaints]) if complaints else "Every command ended as the text says.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
