"A language model's endpoint that misbehaves: nothing crashes, nothing leaks, nothing is paid for twice."
import json, threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mtmt.data import MtmtError, Schema
from mtmt.external import ask_llm, parse_answer, read_system

pytest.importorskip("openai", reason="pip install mtmt[llm]")

KEY = 'sk-secret-key'
TOKENS = [['Amina', 'in', 'Kano'], ['Ali'], ['Oslo', 'na', 'Lima']]

@pytest.fixture
def endpoint():
    "A real server; what it answers can be set, and its questions are kept"
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_POST(self):
            question = json.loads(self.rfile.read(int(self.headers['Content-Length'])))['messages'][0]['content']
            self.server.asked.append(question)
            status, kind, body = self.server.answer(question, self.headers)
            self.send_response(status)
            self.send_header('Content-Type', kind)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.asked, server.answer = [], lambda question, headers: said('[]')
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()

def said(content, **more):
    "A reply in the form of the protocol"
    message = dict(index=0, finish_reason='stop', message=dict(role='assistant', content=content))
    return 200, 'application/json', json.dumps(dict(id='1', object='chat.completion', created=0, model='m', choices=[message]) | more).encode()

def ask(server, path, tokens=TOKENS, **more):
    return ask_llm(tokens, path, **dict(model='m', types=['PER', 'LOC'], base_url=f'http://127.0.0.1:{server.server_port}/v1', api_key=KEY) | more)

@pytest.mark.parametrize('reply', [said('[]', choices=[]), (200, 'text/html', b'<html>busy</html>'), (200, 'application/json', b'[1, 2]'),
    (200, 'application/json', b'{}'), (200, 'application/json', b'null'), (400, 'text/plain', b'x'*100_000),
    (401, 'application/json', json.dumps(dict(error=dict(message=f'wrong key {KEY}'))).encode())], ids=str)
def test_a_reply_that_is_none_stops_with_one_line(endpoint, tmp_path, reply):
    endpoint.answer = lambda question, headers: reply
    with pytest.raises(MtmtError) as error: ask(endpoint, tmp_path/'a.jsonl')
    assert '0 answers are kept' in str(error.value) and KEY not in str(error.value) and len(str(error.value)) < 600

@pytest.mark.parametrize('content', ['', None, 'Sure!', '{"a": 1}', '['*100_000, '\ud800', 'x'*1_000_000, '[{"text": "Kano"}]', '[{"text": 7, "type": "LOC"}]',
    '[{"text": "", "type": "LOC"}]', '[{"text": "(((", "type": "LOC"}]', '"'], ids=lambda c: repr(c)[:20])
def test_whatever_the_model_says_is_data(endpoint, tmp_path, content):
    endpoint.answer = lambda question, headers: said(content)
    counts = ask(endpoint, tmp_path/'a.jsonl')
    assert sum(counts.values()) == 3 and (tmp_path/'a.jsonl').stat().st_size < 200_000
    assert read_system(tmp_path/'a.jsonl', TOKENS, Schema(('PER', 'LOC'))).tags == [['O']*len(words) for words in TOKENS]

def test_the_file_belongs_to_one_question(endpoint, tmp_path):
    path = tmp_path/'a.jsonl'
    ask(endpoint, path)
    before = path.read_bytes()
    for other in (dict(model='n'), dict(types=['LOC']), dict(prompt='{types} {sentence}'), dict(temperature=1), dict(tokens=TOKENS[:2])):
        with pytest.raises(MtmtError, match='another model, prompt or text'): ask(endpoint, path, **other)
        assert path.read_bytes() == before and len(endpoint.asked) == 3
    assert KEY.encode() not in before

@pytest.mark.parametrize('damage', [lambda raw: raw[:-30], lambda raw: raw.replace(b'"text": "Ali"', b'"te'), lambda raw: b'\xff'+raw, lambda raw: raw+b'{"half'])
def test_a_damaged_line_is_asked_again_and_nothing_shifts(endpoint, tmp_path, damage):
    path = tmp_path/'a.jsonl'
    endpoint.answer = lambda question, headers: said(json.dumps([dict(text=question.split()[-1], type='LOC')]))
    ask(endpoint, path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    counts = ask(endpoint, path)
    assert path.read_bytes() == whole and len(endpoint.asked) <= 4 and counts == Counter()

def test_a_sentence_with_braces_and_quotes_is_asked_as_it_is(endpoint, tmp_path):
    ask(endpoint, tmp_path/'a.jsonl', [['{types}', '"', '{0}', '\\']])
    assert endpoint.asked[0].endswith('Sentence: {types} " {0} \\')

def test_brackets_within_brackets(): assert parse_answer('['*200_000, 'Kano', Counter()) == []
