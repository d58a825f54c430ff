"""Keep the runs of one target as the lessons' runs: data/lesson_run/, without models, probabilities in half precision.

usage: lesson_run.py FOLDER [TARGET]
FOLDER holds finished runs of direct, tsl and mtmt, such as runs/demo after `make demo`; TARGET is sw unless you name another."""
import argparse, shutil
from pathlib import Path

import numpy as np

from mtmt.compare import recompute
from mtmt.records import read_ids, read_predictions, read_probabilities, read_runs, write_record

OUT = Path(__file__).resolve().parent.parent/'data'/'lesson_run'

def keep(folder, record):
    "Write one run anew, smaller"
    place = folder/record['run']
    words, predictions = read_predictions(place)
    tags, probabilities = read_probabilities(place)
    half = {name: p.astype(np.float16) for name, p in probabilities.items()}
    facts = {k: v for k, v in record.items() if k != 'system'}
    write_record(OUT/record['run'], facts, words, read_ids(place), predictions.pop('gold'), predictions, half, tags)
    (OUT/record['run']/'asked.json').unlink()
    if wrong := recompute(OUT/record['run']): raise SystemExit(f'{record["run"]}: {wrong}')

if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('folder', type=Path)
    parser.add_argument('target', nargs='?', default='sw')
    args = parser.parse_args()
    chosen = [r for r in read_runs(args.folder).rows if r['target'] == args.target]
    if {r['system'] for r in chosen} != {'direct', 'tsl', 'mtmt'}: raise SystemExit(f'not the runs of three methods: {chosen}')
    for old in OUT.glob('*/'): shutil.rmtree(old)
    for r in chosen: keep(args.folder, r)
    print(*sorted(p.name for p in OUT.glob('*/')), sep='\n')
