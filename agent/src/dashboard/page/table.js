// Tables, tiles, and what else several pages are made of.

import {h, s} from './dom.js';

// Rows that are shown at once.
const MOST = 300;

// columns: [head, cell of a row, {class, sort}]; `key` names a row. Wide ones scroll for themselves.
export function table(title, columns, rows, key, none) {
  if (rows.length === 0) return h('p', {class: 'none'}, none ?? 'There are none.');
  const shown = rows.slice(0, MOST);
  const scroll = h('div', {class: 'scroll', role: 'region', 'aria-label': title, tabindex: 0},
    h('table', null,
      h('caption', {class: 'unseen'}, title),
      h('thead', null, h('tr', null, columns.map(([head, , look]) => h('th', {scope: 'col', class: look}, head)))),
      h('tbody', null, shown.map((row) => h('tr', {'data-key': key(row)},
        columns.map(([, cell, look], at) => h(at === 0 ? 'th' : 'td', {scope: at === 0 ? 'row' : null, class: look}, cell(row))))))));
  return rows.length > MOST ? [scroll, h('p', {class: 'dim'}, `The first ${MOST} of ${rows.length}; a filter finds the others.`)] : scroll;
}

export const section = (id, title, ...content) =>
  h('section', {'aria-labelledby': id, 'data-key': id}, h('h2', {id}, title), content);

// A figure with its name, and how it was for the last minute.
export const tile = (name, value, more, points, level) =>
  h('div', {class: `tile ${level ?? ''}`, 'data-key': name},
    h('dt', null, name), h('dd', null, value, more && h('small', null, more)), points && spark(points));

export function spark(points, width = 120, height = 26) {
  if (points.length < 2) return s('svg', {class: 'spark', width, height, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true'});
  const most = Math.max(...points, 1e-9);
  const step = width / 29;
  const at = points.slice(-30).map((value, n, all) =>
    `${(width - (all.length - 1 - n) * step).toFixed(1)} ${(height - 2 - (value / most) * (height - 5)).toFixed(1)}`);
  const first = at[0].split(' ')[0];
  return s('svg', {class: 'spark', width, height, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true'},
    s('path', {class: 'area', d: `M${first} ${height}L${at.join('L')}L${width} ${height}z`}), s('path', {d: `M${at.join('L')}`}));
}

export const facts = (...pairs) => h('dl', {class: 'facts'},
  pairs.filter((pair) => pair && pair[1] !== '' && pair[1] !== null && pair[1] !== undefined)
    .map(([name, value]) => h('div', null, h('dt', null, name), h('dd', null, value))));

// A field that narrows what is listed; main.js keeps what is typed.
export const filter = (id, words, value) =>
  h('label', {class: 'filter'}, h('span', {class: 'unseen'}, words),
    h('input', {type: 'search', id, placeholder: words, value, 'data-filter': id, autocomplete: 'off', spellcheck: 'false'}));

export const contains = (text, ...words) =>
  !text || words.some((word) => String(word ?? '').toLowerCase().includes(text.toLowerCase()));

export const back = (href, words) => h('p', {class: 'back'}, h('a', {href}, '← ', words));
