// The page: which part of it is shown, and when it is looked again.

import {h, put} from './dom.js';
import {pairs} from './rates.js';
import {begin, follow, look, state} from './source.js';
import {overview} from './overview.js';
import {one, service, services, workloads} from './mesh.js';
import {flows} from './flows.js';
import {policies, policy} from './policies.js';
import {certificates, findings, reference} from './security.js';
import {span, state as mark} from './words.js';

const EVERY = 2000;

// Name, title, and how it is made of what is known.
const PAGES = [
  ['', 'Overview', (all) => overview(state, all)],
  ['services', 'Services', (all) => services(state, all, typed)],
  ['workloads', 'Workloads', (all) => workloads(state, all, typed)],
  ['flows', 'Flows', () => flows(state, typed)],
  ['policies', 'Policies', () => policies(state, typed)],
  ['certificates', 'Certificates', () => certificates(state, typed)],
  ['findings', 'Findings', () => findings(state, typed)],
];
const PARTS = {
  service: ['services', (all, host) => service(state, all, host)],
  workload: ['workloads', (all, namespace, name) => one(state, all, namespace, name)],
  policy: ['policies', (all, kind, namespace, name) => policy(state, kind, namespace, name)],
  reference: ['findings', (all, word) => reference(state, word)],
};

// What was typed into fields, and what was chosen.
const typed = {};

const place = (id) => document.getElementById(id);

function where() {
  const [page, ...rest] = location.hash.replace(/^#\/?/, '').split('/').map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return {page, rest};
}

function show() {
  const {page, rest} = where();
  const [tab, make] = PARTS[page] ?? PAGES.filter(([name]) => name === page).map(([name, , how]) => [name, how])[0] ?? ['', PAGES[0][2]];
  put(place('pages'), PAGES.map(([name, title]) => h('li', {'data-key': `page ${name}`},
    h('a', {href: `#/${name}`, 'aria-current': name === tab ? 'page' : null}, title, badge(name)))));
  frame();
  if (!state.status) return;
  // A controller that was let alone has to read everything first.
  if (state.status.generation === 0 && page !== '' && page !== 'flows' && page !== 'certificates') {
    put(place('content'), h('p', {class: 'none'}, 'Being read from the API server.'));
    return;
  }
  put(place('content'), ...[make(pairs(state.samples), ...rest)].flat(Infinity).filter(Boolean));
  const heading = place('content').querySelector('h1')?.textContent.trim();
  document.title = `${heading || 'Overview'} · ${node()} · Undermesh`;
}

const node = () => state.status?.agent?.node ?? state.status?.controller?.replica ?? '';

function badge(page) {
  if (page !== 'findings') return null;
  const many = state.findings.filter((it) => it.severity !== 'info').length;
  return many > 0 && h('span', {class: 'badge'}, String(many), h('span', {class: 'unseen'}, ' findings'));
}

function frame() {
  const {status} = state;
  const own = status?.agent ?? status?.controller;
  if (own) {
    put(place('where'), h('span', null, status.agent ? 'node ' : 'controller ', h('strong', null, node())),
      own.ready ? mark('good', 'ready') : mark('bad', 'not ready'),
      h('span', {class: 'dim wide'}, `version ${own.version}`),
      own.uptimeSeconds !== undefined && h('span', {class: 'dim wide'}, `up ${span(own.uptimeSeconds)}`),
      own.generation !== undefined && h('span', {class: 'dim wide'}, `generation ${own.generation}`),
      own.leads !== undefined && h('span', {class: 'dim wide'}, own.leads ? 'leads' : 'does not lead'));
  }
  const trouble = place('trouble');
  const age = state.heard ? ` What is shown is ${span(Math.round((Date.now() - state.heard) / 1000))} old.` : '';
  const words = state.trouble ? `${state.trouble}. It is asked again.${age}` : '';
  if (trouble.textContent !== words) trouble.textContent = words;
  trouble.hidden = !state.trouble;
  put(place('fresh'), state.heard > 0 && `Asked every ${EVERY / 1000} s while this page is in view; rates are of the last ten seconds.`);
}

async function again() {
  if (document.visibilityState === 'visible') {
    await Promise.all([look(), typed.paused ? null : follow()]);
    show();
  }
  setTimeout(again, EVERY);
}

addEventListener('hashchange', () => {
  show();
  scrollTo(0, 0);
  // Who reads with their ears hears where they are.
  place('content').focus({preventScroll: true});
});

document.addEventListener('input', ({target}) => {
  const field = target.dataset?.filter;
  if (!field) return;
  typed[field] = target.type === 'checkbox' ? target.checked : target.value;
  show();
});

document.addEventListener('click', (event) => {
  const {target} = event;
  if (target.closest?.('.skip')) {
    event.preventDefault();
    place('content').focus();
  }
  if (target.dataset?.act === 'pause') {
    typed.paused = !typed.paused;
    show();
  }
});

show();
begin().catch(() => {}).then(again);
