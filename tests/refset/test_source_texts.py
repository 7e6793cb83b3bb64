"""Texts of pairs as the sources of people have them: names with numbers, classes by number, several captions, keys."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers.image_sets import class_folders, image
from helpers.shards import write_shard
from helpers.tiny_encoder import TinyEncoder
from impart.errors import DataError, ReferenceSetError
from impart.evaluate import CaptionSet, ClassSet, open_set
from impart.refset.build import Selection
from impart.refset.pairs import Columns, Pair, read_pairs
from impart.refset.refset import ReferenceSet
from impart.train.prepare.pairs import Failures, list_images
from impart.train.settings import PairsFrom


def png(shade: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 255 - shade)).save(data, "PNG")
    return data.getvalue()


def texts_of(pairs: list[Pair]) -> list[str]:
    return list(dict.fromkeys(pair.text for pair in pairs))


def listed(path: Path, **options: object) -> tuple[list[Pair], list[tuple[str, str]], list[str]]:
    failures: list[tuple[str, str]] = []
    notes: list[str] = []
    pairs = read_pairs(
        path,
        on_failure=lambda name, reason: failures.append((name, reason)),
        on_note=notes.append,
        **options,  # type: ignore[arg-type]
    )
    return list(pairs), failures, notes


@pytest.mark.parametrize(
    "names",
    [
        ("iphone 12", "iphone 13", "pixel 7"),
        ("737-200", "737-300", "DC-9-30", "F-16A"),
        ("Audi A4 2007", "Audi A4 2012"),
        ("1 cent", "2 cent"),
    ],
)
def test_numbers_of_folder_names_stay_in_reference_sets_training_and_evaluation(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    class_folders(tmp_path, [name.replace(" ", "_") for name in names])
    pairs, failures, notes = listed(tmp_path)
    assert texts_of(pairs) == sorted(names)
    assert (failures, notes) == ([], [])
    assert [image.texts for image in list_images([PairsFrom(path=".")], tmp_path, Failures())][::2] == [
        [name] for name in sorted(names)
    ]
    dataset = open_set(tmp_path, kind="classes")
    assert isinstance(dataset, ClassSet)
    assert dataset.classes == tuple(sorted(names))


def test_running_numbers_before_names_are_left_out_where_the_names_stay_distinct(tmp_path: Path) -> None:
    class_folders(tmp_path / "birds", ["001.Laysan_Albatross", "002.Groove_billed_Ani"])
    class_folders(tmp_path / "dogs", ["n02085620-Chihuahua", "n02086240-Shih-Tzu"])
    class_folders(tmp_path / "equal", ["1.cent", "2.cent"])
    for folder, texts in (
        ("birds", ["Laysan Albatross", "Groove billed Ani"]),
        ("dogs", ["Chihuahua", "Shih Tzu"]),
        ("equal", ["1.cent", "2.cent"]),
    ):
        assert texts_of(listed(tmp_path / folder)[0]) == texts
        assert open_set(tmp_path / folder, kind="classes").classes == tuple(texts)


def test_names_that_become_one_text_are_reported(tmp_path: Path, tiny: TinyEncoder) -> None:
    class_folders(tmp_path / "phones", ["iphone_12", "iphone 12", "pixel_7"])
    note = "2 folders share 1 text, first 'iphone 12' and 'iphone_12': 'iphone 12'"
    assert listed(tmp_path / "phones")[2] == [note]
    made = ReferenceSet.build(tmp_path / "phones", tiny, path=tmp_path / "set")
    assert ReferenceSet.open(tmp_path / "set").manifest.notes == (note,)
    assert made.add([(image(tmp_path / "x.png"), "x")], tiny).manifest.notes == (note,)
    assert open_set(tmp_path / "phones", kind="classes").notes == (
        "2 classes share a name with another, first 'iphone 12' (class numbers 0, 1): they cannot be told apart",
    )
    for name in ("retriever_01", "retriever_02", "pug"):
        image(tmp_path / "flat" / f"{name}.png")
    pairs, _, notes = listed(tmp_path / "flat")
    assert texts_of(pairs) == ["pug", "retriever"]
    assert notes == ["2 file names share 1 text, first 'retriever_01' and 'retriever_02': 'retriever'"]


def test_files_that_are_no_images_are_counted(tmp_path: Path) -> None:
    folder = class_folders(tmp_path, ["dog", "cat"])
    (folder / "dog" / "a.jxl").write_bytes(b"x")
    (folder / "dog" / ".hidden.png").write_bytes(b"x")
    pairs, _, notes = listed(folder)
    assert len(pairs) == 4
    assert notes == ["files that are no images are left out: 1 .jxl"]


def classes_as_datasets_writes_them(path: Path, names: list[str], labels: list[int | None]) -> None:
    rows = {"img": [{"bytes": png(20 * n), "path": None} for n in range(len(labels))], "label": labels}
    features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table(rows).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


def test_class_names_of_a_parquet_schema_name_the_classes_and_class_0_counts(tmp_path: Path) -> None:
    classes_as_datasets_writes_them(tmp_path / "a.parquet", ["airplane", "fire_truck", "bird"], [0, 1, 2, 0, -1, None])
    pairs, failures, _ = listed(tmp_path)
    assert [pair.text for pair in pairs] == ["airplane", "fire truck", "bird", "airplane", "", ""]
    assert "label is -1" in pairs[4].problem
    assert failures == []


@pytest.mark.parametrize("names", [["crane", "dog"], ["0", "1"]])
def test_a_saved_data_set_is_read_by_all_three(names: list[str], tmp_path: Path, tiny: TinyEncoder) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [{"bytes": png(40 * n), "path": None} for n in range(4)], "label": [0, 1, 0, 1]}
    table = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ReferenceSetError, match=r"has the splits train, test: give one of them"):
        listed(tmp_path / "saved")
    assert ReferenceSet.build(tmp_path / "saved" / "test", tiny).texts == (*names, *names)
    images = list_images([PairsFrom(path="saved/test")], tmp_path, Failures())
    assert [image.texts[0] for image in images] == [*names, *names]
    dataset = open_set(tmp_path / "saved")
    assert isinstance(dataset, ClassSet)
    assert (dataset.name, dataset.classes, dataset.labels.tolist()) == ("saved/test", tuple(names), [0, 1, 0, 1])


def test_numbers_without_names_are_refused_with_the_remedy_in_every_format(tmp_path: Path, tiny: TinyEncoder) -> None:
    for number in range(3):
        image(tmp_path / "csv" / f"{number}.png")
        image(tmp_path / "digits" / str(number) / "a.png")
        image(tmp_path / "flat" / f"{number}.png")
    image(tmp_path / "wordnet" / "n01440764" / "a.png")
    (tmp_path / "csv" / "captions.csv").write_text("file,label\n0.png,0\n1.png,1\n2.png,1.0\n")
    pq.write_table(pa.table({"image": [png(1), png(2)], "label": [0, 1]}), tmp_path / "a.parquet")
    write_shard(tmp_path / "a.tar", [("1.png", png(1)), ("1.cls", b"0"), ("2.png", png(2)), ("2.cls", b"1")])
    for source in ("csv", "digits", "flat", "wordnet", "a.parquet", "a.tar"):
        with pytest.raises(ReferenceSetError, match=r"a number or a code: give its name in a file \(--class-names"):
            ReferenceSet.build(tmp_path / source, tiny)
    (tmp_path / "names.txt").write_text("zebra\nfire_truck\n")
    for source in ("csv", "a.parquet", "a.tar"):
        pairs, failures, _ = listed(tmp_path / source, class_names=tmp_path / "names.txt")
        assert texts_of(pairs) == ["zebra", "fire truck"]
        assert failures == []
    images = list_images([PairsFrom(path="a.tar", class_names="names.txt")], tmp_path, Failures())
    assert [image.texts for image in images] == [["zebra"], ["fire truck"]]


def test_a_number_among_words_is_left_out_and_named(tmp_path: Path, tiny: TinyEncoder) -> None:
    class_folders(tmp_path / "planes", ["747", "A320"])
    made = ReferenceSet.build(tmp_path / "planes", tiny, path=tmp_path / "set")
    assert set(made.texts) == {"A320"}
    assert "747/0.png,\"its class is '747', a number or a code" in (tmp_path / "set" / "failures.csv").read_text()
    (tmp_path / "planes" / "classes.csv").write_text("code,name\n747,Boeing 747\nA320,Airbus A320\n")
    assert texts_of(listed(tmp_path / "planes")[0]) == ["Boeing 747", "Airbus A320"]


def test_several_captions_of_an_image_are_several_pairs(tmp_path: Path) -> None:
    want = ["a dog runs", "a running dog"]
    cells = [want, [{"raw": text, "sentid": 1} for text in want], {"text": want}, json.dumps(want), str(want)]
    for number, cell in enumerate(cells):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.Table.from_pylist([{"image": png(1), "caption": cell}]), path)
        pairs, failures, _ = listed(path)
        assert [pair.text for pair in pairs] == want, cell
        assert len({pair.image_key for pair in pairs}) == 1
        assert failures == []
        assert [image.texts for image in list_images([PairsFrom(path=path.name)], tmp_path, Failures())] == [want]


def test_a_text_file_has_a_caption_per_line(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [("1.png", png(1)), ("1.txt", b"a dog\n\na  cat\n")])
    image(tmp_path / "flat" / "1.png")
    (tmp_path / "flat" / "1.txt").write_text("a dog\na cat\n", encoding="utf-8")
    image(tmp_path / "flat" / "2.png")
    (tmp_path / "a.csv").write_text('file,caption\nflat/1.png,"[""a dog"", ""a cat""]"\n')
    for source in ("a.tar", "a.csv"):
        assert [pair.text for pair in listed(tmp_path / source)[0]] == ["a dog", "a cat"]
    pairs, _, _ = listed(tmp_path / "flat")
    assert [pair.text for pair in pairs] == ["a dog", "a cat", ""]
    assert pairs[2].problem == "there is no 2.txt beside it, as there is for other images"
    dataset = open_set(tmp_path / "a.csv", kind="captions")
    assert isinstance(dataset, CaptionSet)
    assert dataset.captions == ("a dog", "a cat")


def test_a_row_with_too_many_cells_is_named(tmp_path: Path) -> None:
    for number in range(2):
        image(tmp_path / f"{number}.png")
    (tmp_path / "captions.csv").write_text("file,caption\n0.png,a dog, running\n1.png,a cat\n")
    pairs, _, _ = listed(tmp_path / "captions.csv")
    assert [pair.text for pair in pairs] == ["", "a cat"]
    assert "3 cells in line 2, 2 in the header" in pairs[0].problem
    assert "1 rows are left out, first: 3 cells in line 2" in open_set(tmp_path, kind="captions").notes[0]


def test_class_numbers_of_shards_are_named_by_the_list_beside_or_above_them(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("airplane\nfire_truck\nbird\n")
    members = [part for n in range(3) for part in ((f"s{n}.png", png(n)), (f"s{n}.cls", str(n).encode()))]
    (tmp_path / "test").mkdir()
    write_shard(tmp_path / "test" / "0.tar", members)
    for source in (tmp_path / "test", tmp_path / "test" / "0.tar"):
        assert [pair.text for pair in listed(source)[0]] == ["airplane", "fire truck", "bird"]
    assert open_set(tmp_path, kind="classes").classes == ("airplane", "fire truck", "bird")
    (tmp_path / "classnames.txt").write_text("airplane\n\nbird\n")
    with pytest.raises(ReferenceSetError, match=r"line 2 is blank: class 1 has no name"):
        listed(tmp_path / "test")


@pytest.mark.parametrize(
    "key", ["IMG.{n:04}", "{n:04}", "a.b/photo.final.{n}", "2021.01.{n:02}", "./{n:04}", "cam{n}.left"]
)
@pytest.mark.parametrize(("image_part", "text_part"), [("", ""), (".image", ".caption"), ("", ".caption")])
def test_samples_of_shards_are_found_whatever_the_dots_of_their_keys(
    key: str, image_part: str, text_part: str, tmp_path: Path
) -> None:
    numbers = range(1, 5)
    members = [(f"{key.format(n=n)}{image_part}.PNG", png(20 * n)) for n in numbers]
    members += [(f"{key.format(n=n)}{text_part}.txt", f"a dog {n}".encode()) for n in numbers]
    members += [(f"{key.format(n=n)}.seg.png", png(255)) for n in numbers if image_part or "left" in key]
    write_shard(tmp_path / "0.tar", members)
    pairs, failures, notes = listed(tmp_path)
    assert [pair.text for pair in pairs] == [f"a dog {n}" for n in numbers]
    assert [pair.image() for pair in pairs] == [png(20 * n) for n in numbers]  # type: ignore[operator]
    assert failures == []
    assert len(notes) == ("seg" in members[-1][0])
    dataset = open_set(f"webdataset-captions:{tmp_path}")
    assert isinstance(dataset, CaptionSet)
    assert dataset.captions == tuple(f"a dog {n}" for n in numbers)


def test_members_of_samples_that_are_not_used_are_counted(tmp_path: Path) -> None:
    members = [
        *(("IMG.1.png", png(1)), ("IMG.1.txt", b"one"), ("IMG.2.png", png(2)), ("IMG.2.txt", b"two")),
        *(("IMG.3.png", png(3)), ("IMG.4.txt", b"four"), ("x.png", png(4)), ("x.jpg", png(5)), ("x.txt", b"x")),
        *(("x.npy", b"1"), ("README", b"about"), ("._x.png", b"fork")),
    ]
    write_shard(tmp_path / "0.tar", members)
    pairs, failures, notes = listed(tmp_path)
    assert [(pair.path, pair.text) for pair in pairs] == [
        ("0.tar::IMG.1.png", "one"),
        ("0.tar::IMG.2.png", "two"),
        ("0.tar::IMG.3.png", ""),
        ("0.tar::x.png", "x"),
    ]
    assert failures == [("0.tar::IMG.4", "the sample has no image")]
    assert notes == [
        "1 further images or texts of samples are left out, first 0.tar::x.jpg",
        "members of shards that are neither image nor text are left out: 1 without a suffix, 1 .npy",
    ]


def test_a_folder_read_in_one_form_names_its_other_sources(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", [("1.png", png(1)), ("1.txt", b"a dog")])
    (tmp_path / "captions.csv").write_text("file,caption\n")
    pairs, _, notes = listed(tmp_path)
    assert [pair.text for pair in pairs] == ["a dog"]
    assert notes == [f"{tmp_path} is read from its 0.tar; left out: captions.csv"]


def test_synonyms_are_shortened_where_all_names_stay_distinct(tmp_path: Path) -> None:
    names = ["tench, Tinca tinca", "maillot", "maillot, tank suit", "crane"]
    classes_as_datasets_writes_them(tmp_path / "a.parquet", names, [0, 1, 2, 3])
    assert texts_of(listed(tmp_path)[0]) == ["tench", "maillot", "maillot, tank suit", "crane"]
    countries = ["Korea, Republic of", "Korea, Democratic People's Republic of", "Iran, Islamic Republic of", "Chad"]
    classes_as_datasets_writes_them(tmp_path / "a.parquet", countries, [0, 1, 2, 3])
    assert texts_of(listed(tmp_path)[0]) == countries
    columns = Columns(text="label")
    assert texts_of(listed(tmp_path, columns=columns)[0]) == countries


def test_a_table_of_json_lines_has_lists_of_captions(tmp_path: Path) -> None:
    image(tmp_path / "1.png")
    rows = [
        {"file_name": "1.png", "text": ["a dog", "a cat"]},
        {"file_name": "1.png", "text": "a cow", "licence": "CC0"},
    ]
    lines = [*(json.dumps(row) for row in rows), "{"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pairs, _, _ = listed(tmp_path)
    assert [pair.text for pair in pairs] == ["a dog", "a cat", "a cow", ""]
    assert pairs[3].problem.startswith("line 3 is not json")


def test_numbers_at_the_end_of_file_names_are_left_out_but_not_model_numbers(tmp_path: Path) -> None:
    for name in ("737-200", "737-300", "rosa_1", "Rosa Luxemburg (2)"):
        image(tmp_path / f"{name}.png")
    assert texts_of(listed(tmp_path)[0]) == ["737-200", "737-300", "Rosa Luxemburg", "rosa"]


def test_pairs_with_a_problem_count_for_no_limit(tmp_path: Path, tiny: TinyEncoder) -> None:
    for number in range(4):
        image(tmp_path / f"{number}.png", size=(20 + number, 16))
    (tmp_path / "captions.csv").write_text("file,text\n0.png,7\n1.png,a dog\n2.png,8\n3.png,a cat\n")
    for selection in (Selection(limit=2), Selection(per_class=1), Selection(limit=2, shuffle=True)):
        made = ReferenceSet.build(tmp_path, tiny, selection=selection)
        assert set(made.texts) == {"a dog", "a cat"}


def test_shards_in_a_sub_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    write_shard(tmp_path / "train" / "0.tar", [("1.png", png(1)), ("1.txt", b"a dog")])
    with pytest.raises(ReferenceSetError, match=r"train has some, give that folder"):
        listed(tmp_path)


def test_numbered_folders_are_named_by_a_list(tmp_path: Path) -> None:
    class_folders(tmp_path / "digits", ["0", "1"])
    dataset = open_set(tmp_path / "digits", kind="classes")
    assert dataset.notes == ("2 classes are named by a number or code alone, first '0': add classes.csv",)
    (tmp_path / "digits" / "classnames.txt").write_text("zero\none\n")
    assert texts_of(listed(tmp_path / "digits")[0]) == ["zero", "one"]
    assert open_set(tmp_path / "digits", kind="classes").classes == ("zero", "one")


def test_values_that_are_no_text_are_refused(tmp_path: Path) -> None:
    values = [{"answers": [1]}, [{"from": "human"}], None, []]
    for number, value in enumerate(values):
        table = pa.Table.from_pylist([{"image": png(1), "text": value}, {"image": png(2), "text": value}])
        pq.write_table(table, tmp_path / f"{number}.parquet")
        pairs, _, _ = listed(tmp_path / f"{number}.parquet")
        assert [pair.text for pair in pairs] == ["", ""]
        assert pairs[0].problem.startswith("there is no caption in column 'text'" if value else "the text is empty")
    pq.write_table(pa.table({"image": [png(1), png(2)], "label": [True, False]}), tmp_path / "a.parquet")
    with pytest.raises(ReferenceSetError, match=r"its class is '1', a number or a code"):
        listed(tmp_path / "a.parquet")


def test_labels_and_classes_that_become_one_text_are_reported(tmp_path: Path) -> None:
    for number in range(3):
        image(tmp_path / f"{number}.png")
    (tmp_path / "a.csv").write_text("file,label\n0.png,fire_truck\n1.png,fire truck\n2.png,dog\n")
    assert listed(tmp_path / "a.csv")[2] == ["2 labels share 1 text, first 'fire_truck' and 'fire truck': 'fire truck'"]
    classes_as_datasets_writes_them(tmp_path / "a.parquet", ["crane", "dog", "crane"], [0, 1, 2])
    (note,) = listed(tmp_path / "a.parquet")[2]
    assert note.startswith("2 classes share a name with another, first 'crane' (class numbers 0, 2)")
    (tmp_path / "classnames.txt").write_text("crane\ndog\ncrane\n")
    write_shard(tmp_path / "a.tar", [m for n in range(3) for m in ((f"{n}.png", png(n)), (f"{n}.cls", b"%d" % n))])
    assert listed(tmp_path / "a.tar")[2] == ["2 labels share 1 text, first '0' and '2': 'crane'"]


def test_padded_running_numbers_of_folders_are_left_out(tmp_path: Path) -> None:
    names = ("00000_Aves_Turdus_merula", "00001_Aves_Corvus_corax", "00010_Plantae_Bellis")
    class_folders(tmp_path / "padded", names)
    assert open_set(tmp_path / "padded", kind="classes").classes[0] == "Aves Turdus merula"
    class_folders(tmp_path / "coins", ("01_cent", "05_cent"))
    pairs, _, _ = listed(tmp_path / "coins")
    assert texts_of(pairs) == ["01 cent", "05 cent"]


def test_folders_of_one_name_or_case_and_tables_below_are_noted(tmp_path: Path) -> None:
    class_folders(tmp_path / "deep", ("dogs/black", "cats/black"))
    assert any("first 'cats/black' and 'dogs/black': 'black'" in note for note in listed(tmp_path / "deep")[2])
    class_folders(tmp_path / "case", ("Lady_Bug", "lady-bug", "ant"))
    assert any("2 folders share 1 text" in note for note in listed(tmp_path / "case")[2])
    class_folders(tmp_path / "split", ("train",))
    image(tmp_path / "split" / "train" / "more.png", "red")
    (tmp_path / "split" / "train" / "metadata.csv").write_text("file_name,text\nmore.png,a red square\n")
    _, _, notes = listed(tmp_path / "split")
    assert any("in one folder" in note and "'train'" in note for note in notes)
    assert any("1 table is not read" in note and "metadata.csv" in note for note in notes)
    assert any("1 table is not read" in note for note in open_set(tmp_path / "split", kind="classes").notes)


def test_compressed_shards_are_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    shard = write_shard(tmp_path / "set" / "0.tar", [("1.png", png(1)), ("1.txt", b"a dog")])
    (tmp_path / "set" / "1.tar.gz").write_bytes(gzip.compress(shard.read_bytes()))
    pairs, failures, _ = listed(tmp_path / "set")
    assert texts_of(pairs) == ["a dog"]
    assert [Path(name).name for name, _ in failures] == ["1.tar.gz"]
    assert "compressed by gzip" in failures[0][1]
    with pytest.raises(DataError, match=r"1.tar.gz .*compressed by gzip"):
        open_set(f"webdataset-captions:{tmp_path / 'set'}")
    shard.unlink()
    with pytest.raises(ReferenceSetError, match=r"1.tar.gz is compressed"):
        listed(tmp_path / "set")
    # An archive beside images is none of their shards.
    class_folders(tmp_path / "images", ("cat", "dog"))
    (tmp_path / "images" / "images.tar.gz").write_bytes(b"")
    assert texts_of(listed(tmp_path / "images")[0]) == ["cat", "dog"]
    assert isinstance(open_set(tmp_path / "images"), ClassSet)


def test_numbers_are_no_captions_in_evaluation(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        image(tmp_path / name, "red")
    table = tmp_path / "captions.csv"
    table.write_text("file,caption\n1.png,7\n2.png,a dog\n")
    dataset = open_set(table, kind="captions")
    assert (dataset.captions, len(dataset.images)) == (("a dog",), 1)
    assert dataset.notes == ("1 captions that are a number or a code alone are left out, first '7'",)
    table.write_text("file,label\n1.png,7\n2.png,8\n")
    with pytest.raises(DataError, match="only numbers or codes, first '7'"):
        open_set(table, kind="captions")
    (tmp_path / "shards").mkdir()
    members = [("1.png", png(1)), ("1.txt", b"a dog\n3"), ("2.png", png(2)), ("2.txt", b"4")]
    write_shard(tmp_path / "shards" / "0.tar", members)
    shards = open_set(f"webdataset-captions:{tmp_path / 'shards'}", kind="captions")
    assert (shards.captions, len(shards.images)) == (("a dog",), 1)
    assert any("first '3'" in note for note in shards.notes)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_a_parquet_file_has_the_same_captions_everywhere(kind: pa.DataType, tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    captions = [["a dog", "a big dog"], None]
    pq.write_table(pa.table({"image": pa.array([png(1), png(2)], kind), "caption": captions}), path)
    pairs, _, _ = listed(path)
    assert [pair.text for pair in pairs] == ["a dog", "a big dog", ""]
    dataset = open_set(f"hf-dataset-captions:{path}", kind="captions")
    assert dataset.captions == ("a dog", "a big dog")
    assert dataset.notes == ("1 images have no caption, and are searched all the same",)
    assert dataset.images.read(1)[0].size == (8, 8)


def test_parquet_files_of_several_splits_are_noted(tmp_path: Path) -> None:
    for split in ("train", "test"):
        table = pa.table({"image": [png(len(split))], "caption": [f"a {split} image"]})
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    pairs, _, notes = listed(tmp_path)
    assert len(pairs) == 2
    assert notes == ["the parquet files are of the splits test, train: all are read"]


def test_a_list_of_names_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("red\nblue\n")
    write_shard(tmp_path / "0.tar", [(f"{n}.{kind}", data) for n in (1, 2) for kind, data in sample_of(n)])
    with pytest.raises(ReferenceSetError, match=r"class 2, and .*classnames.txt names 2 \(numbers start at 0\)"):
        listed(tmp_path)
    with pytest.raises(DataError, match=r"class 2, and .*classnames.txt names 2 \(numbers start at 0\)"):
        open_set(tmp_path, kind="classes")


def sample_of(number: int) -> list[tuple[str, bytes]]:
    return [("png", png(number)), ("cls", str(number).encode())]
