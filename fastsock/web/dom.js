/** Building and updating the document. Text is only ever set as text. */

export const $ = (id) => document.getElementById(id);

/** An element; `text` becomes its text, `on...` a listener, everything else an attribute (null: left out). */
export function el(tag, { text, ...properties } = {}, ...children) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(Boolean));
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Show a text, or hide the element where there is none. */
export function show(node, text) {
  node.hidden = !text;
  setText(node, text ?? "");
}

const rendered = new WeakMap();

/**
 * Make the children of `parent` those of `items`. An item's node is kept, with its focus, as long as its `signature` is
 * the same, and is built anew otherwise; then the focus goes to the part with the same `data-part`.
 */
export function reconcile(parent, items, { key, signature, build }) {
  const before = rendered.get(parent) ?? new Map();
  const after = new Map(items.map((item) => [key(item), { item, signature: JSON.stringify(signature(item)) }]));
  for (const [name, { node }] of before) if (!after.has(name)) node.remove();
  let place = parent.firstElementChild;
  for (const [name, entry] of after) {
    const old = before.get(name);
    entry.node = old?.signature === entry.signature ? old.node : build(entry.item);
    if (old && old.node !== entry.node) {
      const part = old.node.contains(document.activeElement) ? document.activeElement.dataset.part : null;
      if (place === old.node) place = entry.node;
      old.node.replaceWith(entry.node);
      if (part) entry.node.querySelector(`[data-part="${part}"]`)?.focus();
    }
    if (place === entry.node) place = place.nextElementSibling;
    else parent.insertBefore(entry.node, place);
    delete entry.item;
  }
  rendered.set(parent, after);
}

/** One or two letters for a name, and one of eight quiet colours, the same for the same id everywhere. */
export function paintAvatar(node, name, id, kind) {
  const words = name.split(/[\s._-]+/).filter(Boolean);
  const letters = words.length ? words.slice(0, 2) : ["?"];
  setText(node, letters.map((word) => [...word][0].toUpperCase()).join(""));
  node.className = `avatar hue-${id % 8} ${kind}`;
  return node;
}

export const avatar = (name, id, kind) => paintAvatar(el("span", { "aria-hidden": "true" }), name, id, kind);

const LINK = /https?:\/\/[^\s<>"]*[^\s<>".,;:!?')\]]/g;

/** A paragraph with the text, in which web addresses are links. */
export function prose(text) {
  const node = el("p", { class: "text" });
  let end = 0;
  for (const { 0: href, index } of text.matchAll(LINK)) {
    node.append(text.slice(end, index), el("a", { href, text: href, target: "_blank", rel: "noopener noreferrer" }));
    end = index + href.length;
  }
  node.append(text.slice(end));
  return node;
}
