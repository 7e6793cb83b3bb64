"""Search a served index from a program: python examples/search_over_http.py ADDRESS SENTENCE.

Start the server first, with: impart serve --index library.impart. ADDRESS is what it prints, such as
http://127.0.0.1:8765. The program needs neither the videos nor the index.
"""

import sys

import impart


def main(address: str, sentence: str) -> None:
    with impart.Client(address) as client:  # token=... where the server asks for one
        print(f"{len(client.videos())} videos and photos are served")
        hits = client.search(text=sentence, top=5)
        for hit in hits:
            print(f"{hit.rank}. {hit.score:.3f}  {hit.timecode}  {hit.path.name}")
        if hits:
            scenes = client.scenes(hits[0].video_id)
            print(f"{hits[0].path.name} has {len(scenes)} scenes; the hit is {hits[0].length_s:.1f} s long")
            for hit in client.similar(hits[0].video_id, hits[0].best_s, top=3):
                print(f"like it: {hit.timecode}  {hit.path.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
