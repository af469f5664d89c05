// Who talks to whom, drawn from left to right. Beside it stands a table that says the same.

import {s} from './dom.js';
import {link, number, percent} from './words.js';
import {failures, together} from './rates.js';

const WIDTH = 164;
const HEIGHT = 46;
const ACROSS = 98;
const BETWEEN = 22;
// The height of a place where a line passes between others' boxes.
const LANE = 10;
// Nodes that can be drawn so that somebody finds their way; the busiest.
const MOST = 40;

// The drawing, and how many ends are left out.
export function graph(all, about) {
  const {nodes, pairs, left} = busiest(all);
  const rows = layers(nodes, pairs);
  const [width, height] = place(rows);
  const taken = [];
  const lines = pairs.map((pair) => line(pair, taken));
  return {
    left,
    element: s('svg', {
      class: 'graph', viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-labelledby': 'graph-title graph-text',
    },
    s('title', {id: 'graph-title'}, 'Who talks to whom'),
    s('desc', {id: 'graph-text'}, `${nodes.length} workloads and services, ${pairs.length} connections between them. The table below says the same in words.`),
    s('defs', null, ['good', 'warn', 'bad', 'idle'].map((level) =>
      s('marker', {id: `to-${level}`, class: level, viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: 'userSpaceOnUse', orient: 'auto'},
        s('path', {d: 'M0 0.5 8 4 0 7.5z'})))),
    s('g', {'aria-hidden': 'true'}, lines.map(([path]) => path), lines.map(([, words]) => words)),
    s('g', {role: 'list'}, nodes.map((node) => box(node, about)))),
  };
}

function busiest(all) {
  const nodes = new Map();
  const pairs = [];
  const out = new Set();
  for (const pair of all) {
    const fresh = [pair.from, pair.to].filter((end) => !nodes.has(end.id));
    if (nodes.size + fresh.length > MOST) {
      fresh.forEach((end) => out.add(end.id));
      continue;
    }
    for (const end of fresh) nodes.set(end.id, {...end, id: end.id, tall: HEIGHT, before: [], after: [], inbound: [], layer: 0});
    const [from, to] = [nodes.get(pair.from.id), nodes.get(pair.to.id)];
    to.inbound.push(pair);
    pairs.push({...pair, from, to});
  }
  return {nodes: [...nodes.values()], pairs, left: [...out].filter((id) => !nodes.has(id)).length};
}

const byName = (a, b) => (a.id < b.id ? -1 : 1);

// Clients stand before those that they call; of a circle, one line leads back. Long lines have a lane in each layer between.
function layers(nodes, pairs) {
  const callers = new Map(nodes.map((node) => [node, pairs.filter((pair) => pair.to === node && pair.from !== node).map((pair) => pair.from)]));
  const open = new Set();
  const done = new Set();
  const depth = (node) => {
    if (done.has(node)) return node.layer;
    if (open.has(node)) return -1;
    open.add(node);
    node.layer = Math.max(-1, ...callers.get(node).map(depth)) + 1;
    open.delete(node);
    done.add(node);
    return node.layer;
  };
  [...nodes].sort((a, b) => callers.get(a).length - callers.get(b).length || byName(a, b)).forEach(depth);
  // Who calls and is not called stands beside those that it calls.
  for (const node of nodes) {
    if (callers.get(node).length > 0) continue;
    const calls = pairs.filter((pair) => pair.from === node && pair.to !== node).map((pair) => pair.to.layer);
    if (calls.length > 0) node.layer = Math.max(0, Math.min(...calls) - 1);
  }
  const rows = [];
  const add = (node) => (rows[node.layer] ??= []).push(node);
  [...nodes].sort(byName).forEach(add);
  for (const pair of pairs) {
    pair.way = [];
    for (let layer = pair.from.layer + 1; layer < pair.to.layer; layer += 1) {
      const lane = {id: `${pair.id} ${layer}`, layer, tall: LANE, before: [], after: []};
      pair.way.push(lane);
      add(lane);
    }
    if (pair.to.layer <= pair.from.layer) continue;
    const all = [pair.from, ...pair.way, pair.to];
    all.slice(1).forEach((node, at) => {
      node.before.push(all[at]);
      all[at].after.push(node);
    });
  }
  for (let layer = 0; layer < rows.length; layer += 1) rows[layer] ??= [];
  return rows;
}

function place(rows) {
  const settle = (row) => {
    let y = 0;
    for (const node of row) {
      node.middle = y + node.tall / 2;
      y += node.tall + BETWEEN;
    }
    for (const node of row) node.middle -= (y - BETWEEN) / 2;
  };
  rows.forEach(settle);
  for (let turn = 0; turn < 8; turn += 1) {
    const side = turn % 2 ? 'after' : 'before';
    for (const row of rows) {
      const mean = new Map(row.map((node) => {
        const near = node[side].map((one) => one.middle);
        return [node, near.length ? near.reduce((sum, one) => sum + one, 0) / near.length : node.middle];
      }));
      row.sort((a, b) => mean.get(a) - mean.get(b) || byName(a, b));
      settle(row);
    }
  }
  const half = Math.max(HEIGHT, ...rows.flat().map((node) => Math.abs(node.middle) + node.tall / 2)) + BETWEEN;
  rows.forEach((row, layer) => row.forEach((node) => {
    node.x = 2 + layer * (WIDTH + ACROSS);
    node.y = half + node.middle;
  }));
  return [4 + rows.length * WIDTH + (rows.length - 1) * ACROSS, 2 * half];
}

// The line of a pair, and its words where none stand yet.
function line(pair, taken) {
  const {from, to} = pair;
  let parts;
  if (to.layer > from.layer) {
    const stops = [[from.x + WIDTH, from.y], ...pair.way.flatMap((lane) => [[lane.x, lane.y], [lane.x + WIDTH, lane.y]]), [to.x - 3, to.y]];
    parts = stops.slice(1).map((stop, at) => {
      const [[x1, y1], [x2, y2]] = [stops[at], stop];
      const bend = (x2 - x1) / 2;
      return [x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2];
    });
  } else {
    const low = Math.max(from.y, to.y) + HEIGHT / 2 + 26;
    parts = [[from.x + WIDTH, from.y, from.x + WIDTH + 70, low, to.x - 70, low, to.x - 3, to.y]];
  }
  const path = parts.map(([x1, y1, ...rest], at) => `${at ? '' : `M${x1} ${y1}`}C${rest.map((it) => it.toFixed(1)).join(' ')}`).join('');
  const rate = pair.requestRate || pair.openedRate;
  const thick = rate > 0 ? Math.min(4.5, 1.4 + Math.log10(1 + rate)) : 1.2;
  const words = [];
  if (rate > 0) words.push(`${number(rate)} ${pair.requestRate > 0 ? 'req/s' : 'conn/s'}`);
  if (pair.health === 'warn' || pair.health === 'bad') words.push(`${percent(failures(pair))} fail`);
  const look = `line ${pair.health}${pair.secure ? '' : ' plain'}`;
  return [
    s('g', {class: look, 'data-key': pair.id}, s('path', {d: path, 'stroke-width': thick.toFixed(2), 'marker-end': `url(#to-${pair.health})`})),
    words.length > 0 && label(words, parts, taken, pair.id),
  ];
}

function label(words, parts, taken, id) {
  const tall = words.length > 1 ? 34 : 18;
  const wide = 7 * Math.max(...words.map((word) => word.length));
  const crosses = (box) => taken.some((one) => Math.abs(one.x - box.x) < (one.wide + box.wide) / 2 && Math.abs(one.y - box.y) < (one.tall + box.tall) / 2);
  const last = parts.at(-1);
  const free = [0.5, 0.62, 0.38, 0.72, 0.28].map((at) => ({...along(last, at), wide, tall}));
  const spot = free.find((box) => !crosses(box)) ?? free[0];
  taken.push(spot);
  return s('g', {class: 'words', 'data-key': `${id} words`}, words.map((word, at) =>
    s('text', {x: spot.x.toFixed(1), y: (spot.y - 6 + at * 20).toFixed(1), 'text-anchor': 'middle', class: at > 0 ? 'failing' : null}, word)));
}

// A point of a curve.
function along([x1, y1, x2, y2, x3, y3, x4, y4], t) {
  const u = 1 - t;
  const mix = (a, b, c, d) => u * u * u * a + 3 * u * u * t * b + 3 * u * t * t * c + t * t * t * d;
  return {x: mix(x1, x2, x3, x4), y: mix(y1, y2, y3, y4)};
}

const SPOKEN = {good: 'well', warn: 'some fail', bad: 'failing', idle: 'idle'};

function box(node, about) {
  const called = node.inbound.length > 0;
  const sum = together(node.inbound);
  const more = about(node);
  const spoken = [`${node.namespace && `${node.namespace}/`}${node.name}`, more];
  if (called) spoken.push(`${number(sum.requestRate + sum.openedRate)} a second`, SPOKEN[sum.health]);
  const href = node.kind === 'workload' ? link('workload', node.namespace, node.name) : node.kind === 'service' ? link('service', node.name) : null;
  const [x, y, text] = [node.x, node.y - HEIGHT / 2, called ? 27 : 14];
  const content = [
    s('rect', {x, y, width: WIDTH, height: HEIGHT, rx: 8}),
    called && s('circle', {class: sum.health, cx: x + 15, cy: y + 17, r: 4.5}),
    s('text', {class: 'name', x: x + text, y: y + (more ? 21 : 27)}, short(node.name, called ? 17 : 19)),
    more && s('text', {class: 'more', x: x + text, y: y + 36}, short(more, 23)),
  ];
  return s('g', {class: `box ${node.kind}`, role: 'listitem', 'data-key': node.id},
    href ? s('a', {href, 'aria-label': spoken.filter(Boolean).join(', ')}, content) : content);
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
