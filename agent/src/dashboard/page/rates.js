// From counters to rates: who talks to whom, how much, how fast, and how well.

import {known} from './words.js';

// The time over which rates are taken, in seconds.
export const WINDOW = 10;
// Shares of failures from which something is worth a look, and is bad.
const WARN = 0.01;
const BAD = 0.05;

const edgeKey = ({reporter, source, destination, protocol, security}) =>
  [reporter, source.namespace, source.workload, source.principal, source.cluster, destination.service, destination.namespace,
    destination.workload, destination.principal, destination.cluster, protocol, security].join('|');

// Both ends, as they are drawn: what has no workload is known by its service, or is outside.
const end = (namespace, workload, service) => {
  if (known(workload)) return {id: `w ${namespace}/${workload}`, namespace, name: workload, kind: 'workload'};
  if (known(service)) return {id: `s ${service}`, namespace: '', name: service, kind: 'service'};
  return {id: 'outside', namespace: '', name: 'outside', kind: 'outside'};
};

const empty = () => ({
  total: 0, failed: 0, opened: 0, closed: 0, broken: 0, received: 0, sent: 0, durations: [], sum: 0,
  requestRate: 0, failedRate: 0, openedRate: 0, brokenRate: 0, receivedRate: 0, sentRate: 0, recent: [], bounds: [],
});

// Adds what one edge says to what others say of the same.
function add(sum, edge, before, seconds) {
  const delta = (of) => (seconds > 0 && before ? Math.max(0, of(edge) - of(before)) / seconds : seconds > 0 ? of(edge) / seconds : 0);
  if (edge.requests) {
    sum.total += edge.requests.total;
    sum.failed += edge.requests.failed;
    sum.sum += edge.requests.durationSumMilliseconds;
    sum.requestRate += delta((it) => it.requests?.total ?? 0);
    sum.failedRate += delta((it) => it.requests?.failed ?? 0);
    edge.requests.durationCounts.forEach((value, at) => {
      sum.durations[at] = (sum.durations[at] ?? 0) + value;
      sum.recent[at] = (sum.recent[at] ?? 0) + Math.max(0, value - (before?.requests?.durationCounts[at] ?? 0));
    });
  }
  if (edge.connections) {
    sum.opened += edge.connections.opened;
    sum.closed += edge.connections.closed;
    sum.broken += edge.connections.failed;
    sum.openedRate += delta((it) => it.connections?.opened ?? 0);
    sum.brokenRate += delta((it) => it.connections?.failed ?? 0);
  }
  sum.received += edge.bytes.received;
  sum.sent += edge.bytes.sent;
  sum.receivedRate += delta((it) => it.bytes.received);
  sum.sentRate += delta((it) => it.bytes.sent);
}

// Every pair of ends. Both agents may have counted: the client's is believed, the server's where that one has not looked.
export function pairs(samples) {
  const now = samples.at(-1);
  if (!now) return [];
  const then = samples.find((one) => one.at >= now.at - WINDOW) ?? samples[0];
  const seconds = now.at - then.at;
  const before = new Map(then.edges.edges.map((edge) => [edgeKey(edge), edge]));
  const found = new Map();
  for (const edge of now.edges.edges) {
    const {source, destination} = edge;
    const from = end(source.namespace, source.workload, '');
    const to = end(destination.namespace, destination.workload, destination.service);
    const id = `${from.id} > ${to.id}`;
    const pair = found.get(id) ?? {id, from, to, services: new Set(), edges: []};
    if (known(destination.service)) pair.services.add(destination.service);
    pair.edges.push(edge);
    found.set(id, pair);
  }
  for (const pair of found.values()) {
    const by = (reporter, http) => pair.edges.filter((it) => it.reporter === reporter && Boolean(it.requests) === http);
    const first = (...lists) => lists.find((list) => list.length > 0) ?? [];
    const requests = first(by('source', true), by('destination', true));
    // One that carries requests for the server is the same traffic once more.
    const connections = first(by('source', false), requests.length > 0 ? [] : by('destination', false));
    const sum = {...empty(), bounds: now.edges.durationBoundsMilliseconds};
    for (const edge of [...requests, ...connections]) add(sum, edge, before.get(edgeKey(edge)), seconds);
    const said = [...requests, ...connections];
    Object.assign(pair, sum, {
      protocols: [...new Set(said.map((it) => it.protocol))].sort(),
      secure: said.every((it) => it.security === 'mutual_tls'),
      plain: said.every((it) => it.security !== 'mutual_tls'),
      seconds,
    });
    pair.health = health(pair);
  }
  return [...found.values()].sort((a, b) => weight(b) - weight(a) || (a.id < b.id ? -1 : 1));
}

// What makes one busier than another.
export const weight = (it) => it.requestRate + it.openedRate + it.receivedRate / 1e6 + it.sentRate / 1e6;

// How well it goes: in these seconds, and else since it is counted.
export function health(it) {
  const busy = it.requestRate + it.openedRate > 0;
  const share = failures(it);
  if (share >= BAD) return 'bad';
  if (share >= WARN) return 'warn';
  return busy || it.receivedRate + it.sentRate > 0 || it.opened > it.closed ? 'good' : 'idle';
}

// The share that fails of what is going on.
export function failures(it) {
  const all = it.requestRate + it.openedRate;
  return all > 0 ? Math.min(1, (it.failedRate + it.brokenRate) / all) : 0;
}

// Several pairs as one.
export function together(list) {
  const sum = empty();
  for (const one of list) {
    for (const [field, value] of Object.entries(one)) if (typeof value === 'number' && field in sum) sum[field] += value;
    one.recent.forEach((value, at) => (sum.recent[at] = (sum.recent[at] ?? 0) + value));
    one.durations.forEach((value, at) => (sum.durations[at] = (sum.durations[at] ?? 0) + value));
    sum.bounds = one.bounds;
  }
  sum.secure = list.every((it) => it.secure);
  sum.health = health(sum);
  return sum;
}

// The duration that this share of the last seconds' requests stays below, in milliseconds; of a bucket, a part of it.
export function quantile(it, share) {
  const counts = it.recent;
  const all = counts.reduce((sum, value) => sum + value, 0);
  if (all === 0) return null;
  let left = share * all;
  for (let at = 0; at < counts.length; at += 1) {
    if (left <= counts[at] && counts[at] > 0) {
      const low = at === 0 ? 0 : it.bounds[at - 1];
      const high = it.bounds[at] ?? low;
      return low + ((high - low) * left) / counts[at];
    }
    left -= counts[at];
  }
  return it.bounds.at(-1);
}

// What one figure was from sample to sample, a second each.
export function course(samples, of) {
  return samples.slice(1).map((one, at) => {
    const seconds = one.at - samples[at].at;
    return seconds > 0 ? Math.max(0, of(one) - of(samples[at])) / seconds : 0;
  });
}

// What lines are drawn of, by service and in all; as the clients' agents have counted. Made once for each sample.
export function sums(edges) {
  const found = {requests: 0, connections: 0, services: new Map()};
  for (const edge of edges.edges) {
    if (edge.reporter !== 'source') continue;
    const [requests, connections] = [edge.requests?.total ?? 0, edge.connections?.opened ?? 0];
    found.requests += requests;
    found.connections += connections;
    const host = edge.destination.service;
    found.services.set(host, (found.services.get(host) ?? 0) + requests + connections);
  }
  return found;
}

// Verdicts of the kernel that are refusals.
const REFUSALS = ['no_endpoint', 'not_registered', 'proxy_down', 'gated', 'inconsistent', 'rewrite_failed', 'strict_plaintext', 'policy_denied', 'tunnel_down'];
export const refusals = (sample) => REFUSALS.reduce((sum, reason) => sum + (sample.verdicts[reason] ?? 0), 0);
