// Certificates, findings, and what codes and reasons mean.

import {h} from './dom.js';
import {beyond} from './overview.js';
import {policyLink} from './policies.js';
import {back, contains, facts, filter, section, table} from './table.js';
import {identity, link, name, span, state as mark} from './words.js';

export function certificates(state, typed) {
  const rows = state.status.certificates.filter((it) => contains(typed.certificates, it.id, it.node));
  rows.sort((a, b) => a.expiresInSeconds - b.expiresInSeconds);
  const {issuer, roots, issuerLifePercent} = state.status.controller ?? {};
  const nodes = state.kind === 'controller';
  return [
    h('div', {class: 'title'}, h('h1', null, 'Certificates'), filter('certificates', 'Filter certificates', typed.certificates)),
    nodes && section('issuer', 'The authority', issuer
      ? facts(['Signs', issuer.subject], ['Good until', issuer.notAfter], ['Life', life(issuerLifePercent)], ['Roots', String(roots)])
      : h('p', {class: 'none'}, 'There is no root and no intermediate yet.')),
    section('issued', nodes ? 'Certificates of workloads, as their agents say' : 'Certificates of this node’s workloads', table('Certificates', [
      ['Identity', (it) => identity(it.id)],
      nodes && ['Node', (it) => it.node],
      ['Expires in', (it) => span(it.expiresInSeconds), 'n'],
      !nodes && ['Life', (it) => life(it.lifePercent)],
      !nodes && ['Good until', (it) => it.notAfter, 'wide'],
      !nodes && ['Serial', (it) => h('code', null, it.serial.slice(0, 12)), 'wide'],
      ['State', (it) => (it.lastError ? [mark('bad', 'cannot be renewed'), ` ${it.lastError}`]
        : it.expiresInSeconds <= 0 ? mark('bad', 'there is none') : mark('good', 'good'))],
    ].filter(Boolean), rows, (it) => `${it.id} ${it.node ?? ''}`, 'There are none.')),
    h('p', {class: 'dim'}, 'Keys are shown nowhere; those of workloads never leave their agent.'),
  ];
}

const life = (percent) => (percent === null || percent === undefined ? '–'
  : [h('meter', {min: 0, max: 100, high: 75, value: percent, 'aria-label': `${percent} % of its life is over`}), ` ${percent} %`]);

const LEVELS = {error: 'bad', warning: 'warn', info: 'info'};

export function findings(state, typed) {
  const rows = state.findings.filter((it) => contains(typed.findings, it.code, it.message, it.name, it.namespace, it.kind));
  const others = beyond(state);
  return [
    h('div', {class: 'title'}, h('h1', null, 'Findings'), filter('findings', 'Filter findings', typed.findings)),
    table('Findings', [
      ['Code', (it) => mark(LEVELS[it.severity] ?? 'info', h('a', {href: link('reference', it.code)}, it.code))],
      ['Severity', (it) => it.severity],
      ['Object', (it) => object(it)],
      ['What', (it) => [it.message, it.file && h('span', {class: 'detail'}, ` ${it.file}:${it.line}`)]],
      ['Remedy', (it) => it.remedy],
    ], rows, (it) => [it.code, it.kind, it.namespace, it.name, it.file, it.line, it.message].join('|'), typed.findings ? 'None says this.' : 'Nothing is wrong with the configuration.'),
    others.length > 0 && section('others', 'Other warnings', h('ul', {class: 'troubles'}, others.map((text) => h('li', null, mark('warn', text))))),
  ];
}

const object = (it) => (/^(AuthorizationPolicy|RequestAuthentication|RateLimitPolicy)$/.test(it.kind) ? policyLink(it) : [it.kind && `${it.kind} `, it.name && name(it.namespace, it.name)]);

export function reference(state, word) {
  const {codes, reasons} = state.reference;
  if (!word) {
    const rows = (list) => Object.entries(list).map(([code, text]) => ({code, text}));
    const columns = [['Code', (it) => h('a', {href: link('reference', it.code)}, it.code)], ['Means', (it) => it.text]];
    return [h('h1', null, 'Reference'), section('codes', 'Codes of findings', table('Codes', columns, rows(codes), (it) => it.code)),
      section('reasons', 'Reasons of flows', table('Reasons', columns, rows(reasons), (it) => it.code))];
  }
  const text = codes[word] ?? reasons[word];
  const found = state.findings.filter((it) => it.code === word);
  return [back('#/reference', 'Reference'), h('h1', null, word),
    text ? h('p', null, text, '.') : h('p', {class: 'none'}, 'Nothing is written about it.'),
    codes[word] && section('here', 'Here', found.length === 0 ? h('p', {class: 'none'}, 'Nothing has this code now.')
      : h('ul', {class: 'troubles'}, found.map((it) => h('li', null, mark(LEVELS[it.severity] ?? 'info', object(it)), h('span', {class: 'why'}, `${it.message}. ${it.remedy}`)))))];
}
