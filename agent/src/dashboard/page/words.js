// Figures and names, as people read them.

import {h} from './dom.js';

// `12.3`, `480`, `1.2k`: three digits at most.
export function number(value) {
  if (value === 0) return '0';
  if (value < 0.05) return '<0.1';
  if (value < 9.95) return value.toFixed(1);
  if (value < 999.5) return String(Math.round(value));
  for (const unit of ['k', 'M', 'G', 'T']) {
    value /= 1000;
    if (value < 999.5) return value.toFixed(value < 9.95 ? 1 : 0) + unit;
  }
  return value.toExponential(1);
}

export const count = (value) => value.toLocaleString('en');

export function bytes(value) {
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (value < 1000 || unit === 'GiB') return `${unit === 'B' || value >= 9.95 ? Math.round(value) : value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
}

export function milliseconds(value) {
  if (value === null || value === undefined) return '–';
  if (value < 9.95) return `${value.toFixed(1)} ms`;
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

export function percent(share) {
  if (share === 0) return '0 %';
  if (share < 0.001) return '<0.1 %';
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

// `2 d 3 h`: the two largest units.
export function span(seconds) {
  if (seconds < 0) return `expired ${span(-seconds)} ago`;
  const parts = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const first = parts.findIndex(([, size]) => seconds >= size);
  if (first < 0) return '0 s';
  const words = [];
  for (const [unit, size] of parts.slice(first, first + 2)) {
    const many = Math.floor(seconds / size);
    if (many > 0) words.push(`${many} ${unit}`);
    seconds -= many * size;
  }
  return words.join(' ');
}

export const many = (value, one, more) => `${count(value)} ${value === 1 ? one : (more ?? `${one}s`)}`;

// What the metrics call what they do not know.
export const known = (word) => (word && word !== 'unknown' ? word : '');

// The name of an object, its namespace held back.
export function name(namespace, own, href) {
  const words = [namespace && h('span', {class: 'ns'}, `${namespace}/`), own];
  return href ? h('a', {href}, words) : h('span', null, words);
}

export const link = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`;

// A state as a word with a sign before it, so that nobody depends on its colour.
const SIGNS = {good: '●', warn: '▲', bad: '■', idle: '○', info: '◆'};
export const state = (level, ...words) =>
  h('span', {class: `state ${level}`}, h('span', {'aria-hidden': 'true'}, SIGNS[level]), ' ', words);

// The last part of an identity, whole where somebody points at it.
export function identity(id) {
  const found = /^spiffe:\/\/([^/]+)\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(id ?? '');
  if (!found) return known(id) || '–';
  return h('span', {title: id}, h('span', {class: 'ns'}, `${found[2]}/`), found[3]);
}
