"""Readers of captioned videos, on small files in the official formats; the videos are empty files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from impart.errors import DataError
from impart.evaluate.datasets.types import VideoSet
from impart.evaluate.datasets.videos.captions import (
    READERS,
    open_activitynet,
    open_captions,
    open_condensed_movies,
    open_didemo,
    open_lsmdc,
    open_msrvtt,
    open_msvd,
)


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def touch(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / name, "")


def pairs(dataset: VideoSet) -> list[tuple[str, str]]:
    """(name of the video file, caption) of every caption."""
    return [
        (dataset.videos[owner].name, caption) for owner, caption in zip(dataset.owners, dataset.captions, strict=True)
    ]


JSFUSION = """key,vid_key,video_id,sentence
ret0,msr9770,video9770,a person is connecting something to system
ret1,msr9771,video9771,"a little girl does gymnastics, quietly"
ret2,msr7020,video7020,a woman creating a fondant baby and flower
"""


def test_msrvtt_1ka(tmp_path: Path) -> None:
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", JSFUSION)
    touch(tmp_path, "videos/all/video9770.mp4", "videos/all/video7020.mp4", "videos/all/video1.mp4")
    dataset = open_msrvtt(tmp_path)
    assert dataset.name == "msrvtt/1ka"
    assert pairs(dataset) == [
        ("video9770.mp4", "a person is connecting something to system"),
        ("video7020.mp4", "a woman creating a fondant baby and flower"),
    ]
    assert dataset.notes == ("missing videos left out: 1 of 3 (video9771)",)
    assert dataset.spans is None


def test_msrvtt_under_the_names_of_its_archives(tmp_path: Path) -> None:
    def annotation(name: str, *videos: tuple[str, str]) -> None:
        content = {
            "videos": [{"video_id": video, "split": split, "category": 1, "id": 0} for video, split in videos],
            "sentences": [{"caption": f"caption of {video}", "video_id": video, "sen_id": 0} for video, _ in videos],
        }
        write(tmp_path / name, json.dumps(content))

    annotation("train_val_annotation/train_val_videodatainfo.json", ("video0", "train"), ("video6513", "validate"))
    annotation("test_videodatainfo.json", ("video7010", "test"))
    write(tmp_path / "msrvtt_jsfusion_test.csv", JSFUSION)
    write(tmp_path / "category.txt", "music\t0\n")
    touch(tmp_path, "TrainValVideo/video0.mp4", "TrainValVideo/video6513.mp4", "TestVideo/video7010.mp4")
    touch(tmp_path, "TestVideo/video7020.mp4")
    assert pairs(open_msrvtt(tmp_path, "test")) == [("video7010.mp4", "caption of video7010")]
    assert pairs(open_msrvtt(tmp_path, "validate")) == [("video6513.mp4", "caption of video6513")]
    assert pairs(open_msrvtt(tmp_path, "train")) == [("video0.mp4", "caption of video0")]
    assert pairs(open_msrvtt(tmp_path)) == [("video7020.mp4", "a woman creating a fondant baby and flower")]
    assert open_msrvtt(tmp_path / "test_videodatainfo.json").name == "msrvtt/test"


def test_msrvtt_other_splits_have_all_captions(tmp_path: Path) -> None:
    video = {"category": 9, "url": "https://www.youtube.com/watch?v=x", "start time": 1.5, "end time": 9.0, "id": 0}
    data = {
        "info": {"version": "1.0"},
        "videos": [
            {**video, "video_id": "video0", "split": "train"},
            {**video, "video_id": "video6513", "split": "validate"},
            {**video, "video_id": "video7010", "split": "test"},
        ],
        "sentences": [
            {"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
            {"caption": "a man sings", "video_id": "video7010", "sen_id": 1},
            {"caption": "someone is\tsinging ", "video_id": "video7010", "sen_id": 2},
        ],
    }
    write(tmp_path / "MSRVTT_data.json", json.dumps(data))
    touch(tmp_path, "video0.mp4", "video6513.mp4", "video7010.mp4")
    assert pairs(open_msrvtt(tmp_path, "test")) == [
        ("video7010.mp4", "a man sings"),
        ("video7010.mp4", "someone is singing"),
    ]
    assert len(open_msrvtt(tmp_path, "train").videos) == 1
    with pytest.raises(DataError, match="name no video"):
        open_msrvtt(tmp_path, "validate")  # its one video has no caption


def test_one_malformed_line_is_counted_and_two_are_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "MSRVTT_JSFUSION_test.csv", JSFUSION + "ret3\n")
    touch(tmp_path, "video9770.mp4", "video9771.mp4", "video7020.mp4")
    dataset = open_msrvtt(tmp_path)
    assert len(dataset.captions) == 3
    assert dataset.notes == ("left out as malformed: 1 line (MSRVTT_JSFUSION_test.csv, line 5: no video_id)",)
    write(file, JSFUSION + "ret3\nret4,msr1\n")
    with pytest.raises(
        DataError, match=r"MSRVTT_JSFUSION_test\.csv, line 5: no video_id, and 1 more .*expected key,vid_key"
    ):
        open_msrvtt(tmp_path)


def test_blank_captions_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", JSFUSION + "ret3,msr1,video7020,\n")
    touch(tmp_path, "video9770.mp4", "video9771.mp4", "video7020.mp4")
    assert open_msrvtt(tmp_path).notes == ("blank captions left out: 1",)


def msvd(folder: Path, captions: object) -> Path:
    write(folder / "test_list.txt", "-4wsuPCjDBc_5_15\nklteYv1Uv9A_27_33\n")
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(captions, protocol=2))
    return folder


MSVD_CAPTIONS = {
    "-4wsuPCjDBc_5_15": [["a", "squirrel", "is", "eating", "a", "peanut"], ["a", "chipmunk", "eats"]],
    "klteYv1Uv9A_27_33": [["a", "man", "rides", "a", "motorcycle"]],
    "another_0_3": [["not", "in", "this", "split"]],
}


def test_msvd_with_the_names_of_the_lists(tmp_path: Path) -> None:
    msvd(tmp_path, MSVD_CAPTIONS)
    touch(tmp_path, "YouTubeClips/-4wsuPCjDBc_5_15.avi", "YouTubeClips/klteYv1Uv9A_27_33.avi")
    assert pairs(open_msvd(tmp_path)) == [
        ("-4wsuPCjDBc_5_15.avi", "a squirrel is eating a peanut"),
        ("-4wsuPCjDBc_5_15.avi", "a chipmunk eats"),
        ("klteYv1Uv9A_27_33.avi", "a man rides a motorcycle"),
    ]


def test_msvd_with_the_names_of_the_mapping(tmp_path: Path) -> None:
    msvd(tmp_path, MSVD_CAPTIONS)
    write(tmp_path / "youtube_mapping.txt", "-4wsuPCjDBc_5_15 vid1\nklteYv1Uv9A_27_33 vid2\n")
    touch(tmp_path, "vid2.avi")
    dataset = open_msvd(tmp_path)
    assert pairs(dataset) == [("vid2.avi", "a man rides a motorcycle")]
    assert dataset.notes == ("missing videos left out: 1 of 2 (-4wsuPCjDBc_5_15)",)


def test_msvd_captions_written_by_python_2(tmp_path: Path) -> None:
    msvd(tmp_path, {})
    words = b"(lp1\n(lp2\nS'two'\np3\naS'dogs'\np4\naa"
    (tmp_path / "raw-captions.pkl").write_bytes(b"(dp0\nS'klteYv1Uv9A_27_33'\np5\n" + words + b"s.")
    write(tmp_path / "test_list.txt", "klteYv1Uv9A_27_33\n")
    touch(tmp_path, "klteYv1Uv9A_27_33.avi")
    assert open_msvd(tmp_path).captions == ("two dogs",)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("__import__('pathlib').Path('ran').touch()",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    msvd(tmp_path, {"-4wsuPCjDBc_5_15": _Evil()})
    touch(tmp_path, "-4wsuPCjDBc_5_15.avi")
    with pytest.raises(DataError, match=r"raw-captions\.pkl is not a pickle of plain data .*eval"):
        open_msvd(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_video_with_captions_of_another_form_is_counted(tmp_path: Path) -> None:
    msvd(tmp_path, {**MSVD_CAPTIONS, "-4wsuPCjDBc_5_15": "one text for all"})
    touch(tmp_path, "-4wsuPCjDBc_5_15.avi", "klteYv1Uv9A_27_33.avi")
    dataset = open_msvd(tmp_path)
    assert [path.name for path in dataset.videos] == ["klteYv1Uv9A_27_33.avi"]
    assert "video 1: -4wsuPCjDBc_5_15 has no captions" in dataset.notes[0]


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps(MSVD_CAPTIONS)[:40]])
def test_a_broken_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    msvd(tmp_path, {})
    (tmp_path / "raw-captions.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"raw-captions\.pkl .*download it again"):
        open_msvd(tmp_path)


def test_didemo_paragraphs(tmp_path: Path) -> None:
    entry = {"num_segments": 6, "dl_link": "https://www.flickr.com/video_download.gne?id=1", "times": [[0, 0]]}
    data = [
        {**entry, "description": "a bug is kicked.", "video": "26292851@N04_4253489686_265c.m4v", "annotation_id": 1},
        {**entry, "description": "a dog barks", "video": "51035693821@N01_7071.", "annotation_id": 2},
        {**entry, "description": "the bug flies", "video": "26292851@N04_4253489686_265c.m4v", "annotation_id": 3},
    ]
    write(tmp_path / "test_data.json", json.dumps(data))
    touch(tmp_path, "videos/26292851@N04_4253489686_265c.mp4", "videos/51035693821@N01_7071.mp4")  # converted
    assert pairs(open_didemo(tmp_path)) == [
        ("26292851@N04_4253489686_265c.mp4", "a bug is kicked. the bug flies"),
        ("51035693821@N01_7071.mp4", "a dog barks"),
    ]


def test_activitynet_paragraphs(tmp_path: Path) -> None:
    data = {
        "v_uqiMw7tQ1Cc": {
            "duration": 55.15,
            "timestamps": [[0.28, 55.15], [13.79, 54.32]],
            "sentences": ["A weight lifting tutorial is given.", " The coach helps the guy."],
        },
        "v_bXdq2zI1Ms0": {"duration": 73.1, "timestamps": [[0, 10.23]], "sentences": ["Three men are standing."]},
    }
    write(tmp_path / "captions" / "val_1.json", json.dumps(data))
    touch(tmp_path, "v_uqiMw7tQ1Cc.mkv", "bXdq2zI1Ms0.mp4")
    assert pairs(open_activitynet(tmp_path)) == [
        ("v_uqiMw7tQ1Cc.mkv", "A weight lifting tutorial is given. The coach helps the guy."),
        ("bXdq2zI1Ms0.mp4", "Three men are standing."),
    ]
    with pytest.raises(DataError, match=r"no val_2\.json.*densevid"):
        open_activitynet(tmp_path, "val_2")


def test_lsmdc(tmp_path: Path) -> None:
    rows = [
        ("1004_Juno_00.00.32.306-00.00.40.807", "SOMEONE stares at a chair."),
        ("3009_BATTLE_LOS_ANGELES_00.03.07.170-00.03.09.675", 'He reads "Danger" — aloud.'),
    ]
    times = "00.00.32.306\t00.00.40.807\t00.00.32.306\t00.00.40.807"
    text = "".join(f"{clip}\t{times}\t{sentence}\n" for clip, sentence in rows)
    (tmp_path / "LSMDC16_challenge_1000_publictect.csv").write_bytes(text.encode("cp1252"))
    touch(tmp_path, "1004_Juno/1004_Juno_00.00.32.306-00.00.40.807.avi")
    touch(tmp_path, "3009_BATTLE_LOS_ANGELES/3009_BATTLE_LOS_ANGELES_00.03.07.170-00.03.09.675.avi")
    assert pairs(open_lsmdc(tmp_path)) == [(f"{clip}.avi", sentence) for clip, sentence in rows]


def test_condensed_movies(tmp_path: Path) -> None:
    header = "videoid,year,clip_idx,clip_tot,upload_year,title,clip_name,imdbid\n"
    clips = "Sv-BxH3SVS8,2012.0,6,10,2019,Les Misérables,One Day More,tt1707386\nPK0i_dyx230,1990.0,1,9,2011,A,B,tt2\n"
    write(tmp_path / "metadata" / "clips.csv", header + clips)
    write(
        tmp_path / "metadata" / "descriptions.csv",
        'imdbid,videoid,description\ntt1707386,Sv-BxH3SVS8,"On the eve, the players sing ""One Day More""."\n'
        "tt2,PK0i_dyx230,Two men\ntt9,unknown,Nobody\n",
    )
    write(tmp_path / "metadata" / "split.csv", "imdbid,split\ntt1707386,train\ntt2,test\n")
    touch(tmp_path, "videos/2019/Sv-BxH3SVS8.mkv", "videos/2011/PK0i_dyx230.mp4")
    dataset = open_condensed_movies(tmp_path)
    assert pairs(dataset) == [
        ("Sv-BxH3SVS8.mkv", 'On the eve, the players sing "One Day More".'),
        ("PK0i_dyx230.mp4", "Two men"),
    ]
    assert dataset.notes == ("descriptions left out whose clips clips.csv does not list: 1",)
    assert pairs(open_condensed_movies(tmp_path, "test")) == [("PK0i_dyx230.mp4", "Two men")]


def test_a_table_of_captioned_videos(tmp_path: Path) -> None:
    touch(tmp_path / "mine", "a.mp4", "b.gif")
    table = write(
        tmp_path / "mine" / "captions.csv",
        "file,caption,split,start_s,end_s\na.mp4,a dog,test,,\na.mp4,two dogs,test,,\nb.gif,a cat,val,,\n"
        "a.mp4,it barks,test,3.5,6\ngone.mp4,a bird,test,,\n",
    )
    dataset = open_captions(table.parent)
    assert dataset.name == "mine"
    assert pairs(dataset) == [("a.mp4", "a dog"), ("a.mp4", "two dogs"), ("b.gif", "a cat"), ("a.mp4", "it barks")]
    assert dataset.owners.tolist() == [0, 0, 1, 2]
    assert dataset.spans == (None, None, (3.5, 6.0))
    assert dataset.notes == ("missing videos left out: 1 of 3 (gone.mp4)",)
    assert len(open_captions(table, "val").captions) == 1
    with pytest.raises(DataError, match="no row with split 'train'"):
        open_captions(table, "train")
    write(table, "name,text\na.mp4,a dog\n")
    with pytest.raises(DataError, match=r"captions\.csv lacks the column 'file'; it has name, text"):
        open_captions(table)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_errors_for_missing_files_name_the_files_and_their_home(reader: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(csv|txt|json).* needs .*published"):
        reader.open(tmp_path, None)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"not a folder.*published"):
        reader.open(tmp_path / "nowhere", None)  # type: ignore[attr-defined]


def test_a_set_without_any_video_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", JSFUSION)
    with pytest.raises(
        DataError, match=r"none of the 3 videos .*first video9770.*videos named video7020\.mp4.*https://"
    ):
        open_msrvtt(tmp_path)


def test_the_error_for_an_unknown_split_lists_the_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"MSR-VTT has no split '1kB': choose one of 1ka, test"):
        open_msrvtt(tmp_path, "1kB")


def test_unicode_line_separators_do_not_end_a_caption(tmp_path: Path) -> None:
    write(tmp_path / "captions.csv", 'file,caption\na.mp4,"a dog\u2028and a\ncat"\n')
    touch(tmp_path, "a.mp4")
    assert open_captions(tmp_path).captions == ("a dog and a cat",)


def test_an_annotation_file_in_place_of_the_folder_selects_the_split(tmp_path: Path) -> None:
    for name, sentence in (("val_1", "One."), ("val_2", "Two.")):
        data = {"v_a": {"duration": 9.0, "timestamps": [[0, 1]], "sentences": [sentence]}}
        write(tmp_path / f"{name}.json", json.dumps(data))
    touch(tmp_path, "v_a.mp4")
    assert open_activitynet(tmp_path).captions == ("One.",)
    second = open_activitynet(tmp_path / "val_2.json")
    assert (second.name, second.captions) == ("activitynet/val_2", ("Two.",))
    assert open_activitynet(tmp_path / "val_2.json", "val_2").captions == ("Two.",)
    with pytest.raises(DataError, match=r"val_2\.json is another file: give the folder, or val_1\.json"):
        open_activitynet(tmp_path / "val_2.json", "val_1")
    with pytest.raises(
        DataError, match=r"other\.json is another file: give the folder, or val_1\.json or val_2\.json or train\.json"
    ):
        open_activitynet(write(tmp_path / "other.json", "{}"))


def test_a_folder_that_links_to_itself_is_listed_once(tmp_path: Path) -> None:
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", JSFUSION)
    touch(tmp_path, "clips/video9770.mp4")
    (tmp_path / "clips" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert open_msrvtt(tmp_path).videos == (tmp_path / "clips" / "video9770.mp4",)


@pytest.mark.data
def test_the_development_clips(data_dir: Path) -> None:
    assert len(open_captions(data_dir / "videos" / "panda").videos) == 66
    assert len(open_captions(data_dir / "videos" / "misc").videos) == 24
