/** Elements of a report's page, made in one call. Text goes in as text, never as markup. */

/** An element with attributes, listeners ("on...") and children. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A row of buttons of which one is pressed, or several; `pressed(value)` says which. */
export function choice(label, options, pressed, choose) {
  const buttons = options.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": String(pressed(value)), onclick: () => choose(value) }, text),
  );
  const element = h("div", { class: "choice", role: "group", "aria-label": label }, ...buttons);
  element.update = () => options.forEach(([value], i) => buttons[i].setAttribute("aria-pressed", String(pressed(value))));
  return element;
}

/** A control with its label above; `more` stands beside it. */
export function labelled(label, control, ...more) {
  control.id = `control-${label.replaceAll(" ", "-")}`;
  return h("div", { class: "control" }, h("label", { for: control.id }, label), h("span", { class: "pair" }, control, ...more));
}

/** A list to choose from: options are [value, text]. */
export function select(label, options, value, change, ...more) {
  const made = options.map(([key, text]) => h("option", { value: key, selected: key === value }, text));
  return labelled(label, h("select", { class: "field", onchange: (event) => change(event.target.value) }, ...made), ...more);
}

const ICONS = { previous: "M12.5 4.5 7 10l5.5 5.5", next: "M7.5 4.5 13 10l-5.5 5.5", close: "M5 5l10 10M15 5 5 15" };

/** A button with an icon: "previous", "next" or "close". */
export function step(name, label, click) {
  const button = h("button", { type: "button", class: "step", title: label, "aria-label": label, onclick: click });
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  icon.setAttribute("viewBox", "0 0 20 20");
  path.setAttribute("d", ICONS[name]);
  icon.append(path);
  button.append(icon);
  return button;
}
