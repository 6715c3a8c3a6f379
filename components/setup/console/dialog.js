// Questions before something is done. Focus is kept inside, Escape is no, and focus returns to where it was.

import { h, button } from './dom.js';

/** Asks; answers the form's values by name, or null. `fields` are elements with names; `danger` marks what cannot be undone. */
export function confirm({ title, text, fields = [], verb, danger = false }) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const finish = (answer) => {
      dialog.close();
      dialog.remove();
      // The page may have been drawn anew: what was focused is found by its name.
      const again = before?.isConnected ? before : document.getElementById('main');
      again?.focus();
      resolve(answer);
    };
    const submitted = (event) => {
      event.preventDefault();
      const values = {};
      for (const field of form.elements) {
        if (!field.name) continue;
        values[field.name] = field.type === 'checkbox' ? field.checked : field.type === 'file' ? field.files[0] : field.value.trim();
      }
      finish(values);
    };
    const form = h('form', { onsubmit: submitted }, fields,
      h('div', { class: 'row' }, h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, verb), button('Cancel', () => finish(null))));
    const dialog = h('dialog', {
      'aria-labelledby': 'dialog-title',
      oncancel: (event) => { event.preventDefault(); finish(null); },
    }, h('h2', { id: 'dialog-title' }, title), [text].flat().map((line) => (line instanceof Node ? line : h('p', null, line))), form);
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A labelled field. */
export function field(label, name, props = {}, help = null) {
  const id = `field-${name}`;
  const input = h(props.tag ?? 'input', { id, name, 'aria-describedby': help ? `${id}-help` : null, ...props, tag: null });
  const text = help ? h('p', { id: `${id}-help`, class: 'soft' }, help) : null;
  const check = props.type === 'checkbox';
  return h('div', { class: check ? 'check' : 'field' }, check ? [input, h('label', { for: id }, label)] : [h('label', { for: id }, label), input], text);
}
