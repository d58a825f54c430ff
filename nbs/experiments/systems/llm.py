"""Ask an LLM behind an OpenAI-compatible endpoint about a text, and write what `mtmt score` reads.

    pip install 'mtmt[llm]'
    mtmt text --target sw --out sw.jsonl
    OPENAI_API_KEY=... python llm.py sw.jsonl sw.llm.jsonl --model NAME --endpoint https://HOST/v1 \
        --types PER=person,LOC=location,ORG=organization
    mtmt score sw.llm.jsonl --name llm --target sw

Every answer is kept as it comes, in OUT.answers: the same command asks about none twice.
"""
import argparse, json, os, platform, sys
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from mtmt.data import MtmtError
from mtmt.external import PROMPT, ask_llm
from predict import Refused, read_text, read_types, refuse_nothing, replace, say

def endpoint_of(given):
    "The address without what may be secret; a key in it is refused"
    address = given or os.environ.get('OPENAI_BASE_URL') or 'https://api.openai.com/v1'
    parts = urlsplit(address)
    if parts.username or parts.password or parts.query:
        raise Refused('--endpoint: no key in the address; put it into OPENAI_API_KEY')
    if parts.scheme not in ('http', 'https') or not parts.hostname:
        raise Refused(f'--endpoint: {address!r} is no address such as https://HOST/v1')
    return address

def read_prompt(path):
    "A template with {types} and {sentence}"
    if not path: return PROMPT
    prompt = Path(path).read_text(encoding='utf-8')
    try: filled = prompt.format(types='<types>', sentence='<sentence>')
    except (LookupError, ValueError): filled = ''
    if '<types>' not in filled or '<sentence>' not in filled:
        raise Refused(f'{path}: a prompt has {{types}} and {{sentence}}, and other braces twice: {{{{ }}}}')
    return prompt

def answers(path, texts, types):
    "Entities of each text under our names of the types; a type that was not asked for keeps its name"
    ours = {words.casefold(): name for words, name in types.items()}
    rows = [json.loads(line) for line in path.read_bytes().split(b'\n') if line]
    kept = {row['text']: row['entities'] for row in rows}
    for text in texts:
        yield dict(text=text, entities=[dict(e, label=ours.get(e['label'].casefold(), e['label']))
            for e in kept[text]])

def carry_out(args):
    "Ask about the text and write the answer"
    out, types, prompt = Path(args.out), read_types(args.types), read_prompt(args.prompt)
    endpoint, kept = endpoint_of(args.endpoint), Path(f'{args.out}.answers')
    if out.exists(): raise Refused(f'{out} is there already; name another file')
    texts, fingerprint = read_text(args.text)
    tokens = [text.split(' ') for text in texts]
    counts = ask_llm(tokens, kept, args.model, list(types), endpoint, prompt=prompt,
        temperature=args.temperature)
    rows = list(answers(kept, texts, types))
    for what, count in counts.items(): say(f'{count} {what}')
    refuse_nothing(rows, f'look at the answers in {kept}; to ask otherwise, name another file')
    versions = dict(python=platform.python_version(), mtmt=version('mtmt'), openai=version('openai'))
    count = sum(len(row['entities']) for row in rows)
    about = dict(system='llm', model=args.model, endpoint=endpoint, types=types, prompt=prompt,
        temperature=args.temperature, text=fingerprint, versions=versions, sentences=len(rows),
        entities=count, not_used=dict(counts))
    about_path = Path(f'{out}.about.json')
    replace(about_path, json.dumps(about, ensure_ascii=False, indent=1)+'\n')
    replace(out, ''.join(json.dumps(row, ensure_ascii=False)+'\n' for row in rows))
    say(f'{out}: {count} entities in {len(rows)} sentences; model and prompt in {about_path}')

def command_parser():
    "What the command takes"
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('text', metavar='TEXT.jsonl', help='what `mtmt text` wrote')
    parser.add_argument('out', metavar='OUT.jsonl', help='file to make, for `mtmt score`')
    parser.add_argument('--model', required=True, help='its name at the endpoint')
    parser.add_argument('--endpoint', help="address; OPENAI_BASE_URL or OpenAI's own when left out")
    parser.add_argument('--types', required=True, help='TYPE=words that the model is asked for, with commas')
    parser.add_argument('--prompt', metavar='FILE', help="a prompt of your own with {types} and {sentence}")
    parser.add_argument('--temperature', type=float, default=0)
    return parser

def main(argv=None):
    "The command"
    args = command_parser().parse_args(argv)
    try: carry_out(args)
    except KeyboardInterrupt:
        say('stopped; the same command goes on from here')
        return 130
    except (Refused, MtmtError, OSError) as e:
        say(f'{e.filename}: {e.strerror}' if isinstance(e, OSError) and e.filename else e)
        return 2
    return 0

if __name__ == '__main__': sys.exit(main())
