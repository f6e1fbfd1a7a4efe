/** Making elements: text goes in as text, never as markup. */

/**
 * An element. Attributes of value null, undefined or false are left out; `on...` are listeners; `style` is an object,
 * custom properties included; children are elements or text, null for none.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  set(element, attributes);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets attributes as `h` does; null, undefined and false take an attribute away. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, part] of Object.entries(value)) element.style.setProperty(key, part);
    else if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : value);
  }
}

const keptBy = new WeakMap();

/**
 * Makes the children of `parent` those of `items`, keeping the elements of keys that were there before, and the focus.
 * `make(item)` gives an element with a method `update(item)`.
 */
export function keyed(parent, items, key, make) {
  const before = keptBy.get(parent) ?? new Map();
  const now = new Map(items.map((item) => [key(item), before.get(key(item)) ?? make(item)]));
  for (const item of items) now.get(key(item)).update(item);
  keptBy.set(parent, now);
  const children = [...now.values()];
  if (children.length === parent.children.length && children.every((child, i) => child === parent.children[i])) return;
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  parent.replaceChildren(...children);
  if (focused?.isConnected) focused.focus({ preventScroll: true });
}

/** Changes a text only where it differs, so that a screen reader doesn't hear it again. */
export function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
