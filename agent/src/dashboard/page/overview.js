// The first page: how it goes, what needs somebody, and who talks to whom.

import {h} from './dom.js';
import {course, failures, quantile, refusals, together} from './rates.js';
import {graph} from './graph.js';
import {section, table, tile} from './table.js';
import {bytes, count, link, many, milliseconds, name, number, percent, span, state as mark} from './words.js';
import {workload} from './mesh.js';

export function overview(state, all) {
  return [
    h('h1', {class: 'unseen'}, 'Overview'),
    tiles(state, all),
    troubles(state),
    section('graph', 'Who talks to whom', picture(state, all), edges(all)),
    state.kind === 'controller' && section('nodes', 'Nodes', nodes(state.status.nodes)),
  ];
}

function tiles(state, all) {
  const {samples} = state;
  const sum = together(all);
  const refused = course(samples, refusals);
  const lately = refused.slice(-5);
  const worst = state.findings.filter((it) => it.severity === 'error').length;
  const warnings = state.findings.filter((it) => it.severity === 'warning').length;
  const found = worst ? many(worst, 'error') : warnings ? many(warnings, 'warning') : 'none';
  const refusing = lately.length ? lately.reduce((a, b) => a + b, 0) / lately.length : 0;
  return h('dl', {class: 'tiles', 'data-key': 'tiles'},
    tile('Requests', number(sum.requestRate), ' /s', course(samples, (it) => it.sums.requests)),
    tile('New connections', number(sum.openedRate), ' /s', course(samples, (it) => it.sums.connections)),
    tile('Failing', percent(failures(sum)), '', null, sum.health),
    tile('Latency, p95', milliseconds(quantile(sum, 0.95)), ` p50 ${milliseconds(quantile(sum, 0.5))}`),
    tile('Throughput', bytes(sum.receivedRate + sum.sentRate), ' /s'),
    state.kind === 'agent' && tile('Refused', number(refusing), ' /s', refused, refusing > 0 ? 'warn' : ''),
    tile('Findings', h('a', {href: '#/findings'}, found), '', null, worst ? 'bad' : warnings ? 'warn' : 'good'));
}

// What somebody has to do something about.
function troubles(state) {
  const {status, mesh} = state;
  const own = status.agent ?? status.controller;
  const list = [...own.notReady.map((why) => ['bad', 'Not ready', why])];
  const step = status.agent?.overload?.step;
  if (step && !/^(no|none|nothing)/.test(step)) list.push(['bad', 'Overload', `${step}; see undermesh status`]);
  for (const policy of status.policies) {
    if (policy.state !== 'fails-closed' && policy.state !== 'fails-open') continue;
    list.push([policy.state === 'fails-open' ? 'bad' : 'warn', h('a', {href: link('policy', policy.kind, policy.namespace, policy.name)}, `${policy.kind} ${policy.namespace}/${policy.name}`),
      `${policy.state.replace('-', ' ')}: ${policy.detail.join('; ')}`]);
  }
  for (const warning of beyond(state)) list.push(warning.startsWith(REJECTED) ? ['bad', 'Configuration', warning] : ['warn', 'Warning', warning]);
  for (const node of status.nodes ?? []) for (const problem of node.problems) list.push(['warn', `Node ${node.node}`, problem]);
  for (const what of mesh?.omitted ?? []) list.push(['info', 'Not shown', what]);
  if (list.length === 0) return null;
  return section('troubles', 'Worth a look', h('ul', {class: 'troubles'},
    list.map(([level, what, why]) => h('li', null, mark(level, what), h('span', {class: 'why'}, why)))));
}

const REJECTED = 'configuration rejected';

// Warnings that are no findings: those stand on their page. That a newer state is not in force is worth to be said twice.
export const beyond = (state) => (state.status.warnings ?? [])
  .filter((text) => text.startsWith(REJECTED) || !state.findings.some((it) => it.message && text.includes(it.message)));

function picture(state, all) {
  if (all.length === 0) return h('p', {class: 'none'}, 'Nobody has talked to anybody yet, as far as the mesh has seen.');
  const {element, left} = graph(all, (node) => {
    const pods = workload(state.mesh, node.namespace, node.name)?.pods.length;
    return [node.namespace, pods && many(pods, 'pod')].filter(Boolean).join(' · ');
  });
  return [
    h('div', {class: 'scroll drawing', role: 'region', 'aria-label': 'Drawing of who talks to whom', tabindex: 0}, element),
    h('p', {class: 'legend'}, mark('good', 'well'), mark('warn', 'some fail'), mark('bad', '5 % and more fail'), mark('idle', 'idle'),
      h('span', null, h('span', {class: 'dash', 'aria-hidden': 'true'}), ' in clear: within a node, or to and from what is not in the mesh'),
      left > 0 && h('span', null, `${many(left, 'end')} with less traffic stand in the table only`)),
  ];
}

const CLEAR = 'In clear: within a node, where it never leaves the kernel, or to and from what is not in the mesh';

const ends = (end) => name(end.namespace, end.name,
  end.kind === 'workload' ? link('workload', end.namespace, end.name) : end.kind === 'service' ? link('service', end.name) : null);

const LEVELS = {good: 'well', warn: 'some fail', bad: 'failing', idle: 'idle'};
export const healthOf = (it) => mark(it.health, LEVELS[it.health]);

const rate = (value) => (value > 0 ? number(value) : h('span', {class: 'nil'}, '0'));

// What a list of pairs says, in columns; without those that say nothing here.
export function edges(all, {from = true, to = true} = {}) {
  const requests = all.some((it) => it.total > 0);
  return table('Who talks to whom', [
    from && ['From', (it) => ends(it.from)],
    to && ['To', (it) => ends(it.to)],
    ['Health', healthOf],
    requests && ['Req/s', (it) => rate(it.requestRate), {class: 'n'}],
    requests && ['p50', (it) => milliseconds(quantile(it, 0.5)), {class: 'n wide'}],
    requests && ['p95', (it) => milliseconds(quantile(it, 0.95)), {class: 'n'}],
    ['Conn/s', (it) => rate(it.openedRate), {class: 'n'}],
    ['Failing', (it) => percent(failures(it)), {class: 'n'}],
    ['Open', (it) => count(Math.max(0, it.opened - it.closed)), {class: 'n wide'}],
    ['Bytes/s', (it) => bytes(it.receivedRate + it.sentRate), {class: 'n wide'}],
    ['Since start', (it) => [it.total > 0 && many(it.total, 'request'), it.total > 0 && it.opened > 0 && ', ', it.opened > 0 && many(it.opened, 'connection')], {class: 'n wide'}],
    ['Encryption', (it) => (it.secure ? 'mutual TLS' : h('span', {class: 'dim', title: CLEAR}, it.plain ? 'none' : 'in part')), {class: 'wide'}],
  ].filter(Boolean).map(([head, cell, look]) => [head, cell, look?.class]), all, (it) => it.id, 'Nobody.');
}

function nodes(list) {
  const left = (it) => (it.certificatesExpireInSeconds === null ? '–' : span(it.certificatesExpireInSeconds));
  return table('Nodes', [
    ['Node', (it) => it.node],
    ['Agent', (it) => it.pod ?? '–', 'wide'],
    ['Version', (it) => it.version ?? '–'],
    ['State', (it) => (it.ready && it.version ? mark('good', 'ready') : mark('bad', it.version ? 'not ready' : 'says nothing'))],
    ['Pods', (it) => count(it.pods.enrolled ?? 0), 'n'],
    ['Not in', (it) => count(Object.entries(it.pods).reduce((sum, [key, value]) => sum + (key === 'enrolled' ? 0 : value), 0)), 'n'],
    ['Connections', (it) => count(it.connections), 'n'],
    ['Certificates', (it) => count(it.certificates), 'n wide'],
    ['First expires in', left, 'n wide'],
  ], list, (it) => `${it.node} ${it.pod}`, 'No agent is known yet.');
}
