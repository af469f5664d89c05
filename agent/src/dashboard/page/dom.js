// Elements made from data, and put in the place of older ones. Data becomes text or the value of an attribute, never markup.

const SVG = 'http://www.w3.org/2000/svg';

// An element: h('td', {class: 'n'}, 'text', child, [more]). Attributes that are null or false are left out.
export const h = (name, attributes, ...children) =>
  build(document.createElement(name), attributes, children);

// The same within a drawing.
export const s = (name, attributes, ...children) =>
  build(document.createElementNS(SVG, name), attributes, children);

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === '') continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

// Makes the content of `place` that of `fresh`, and leaves alone what is the same: focus, scroll positions and selections stay.
export function put(place, ...fresh) {
  const focused = document.activeElement;
  const box = place.cloneNode(false);
  box.append(...fresh.flat(Infinity).filter((one) => one));
  children(place, box);
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({preventScroll: true});
}

const key = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute('data-key') : null);

const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);

function children(old, fresh) {
  const kept = new Map();
  for (const child of old.childNodes) if (key(child)) kept.set(key(child), child);
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const name = key(wanted);
    const found = name ? kept.get(name) : at && alike(at, wanted) ? at : null;
    if (!found || !alike(found, wanted)) {
      old.insertBefore(wanted, at);
      continue;
    }
    kept.delete(name);
    if (found === at) at = at.nextSibling;
    else old.insertBefore(found, at);
    become(found, wanted);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function become(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const {name} of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const {name, value} of fresh.attributes) {
    // Whether somebody has opened it is theirs to say.
    if (name === 'open') continue;
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  children(old, fresh);
}
