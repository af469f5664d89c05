// Services and workloads: lists, and a page for each.

import {h} from './dom.js';
import {edges, healthOf} from './overview.js';
import {course, failures, quantile, together} from './rates.js';
import {back, contains, facts, filter, section, spark, table} from './table.js';
import {count, identity, link, many, milliseconds, name, number, percent, state as mark} from './words.js';
import {records} from './flows.js';
import {policyLink} from './policies.js';

export const workload = (mesh, namespace, own) =>
  mesh?.workloads.find((it) => it.namespace === namespace && it.name === own);

const hostOf = (service) => service.host;
// Pairs by what `keys` says of each.
function group(all, keys) {
  const found = new Map();
  for (const it of all) for (const key of keys(it)) found.set(key, [...(found.get(key) ?? []), it]);
  return found;
}

const toService = (all, host) => all.filter((it) => it.services.has(host));

export function services(state, all, typed) {
  const rows = state.mesh.services.filter((it) => contains(typed.services, it.host, it.name, it.namespace));
  const called = group(all, (pair) => pair.services);
  const sums = new Map(rows.map((it) => [it, together(called.get(it.host) ?? [])]));
  const busy = (it) => sums.get(it).requestRate + sums.get(it).openedRate;
  rows.sort((a, b) => busy(b) - busy(a) || (a.namespace + a.name < b.namespace + b.name ? -1 : 1));
  return [
    h('div', {class: 'title'}, h('h1', null, 'Services'), filter('services', 'Filter services', typed.services)),
    table('Services', [
      ['Service', (it) => name(it.namespace, it.name, link('service', it.host))],
      ['Health', (it) => healthOf(sums.get(it))],
      ['Req/s', (it) => number(sums.get(it).requestRate), 'n'],
      ['p95', (it) => milliseconds(quantile(sums.get(it), 0.95)), 'n'],
      ['Conn/s', (it) => number(sums.get(it).openedRate), 'n'],
      ['Failing', (it) => percent(failures(sums.get(it))), 'n'],
      ['Last minute', (it) => spark(course(state.samples, (one) => one.sums.services.get(it.host) ?? 0), 90, 20), 'wide'],
      ['Ports', (it) => ports(it), 'wide'],
      ['Endpoints', (it) => endpointCount(it), 'n'],
    ], rows, hostOf, typed.services ? 'None has this in its name.' : 'There are no services.'),
  ];
}

const ports = (it) => it.ports.map((port) => `${port.port}${port.name ? ` ${port.name}` : ''}`).join(', ');
const endpointCount = (it) => {
  // A pod may have an address of each family.
  const behind = (port) => new Set(port.endpoints.map((one) => (one.pod ? `${one.namespace}/${one.pod}` : one.address))).size;
  const most = Math.max(0, ...it.ports.map(behind));
  return most > 0 ? count(most) : mark('warn', '0');
};

// Clients of one family are led to addresses of that family.
const family = (it) => it.address.startsWith('[');

export function service(state, all, host) {
  const it = state.mesh.services.find((one) => one.host === host || `${one.namespace}/${one.name}` === host);
  const here = toService(all, it?.host ?? host);
  const title = it ? name(it.namespace, it.name) : host;
  return [
    back('#/services', 'Services'),
    h('h1', null, title, ' ', healthOf(together(here))),
    it && facts(['Host', it.host], ['Kind', it.kind], ['Outside the mesh', it.external ? 'its endpoints may be' : '']),
    section('clients', 'Clients', edges(here)),
    it && section('endpoints', 'Endpoints', it.ports.map((port) => h('div', {'data-key': `port ${port.port}`},
      h('h3', null, `Port ${port.port}`, port.name && ` · ${port.name}`, port.requests && h('small', null, 'rules look at its requests')),
      h('p', {class: 'dim'}, port.addresses.join(', ')),
      table(`Endpoints of port ${port.port}`, [
        ['Address', (one) => one.address],
        ['Pod', (one) => (one.pod ? name(one.namespace, one.pod, link('workload', one.namespace, one.workload)) : 'not in the mesh: in clear')],
        ['Node', (one) => one.node || '–', 'wide'],
        ['Share', (one) => percent(one.weight / port.endpoints.reduce((sum, other) => sum + (family(one) === family(other) ? other.weight : 0), 0)), 'n'],
      ], port.endpoints, (one) => one.address, 'Nobody is behind it: connections are refused.')))),
    it && rules(state, host),
    ejections(state, it?.host ?? host),
  ];
}

// Destinations of the proxy: limits and who is left out.
function ejections(state, host) {
  const rows = (state.status.destinations ?? []).filter((it) => it.destination.endsWith(`|${host}`));
  if (rows.length === 0) return null;
  return section('limits', 'Limits and ejected endpoints', table('Destinations', [
    ['Client', (it) => it.pod],
    ['Destination', (it) => it.destination],
    ['Rule', (it) => it.rule || '–', 'wide'],
    ['Active', (it) => count(it.active), 'n'],
    ['Limits', (it) => it.limits.map((one) => `${one.name} ${one.held}/${one.max}${one.reached ? ' reached' : ''}`).join(', ') || '–'],
    ['Ejected', (it) => (it.ejected.length ? mark('warn', it.ejected.map((one) => `${one.address} (${one.cause}, ${one.secondsLeft} s)`).join(', ')) : '–')],
  ], rows, (it) => `${it.pod} ${it.destination}`));
}

const rules = (state, host) => {
  const found = state.findings.filter((it) => it.message.includes(host));
  return found.length > 0 && section('about', 'Findings about it', h('ul', {class: 'troubles'}, found.map((it) =>
    h('li', null, mark(it.severity === 'error' ? 'bad' : 'warn', h('a', {href: link('reference', it.code)}, it.code)), h('span', {class: 'why'}, it.message)))));
};

export function workloads(state, all, typed) {
  const rows = state.mesh.workloads.filter((it) => contains(typed.workloads, it.name, it.namespace, it.identity, ...it.pods.map((pod) => pod.name)));
  const called = group(all, (pair) => [`${pair.to.namespace}/${pair.to.name}`]);
  const into = new Map(rows.map((it) => [it, together(called.get(`${it.namespace}/${it.name}`) ?? [])]));
  return [
    h('div', {class: 'title'}, h('h1', null, 'Workloads'), filter('workloads', 'Filter workloads', typed.workloads)),
    table('Workloads', [
      ['Workload', (it) => name(it.namespace, it.name, link('workload', it.namespace, it.name))],
      ['Pods', (it) => podStates(state, it)],
      ['Health', (it) => healthOf(into.get(it))],
      ['Req/s in', (it) => number(into.get(it).requestRate), 'n'],
      ['p95', (it) => milliseconds(quantile(into.get(it), 0.95)), 'n wide'],
      ['Conn/s in', (it) => number(into.get(it).openedRate), 'n'],
      ['Identity', (it) => identity(it.identity), 'wide'],
      ['Accepts', (it) => accepts(it)],
    ], rows, (it) => `${it.namespace}/${it.name}`, typed.workloads ? 'None has this in its name.' : 'No pod is in the mesh.'),
    impossible(state),
  ];
}

const accepts = (it) => {
  const words = {STRICT: 'mutual TLS only', PERMISSIVE: 'also plaintext', DISABLE: 'plaintext only'};
  const others = Object.entries(it.mtls.ports).map(([port, mode]) => `, ${port}: ${words[mode] ?? mode}`);
  return [words[it.mtls.default] ?? it.mtls.default, others];
};

// What the agent of this node says of a workload's pods.
function podStates(state, it) {
  const said = it.pods.map((pod) => [pod, podState(state, pod, it.namespace)]);
  const bad = said.filter(([, one]) => one && one.state !== 'enrolled');
  return [many(it.pods.length, 'pod'), bad.length > 0 && [' ', mark('warn', `${count(bad.length)} ${bad[0][1].state}`)]];
}

const podState = (state, pod, namespace) =>
  (state.status.pods ?? []).find((it) => it.namespace === namespace && it.name === pod.name);

function impossible(state) {
  const rows = (state.status.pods ?? []).filter((it) => it.state === 'impossible');
  return rows.length > 0 && section('impossible', 'Pods that cannot join', table('Pods that cannot join', [
    ['Pod', (it) => name(it.namespace, it.name)], ['Why', (it) => it.detail],
  ], rows, (it) => `${it.namespace}/${it.name}`));
}

export function one(state, all, namespace, own) {
  const it = workload(state.mesh, namespace, own);
  const is = (end) => end.namespace === namespace && end.name === own;
  const [into, outOf] = [all.filter((pair) => is(pair.to)), all.filter((pair) => is(pair.from))];
  const policies = state.mesh.policies.filter((policy) => policy.pods.some((pod) => it?.pods.some((mine) => mine.name === pod.name) && pod.namespace === namespace));
  return [
    back('#/workloads', 'Workloads'),
    h('h1', null, name(namespace, own), ' ', healthOf(together(into))),
    it ? facts(['Identity', it.identity], ['Accepts', accepts(it)]) : h('p', {class: 'dim'}, 'It is not in the mesh, or not known to this node.'),
    it && section('pods', 'Pods', table('Pods', [
      ['Pod', (pod) => pod.name],
      ['Addresses', (pod) => pod.addresses.join(', ')],
      ['Node', (pod) => pod.node || '–'],
      ['State', (pod) => {
        const said = podState(state, pod, namespace);
        if (!said) return h('span', {class: 'dim'}, state.kind === 'controller' ? 'its agent knows' : 'of another node');
        return [mark(said.state === 'enrolled' ? 'good' : 'warn', said.state), said.detail && ` ${said.detail}`];
      }],
    ], it.pods, (pod) => pod.name)),
    section('into', 'Who calls it', edges(into, {to: false})),
    section('out', 'Whom it calls', edges(outOf, {from: false})),
    section('policies', 'Policies about it', policies.length
      ? h('ul', {class: 'plain'}, policies.map((policy) => h('li', null, policyLink(policy), policy.action && ` ${policy.action}`)))
      : h('p', {class: 'none'}, 'There are none: whom its mode of mutual TLS lets in may reach it.')),
    state.kind === 'agent' && section('lately', 'Flows', records(state.flows.filter((record) =>
      [record.source, record.destination].some((end) => end?.namespace === namespace && (end.workload === own || it?.pods.some((pod) => pod.name === end.pod)))).slice(-20), state)),
  ];
}
