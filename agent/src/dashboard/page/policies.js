// Policies: what they do, whom they are about, and what they look at.

import {h} from './dom.js';
import {back, contains, facts, filter, section, table} from './table.js';
import {count, link, many, name, state as mark} from './words.js';

const same = (a, b) => a.kind === b.kind && a.namespace === b.namespace && a.name === b.name;
const STATES = {enforced: ['good', 'enforced'], 'dry-run': ['info', 'dry run'], 'fails-closed': ['bad', 'fails closed'], 'fails-open': ['bad', 'fails open']};

// What stands in the snapshot, and how it goes.
function all(state) {
  return state.mesh.policies.map((it) => {
    const said = state.status.policies.find((one) => same(one, it));
    return {...it, state: said?.state ?? it.state, detail: said?.detail ?? [], causes: said?.causes ?? []};
  });
}

const stateOf = (it) => mark(...(STATES[it.state] ?? ['idle', it.state]));
export const policyLink = (it) => h('a', {href: link('policy', it.kind, it.namespace, it.name)}, `${it.kind} `, name(it.namespace, it.name));

export function policies(state, typed) {
  const rows = all(state).filter((it) => contains(typed.policies, it.kind, it.namespace, it.name, it.action));
  const where = state.kind === 'agent' ? 'pods of this node' : 'pods';
  return [
    h('div', {class: 'title'}, h('h1', null, 'Policies'), filter('policies', 'Filter policies', typed.policies)),
    h('p', {class: 'dim'}, `AuthorizationPolicies, RequestAuthentications and RateLimitPolicies that are about ${where}.`,
      ' Which mode of mutual TLS a workload has stands with it.'),
    table('Policies', [
      ['Policy', policyLink],
      ['Action', (it) => it.action || '–'],
      ['State', stateOf],
      ['Pods', (it) => count(it.pods.length), 'n'],
      ['Ports', (it) => ports(it.ports)],
      ['Rules', (it) => count(it.rules.length), 'n'],
      ['Why', (it) => it.detail.join('; ') || '–', 'wide'],
    ], rows, (it) => `${it.kind} ${it.namespace}/${it.name}`, typed.policies ? 'None has this in its name.' : `No policy is about ${where}.`),
  ];
}

const ports = (list) => (list === null ? 'all' : list.length === 0 ? 'none' : list.join(', '));

const EFFECTS = {
  ALLOW: 'What one of its rules matches may pass; what no policy with this action matches is refused.',
  DENY: 'What one of its rules matches is refused, whatever other policies say.',
  CUSTOM: 'What one of its rules matches is asked about at its provider.',
  AUDIT: 'What one of its rules matches is reported.',
};

export function policy(state, kind, namespace, own) {
  const it = all(state).find((one) => same(one, {kind, namespace, name: own}));
  if (!it) return [back('#/policies', 'Policies'), h('h1', null, `${kind} ${namespace}/${own}`), h('p', {class: 'none'}, 'There is none that is about pods here.')];
  return [
    back('#/policies', 'Policies'),
    h('h1', null, `${it.kind} `, name(it.namespace, it.name), ' ', stateOf(it)),
    it.action && EFFECTS[it.action] && h('p', null, EFFECTS[it.action]),
    facts(['Action', it.action], ['Provider', it.provider], ['Why', it.detail.join('; ')]),
    section('rules', 'Rules', it.rules.length === 0
      ? h('p', {class: 'none'}, it.action === 'ALLOW' ? 'It has none: it matches nothing, and so allows nothing.' : 'It has none.')
      : table('Rules', [
        ['Rule', (rule) => rule.name],
        ['Ports', (rule) => ports(rule.ports)],
        ['Looks at', (rule) => rule.looksAt.join('; ') || 'nothing: it matches all'],
        ['Judged', (rule) => (rule.unknown ? mark('bad', 'has fields that nobody knows') : rule.requests ? 'request by request' : 'when a connection opens')],
      ], it.rules, (rule) => rule.name)),
    section('matched', `Pods that it is about (${many(it.pods.length, 'pod')})`, table('Pods', [
      ['Pod', (pod) => name(pod.namespace, pod.name, link('workload', pod.namespace, pod.workload))],
      ['Node', (pod) => pod.node || '–'],
    ], it.pods, (pod) => `${pod.namespace}/${pod.name}`)),
  ];
}
