"""Train a RAM on your own pairs and use it as an encoder: python examples/train_a_ram.py PAIRS OUT [SETTING=VALUE ...].

PAIRS is a folder with captions.csv, a csv or parquet file, or WebDataset shards. Needs the extra `train`.
The same run on the command line: impart train ram_mini --pairs PAIRS --out OUT --set SETTING=VALUE
"""

import json
import sys
from pathlib import Path

from impart.blending.ram_checkpoint import open_checkpoint
from impart.train.config_file import load_config
from impart.train.events import Preparing, StepDone, Validated
from impart.train.run import train


def main(pairs: str, out: str, *settings: str) -> None:
    source = json.dumps(str(Path(pairs).resolve()))
    config = load_config("ram_mini", sets=[f"data.pairs=[{{path={source}}}]", "data.validation=[]", *settings])
    for event in train(config, data=Path(), out=Path(out)):
        match event:
            case Preparing() if event.done == event.total:
                print(f"{event.what}: {event.done}")
            case StepDone():
                print(f"step {event.step} of {event.steps}: loss {event.loss:.3f}")
            case Validated():
                print(f"step {event.step}: {event.metrics}")
    encoder = open_checkpoint(Path(out) / "model")  # base encoder, RAM and references together; still an Encoder
    print(f"trained: {encoder.traits.id}, D = {encoder.traits.dim}, {len(encoder.references)} references")


if __name__ == "__main__":
    main(*sys.argv[1:])
