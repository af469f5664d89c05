// Flow records as they come.

import {h} from './dom.js';
import {failed} from './source.js';
import {filter, table} from './table.js';
import {bytes, count, link, milliseconds, name, state as mark} from './words.js';

export function flows(state, typed) {
  const head = h('div', {class: 'title'}, h('h1', null, 'Flows'));
  if (state.kind === 'controller') {
    return [head, h('p', {class: 'none'}, 'The controller sees no flows: agents keep those of their node. From wherever the API server can be reached, those of all nodes as one stream, or of one:'),
      h('pre', null, h('code', null, 'undermesh flows --all-nodes --follow\nundermesh flows --all-nodes --follow --verdict denied\nundermesh flows --node NAME --follow'))];
  }
  if (state.noFlows) return [head, h('p', {class: 'none'}, state.noFlows)];
  const kept = typed.denied ? state.failed : state.flows;
  const wanted = kept.filter((it) => passes(it, typed));
  head.append(filter('flows', 'Filter by pod, service, reason, path', typed.flows),
    h('label', {class: 'choice'}, h('input', {type: 'checkbox', 'data-filter': 'denied', checked: typed.denied}), ' refused and failed only'),
    h('button', {type: 'button', 'data-act': 'pause', 'aria-pressed': String(Boolean(typed.paused))}, typed.paused ? 'Go on' : 'Pause'));
  return [head,
    h('p', {class: 'dim'}, `${count(wanted.length)} of the newest ${count(kept.length)} records of this node${typed.denied ? ' that were refused or have failed' : ''}, newest first.`,
      state.flowsLost > 0 && ` ${count(state.flowsLost)} came faster than they were read, and are not here.`),
    records(wanted.slice(-200), state)];
}

function passes(it, typed) {
  if (!typed.flows) return true;
  const text = [it.source?.namespace, it.source?.pod, it.source?.address, it.destination?.namespace, it.destination?.pod, it.destination?.address, it.service, it.dialled,
    it.reason, it.detail, it.method, it.path, it.authority, it.status, it.event].filter(Boolean).join(' ').toLowerCase();
  return typed.flows.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

const end = (it) => (it?.pod ? name(it.namespace, it.pod, it.workload && link('workload', it.namespace, it.workload)) : it?.address ?? '–');

// Newest first.
export function records(list, state) {
  return table('Flow records', [
    ['Time', (it) => h('time', {datetime: it.time}, it.time.slice(11, 23))],
    ['What', (it) => what(it)],
    ['From', (it) => end(it.source), 'whole'],
    ['To', (it) => end(it.destination), 'whole'],
    ['Details', details],
    ['Time taken', (it) => milliseconds(it.duration_ms), 'n'],
    ['Bytes in · out', (it) => (it.bytes_sent === undefined ? '–' : `${bytes(it.bytes_received)} · ${bytes(it.bytes_sent)}`), 'n wide'],
    ['Reason', (it) => reason(it, state), 'whole'],
  ], [...list].reverse(), (it) => `flow ${it.key}`, 'None yet.');
}

function what(it) {
  if (it.event === 'denied') return mark('bad', 'refused');
  if (it.event === 'request') {
    const status = it.status ?? 'none';
    return mark(status === 'none' || status >= 500 ? 'bad' : status >= 400 ? 'warn' : 'good', status, it.grpc_status !== undefined && ` · ${it.grpc_status}`);
  }
  return it.event === 'close' ? mark(failed(it) ? 'warn' : 'idle', 'closed') : mark('good', 'opened');
}

function details(it) {
  const asked = it.event === 'request' ? h('code', null, `${it.method ?? ''} ${it.path ?? ''}`) : !it.detail && h('span', {class: 'dim'}, it.transport);
  return [asked, it.detail && h('span', {class: 'detail'}, it.detail)];
}

function reason(it, state) {
  if (!it.reason) return '–';
  const text = state.reference.reasons[it.reason];
  return text ? h('a', {href: link('reference', it.reason), title: text}, it.reason) : it.reason;
}
