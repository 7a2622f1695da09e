// A level meter: the peak of the last frames, in dB below full scale.

const FLOOR = -60;

export class Meter {
  #bar;
  #label;
  #analyser = null;
  #samples = new Float32Array(1024);
  #shown = 0;

  constructor(bar, label) {
    this.#bar = bar;
    this.#label = label;
  }

  /** Measure a MediaStream; null for none. */
  watch(context, stream) {
    this.#analyser = null;
    if (stream) {
      this.#analyser = context.createAnalyser();
      this.#analyser.fftSize = this.#samples.length;
      context.createMediaStreamSource(stream).connect(this.#analyser);
    }
    this.draw();
  }

  /** Show the level as it is now. */
  draw() {
    let peak = 0;
    if (this.#analyser) {
      this.#analyser.getFloatTimeDomainData(this.#samples);
      for (const sample of this.#samples) peak = Math.max(peak, Math.abs(sample));
    }
    const level = Math.max(FLOOR, 20 * Math.log10(peak || 1e-9));
    this.#bar.firstElementChild.style.width = `${(100 * (level - FLOOR)) / -FLOOR}%`;
    this.#bar.classList.toggle("hot", level > -6);
    if (this.#analyser && performance.now() - this.#shown < 250) return;
    this.#shown = performance.now();
    this.#bar.setAttribute("aria-valuenow", Math.round(level));
    this.#label.textContent = this.#analyser && level > FLOOR ? `${Math.round(level)} dB` : "–";
  }
}
