"""Broken input by the thousand: whatever comes, the kit reads it rightly, says what it changed, or refuses in its own words.

    python tests/fuzz.py --inputs 100000 --seed 0

Prints each finding with the seed that makes it again. `test_fuzz.py` runs a few thousand."""
import argparse, json, random, re, sys, tempfile, time
from collections import Counter
from pathlib import Path

import regex

from mtmt.data import MtmtError, Schema, read_conll, read_words, tag_names, write_conll
from mtmt.external import parse_answer, read_system
from mtmt.recipes import given_recipe
from mtmt.records import read_record
from mtmt.text import line_words
from mtmt.translation import read_translations

SCHEMA = Schema(('PER', 'LOC', 'ORG'))
WORDS = ['Amina', 'anaishi', 'Dodoma', 'São', 'Ìbàdàn', '東京', 'ঢাকা', 'מרים', '-DOCSTART-', '#', '=', '"', '\u200b', 'e\u0301', '🙂', '1', 'a.b']
TAGS = ['O', 'O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC', 'B-ORG', 'I-ORG']
# what is put into a file: bytes and texts that have broken readers
PIECES = [b'\r', b'\n', b'\r\n', b'\n\n', b'\t', b' ', b'\x00', b'\x1b[0m', b'\xff', b'\xed\xa0\x80', b'\xc0\xaf', b'\xef\xbb\xbf', b'\xe2\x80\xa8',
    b'\xc2\x85', b'\x0b', b'\x0c', b'\x1c', b'\xc2\xa0', b'\xe2\x80\x8b', b'-DOCSTART-', b'-DOCSTART- -X- O O\n', b'# x = y\n', b'B-', b'I-PER', b'S-PER', b'b-per', b'PER',
    b'B-PRE', b'sw:', b'{"', b'[', b']', b'}', b'"', b'\\u0000', b'\\ud800', b'NaN', b'1e999', b'-1', b'null', b'true', b'[['*40, b': &a', b'*a', b'!!python/object:os.system',
    b'<script>', b'../../x', b'A'*5000]

def tagged(chance):
    "A CoNLL file of a few sentences, in order or nearly so"
    between = chance.choice('\t\t\t ')
    extra = chance.choice(['', '', between+'NN'])
    lines, before = [], 'O'
    for _ in range(chance.randint(1, 12)):
        tag = chance.choice([t for t in TAGS if t[0] != 'I' or before[2:] == t[2:]] if chance.random() < .95 else TAGS)
        lines.append(chance.choice(WORDS)+extra+between+tag)
        before = tag
        if chance.random() < .25:
            lines.append('')
            before = 'O'
    return '\n'.join([*lines, '']).encode()

def json_lines(chance):
    "Predictions of another system"
    rows = [dict(text='Amina anaishi Dodoma', entities=[dict(start=chance.randint(-1, 22), end=chance.randint(-1, 22),
        label=chance.choice(['PER', 'LOC', 'O', 'X']), score=chance.choice([None, .5, 1, 2, -1]))]) for _ in range(2)]
    return '\n'.join(map(json.dumps, rows)).encode()

def answer(chance):
    "What a language model might say"
    items = [dict(text=chance.choice(WORDS), type='PER') for _ in range(chance.randint(0, 3))]
    return chance.choice([json.dumps(items), f'```json\n{json.dumps(items)}\n```', 'Sure! '+json.dumps(items)]).encode()

def parameters(chance):
    "A parameter file"
    lines = ['target: sw', 'method: tsl', f'limit: {chance.choice([7, "010", "1e3", "1:30", "yes"])}', 'learning_rate: 1e-4', 'sources: [en, de]', 'options: {weights: ab}']
    chance.shuffle(lines)
    return '\n'.join(lines).encode()

def record(chance): return json.dumps(dict(run='x', signature='s', systems=['gold'], f1=.5, files={})).encode()
def translations(chance): return b'{"text": "Amina anaishi", "translation": "Amina lives"}\n'*2

def broken(raw, chance):
    "The same bytes with some damage"
    for _ in range(chance.choice([0, 1, 1, 2, 4])):
        at = chance.randint(0, len(raw))
        kind = chance.randrange(5)
        if kind == 0: raw = raw[:at]+chance.choice(PIECES)+raw[at:]
        elif kind == 1: raw = raw[:at]+raw[at+chance.randint(1, 9):]
        elif kind == 2: raw = raw[:at]
        elif kind == 3 and raw: raw = raw[:at]+bytes([chance.randrange(256)])+raw[at+1:]
        else: raw = raw[:at]+raw[max(at-chance.randint(1, 30), 0):]
    return raw

def plainly(raw):
    "Words and last columns of a file by the plainest reading, sentence by sentence"
    out, rows = [], []
    for line in raw.removeprefix(b'\xef\xbb\xbf').decode().split('\n'):
        line = line.removesuffix('\r').rstrip(' \t')
        cells = [c for c in re.split(r'\t' if '\t' in line.strip(' ') else r'[ \t]', line) if c]
        if not cells or cells[0] in ('-DOCSTART-', '# word') or len(cells) > 2 and (cells[0], cells[2]) == ('#', '='):
            if rows: out.append(rows)
            rows = []
        else: rows.append((cells[0], cells[-1]))
    return out+[rows]*bool(rows)

def check_conll(path, raw, chance):
    "Tagged words: read as they stand, or every change is counted, or refused"
    for problems in ('raise', 'repair', 'skip'):
        try: corpus, report = read_conll(path, SCHEMA, problems=problems)
        except MtmtError: continue
        read = [list(zip(words, tags)) for words, tags in zip(corpus['tokens'], tag_names(corpus))]
        assert report.sentences == len(read) and report.words == sum(map(len, read))
        stands = None
        try: stands = plainly(raw)
        except UnicodeDecodeError: assert report.skipped
        if stands is None: continue
        assert len(stands) == len(read)+report.skipped, 'a sentence was lost without a word'
        if problems == 'repair':
            assert report.skipped or sum(a != b for s, t in zip(stands, read) for a, b in zip(s, t)) <= report.repaired.total(), 'a change was not counted'
        else: assert all(sentence in stands for sentence in read), 'a sentence was changed'
        if not report.skipped and not report.repaired: assert read == stands
        write_conll(path.with_name('again.conll'), corpus['tokens'], tag_names(corpus))
        again, _ = read_conll(path.with_name('again.conll'), SCHEMA)
        assert again['tokens'][:] == corpus['tokens'][:] and again['ner_tags'][:] == corpus['ner_tags'][:], 'written and read again is something else'

def check_words(path, raw, chance):
    "Raw words: the first column, and nothing else"
    corpus, report = read_words(path, chance.choice(['raise', 'repair', 'skip']))
    if not report.skipped and not report.repaired:
        assert corpus['tokens'][:] == [[word for word, _ in rows] for rows in plainly(raw)]

def check_text(path, raw, chance):
    "A text in lines: every character that can be seen is in a word"
    path = path.rename(path.with_suffix('.txt'))
    corpus, report = read_words(path, cut=line_words)
    whole = ''.join(''.join(words) for words in corpus['tokens'])
    seen = regex.compile(r'[\s\p{C}]')
    assert report.skipped or seen.sub('', raw.decode()) == seen.sub('', whole)

def check_system(path, raw, chance):
    "Predictions of another system for two sentences"
    tokens = [['Amina', 'anaishi', 'Dodoma']]*2
    found = read_system(path, tokens, SCHEMA)
    assert [len(tags) for tags in found.tags] == [3, 3]
    assert all(tag in SCHEMA.tags for tags in found.tags for tag in tags)
    assert all(score is None or 0 <= score <= 1 for scores in found.scores for score in scores)

def check_answer(path, raw, chance):
    "An answer of a language model"
    sentence = 'Amina anaishi Dodoma 東京'
    for item in parse_answer(raw.decode('utf-8', 'surrogateescape'), sentence, Counter()):
        assert 0 <= item['start'] < item['end'] <= len(sentence)

TARGETS = dict(conll=(tagged, check_conll), words=(tagged, check_words), text=(tagged, check_text),
    system=(json_lines, check_system), answer=(answer, check_answer), parameters=(parameters, lambda path, raw, chance: given_recipe([path])),
    record=(record, lambda path, raw, chance: read_record(path.parent)), translations=(translations, lambda path, raw, chance: read_translations(path)))
WEIGHTS = dict(conll=8, words=3, text=2, system=4, answer=3, parameters=2, record=1, translations=1)

def one(seed, folder):
    "Make one input and read it; what went wrong, or nothing, and what became of it"
    chance = random.Random(seed)
    target, = chance.choices(list(WEIGHTS), WEIGHTS.values())
    make, check = TARGETS[target]
    raw = broken(make(chance), chance)
    path = folder/('run.json' if target == 'record' else 'x.conll')
    path.write_bytes(raw)
    try: check(path, raw, chance)
    except MtmtError: return target, 'refused', None
    except Exception as e: return target, 'WRONG', f'seed {seed}, {target}: {type(e).__name__}: {str(e)[:200]}; input {raw[:300]!r}'
    return target, 'read', None

def fuzz(inputs, seed, most=20):
    "Read so many inputs: findings, and what became of the inputs"
    found, counts = [], Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(seed, seed+inputs):
            target, what, why = one(number, Path(folder))
            counts[f'{target} {what}'] += 1
            if why: found.append(why)
            if len(found) >= most: break
    return found, counts

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--inputs', type=int, default=100_000)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    begin = time.time()
    found, counts = fuzz(args.inputs, args.seed)
    print(*found, sep='\n')
    print(f'{counts.total():,} inputs in {time.time()-begin:.0f} s:', ', '.join(f'{n:,} {what}' for what, n in sorted(counts.items())))
    sys.exit(bool(found))
