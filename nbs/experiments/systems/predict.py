"""Read a text with GLiNER-X or GLiNER2, in that system's own environment, and write what `mtmt score` reads.

    mtmt text --target sw --out sw.jsonl                     # in mtmt's environment
    python predict.py gliner-x sw.jsonl sw.gliner.jsonl --model knowledgator/gliner-x-base \
        --types PER=person,LOC=location,ORG=organization     # in the system's
    mtmt score sw.gliner.jsonl --name gliner-x --target sw   # in mtmt's

Nothing of mtmt is imported: this file can be copied anywhere.
"""
import argparse, hashlib, json, math, os, platform, re, sys, time, warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

class Refused(Exception):
    "What a person is told, in one line"

def say(line): print(line, file=sys.stderr, flush=True)

class GlinerX:
    "GLiNER and GLiNER-X: the package gliner"
    package, tested, install = 'gliner', '0.2.29', 'gliner'

    def __init__(self, model, revision, device):
        from gliner import GLiNER
        self.model = GLiNER.from_pretrained(model, revision=revision, map_location=device)

    def too_long(self, text, labels):
        "Why it would cut a sentence, or nothing; first it counts its own words, then pieces with the labels"
        processor = self.model.data_processor
        words, most = [word for word, *_ in processor.words_splitter(text)], self.model.config.max_len
        if len(words) > most: return f'{len(words)} of its words, and it reads {most}'
        most = processor.transformer_tokenizer.model_max_length
        asked = processor.prepare_inputs([words], [labels])[0][0]
        pieces = len(processor.transformer_tokenizer(asked, is_split_into_words=True)['input_ids'])
        if pieces > most: return f'{pieces} pieces with the labels, and it reads {most}'

    def predict(self, texts, labels, threshold):
        "Entities of each text"
        return self.model.inference(texts, labels, threshold=threshold, batch_size=len(texts))

class Gliner2:
    "GLiNER2: the package gliner2"
    package, tested, install = 'gliner2', '2.1.0', 'gliner2[local]'

    def __init__(self, model, revision, device):
        from gliner2 import AutoExtractor
        given = dict(revision=revision) if revision else {}
        self.model = AutoExtractor.from_pretrained(model, map_location=device, **given)

    def too_long(self, text, labels):
        "Why it may read a sentence badly, or nothing: it cuts none, but its encoder has so many places"
        most = getattr(self.model.encoder.config, 'max_position_embeddings', None)
        schema = self.model.create_schema().entities(labels)
        pieces = len(self.model.processor.transform_record(text, schema).input_ids)
        if most and pieces > most:
            return f'{pieces} pieces with the labels, and its encoder has {most} places'

    def predict(self, texts, labels, threshold):
        "Entities of each text; it ends a text with a full stop, and a place beyond the text is that stop's"
        answers = self.model.batch_extract_entities(texts, labels, batch_size=len(texts), threshold=threshold,
            include_confidence=True, include_spans=True)
        out = []
        for text, answer in zip(texts, answers, strict=True):
            found = [dict(e, label=label) for label, each in answer['entities'].items() for e in each]
            out.append([dict(start=e['start'], end=min(e['end'], len(text)), label=e['label'],
                score=e['confidence']) for e in found if e['start'] < len(text)])
        return out

SYSTEMS = {'gliner-x': GlinerX, 'gliner2': Gliner2}

def read_types(given):
    "Types by the words that the system is asked for: {'person': 'PER'}"
    out = {}
    for pair in filter(None, (x.strip() for x in given.split(','))):
        name, equals, words = (x.strip() for x in pair.partition('='))
        if not (name and words):
            raise Refused(f'--types: {pair!r} is not TYPE=words for the system, as in PER=person')
        if words in out: raise Refused(f'--types: {words!r} is there twice')
        out[words] = name
    if not out: raise Refused('--types: no type; write TYPE=words, as in PER=person,LOC=location')
    return out

# Chinese and Japanese, Thai, Lao, Tibetan, Burmese, Khmer
UNSPACED = re.compile('[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]')

def read_text(path):
    "Texts of a file of `mtmt text`, a line each"
    try: raw = Path(path).read_bytes()
    except OSError as e: raise Refused(f'{path}: {e.strerror}') from None
    texts = []
    for number, line in enumerate(raw.removesuffix(b'\n').split(b'\n'), 1):
        try:
            row = json.loads(line)
            words = row.get('words')
            text = row['text'] if words is None else ' '.join(words)
            if not isinstance(text, str): raise TypeError
        except (ValueError, AttributeError, KeyError, TypeError):
            form = '{"text": ..., "words": [...]}'
            raise Refused(f'{path}:{number}: not a line of `mtmt text`, {form}') from None
        if words is None and ' ' not in text and len(UNSPACED.findall(text)) > 1:
            raise Refused(f'{path}:{number}: no spaces and no words; make the file with `mtmt text`')
        texts.append(text)
    letters = sum(c.isalpha() for text in texts for c in text)
    if sum(len(UNSPACED.findall(text)) for text in texts) > letters/2:
        say('a script without spaces: the system is given the words of the file with spaces between them')
    return texts, hashlib.sha256('\n'.join(texts).encode()).hexdigest()

def installed(system):
    "Versions of what computes"
    try: found = {name: version(name) for name in (system.package, 'torch', 'transformers')}
    except PackageNotFoundError as e:
        raise Refused(f"{e.name} is not installed in {sys.prefix}: make an environment for the system, "
            f"python3 -m venv ENV && ENV/bin/pip install '{system.install}=={system.tested}'") from None
    return dict(python=platform.python_version()) | found

def revision_of(model, revision):
    "What was loaded: a hash of the files of a folder, or the commit of a model of the Hub"
    if Path(model).is_dir():
        whole = hashlib.sha256()
        for path in sorted(p for p in Path(model).rglob('*') if p.is_file()):
            whole.update(str(path.relative_to(model)).encode())
            with path.open('rb') as file: whole.update(hashlib.file_digest(file, 'sha256').digest())
        return f'files {whole.hexdigest()[:12]}'
    from huggingface_hub import try_to_load_from_cache
    for name in ('gliner_config.json', 'config.json'):
        place = try_to_load_from_cache(model, name, revision=revision or 'main')
        if isinstance(place, str) and 'snapshots' in Path(place).parts: return Path(place).parts[-2]
    return revision or 'unknown'

def load(system, args):
    "The system, ready to read"
    import torch
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    try: return system(args.model, args.revision, device), device
    except Exception as e:
        if args.traceback: raise
        raise Refused(f'{args.model} cannot be loaded: {in_a_line(e)}') from None

def in_a_line(error):
    "A strange error in a line"
    return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'

def refuse_cuts(system, texts, labels, args):
    "Count the sentences that the system would cut, and name the first; stop unless that is allowed"
    try: each = [system.too_long(text, labels) for text in texts]
    except Exception as e: raise Refused(f'cannot tell what the system would cut: {in_a_line(e)}') from None
    reasons = [(number, why) for number, why in enumerate(each, 1) if why]
    if not reasons: return 0
    number, why = reasons[0]
    more = f', and {len(reasons)-1} more' if len(reasons) > 1 else ''
    line = f'{args.text}:{number}: too long: {why}{more}'
    if not args.allow_cut:
        raise Refused(f'{line}; --allow-cut goes on, and what is cut off counts as without entities')
    say(f'{line}; --allow-cut: {len(reasons)} of {len(texts)} sentences are cut')
    return len(reasons)

def entity(given, types):
    "An entity as `mtmt score` reads it"
    if given['label'] not in types: raise Refused(f'it answers with a type not asked for, {given["label"]!r}')
    score = float(given['score'])
    if not math.isfinite(score):
        raise Refused(f'a score is {score}: the weights or the precision are broken; try another device')
    return dict(start=int(given['start']), end=int(given['end']), label=types[given['label']],
        score=round(min(max(score, 0), 1), 6))

class Kept:
    "Answers beside the file they will become, so that nothing is computed twice"

    def __init__(self, out, asked):
        self.path, self.head = Path(f'{out}.partial'), json.dumps(asked, sort_keys=True)

    def read(self, texts):
        "Whole lines that are there, if they answer the same question"
        if not self.path.exists(): return []
        head, *lines = self.path.read_bytes().split(b'\n')
        try: before = json.loads(head)
        except ValueError: before = {}
        now = json.loads(self.head)
        if before != now:
            differs = [key for key in now if before.get(key) != now[key]]
            raise Refused(f'{self.path} was begun with other {", ".join(differs)}; delete it, or name '
                'another file')
        rows = []
        # the last piece is empty, or a line that was being written
        for line, text in zip(lines[:-1], texts):
            try: row = json.loads(line)
            except ValueError: break
            if row.get('text') != text: break
            rows.append(row)
        return rows

    def go_on(self, rows):
        "The file again with these lines, open behind them"
        lines = [self.head, *(json.dumps(row, ensure_ascii=False) for row in rows)]
        replace(self.path, ''.join(line+'\n' for line in lines))
        return self.path.open('a', encoding='utf-8')

def replace(path, text):
    "Write a file beside its place, then move it there"
    aside = Path(f'{path}.{os.getpid()}.tmp')
    try:
        with aside.open('w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally: aside.unlink(missing_ok=True)

def read_all(system, texts, types, args, kept):
    "Every sentence's entities, in order"
    rows, started, told = kept.read(texts), time.monotonic(), 0
    if rows: say(f'{len(rows)} of {len(texts)} sentences were read before')
    first = len(rows)
    with kept.go_on(rows) as file:
        while len(rows) < len(texts):
            some = texts[len(rows):len(rows)+args.batch]
            try: found = system.predict(some, list(types), args.threshold)
            except Exception as e:
                if args.traceback: raise
                raise Refused(f'{args.system} failed at sentences {len(rows)+1} to {len(rows)+len(some)}: '
                    f'{in_a_line(e)}; the same command goes on from there') from None
            for text, each in zip(some, found, strict=True):
                rows.append(dict(text=text, entities=[entity(e, types) for e in each]))
                file.write(json.dumps(rows[-1], ensure_ascii=False)+'\n')
            file.flush()
            spent = time.monotonic()-started
            if spent-told < 5 and len(rows) < len(texts): continue
            told, left = spent, spent/(len(rows)-first)*(len(texts)-len(rows))
            say(f'{len(rows)} of {len(texts)} sentences, {left//60:.0f} min {left%60:.0f} s left')
    return rows

def refuse_nothing(rows, check):
    "Refuse an answer in which nothing was found"
    if not any(row['entities'] for row in rows):
        raise Refused(f'nothing at all was found in {len(rows)} sentences, and nothing is written: {check}')

def refuse_equal(rows, check):
    "Refuse scores that say nothing: all the same, or all near each other and none of them sure"
    scores = sorted(e['score'] for row in rows for e in row['entities'])
    least, most, tail = scores[0], scores[-1], len(scores)//20
    near = most < .9 and scores[-1-tail]-scores[tail] < .1
    if len(scores) >= 10 and (near or most-least < .02):
        raise Refused(f'the {len(scores)} scores are nearly equal, {least:.3f} to {most:.3f}, and nothing is '
            f'written: the weights are random or were loaded wrongly, which raises no error; {check}')

def carry_out(args):
    "Read the text and write the answer"
    kind, types = SYSTEMS[args.system], read_types(args.types)
    if args.batch < 1: raise Refused('--batch: at least 1')
    if not 0 <= args.threshold < 1: raise Refused('--threshold: from 0 to under 1')
    about_path, out = Path(f'{args.out}.about.json'), Path(args.out)
    if out.exists(): raise Refused(f'{out} is there already; name another file')
    texts, fingerprint = read_text(args.text)
    versions = installed(kind)
    if versions[kind.package] != kind.tested:
        say(f'{kind.package} {versions[kind.package]}: this script was tested with {kind.tested}')
    system, device = load(kind, args)
    asked = dict(system=args.system, model=args.model, revision=revision_of(args.model, args.revision),
        types=types, threshold=args.threshold, text=fingerprint,
        versions=versions)
    say(', '.join(f'{name} {number}' for name, number in versions.items()))
    say(f'{args.model} ({asked["revision"]}) on {device}')
    kept = Kept(out, asked)
    cut = refuse_cuts(system, texts, list(types), args)
    rows = read_all(system, texts, types, args, kept)
    check = (f'try {kind.package} {kind.tested}, the tested version, with the transformers that pip gives '
        f'it; delete {kept.path} to begin anew')
    refuse_nothing(rows, f'look at --types, try a --threshold under {args.threshold:g}, and if that does not '
        f'help, {check}')
    refuse_equal(rows, check)
    count = sum(len(row['entities']) for row in rows)
    about = asked | dict(device=device, batch=args.batch, sentences=len(rows), entities=count, cut=cut)
    replace(about_path, json.dumps(about, ensure_ascii=False, indent=1)+'\n')
    replace(out, ''.join(json.dumps(row, ensure_ascii=False)+'\n' for row in rows))
    kept.path.unlink()
    say(f'{out}: {count} entities in {len(rows)} sentences; versions and model in {about_path}')

def command_parser():
    "What the command takes"
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('system', choices=SYSTEMS)
    parser.add_argument('text', metavar='TEXT.jsonl', help='what `mtmt text` wrote')
    parser.add_argument('out', metavar='OUT.jsonl', help='file to make, for `mtmt score`')
    parser.add_argument('--model', required=True, help='Hub id or folder')
    parser.add_argument('--revision', help='commit or branch of a model of the Hub')
    parser.add_argument('--types', required=True, help='TYPE=words that the system is asked for, with commas')
    parser.add_argument('--threshold', type=float, default=.5, help='least score of an entity')
    parser.add_argument('--batch', type=int, default=8, help='sentences at a time')
    parser.add_argument('--device', help='cpu or cuda; without it, a GPU where there is one')
    parser.add_argument('--allow-cut', action='store_true', help='go on where the system would cut sentences')
    parser.add_argument('--traceback', action='store_true', help='after an error, show where it arose')
    return parser

def main(argv=None):
    "The command"
    args = command_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            carry_out(args)
    except KeyboardInterrupt:
        say('stopped; the same command goes on from here')
        return 130
    except (Refused, OSError) as e:
        if args.traceback: raise
        say(e if isinstance(e, Refused) else f'{e.filename}: {e.strerror}')
        return 2
    return 0

if __name__ == '__main__': sys.exit(main())
