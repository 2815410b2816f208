/** States that were, and how to go back to them. Immutable: each change gives a new history. */

export interface History<T> {
  readonly past: readonly T[];
  readonly present: T;
  readonly future: readonly T[];
}

export function start<T>(present: T): History<T> {
  return { past: [], present, future: [] };
}

/** A change that can be undone. */
export function push<T>(history: History<T>, present: T): History<T> {
  return { past: [...history.past, history.present], present, future: [] };
}

/** A change that undo passes over, such as what is shown or locked. */
export function amend<T>(history: History<T>, present: T): History<T> {
  return { ...history, present };
}

export function undo<T>(history: History<T>): History<T> {
  const present = history.past.at(-1);
  if (present === undefined) return history;
  return { past: history.past.slice(0, -1), present, future: [history.present, ...history.future] };
}

export function redo<T>(history: History<T>): History<T> {
  const [present, ...future] = history.future;
  if (present === undefined) return history;
  return { past: [...history.past, history.present], present, future };
}

/** At most `limit` states to go back to, and the states that are too old for that, oldest first. */
export function trim<T>(history: History<T>, limit: number): [History<T>, readonly T[]] {
  const extra = Math.max(0, history.past.length - limit);
  return extra === 0 ? [history, []] : [{ ...history, past: history.past.slice(extra) }, history.past.slice(0, extra)];
}
