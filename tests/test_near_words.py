"""Wrong words: one line of usage, one sentence, and the word that was meant; both spellings of English are taken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import drawing, load_step

from lib.cli import parse
from lib.text import did_you_mean, other_spelling

NEAR = [
    ("collect", ["--keywords", "a", "--engine", "yandx"], "Did you mean 'yandex'?"),
    ("collect", ["--keywords", "a", "--licens", "cc"], "Did you mean '--licence'?"),
    ("collect", ["--keywords", "a", "--max-result=3"], "Did you mean '--max-results'?"),
    ("collect", ["--keywords", "a", "--size", "lage"], "Did you mean 'large'?"),
    ("report", ["--by", "domian"], "Did you mean 'domain'?"),
    ("report", ["--format", "cvs"], "Did you mean 'csv'?"),
    ("report", ["--max-results", "3"], "a flag of 1_collect.py"),
    ("cleanup", ["--rule", "dead_hots"], "Did you mean 'dead_host'?"),
    ("download", ["--stage", "thumb"], "Did you mean 'thumbs'?"),
    ("dedup", ["--max-shaer", "100%"], "Did you mean '--max-share'?"),
    ("dedup", ["--mode", "simlar"], "Did you mean 'similar'?"),
    ("dedup", ["--keep", "bets"], "Did you mean 'best'?"),
    ("dedup", ["--square", "drop"], "a flag of 7_sort_quality.py"),
    ("sort", ["qualty"], "Did you mean 'quality'?"),
    ("sort", ["quality", "--metrics", "x"], "Did you mean '--metric'?"),
    ("sort", ["export", "--as", "imagefoldr"], "Did you mean 'imagefolder'?"),
    ("sort", ["orientation", "--mode", "hardlnk"], "Did you mean 'hardlink'?"),
]


@pytest.mark.parametrize(("step", "words", "meant"), NEAR, ids=[f"{case[0]}-{case[1][-1]}" for case in NEAR])
def test_a_near_word_is_named_under_one_line_of_usage(
    step: str, words: list[str], meant: str, tmp_path, capsys
) -> None:
    with pytest.raises(SystemExit) as ended:
        load_step(step).main([*words, "--workspace", str(tmp_path / "ws")])
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(said) == 2 and not (tmp_path / "ws").exists()
    assert said[0].startswith("usage: python ") and said[0].endswith("--help") and "error: " in said[1]
    assert meant in said[1], said[1]


NEAR_SENTENCES = [
    ("dedup", ["simlar", "PHOTOS"], "Did you mean 'similar'?"),
    ("cleanup", ["--languages", "rus"], "Did you mean 'ru'?"),
    ("sort", ["quality", "PHOTOS", "--where", "qualty = high"], "Did you mean 'quality'?"),
    ("download", ["--retry-failed", "timout"], "Did you mean 'timeout'?"),
    ("report", ["--of", "Pintrest", "--blocklist", "PHOTOS/b.txt"], "Did you mean 'Pinterest'?"),
]


@pytest.mark.parametrize(("step", "words", "meant"), NEAR_SENTENCES, ids=[case[1][0] for case in NEAR_SENTENCES])
def test_words_that_are_no_choices_of_a_flag_are_known_too(step: str, words, meant: str, tmp_path, capsys) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    drawing(1).save(photos / "a.png")
    workspace = ["--workspace", str(tmp_path / "ws")]
    assert load_step("ingest").main([*workspace, "--import-folder", str(photos), "-q"]) == 0
    capsys.readouterr()
    assert load_step(step).main([word.replace("PHOTOS", str(photos)) for word in words] + workspace) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and meant in said, said


def test_a_distant_word_gets_no_suggestion(capsys) -> None:
    assert did_you_mean("zzzz", ["quality", "topic"]) == ""
    assert did_you_mean("QUALTY", ["quality", "topic"]) == " Did you mean 'quality'?"
    with pytest.raises(SystemExit):
        load_step("sort").main(["zzzz"])
    assert "Did you mean" not in capsys.readouterr().err


def test_both_spellings_are_taken(tmp_path: Path, monkeypatch) -> None:
    assert other_spelling("--license") == "--licence" and other_spelling("gray") == "grey"
    words = ["--keywords", "a", "--workspace", str(tmp_path)]
    made = load_step("collect").build_parser
    for given in (["--license", "commercial"], ["--license=commercial"], ["--licence", "commercial"]):
        assert parse(made(), [*words, *given]).licence == "commercial"
    assert parse(load_step("report").build_parser(), ["--by", "license", "--workspace", str(tmp_path)]).by == "licence"
    (tmp_path / "gleaner.toml").write_text('[collect]\nlicense = "cc"\n', encoding="utf-8")
    assert parse(made(), words).licence == "cc"
    monkeypatch.setenv("GLEANER_LICENSE", "modify")
    assert parse(made(), words).licence == "modify"


SETTINGS = [
    ("max_reslts = 3", "Did you mean 'max-results'?"),
    ("dedup = 3", "It is a table: [dedup]."),
    ("[colect]\nsize = 'large'", "Did you mean 'collect'?"),
    ("[limit]\nn = 3", "write limit ="),
    ("[collect]\nmax-pags = 3", "Did you mean 'max-pages'?"),
    ("[download]\nmax-pages = 3", "It belongs into [collect]."),
    ("[dedup]\nsquare = 'drop'", "It belongs into [sort]."),
    ("[sort.size]\nlarge = true", "It belongs into [collect]."),
    ("[collect.size]\nlarge = true", "write size ="),
    ("[collect.filters]\nsize = 'large'", "no such option"),
    ("[collect.size.deep]\nx = 1", "write size ="),
    ("[collect]\nzzzz = 3", "Remove the line."),
]


@pytest.mark.parametrize("step", ["collect", "report"])  # whatever step runs
@pytest.mark.parametrize(("text", "meant"), SETTINGS, ids=[case[0].partition("\n")[0] for case in SETTINGS])
def test_an_unknown_setting_is_refused_with_the_right_one(step: str, text: str, meant: str, tmp_path, capsys) -> None:
    (tmp_path / "gleaner.toml").write_text(text, encoding="utf-8")
    assert load_step(step).main(["--workspace", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and meant in said, said


def test_a_wrong_value_in_a_setting_is_known(tmp_path: Path, capsys) -> None:
    (tmp_path / "gleaner.toml").write_text('[report]\nby = "domian"\n', encoding="utf-8")
    assert load_step("report").main(["--workspace", str(tmp_path)]) == 2
    assert "Did you mean 'domain'?" in capsys.readouterr().err


def test_the_setup_knows_near_words_too(capsys, monkeypatch) -> None:
    import importlib.util

    from support import ROOT

    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "0_setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit):
        module.main(["dmeo"])
    said = capsys.readouterr().err
    assert "Did you mean 'demo'?" in said and said.count("\n") == 2
