// Who said what. What the caller says grows while it is spoken; what we say is marked where it was cut.

const MOST = 200;

export class Transcript {
  #list;
  #partial = null;
  #spoken = new Map(); // by playId

  constructor(list) {
    this.#list = list;
  }

  clear() {
    this.#list.replaceChildren();
    this.#partial = null;
    this.#spoken.clear();
  }

  /** Take a command of ours, or an event of the server's. */
  note(message) {
    if (message.command === "tts" && message.text) {
      const line = this.#add("agent", "Agent", message.text);
      if (message.playId) this.#spoken.set(message.playId, line);
    } else if (message.event === "asrDelta") {
      this.#partial ??= this.#add("you partial", "You", "");
      this.#write(this.#partial, message.text);
    } else if (message.event === "asrFinal" && message.text?.trim()) {
      this.#partial ??= this.#add("you", "You", "");
      this.#partial.className = "you";
      this.#write(this.#partial, message.text);
      this.#partial = null;
    } else if (message.event === "interruption") {
      this.#cut(message);
    }
  }

  #cut({ playId, subtitle, position }) {
    const line = this.#spoken.get(playId);
    if (!line || typeof position !== "number" || line.lastChild.textContent !== subtitle) return;
    const unheard = document.createElement("s");
    unheard.textContent = subtitle.slice(position);
    line.lastChild.textContent = subtitle.slice(0, position);
    line.append(unheard);
  }

  #add(kind, who, text) {
    const line = document.createElement("p");
    const name = document.createElement("b");
    line.className = kind;
    name.textContent = who;
    line.append(name, text);
    this.#list.append(line);
    while (this.#list.children.length > MOST) this.#list.firstElementChild.remove();
    this.#list.scrollTop = this.#list.scrollHeight;
    return line;
  }

  #write(line, text) {
    line.lastChild.nodeType === Node.TEXT_NODE ? (line.lastChild.textContent = text) : line.append(text);
    this.#list.scrollTop = this.#list.scrollHeight;
  }
}
