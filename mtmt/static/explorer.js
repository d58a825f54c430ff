// The explorer: where systems disagree, on one screen. One program, used twice: JupyterLab imports it as a widget
// (`render`, through anywidget), and a page of its own holds a copy of it (`mount`). The chapter 70_widgets explains it.

// ## Elements and text
// The only way by which text gets onto the page: `el` makes an element, and its children are text nodes.
// Control characters that a reader would not see are written out, such as those that turn the direction of writing.

const written = c => `[U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}]`;
const shown = c => c === '\u200c' || c === '\u200d' ? c : written(c);
const visible = s => String(s).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, shown);
function el(tag, props = {}, ...kids) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (k.startsWith('on')) e.addEventListener(k.slice(2), v);
    else if (v === true) e.setAttribute(k, '');
    else if (v !== false && v != null) e.setAttribute(k, visible(v));
  }
  e.append(...kids.flat().filter(k => k != null).map(k => k instanceof Node ? k : document.createTextNode(visible(k))));
  return e;
}
const button = (text, onclick, props = {}) => el('button', {type: 'button', onclick, ...props}, text);
const pressed = on => ({'aria-pressed': on ? 'true' : 'false'});
const bar = share => el('i', {style: `width:${(100*share).toFixed(1)}%`});
const percent = x => `${Math.round(100*x)}`, many = (n, what) => `${n.toLocaleString('en')} ${what}${n === 1 ? '' : 's'}`;
const rtl = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

// ## What arrives
// Bytes become arrays. The first kind of place is `same`. A pair of systems is sent once; seen from the other side a
// missed entity is a spurious one.

function bytes(x) {
  if (x == null) return x;
  if (typeof x !== 'string') return new Uint8Array(x.buffer.slice(x.byteOffset, x.byteOffset+x.byteLength));
  const s = atob(x), out = new Uint8Array(s.length);
  for (let i = 0; i < s.length; i++) out[i] = s.charCodeAt(i);
  return out;
}
const shorts = x => new Uint16Array(bytes(x).buffer), ints = x => new Int32Array(bytes(x).buffer), floats = x => new Float32Array(bytes(x).buffer);
const places = p => ({
  begin: ints(p.begin), end: ints(p.end), sentence: ints(p.sentence), kind: bytes(p.kind), a: shorts(p.a), b: shorts(p.b),
  seen: bytes(p.seen), divergence: floats(p.divergence), gap: floats(p.gap)});
function turned(p, kinds) {
  const missed = kinds.indexOf('missed'), spurious = kinds.indexOf('spurious');
  const kind = p.kind.map(x => x === missed ? spurious : x === spurious ? missed : x);
  return {...p, a: p.b, b: p.a, kind, gap: p.gap.map(x => -x)};
}
const numbers = (data, kinds) => new Set(kinds.map(k => data.kinds.indexOf(k)));
const conflictKinds = data => numbers(data, data.kinds.filter(k => k !== 'same'));
function decode(data) {
  const n = data.systems.length, of = data.systems.map(() => []), starts = [0];
  for (const t of data.tokens) starts.push(starts.at(-1)+t.length);
  let k = 0;
  for (let i = 0; i < n; i++) for (let j = i+1; j < n; j++) {
    const p = of[i][j] = places(data.pairs[k++]);
    let other;
    Object.defineProperty(of[j], i, {get: () => other ??= turned(p, data.kinds)});
  }
  const trusts = Object.fromEntries(Object.entries(data.trusts).map(([k, v]) => [k, bytes(v)]));
  const map = data.map && {word: ints(data.map.word), x: floats(data.map.x), y: floats(data.map.y)};
  return {...data, starts, of, trusts, map, language: bytes(data.language), said: data.said.map(shorts),
    probabilities: data.probabilities.map(bytes)};
}

// ## What the words mean
// Each explanation stands as a hint where its word does, and in a list that opens by key or touch. Where neither system
// is gold, an entity that one of them has alone is no miss of the other, and the kinds say so.

function kindName(data, f, kind) {
  const names = [data.systems[f.a], data.systems[f.b]], one = {missed: 0, spurious: 1}[kind];
  return one == null || names.includes('gold') ? kind : `only ${names[one]}`;
}
function explained(data, f) {
  const a = data.systems[f.a], b = data.systems[f.b];
  return {
    boundary: 'Both systems have an entity of the same type here, and its borders differ.',
    type: 'Both systems have an entity here, and its types differ.',
    missed: `${a} has an entity here, and ${b} has none.`,
    spurious: `${b} has an entity here, and ${a} has none.`,
    divergence: 'How far apart two systems are in a place: the largest Jensen-Shannon divergence of their probabilities '
      +'over its words. 0: they agree. 1: both are sure, of different tags.',
    'confidence gap': 'How much surer one system is of its tags in a place than the other: a difference of probabilities.',
    'seen in the sources': 'The labelled texts that the recognizer learned from hold an entity of the same words.',
    keys: 'n, p: next and previous sentence. f: flag. /: text filter. Arrows: from word to word. Enter: open a word, then Tab to '
      +'the tags that correct it. Escape: close it.'};
}
function meanings(data, f) {
  const each = Object.entries(explained(data, f)).filter(([n]) => data.seen || n !== 'seen in the sources');
  return el('dl', {}, each.flatMap(([n, text]) => [el('dt', {}, kindName(data, f, n)), el('dd', {}, text)]));
}

// ## Filters
// One pass over the places of the chosen pair: the sentences that stay, the places in them, the first place and the
// strongest divergence of each sentence, and how often each form stays. `f` holds the filters, `free` their defaults.
// A form is the words of a place with both systems' types. The filter by form leaves the counts of the others.

const free = data => ({
  kinds: conflictKinds(data), type: 0, cell: null, form: null, lasso: null, seen: '', language: '', gap: 0, text: '', flagged: false});
const alike = (x, y) => x instanceof Set ? x.size === y.size && [...x].every(v => y.has(v)) : x === y;
const filtered = (data, f) => Object.entries(free(data)).some(([k, v]) => !alike(f[k], v));
function formOf({words}, p, i) {
  const b = p.begin[i], e = p.end[i];
  return e-b === 1 ? words[b] : words.slice(b, e).join(' ');
}
function grouped(data, p) {
  if (p.group) return p;
  const T = data.types.length+1, numbers = [];       // of each form, by the types of both systems
  data.words ??= data.tokens.flat();
  p.example = [];           // a place of each form
  p.group = Int32Array.from(p.begin, (_, i) => {
    const number = numbers[p.a[i]*T+p.b[i]] ??= new Map(), form = formOf(data, p, i);
    if (!number.has(form)) number.set(form, p.example.push(i)-1);
    return number.get(form);
  });
  return p;
}
function passes(data, f, p, i, text) {
  const s = p.sentence[i];
  return f.kinds.has(p.kind[i])
    && (!f.type || p.a[i] === f.type || p.b[i] === f.type)
    && (!f.cell || (p.a[i] === f.cell[0] && p.b[i] === f.cell[1]))
    && (f.seen === '' || p.seen[i] === +f.seen)
    && (f.language === '' || data.language[s] === +f.language)
    && Math.abs(p.gap[i]) >= f.gap
    && (!f.flagged || f.flags.has(s))
    && (!f.lasso || f.lasso.sentences.has(s))
    && (!text || data.lower[s].includes(text));
}
function chosen(data, f) {
  const p = grouped(data, data.of[f.a][f.b]), S = data.tokens.length, left = [], text = f.text.toLowerCase();
  const score = new Float32Array(S).fill(-1), first = new Int32Array(S).fill(-1), counts = new Uint32Array(p.example.length);
  if (text) data.lower ??= data.tokens.map(t => t.join(' ').toLowerCase());
  for (let i = 0; i < p.begin.length; i++) if (passes(data, f, p, i, text)) {
    const s = p.sentence[i], form = p.group[i];
    counts[form]++;
    if (f.form != null && f.form !== form) continue;
    left.push(i);
    if (first[s] < 0) first[s] = p.begin[i];
    score[s] = Math.max(score[s], p.divergence[i]);
  }
  const list = [...score.keys()].filter(s => score[s] >= 0);
  if (f.order === 'divergence') list.sort((x, y) => score[y]-score[x] || x-y);
  return {list, places: left, score, first, counts};
}

// ## A sentence
// Words are columns, systems are rows, and an entity spans its words. In right-to-left scripts the columns run from
// right to left.

function runs(data, said) {
  const out = [], type = data.tags.map(t => t === 'O' ? -1 : data.types.indexOf(t.slice(2)));
  for (let i = 0; i < said.length;) {
    const t = type[said[i]];
    let e = i+1;
    if (t >= 0) while (e < said.length && type[said[e]] === t && data.tags[said[e]][0] !== 'B') e++;
    out.push([i, e, t]);
    i = e;
  }
  return out;
}
function row(data, name, said, hot) {
  const cell = ([b, e, t]) => {
    let differs = false;
    for (let w = b; w < e; w++) differs ||= hot.has(w);
    const classes = [t >= 0 && `e t${t%8}`, differs && 'x'].filter(x => x).join(' ');
    return el('td', {colspan: e-b, dir: 'ltr', class: classes || null}, t >= 0 ? data.types[t] : differs ? 'O' : '\u00b7');
  };
  return el('tr', {}, el('th', {scope: 'row', dir: 'ltr'}, name), runs(data, said).map(cell));
}
function sheet(words, head, rows) {
  return el('div', {class: 'scroll', dir: words.some(w => rtl.test(w)) ? 'rtl' : 'ltr'},
    el('table', {class: 'grid'}, el('thead', {}, el('tr', {}, el('td', {}, ''), head)), el('tbody', {}, rows)));
}
const saidOf = (data, k, s) => data.said[k].subarray(data.starts[s], data.starts[s+1]);
function grid(view, s) {
  const {data, f, opened} = view, words = data.tokens[s], start = data.starts[s], hot = new Set(), cold = new Set();
  const p = data.of[f.a][f.b], lang = data.languages[data.language[s]] || null;
  for (let i = 0; i < p.begin.length; i++) if (p.sentence[i] === s && p.kind[i])
    for (let w = p.begin[i]; w < p.end[i]; w++) hot.add(w-start);
  const head = words.map((w, k) => {
    const i = start+k, expanded = opened === i ? 'true' : 'false', open = () => view.open(i);
    return el('th', {scope: 'col'},
      button(w, open, {lang, dir: 'auto', tabindex: k ? -1 : 0, 'data-word': i, 'aria-expanded': expanded}));
  });
  const rows = data.systems.map((n, k) => row(data, n, saidOf(data, k, s), k === f.a || k === f.b ? hot : cold));
  if (view.fixed.has(s)) rows.push(row(data, 'corrected', corrected(view, s).map(t => data.tags.indexOf(t)), cold));
  return sheet(words, head, rows);
}

// A long sentence is drawn with the first place that the filters leave in view.
function reveal(box, word) {
  const th = box.querySelector(`[data-word="${word}"]`).parentElement.getBoundingClientRect();
  const frame = box.getBoundingClientRect(), names = box.querySelector('th[scope=row]').offsetWidth, room = 12;
  const left = frame.left+(box.dir === 'rtl' ? 0 : names), right = frame.right-(box.dir === 'rtl' ? names : 0);
  if (th.left >= left && th.right <= right) return;
  box.scrollLeft += box.dir === 'rtl' ? th.right-right+room : th.left-left-room;
}

// ## Corrections
// What you say the tags of a sentence are, from gold or else the last system on. `I-` without a beginning becomes `B-`
// where it is shown and sent, so that taking a tag back takes this back, too.

const begins = (t, before) => t[0] === 'I' && before.slice(2) !== t.slice(2) ? `B-${t.slice(2)}` : t;
function tagsOf(view, s) {
  const {data, fixed} = view, k = data.systems[0] === 'gold' ? 0 : data.systems.length-1;
  return fixed.get(s) ?? Array.from(saidOf(data, k, s), t => data.tags[t]);
}
const corrected = (view, s) => tagsOf(view, s).map((t, i, all) => begins(t, i ? all[i-1] : 'O'));
function correct(view, i) {
  const {data} = view, [s, w] = wordAt(data, i), now = corrected(view, s)[i-data.starts[s]];
  const choice = t => button(t, () => view.correct(i, t), {...pressed(t === now), 'data-tag': t});
  return el('div', {class: 'bar correct', role: 'group', 'aria-label': `correct ${w}`},
    el('strong', {}, 'Correct'), data.tags.map(choice),
    view.fixed.has(s) ? button('drop this correction', () => view.drop(s), {class: 'drop'}) : null);
}

// ## Behind a word
// The likeliest tags of each system, the trusts of the training, and the words that the evaluator finds nearest:
// stored in a page, asked of the kernel in JupyterLab.

function wordAt(data, i) {
  let s = 0, e = data.tokens.length;
  while (e-s > 1) {
    const m = (s+e) >> 1;
    if (data.starts[m] <= i) s = m; else e = m;
  }
  return [s, data.tokens[s][i-data.starts[s]]];
}
function bars(data, k, i) {
  const C = data.tags.length, p = data.probabilities[k], said = data.said[k][i];
  if (!p) return [el('div', {}, `${data.tags[said]} (no probabilities)`)];
  const each = data.tags.map((_, c) => [p[i*C+c]/255, c]).filter(([v, c]) => v >= .02 || c === said);
  return each.sort((x, y) => y[0]-x[0]).slice(0, 4).map(([v, c]) =>
    el('div', {class: 'p'}, el('span', {}, data.tags[c]), el('span', {}, bar(v)), el('span', {}, v.toFixed(2))));
}
function near(data, list) {
  const by = data.systems[0] === 'gold' ? 1 : 0;
  return el('ul', {}, list.map(([i, c]) => {
    const [s, w] = wordAt(data, i), lang = data.languages[data.language[s]] || null;
    return el('li', {}, el('bdi', {lang}, w), ` ${data.tags[data.said[by][i]]} `,
      el('span', {class: 'dim'}, `by ${data.systems[by]}; cosine ${c.toFixed(2)}`));
  }));
}
const GREEK = {
  alpha: ['\u03b1', 'the recognizer is sure'],
  beta: ['\u03b2', 'the evaluator is sure'],
  gamma: ['\u03b3', 'both teachers agree']};
function trust(n, v) {
  const [sign, what] = GREEK[n];
  return el('div', {class: 'p'},
    el('span', {title: what}, `${sign} ${n}`), el('span', {}, bar(v)), el('span', {}, v.toFixed(2)));
}
function why(view, i) {
  const {data, link: {ask}} = view;
  const w = wordAt(data, i)[1], trusts = Object.entries(data.trusts);
  const place = el('div', {}, el('span', {class: 'dim'}, 'looking ...'));
  const neighbours = data.near ? i in data.near && Promise.resolve(data.near[i]) : data.asks && ask && ask(i);
  if (neighbours) neighbours.then(list => place.replaceChildren(near(data, list)));
  return el('div', {class: 'why', role: 'region', 'aria-label': `behind ${w}`},
    correct(view, i),
    data.systems.map((n, k) => el('div', {}, el('h3', {}, n), bars(data, k, i))),
    trusts.length
      ? el('div', {class: 'trusts'}, el('h3', {}, 'Trust in training'), trusts.map(([n, v]) => trust(n, v[i]/255)))
      : null,
    neighbours ? el('div', {class: 'near'}, el('h3', {}, 'Nearest words, by the evaluator'), place) : null);
}

// ## The overview
// What one system predicts where the other predicts something else, as a table whose cells filter the list; the words
// that come up more than once, most often first; how sure both are in conflicts; and the share of the sentences that differ, by language.

function heat(data, f, set) {
  const p = data.of[f.a][f.b], T = data.types.length+1, n = new Uint32Array(T*T), names = ['none', ...data.types];
  for (let i = 0; i < p.begin.length; i++) n[p.a[i]*T+p.b[i]]++;
  const most = Math.max(1, ...n.filter((_, c) => Math.floor(c/T) !== c%T));
  const cell = (a, b) => {
    if (!(a+b)) return el('td', {}, '');
    const v = n[a*T+b], on = f.cell && f.cell[0] === a && f.cell[1] === b, share = a === b ? 0 : Math.round(25+75*v/most);
    const kinds = a === b && !on ? numbers(data, ['same', 'boundary']) : conflictKinds(data);
    const choose = () => set({cell: on ? null : [a, b], kinds});
    return el('td', {}, button(v, choose, {...pressed(on),
      'aria-label': `${data.systems[f.a]} ${names[a]}, ${data.systems[f.b]} ${names[b]}: ${v}`,
      style: on || !v ? null : `background:color-mix(in srgb, var(--heat) ${share}%, var(--panel))`}));
  };
  const head = el('tr', {}, el('td', {}, ''), names.map(x => el('th', {scope: 'col'}, x)));
  const rows = names.map((x, a) => el('tr', {}, el('th', {scope: 'row'}, x), names.map((_, b) => cell(a, b))));
  return el('div', {}, el('h3', {}, `${data.systems[f.a]} (rows) and ${data.systems[f.b]} (columns)`),
    el('table', {class: 'heat'}, head, rows));
}
function sure(data, f, k) {
  const p = data.of[f.a][f.b], prob = data.probabilities[k], C = data.tags.length, n = new Array(10).fill(0);
  if (!prob) return null;
  for (let i = 0; i < p.begin.length; i++) if (p.kind[i]) {
    let c = 0;
    for (let w = p.begin[i]; w < p.end[i]; w++) c += prob[w*C+data.said[k][w]];
    n[Math.min(9, Math.floor(10*c/255/(p.end[i]-p.begin[i])))]++;
  }
  const most = Math.max(1, ...n), label = n.map((x, i) => `${i/10} to ${(i+1)/10}: ${x}`).join('; ');
  return el('div', {}, el('h3', {}, `How sure ${data.systems[k]} is in conflicts`),
    el('div', {class: 'hist', role: 'img', 'aria-label': label}, n.map(x => el('span', {style: `height:${100*x/most}%`}))),
    el('div', {class: 'bar dim', style: 'justify-content:space-between;margin:0'},
      ['0', `most in a bar: ${most}`, '1'].map(x => el('span', {}, x))));
}
function byLanguage(data, f, set) {
  const p = data.of[f.a][f.b], all = data.languages.map(() => 0), off = data.languages.map(() => new Set());
  for (const l of data.language) all[l]++;
  for (let i = 0; i < p.begin.length; i++) if (p.kind[i]) off[data.language[p.sentence[i]]].add(p.sentence[i]);
  return el('div', {}, el('h3', {}, 'Sentences that differ'), data.language_names.map((l, i) => {
    const x = off[i].size/Math.max(1, all[i]), on = f.language === String(i);
    const choose = () => set({language: on ? '' : String(i)});
    return el('div', {class: 'p'}, data.languages.length > 1 ? button(l, choose, pressed(on)) : el('span', {}, l || 'all'),
      el('span', {}, bar(x)), el('span', {}, `${percent(x)} %`));
  }));
}

const MOST = 12;
function top(counts) {
  const out = [];
  for (let g = 0; g < counts.length; g++) {
    if (counts[g] < 2 || (out.length === MOST && counts[g] <= counts[out.at(-1)])) continue;
    const k = out.findIndex(o => counts[o] < counts[g]);
    out.splice(k < 0 ? out.length : k, 0, g);
    if (out.length > MOST) out.pop();
  }
  return out;
}
function often(data, f, counts, set) {
  const p = data.of[f.a][f.b], names = ['none', ...data.types], rows = top(counts);
  if (f.form != null && !rows.includes(f.form)) rows.push(f.form);
  const row = g => {
    const i = p.example[g], lang = data.languages[data.language[p.sentence[i]]] || null, form = formOf(data, p, i);
    const choose = () => set({form: f.form === g ? null : g});
    return el('tr', {},
      el('th', {scope: 'row'}, button(form, choose, {...pressed(f.form === g), lang, dir: 'auto', title: form, 'data-form': g})),
      el('td', {}, names[p.a[i]]), el('td', {}, names[p.b[i]]), el('td', {}, counts[g]));
  };
  const head = ['words', data.systems[f.a], data.systems[f.b], 'places'].map(x => el('th', {scope: 'col'}, x));
  return el('div', {class: 'forms'}, el('h3', {}, 'Repeated words'), rows.length
    ? el('table', {class: 'often'}, el('thead', {}, el('tr', {}, head)), el('tbody', {}, rows.map(row)))
    : el('span', {class: 'dim'}, 'no words stand here twice'));
}

// ## The map
// Words that some system has in an entity, placed by t-SNE of the evaluator's vectors and coloured by
// the second system's types. A line drawn around some of them leaves their sentences.

const WIDE = 720, HIGH = 420, FINE = 2, DOT = 4, EDGE = 20;
function placed({x, y}) {
  const range = v => v.reduce(([low, high], a) => [Math.min(low, a), Math.max(high, a)], [Infinity, -Infinity]);
  const [left, right] = range(x), [low, high] = range(y);
  const scale = Math.min((WIDE-2*EDGE)/(right-left || 1), (HIGH-2*EDGE)/(high-low || 1));
  return Array.from(x, (v, i) => [WIDE/2+scale*(v-(left+right)/2), HIGH/2-scale*(y[i]-(low+high)/2)]);
}
function inside(line, [x, y]) {
  let odd = false;
  line.forEach(([x1, y1], i) => {
    const [x2, y2] = line.at(i-1);
    if ((y1 > y) !== (y2 > y) && x < (x2-x1)*(y-y1)/(y2-y1)+x1) odd = !odd;
  });
  return odd;
}
class WordMap {
  constructor(view) {
    const {data} = view, n = data.map.word.length, ends = e => this.end(e);
    Object.assign(this, {view, points: placed(data.map), line: null, legend: el('div', {class: 'bar legend'}), under: el('p', {class: 'dim'})});
    this.canvas = el('canvas', {
      width: WIDE*FINE, height: HIGH*FINE, role: 'img', 'aria-label': `map of ${many(n, 'word')}; the text filter finds words, too`,
      onpointerdown: e => this.begin(e), onpointermove: e => this.move(e), onpointerup: ends, onpointercancel: ends});
    this.place = el('details', {class: 'map', ontoggle: () => this.draw()}, el('summary', {}, 'A map of the words in entities'),
      el('p', {class: 'dim'}, `${many(n, 'word')} that some system has in an entity. Words that the evaluator finds alike are close `
        +'(t-SNE of its vectors). Draw a line around some of them to see their sentences. '
        +'Without a pointer, use the text filter: it does the same.'),
      this.canvas, this.legend, this.under);
  }
  type(i) {
    const {data, f} = this.view;
    return data.types.indexOf(data.tags[data.said[f.b][data.map.word[i]]].slice(2));
  }
  note() {
    const {data, f: {lasso}} = this.view;
    const count = () => `${many(lasso.words.size, 'word')} in ${many(lasso.sentences.size, 'sentence')}`;
    return lasso ? count() : `Colours: the types of ${data.systems[this.view.f.b]}.`;
  }
  draw() {
    if (!this.place.open) return;
    const {data, f} = this.view, pen = this.canvas.getContext('2d');
    const key = (name, t) => el('span', {class: t < 0 ? 'key' : `key t${t%8}`}, name);
    const keys = [key('none', -1), ...data.types.map(key)];
    this.legend.replaceChildren(...keys, f.lasso ? button('let these words go', () => this.choose(null), {class: 'release'}) : '');
    this.under.textContent = this.note();
    const colours = keys.map(k => getComputedStyle(k).backgroundColor);
    pen.setTransform(FINE, 0, 0, FINE, 0, 0);
    pen.clearRect(0, 0, WIDE, HIGH);
    pen.strokeStyle = getComputedStyle(this.canvas).color;
    this.points.forEach(([x, y], i) => {
      const chosen = f.lasso?.words.has(i);
      Object.assign(pen, {globalAlpha: f.lasso && !chosen ? .3 : 1, lineWidth: chosen ? 2 : .8, fillStyle: colours[this.type(i)+1]});
      pen.beginPath();
      pen.arc(x, y, DOT, 0, 7);
      pen.fill();
      pen.stroke();
    });
  }
  spot(e) {
    const box = this.canvas.getBoundingClientRect();
    return [(e.clientX-box.left)/box.width*WIDE, (e.clientY-box.top)/box.height*HIGH];
  }
  begin(e) {
    this.draw();            // the theme may be another one now
    this.line = [this.spot(e)];
    this.canvas.setPointerCapture(e.pointerId);
  }
  move(e) {
    const at = this.spot(e);
    if (!this.line) return this.hint(at);
    const pen = this.canvas.getContext('2d');
    Object.assign(pen, {globalAlpha: 1, lineWidth: 2});
    pen.beginPath();
    pen.moveTo(...this.line.at(-1));
    pen.lineTo(...at);
    pen.stroke();
    this.line.push(at);
  }
  end() {
    const line = this.line, {data} = this.view;
    if (!line) return;
    this.line = null;
    const words = [...this.points.keys()].filter(i => inside(line, this.points[i]));
    const sentences = new Set(words.map(i => wordAt(data, data.map.word[i])[0]));
    this.choose(words.length ? {words: new Set(words), sentences} : null);
  }
  choose(lasso) { this.view.set({lasso}); }
  hint([x, y]) {
    const {data, f} = this.view, far = ([a, b]) => (a-x)**2+(b-y)**2;
    const i = this.points.reduce((best, p, j) => far(p) < far(this.points[best]) ? j : best, 0), t = this.type(i);
    const text = () => `${visible(wordAt(data, data.map.word[i])[1])}: ${t < 0 ? 'none' : data.types[t]} (${data.systems[f.b]})`;
    this.under.replaceChildren(document.createTextNode(far(this.points[i]) < 100 ? text() : this.note()));
  }
}

// ## A text of your own
// Where a kernel has taggers: type a text, and each tagger reads it. A sentence is a grid as below, a tagger a row.

function readGrids(data, {tokens, tags}) {
  const names = [...new Set([...data.tags, ...Object.values(tags).flat(2)])];
  const types = [...new Set([...data.types, ...names.filter(t => t !== 'O').map(t => t.slice(2))])], none = new Set();
  const rows = s => Object.entries(tags).map(([n, each]) => row({tags: names, types}, n, each[s].map(t => names.indexOf(t)), none));
  const head = words => words.map(w => el('th', {scope: 'col', dir: 'auto'}, w));
  return tokens.map((words, s) => sheet(words, head(words), rows(s)));
}
function ownText({data, link}) {
  if (!data.taggers?.length || !link.read) return null;
  const answer = el('div', {role: 'status'});
  let asked = 0;
  const read = () => {
    const mine = ++asked;
    answer.replaceChildren(el('p', {class: 'dim'}, 'reading ...'));
    link.read(field.value).then(r => {
      if (mine === asked) answer.replaceChildren(...r.error ? [el('p', {class: 'error'}, r.error)] : readGrids(data, r));
    });
  };
  const enter = e => { if (e.key === 'Enter') { e.preventDefault(); read(); } };
  const field = el('input', {type: 'text', maxlength: 2000, dir: 'auto', 'data-key': 'own', onkeydown: enter});
  return el('div', {class: 'own'},
    el('div', {class: 'bar'}, el('label', {}, 'a sentence of your own', field), button('read', read, {class: 'read'})), answer);
}

// ## Taking cases along
// As CoNLL columns with a column for each system, or as a table of places. A spreadsheet would run a cell that begins
// like a formula, so such a cell gets an apostrophe in front.

function cell(x) {
  const s = String(x), t = /^[=+\-@\t\r]/.test(s) && isNaN(s) ? `'${s}` : s;
  return /[",\n\r]/.test(t) ? `"${t.replaceAll('"', '""')}"` : t;
}
function conll(data, list) {
  const line = (w, i) => [w, ...data.said.map(t => data.tags[t[i]])].join('\t')+'\n';
  const sentences = list.map(s => data.tokens[s].map((w, k) => line(w, data.starts[s]+k)).join(''));
  return `# word\t${data.systems.join('\t')}\n\n`+sentences.join('\n');
}
function correctedConll(view) {
  const line = (w, t) => `${w}\t${t}\n`, {tokens} = view.data;
  return Object.entries(view.corrections()).map(([s, tags]) => tokens[s].map((w, k) => line(w, tags[k])).join('')).join('\n');
}
function csv(data, f, list, places) {
  const p = data.of[f.a][f.b], keep = new Set(list), names = ['-', ...data.types];
  const row = i => {
    const s = p.sentence[i], words = data.tokens[s], begin = p.begin[i]-data.starts[s], end = p.end[i]-data.starts[s];
    return [s, data.languages[data.language[s]], begin, end, words.slice(begin, end).join(' '), kindName(data, f, data.kinds[p.kind[i]]),
      names[p.a[i]], names[p.b[i]], p.divergence[i].toFixed(3), p.gap[i].toFixed(3), f.flags.has(s) ? 1 : 0,
      words.join(' ')];
  };
  const head = ['sentence', 'language', 'begin', 'end', 'text', 'kind', data.systems[f.a], data.systems[f.b],
    'divergence', 'gap', 'flagged', 'words'];
  return [head, ...places.filter(i => keep.has(p.sentence[i])).map(row)].map(r => r.map(cell).join(',')+'\r\n').join('');
}
function fileName(data, end) {
  const run = visible(data.name || '').replace(/[^\p{L}\p{M}\p{N}._]+/gu, '-').replace(/^[-.]+|[-.]+$/g, '').slice(0, 60);
  return run ? `${run}-${end}` : end;
}
function download(name, text, type) {
  const a = el('a', {href: URL.createObjectURL(new Blob([text], {type: type+';charset=utf-8'})), download: name});
  document.body.append(a);
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(a.href), 1000);
}

// ## Controls
// The browser's own, so that keyboard and screen reader know them. Typing and dragging filter at once and leave the
// control as it is.

function kindButtons(data, f, set) {
  const each = data.kinds.slice(1).map((n, i) => button(kindName(data, f, n), () => {
    const kinds = new Set(f.kinds);
    kinds.delete(0);
    if (!kinds.delete(i+1)) kinds.add(i+1);
    set({kinds, cell: null});
  }, {...pressed(f.kinds.has(i+1)), title: explained(data, f)[n], 'data-kind': n}));
  return el('span', {role: 'group', 'aria-label': 'kinds of conflict', class: 'bar'}, each);
}
function controls(data, f, set) {
  const option = key => ([v, t]) => el('option', {value: v, selected: String(f[key]) === String(v)}, t);
  const change = (key, v) => set(key === 'a' || key === 'b' ? {[key]: v, form: null} : {[key]: v});
  const pick = (label, key, options, cast = x => x, title = null) => el('label', {title}, label,
    el('select', {title, 'data-key': key, onchange: e => change(key, cast(e.target.value))}, options.map(option(key))));
  const side = (label, key, other) =>
    pick(label, key, data.systems.map((n, i) => [i, n]).filter(([i]) => i !== f[other]), Number);
  const hints = explained(data, f);
  const gap = e => {
    e.target.nextSibling.textContent = (+e.target.value).toFixed(2);
    set({gap: +e.target.value}, true);
  };
  return [
    el('div', {class: 'bar'}, side('Compare', 'a', 'b'), side('with', 'b', 'a'),
      pick('type', 'type', [[0, 'any'], ...data.types.map((t, i) => [i+1, t])], Number),
      data.seen ? pick('in the sources', 'seen', [['', 'any'], ['1', 'seen'], ['0', 'unseen']], x => x, hints['seen in the sources']) : null,
      data.languages.length > 1
        ? pick('language', 'language', [['', 'any'], ...data.language_names.map((l, i) => [i, l.endsWith('*') ? `${l.slice(0, -1)} (unseen by the encoder)` : l])])
        : null,
      pick('order', 'order', [['divergence', 'strongest first'], ['text', 'as in the text']])),
    el('div', {class: 'bar'}, kindButtons(data, f, set),
      el('label', {title: hints['confidence gap']}, 'confidence gap at least',
        el('input', {type: 'range', title: hints['confidence gap'], min: 0, max: 1, step: .05, value: f.gap, 'data-key': 'gap', oninput: gap}),
        el('output', {}, f.gap.toFixed(2))),
      el('label', {}, 'text',
        el('input', {type: 'search', value: f.text, size: 14, 'data-key': 'text',
          oninput: e => set({text: e.target.value}, true)})),
      el('label', {},
        el('input', {type: 'checkbox', checked: f.flagged, 'data-key': 'flagged',
          onchange: e => set({flagged: e.target.checked})}),
        'flagged only'))];
}

// ## The list
// Ten sentences a page are drawn, however many there are.

const PAGE = 10;
function article(view, k) {
  const {data, f, found} = view, s = found.list[k], marked = f.flags.has(s);
  const toggle = () => { view.at = k; view.flag(s); };
  const flag = button(marked ? '\u2691 flagged' : '\u2690 flag', toggle, {...pressed(marked), class: 'flag'});
  const behind = view.opened != null && wordAt(data, view.opened)[0] === s;
  const current = k === view.at ? 'true' : 'false';
  return el('article', {tabindex: -1, 'data-sentence': s, 'aria-current': current, 'aria-label': `sentence ${s}`},
    el('div', {class: 'bar', style: 'margin:0'},
      el('span', {class: 'dim'}, `sentence ${s}, `,
        el('span', {class: 'hint', title: explained(data, f).divergence}, `divergence ${found.score[s].toFixed(2)}`)), flag,
      view.fixed.has(s) ? el('span', {class: 'corrected'}, '\u270e corrected') : null),
    grid(view, s), behind ? why(view, view.opened) : null);
}
function statusLine(view) {
  const {data, f, found} = view, kind = data.of[f.a][f.b].kind;
  const page = Math.floor(view.at/PAGE), pages = Math.ceil(found.list.length/PAGE);
  const flags = view.flags(), what = flags.length ? 'flagged' : 'shown', list = flags.length ? flags : found.list;
  const differ = () => flags.length ? [...kind.keys()].filter(i => kind[i]) : found.places;
  return [
    el('strong', {class: 'count', role: 'status'},
      `${many(found.list.length, 'sentence')}, ${many(found.places.length, 'place')}`),
    filtered(data, f) ? button('clear filters', () => view.clear(), {class: 'clear'}) : null,
    button('\u2039 page', () => view.go((page-1)*PAGE), {class: 'previous'}),
    el('span', {}, `${pages ? page+1 : 0} of ${pages}`),
    button('page \u203a', () => view.go((page+1)*PAGE), {class: 'next'}),
    button(`${what} as CoNLL`, () => download(fileName(data, 'cases.conll'), conll(data, list), 'text/plain'), {class: 'conll'}),
    button(`${what} as CSV`, () => download(fileName(data, 'cases.csv'), csv(data, f, list, differ()), 'text/csv'), {class: 'csv'}),
    view.fixed.size
      ? button('corrections as CoNLL', () => download(fileName(data, 'corrections.conll'), correctedConll(view), 'text/plain'),
        {class: 'corrections'})
      : null,
    el('span', {class: 'dim'}, 'keys: n p f / \u2190 \u2192 Enter (Tab: correct) Esc')].filter(x => x);
}

// ## Keys
// JupyterLab's own shortcuts are off inside.

function press(view, e) {
  if (e.target.matches('input,select') || e.ctrlKey || e.metaKey || e.altKey) {
    if (e.key === 'Escape') { e.target.blur(); view.focus(); }
    return;
  }
  const word = e.target.getAttribute('data-word') ?? (e.target.closest('.correct') && view.opened), side = {ArrowLeft: -1, ArrowRight: 1}[e.key];
  const way = e.target.closest('.scroll')?.dir === 'rtl' ? -1 : 1, {list, bar, found} = view;
  if (side && word != null) list.querySelector(`[data-word="${+word+side*way}"]`)?.focus();
  else if (side) list.querySelector('[aria-current=true] [data-word]')?.focus();
  else if (e.key === 'n') view.go(view.at+1);
  else if (e.key === 'p') view.go(view.at-1);
  else if (e.key === 'f' && found.list.length) view.flag(found.list[view.at]);
  else if (e.key === '/') bar.querySelector('[data-key=text]').focus();
  else if (e.key === 'Escape') { view.opened = null; view.sentences(); view.focus(); }
  else return;
  e.preventDefault();
  e.stopPropagation();
}

// ## All of it
// `found` holds what the filters leave, `at` the place in that list, `opened` the word whose reasons are shown.
// A change of the filters draws everything; all else draws the list.

class View {
  constructor(root, raw, link) {
    const begun = performance.now(), data = decode(raw), part = c => el('div', {class: c});
    Object.assign(this, {root, link, data, at: 0, opened: null,
      fixed: new Map(Object.entries(link.corrections || {}).map(([s, tags]) => [+s, tags])),
      bar: part('controls'), over: part('overview'), status: part('bar'), list: part('list'), meanings: part('meanings')});
    this.f = {...free(data), a: data.pair[0], b: data.pair[1], order: 'divergence', flags: new Set(link.flags || [])};
    root.classList.add('mtmt');
    root.setAttribute('data-lm-suppress-shortcuts', 'true');
    root.addEventListener('keydown', e => press(this, e));
    root.replaceChildren(el('h2', {}, data.name || 'Disagreements'),
      ...(data.note ? [el('p', {class: 'note'}, data.note)] : []), this.bar, this.over,
      ...[ownText(this)].filter(x => x), el('details', {}, el('summary', {}, 'What the words mean'), this.meanings), this.status, this.list);
    if (data.map) this.over.after((this.map = new WordMap(this)).place);
    this.draw();
    root.dataset.opened = (performance.now()-begun).toFixed(1);
  }
  flags() { return [...this.f.flags].sort((x, y) => x-y); }
  focus() { this.list.querySelector('[aria-current=true]')?.focus({preventScroll: false}); }
  set(change, typing = false) {
    const had = document.activeElement, name = ['data-key', 'data-kind', 'data-form'].find(n => had?.hasAttribute(n));
    const again = name && `[${name}="${had.getAttribute(name)}"]`;
    Object.assign(this, {f: {...this.f, ...change}, at: 0, opened: null});
    this.draw(typing);        // the controls are new, and one of them had the focus
    if (!typing && again) this.root.querySelector(again)?.focus();
  }
  clear() { this.set(free(this.data)); this.focus(); }
  go(k) {
    if (!this.found.list.length) return;
    Object.assign(this, {at: Math.max(0, Math.min(this.found.list.length-1, k)), opened: null});
    this.sentences();
    this.focus();
  }
  flag(s) {
    if (!this.f.flags.delete(s)) this.f.flags.add(s);
    this.link.flagged?.(this.flags());
    if (this.f.flagged) this.draw(); else this.sentences();
    this.focus();
  }
  corrections() { return Object.fromEntries([...this.fixed.keys()].sort((x, y) => x-y).map(s => [s, corrected(this, s)])); }
  correct(i, tag) {
    const s = wordAt(this.data, i)[0], tags = [...tagsOf(this, s)];
    tags[i-this.data.starts[s]] = tag;
    this.fixed.set(s, tags);
    this.changed();
  }
  drop(s) {
    this.fixed.delete(s);
    this.changed();
  }
  changed() {
    this.link.corrected?.(this.corrections());
    this.sentences();
    this.list.querySelector('.correct [aria-pressed=true]').focus();
  }
  open(i) {
    Object.assign(this, {opened: this.opened === i ? null : i, at: this.found.list.indexOf(wordAt(this.data, i)[0])});
    this.sentences();
    this.list.querySelector(`[data-word="${i}"]`)?.focus();
  }
  sentences(anew = false) {
    const boxes = () => [...this.list.querySelectorAll('article .scroll')].map(b => [b.closest('article').dataset.sentence, b]);
    const before = new Map(anew ? [] : boxes().map(([s, b]) => [s, b.scrollLeft]));
    const all = this.found.list, start = Math.floor(this.at/PAGE)*PAGE, end = Math.min(start+PAGE, all.length), shown = [];
    for (let k = start; k < end; k++) shown.push(article(this, k));
    this.list.replaceChildren(...shown, all.length ? '' : el('p', {}, 'No place is left by these filters.'));
    for (const [s, b] of boxes()) if (before.has(s)) b.scrollLeft = before.get(s); else reveal(b, this.found.first[s]);
    this.status.replaceChildren(...statusLine(this));
  }
  draw(typing = false) {
    const {data, f, root} = this, begun = performance.now(), set = (...change) => this.set(...change);
    this.found = chosen(data, f);
    root.dataset.filtered = (performance.now()-begun).toFixed(1);
    if (!typing) this.bar.replaceChildren(...controls(data, f, set));
    const panels = [heat(data, f, set), often(data, f, this.found.counts, set), sure(data, f, f.a), sure(data, f, f.b),
      byLanguage(data, f, set)];
    this.meanings.replaceChildren(meanings(data, f));
    this.over.replaceChildren(...panels.filter(x => x));
    this.map?.draw();
    this.sentences(true);
    root.dataset.drawn = (performance.now()-begun).toFixed(1);
  }
}
const mount = (root, raw, link = {}) => new View(root, raw, link);

// ## The widget
// The arrays come once, when the browser asks for them. Flags and corrections go back to the kernel, and so do questions.

const filled = (x, buffers) => {
  if (Array.isArray(x)) return x.map(v => filled(v, buffers));
  if (!x || typeof x !== 'object') return x;
  if ('buffer' in x) return buffers[x.buffer];
  return Object.fromEntries(Object.entries(x).map(([k, v]) => [k, filled(v, buffers)]));
};
function render({model, el: place}) {
  const waiting = new Map(), root = document.createElement('div'), id = `v${Math.random().toString(36).slice(2)}`;
  const saves = name => value => { model.set(name, value); model.save_changes(); };
  const ask = word => new Promise(done => {
    waiting.set(`${id}-${word}`, done);
    model.send({near: `${id}-${word}`, word});
  });
  let texts = 0;
  const read = text => new Promise(done => {
    const own = `${id}-text${texts++}`;
    waiting.set(own, done);
    model.send({read: own, text});
  });
  const hear = (m, buffers) => {
    if (m.near) { waiting.get(m.near)?.(m.list); waiting.delete(m.near); }
    else if (m.read) { waiting.get(m.read)?.(m); waiting.delete(m.read); }
    else if (m.columns && m.to === id) mount(root, filled(m.columns, buffers), {ask, read,
      flags: model.get('flagged'), flagged: saves('flagged'),
      corrections: model.get('corrections'), corrected: saves('corrections')});
  };
  root.textContent = 'loading ...';
  place.append(root);
  model.on('msg:custom', hear);
  model.send({ready: id});
  return () => model.off('msg:custom', hear);
}
export default {render};
