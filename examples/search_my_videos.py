"""Index a folder of videos and search it by a sentence: python examples/search_my_videos.py FOLDER "a red car".

The index is written to FOLDER.impart. A second run indexes new and changed files only.
"""

import sys
from pathlib import Path

import impart
from impart.video.index.events import IndexDone, VideoDone, VideoFailed


def main(folder: str, sentence: str) -> None:
    videos = Path(folder)
    index = impart.VideoIndex.open(videos.with_name(f"{videos.name}.impart"))  # with the bundled model
    for event in index.add([videos]):
        match event:
            case VideoDone():
                print(f"indexed {event.path.name}: {event.duration_s:.1f} s, {event.scenes} scenes")
            case VideoFailed():
                print(f"failed  {event.path.name}: {event.reason}")
            case IndexDone():
                print(f"{event.added + event.updated} videos in {event.elapsed_s:.1f} s")
    for hit in index.search(text=sentence, top=5, group="scene"):
        print(f"{hit.rank}. {hit.score:.3f}  {hit.timecode}  {hit.path.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
