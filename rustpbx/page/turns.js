// The waterfall of a turn: where the time went between the end of the caller's speech and our first packet.

const STEPS = [["asrFinal", "words"], ["command", "think"], ["firstAudio", "voice"], ["firstPacket", "packet"]];
const MOST = 50;

export class Turns {
  #body;
  #count = 0;

  constructor(body) {
    this.#body = body;
  }

  clear() {
    this.#count = 0;
    this.#body.replaceChildren();
  }

  /** Take a `metrics` event whose key is `turn`; its data are ms from the end of speech to each step. */
  add({ duration, data }) {
    this.#count += 1;
    const row = document.createElement("tr");
    const fall = document.createElement("div");
    fall.className = "fall";
    fall.setAttribute("aria-hidden", "true");
    row.append(cell(`${this.#count}`));
    let before = 0;
    for (const [step, kind] of STEPS) {
      const took = data[step] === undefined ? null : Math.max(0, data[step] - before);
      row.append(cell(took === null ? "–" : `${took}`));
      if (took === null) continue;
      before = Math.max(before, data[step]);
      const part = document.createElement("span");
      part.className = kind;
      part.style.width = `${(100 * took) / Math.max(1, duration)}%`;
      fall.append(part);
    }
    row.append(cell(`${duration}`));
    const bar = document.createElement("tr");
    const wide = cell("");
    wide.colSpan = 6;
    wide.className = "bar";
    wide.append(fall);
    bar.append(wide);
    this.#body.prepend(row, bar);
    while (this.#body.rows.length > 2 * MOST) this.#body.lastElementChild.remove();
  }
}

function cell(text) {
  const made = document.createElement("td");
  made.textContent = text;
  return made;
}
