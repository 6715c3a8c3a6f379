// The APIs: the same that the command line uses, with the same checks.

import { token } from './session.js';

const BASE = new URL('../api/', import.meta.url);

/** An answer that is no success, or none. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Asks exprsn-setup. `json` or `body` is sent; the answer's JSON comes back, or its text with `text`. */
export async function ask(method, path, { json, body, type, text } = {}) {
  const headers = { accept: text ? '*/*' : 'application/json' };
  const held = await token();
  if (held) headers.authorization = `Bearer ${held}`;
  if (json !== undefined) {
    body = JSON.stringify(json);
    type = 'application/json';
  }
  if (type) headers['content-type'] = type;
  let answer;
  try {
    answer = await fetch(new URL(path, BASE), { method, headers, body, credentials: 'omit', cache: 'no-store' });
  } catch {
    throw new Refusal(0, 'the platform does not answer');
  }
  if (text && answer.ok) return answer.text();
  const told = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok || (path === 'health' && told?.services)) return told;
  throw new Refusal(answer.status, describe(answer.status, told));
}

function describe(status, problem) {
  const fields = (problem?.errors ?? []).map((error) => `${String(error.field).replace(/^\//, '')} ${error.message}`);
  const told = [problem?.detail ?? problem?.title, ...fields].filter(Boolean).join('; ');
  return told || `it was answered ${status}`;
}

export const get = (path, options) => ask('GET', path, options);
export const post = (path, json = {}) => ask('POST', path, { json });
export const remove = (path) => ask('DELETE', path);
/** A part of a path. */
export const part = encodeURIComponent;
