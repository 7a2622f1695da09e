// The second view: the calls that are up, and a way to end each.

import { ask } from "./access.js";

const EVERY = 2000; // ms

export class Calls {
  #body;
  #note;
  #count;
  #timer = null;
  #ending = new Set();

  constructor(body, note, count) {
    this.#body = body;
    this.#note = note;
    this.#count = count;
  }

  show() {
    this.#timer ??= setInterval(() => this.#look(), EVERY);
    return this.#look();
  }

  hide() {
    clearInterval(this.#timer);
    this.#timer = null;
  }

  async #look() {
    let listed;
    try {
      listed = (await ask("/call/lists")).calls;
    } catch (problem) {
      this.#note.textContent = `The calls cannot be listed: ${problem.message}.`;
      this.#body.replaceChildren();
      this.#count.hidden = true;
      return;
    }
    this.#note.textContent = listed.length ? "" : "No call is up.";
    this.#count.hidden = !listed.length;
    this.#count.textContent = listed.length;
    const known = new Map([...this.#body.rows].map((row) => [row.dataset.id, row]));
    for (const call of listed) {
      const row = known.get(call.id) ?? this.#row(call);
      known.delete(call.id);
      this.#fill(row, call);
    }
    for (const gone of known.values()) gone.remove();
  }

  #row({ id }) {
    const row = this.#body.insertRow();
    row.dataset.id = id;
    for (let column = 0; column < 7; column += 1) row.insertCell();
    const code = document.createElement("code");
    code.textContent = id;
    row.cells[0].append(code);
    const button = document.createElement("button");
    button.className = "danger";
    button.textContent = "End";
    button.setAttribute("aria-label", `End call ${id}`);
    button.addEventListener("click", () => this.#end(id, button));
    row.cells[6].append(button);
    return row;
  }

  #fill(row, call) {
    const seconds = call.duration ?? 0;
    const state = call.answerTime ? "talking" : call.ringTime ? "ringing" : "setting up";
    const texts = [null, call.callType, this.#ending.has(call.id) ? "ending" : state, new Date(call.startTime).toLocaleTimeString(),
      `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`, call.option?.callee ?? call.option?.caller ?? "–"];
    texts.forEach((text, column) => text !== null && (row.cells[column].textContent = text));
  }

  async #end(id, button) {
    button.disabled = true;
    this.#ending.add(id);
    try {
      await ask(`/call/kill/${encodeURIComponent(id)}`, "POST");
    } catch (problem) {
      this.#note.textContent = `The call could not be ended: ${problem.message}.`;
      button.disabled = false;
    }
    this.#ending.delete(id);
    await this.#look();
  }
}
