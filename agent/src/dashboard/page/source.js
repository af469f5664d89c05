// What the agent or the controller says, asked again and again while somebody looks.

import {sums, WINDOW} from './rates.js';

const PATIENCE = 8000;
// Flow records that are kept to be shown, and those of them that were refused or have failed: others soon crowd them out.
const FLOWS = 500;
const FAILED = 200;

export const state = {
  // 'agent' or 'controller', once it is known.
  kind: null,
  status: null,
  mesh: null,
  findings: [],
  // Samples of /edges, oldest first; and of refusals, beside them.
  samples: [],
  flows: [],
  failed: [],
  flowsLost: 0,
  // Why there are none, where that is so.
  noFlows: '',
  trouble: '',
  heard: 0,
  reference: {codes: {}, reasons: {}},
};

// A minute, by which a rate may be wrong where somebody has just come.
const SAMPLES = 31;
let cursor = null;
let meshOf = null;

async function ask(path) {
  const answer = await fetch(path, {signal: AbortSignal.timeout(PATIENCE), cache: 'no-store'});
  if (answer.ok) return answer;
  const error = new Error((await answer.text()).trim().slice(0, 300) || `${path} answers ${answer.status}`);
  error.status = answer.status;
  throw error;
}

const json = async (path) => (await ask(path)).json();

export async function begin() {
  state.reference = await json('reference.json');
}

// Asks for everything once.
export async function look() {
  try {
    const [status, edges, findings] = await Promise.all(['../status', '../edges', '../findings'].map(json));
    if (meshOf !== generation(status, edges)) {
      state.mesh = await json('../mesh');
      meshOf = generation(status, edges);
    }
    state.kind = status.agent ? 'agent' : 'controller';
    Object.assign(state, {status, findings, trouble: '', heard: Date.now()});
    sample(edges, status.verdicts ?? {});
  } catch (error) {
    const who = state.kind === 'controller' ? 'The controller' : 'The agent';
    state.trouble = `${who} does not answer (${error.message})`;
  }
}

// What the mesh page depends on. Another process counts generations anew.
const generation = (status, edges) => `${status.generation ?? status.agent?.generation} of ${edges.startTimeSeconds}`;

function sample(edges, verdicts) {
  const {samples} = state;
  const last = samples.at(-1);
  // Another process counts from 0.
  if (last && last.edges.startTimeSeconds !== edges.startTimeSeconds) samples.length = 0;
  if (last && last.edges.monotonicSeconds === edges.monotonicSeconds) return;
  samples.push({edges, verdicts, at: edges.monotonicSeconds, sums: sums(edges)});
  // Of what is too old for rates, only lines are drawn.
  for (const one of samples) if (one.at < edges.monotonicSeconds - WINDOW) one.edges = {startTimeSeconds: one.edges.startTimeSeconds, edges: []};
  if (samples.length > SAMPLES) samples.shift();
}

// Asks for the flow records that have come since.
export async function follow() {
  if (state.kind !== 'agent') return;
  const from = cursor === null ? 'last=200' : `after=${cursor}`;
  try {
    if (cursor === null) {
      state.flows.length = 0;
      state.failed.length = 0;
      for (const record of await lines(`../flows?verdict=denied&last=${FAILED}`)) remember({...record, key: id(record)});
    }
    for (const record of await lines(`../flows?cursor=1&${from}`)) take(record);
    state.noFlows = '';
    state.flows.splice(0, Math.max(0, state.flows.length - FLOWS));
    state.failed.splice(0, Math.max(0, state.failed.length - FAILED));
  } catch (error) {
    if (error.status === 404) state.noFlows = error.message;
    // An agent that takes over counts anew.
    cursor = null;
  }
}

async function lines(path) {
  const text = await (await ask(path)).text();
  return text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
}

let serial = 0;

function take(record) {
  if (record.event === 'cursor') {
    cursor = record.next;
  } else if (record.event === 'lost') {
    state.flowsLost += record.count;
  } else {
    serial += 1;
    state.flows.push({...record, key: serial});
    remember({...record, key: id(record)});
  }
}

const id = ({time, event, connection, reporter, request_id: request}) => [time, event, connection, reporter, request].join(' ');

function remember(record) {
  if (failed(record) && !state.failed.some((known) => known.key === record.key)) state.failed.push(record);
}

// Refused, or ended for another reason than that both ends were done.
export const failed = (it) => it.event === 'denied' || (it.status ?? 0) >= 500 || Boolean(it.response_flags && it.response_flags !== '-');
